//! `--tokens FILE`: clients sign in with tokens that were signed elsewhere. One `user,device,token` a line; empty lines and
//! those that begin with # are skipped.
//!
//! Client number n, of all processes, has line n (counted from 0, without those that are skipped): a worker with number w of
//! k has the lines w, w + k, w + 2k and so on, so that all workers are given the same file. Clients with TLS come after those
//! without.
//!
//! Signatures are left to the gateway. Before any client connects, the load tester refuses a line without a token, an expired
//! token, and a token of another user or device than its line says.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// A client's line.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The id of its user.
    pub(crate) user: Box<str>,
    /// The name of its device.
    pub(crate) device: Box<str>,
    /// What it signs in with.
    pub(crate) token: Box<str>,
}

/// All clients, by number; at least one.
#[derive(Debug)]
pub(crate) struct Listed {
    entries: Vec<Entry>,
    /// A user with several devices, if there is one.
    shared_user: Option<Box<str>>,
}

impl Listed {
    /// Reads a file. The error names it, the line, and what would be right.
    pub(crate) fn read(path: &Path) -> Result<Listed, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("--tokens {}: {error}", path.display()))?;
        Listed::parse(&text, now_seconds()).map_err(|error| format!("--tokens {}: {error}", path.display()))
    }

    /// The only client, whose user is the token's.
    pub(crate) fn one(token: &str) -> Result<Listed, String> {
        let claims = claims(token, now_seconds()).map_err(|error| format!("--token: {error}"))?;
        let user = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        let device = claims.get("device").and_then(Value::as_str).unwrap_or(DEVICE);
        let entry = Entry { user: user.into(), device: device.into(), token: token.into() };
        Ok(Listed { entries: vec![entry], shared_user: None })
    }

    fn parse(text: &str, now_seconds: u64) -> Result<Listed, String> {
        let mut entries = Vec::new();
        let mut lines: HashMap<(&str, &str), usize> = HashMap::new();
        let mut users: HashMap<&str, ()> = HashMap::new();
        let mut shared_user = None;
        for (index, line) in text.lines().enumerate() {
            let (number, line) = (index + 1, line.trim());
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut fields = line.splitn(3, ',').map(str::trim);
            let (Some(user), Some(device), Some(token)) = (fields.next(), fields.next(), fields.next()) else {
                return Err(format!("line {number}: a line is user,device,token"));
            };
            if user.is_empty() || device.is_empty() {
                return Err(format!("line {number}: user and device must not be empty; a line is user,device,token"));
            }
            let claims = claims(token, now_seconds).map_err(|error| format!("line {number}: {error}"))?;
            for (what, own, claim) in [("user", user, "sub"), ("device", device, "device")] {
                if let Some(other) = claims.get(claim).and_then(Value::as_str).filter(|other| *other != own) {
                    return Err(format!(
                        "line {number}: it is for {what} \"{own}\", and its token for \"{other}\" ({claim})"
                    ));
                }
            }
            if let Some(before) = lines.insert((user, device), number) {
                return Err(format!(
                    "line {number}: user \"{user}\" with device \"{device}\" is in line {before}, too: the later one would \
                     take the session over; give it another device"
                ));
            }
            if users.insert(user, ()).is_some() {
                shared_user.get_or_insert_with(|| user.into());
            }
            entries.push(Entry { user: user.into(), device: device.into(), token: token.into() });
        }
        if entries.is_empty() {
            return Err("it holds no line of the form user,device,token".to_owned());
        }
        Ok(Listed { entries, shared_user })
    }

    /// How many clients it is for.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A client's line.
    pub(crate) fn entry(&self, client: u32) -> Option<&Entry> {
        self.entries.get(client as usize)
    }

    /// A user with several lines, if there is one.
    pub(crate) fn shared_user(&self) -> Option<&str> {
        self.shared_user.as_deref()
    }
}

/// The device of clients that no file names.
pub(crate) const DEVICE: &str = "load";

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The claims of a token. Its signature is not checked.
fn claims(token: &str, now_seconds: u64) -> Result<Value, String> {
    let object = |part: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
        serde_json::from_slice::<Value>(&bytes).ok().filter(Value::is_object)
    };
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, _] = parts[..] else { return Err(no_token(token)) };
    let (Some(_), Some(claims)) = (object(header), object(payload)) else { return Err(no_token(token)) };
    if let Some(exp) = claims.get("exp").and_then(Value::as_f64).filter(|exp| *exp < now_seconds as f64) {
        let ended = UNIX_EPOCH.checked_add(Duration::from_secs(exp.max(0.0) as u64)).unwrap_or(UNIX_EPOCH);
        let ended = humantime::format_rfc3339_seconds(ended);
        return Err(format!(
            "the time of its token was over at {ended} (exp), so that it would be refused: make a new one"
        ));
    }
    Ok(claims)
}

fn no_token(token: &str) -> String {
    let what = if token.is_empty() { "there is no token" } else { "that is no token" };
    format!("{what}: a JSON Web Token has three parts of base64url with dots between them; `ringgate token` makes one")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("{}.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode("{\"alg\":\"HS256\"}"), URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn file_has_lines_then_clients_take_them_in_order() {
        let [a, b, c] = ["a", "b", "a"].map(|user| token(&format!("{{\"sub\":\"{user}\",\"exp\":2000}}")));
        let listed = Listed::parse(&format!("# clients\n\na,phone,{a}\r\n b , x , {b}\na,tablet,{c}"), 1000).unwrap();
        let names = (0..4).map(|client| listed.entry(client).map(|entry| (&*entry.user, &*entry.device)));
        let wanted = [Some(("a", "phone")), Some(("b", "x")), Some(("a", "tablet")), None];
        assert_eq!((names.collect::<Vec<_>>(), listed.len()), (wanted.to_vec(), 3));
        assert_eq!(&*listed.entry(1).unwrap().token, b);
        assert_eq!(listed.shared_user(), Some("a"));
    }

    #[test]
    fn line_is_wrong_then_the_error_says_which_and_why() {
        let (good, late, other) = (token("{}"), token("{\"exp\":999}"), token("{\"sub\":\"z\"}"));
        let bound = token("{\"device\":\"z\"}");
        for (text, part) in [
            ("".to_owned(), "no line of the form user,device,token"),
            ("a,b".to_owned(), "line 1: a line is user,device,token"),
            (format!("\n,b,{good}"), "line 2: user and device must not be empty"),
            ("a,b,".to_owned(), "line 1: there is no token"),
            ("a,b,no.to.ken".to_owned(), "line 1: that is no token"),
            (format!("a,b,{good}.x"), "line 1: that is no token"),
            (format!("a,b,{late}"), "line 1: the time of its token was over at 1970-01-01T00:16:39Z (exp)"),
            (format!("a,b,{other}"), "line 1: it is for user \"a\", and its token for \"z\""),
            (format!("a,b,{bound}"), "line 1: it is for device \"b\", and its token for \"z\" (device)"),
            (format!("a,b,{good}\n#\na,b,{good}"), "line 3: user \"a\" with device \"b\" is in line 1, too"),
        ] {
            let error = Listed::parse(&text, 1000).unwrap_err();
            assert!(error.starts_with(part) || error.contains(part), "{error}");
            assert!(!error.contains("eyJ"), "no token in clear: {error}");
        }
    }
}
