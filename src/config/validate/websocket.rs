//! `[websocket]`: where listeners of WebSocket take connections, and from which web pages.

use ringgate_core::limits::{HEADER_BYTES, Settings};
use ringgate_net::ws::{ForwardedHeader, OriginPattern, Rules};

use toml::Spanned;

use super::super::raw;
use super::check::{Check, at};
use super::listeners::networks;

pub(super) fn websocket(raw: &raw::WebSocket, settings: &Settings, check: &mut Check<'_>) -> Rules {
    let mut rules = rules(settings);
    if let Some(path) = &raw.path {
        let is_path = |text: &str| {
            text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte))
        };
        if !is_path(path.get_ref()) {
            let text = format!(
                "\"{}\" is not the path of a URL; write it from its slash on and without a query, like \"/ws\"",
                path.get_ref()
            );
            check.problem("websocket.path", at(path), text);
        }
        rules.path.clone_from(path.get_ref());
    }
    for (index, origin) in raw.origins.iter().enumerate() {
        match OriginPattern::parse(origin.get_ref()) {
            Ok(pattern) => rules.origins.push(pattern),
            Err(error) => check.problem(&format!("websocket.origins[{index}]"), at(origin), error.to_string()),
        }
    }
    if let Some(name) = &raw.token_cookie {
        cookie(name, raw, check);
        rules.token_cookie = Some(name.get_ref().clone());
    }
    rules.trusted_proxies = networks("websocket.trusted_proxies", &raw.trusted_proxies, check);
    let headers = [("x-forwarded-for", ForwardedHeader::XForwardedFor), ("forwarded", ForwardedHeader::Forwarded)];
    rules.forwarded_header =
        check.choice("websocket.forwarded_header", &raw.forwarded_header, rules.forwarded_header, &headers);
    rules
}

/// A browser sends the cookie with every request, also with those that pages of others make.
fn cookie(name: &Spanned<String>, raw: &raw::WebSocket, check: &mut Check<'_>) {
    const KEY: &str = "websocket.token_cookie";
    // RFC 6265, 4.1.1: a name is a token of HTTP.
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let text = name.get_ref();
    if text.is_empty() || !text.bytes().all(is_token) {
        check.problem(
            KEY,
            at(name),
            format!("\"{text}\" is not the name of a cookie; for instance \"ringgate_token\""),
        );
    }
    if raw.origins.iter().any(|origin| origin.get_ref() == "*") {
        let text = "lets every web page connect as the user whose browser shows it, because websocket.origins has \"*\"; \
                    list the origins of your pages there";
        check.warn(KEY, at(name), text);
    }
}

/// The defaults. A message takes the largest frame that a client may send, also as JSON: base64 takes a third more, and few payloads have
/// more escapes than that.
pub(in crate::config) fn rules(settings: &Settings) -> Rules {
    let rules = Rules::default();
    let frame = u32::try_from(settings.body_bytes_max() + HEADER_BYTES).unwrap_or(u32::MAX);
    Rules {
        message_bytes_max: rules.message_bytes_max.max(frame.saturating_mul(2)),
        token_in_authorization: true,
        token_subprotocol_prefix: Some("bearer.".to_owned()),
        ..rules
    }
}
