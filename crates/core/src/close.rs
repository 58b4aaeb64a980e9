//! Why a connection ended, why a request was refused, why a token was not accepted: one enum each.
//!
//! The first two are wire code and metric label at once, and answer "may the client reconnect?" and "may it try again?". The log
//! has the code of a close beside a text, which is the label where nothing more exact is known.
//!
//! Numbers follow Centrifugo's scheme, which clients of realtime servers know: 3000-3499 and 4000-4499 mean
//! reconnect, 3500-3999 and 4500-4999 mean do not.

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $code:literal, $label:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        pub enum $name { $($(#[$doc])* $variant = $code,)* }

        impl $name {
            /// Every value, in code order.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The number on the wire.
            pub fn code(self) -> u16 { self as u16 }

            /// Metric label, and the text where nothing more exact is known.
            pub fn label(self) -> &'static str {
                match self { $($name::$variant => $label,)* }
            }

            /// Index into [`Self::ALL`], for arrays of counters.
            pub fn index(self) -> usize {
                Self::ALL.iter().position(|other| *other == self).unwrap_or(0)
            }

            /// The value with this wire code.
            pub fn from_code(code: u16) -> Option<$name> {
                Self::ALL.iter().copied().find(|value| value.code() == code)
            }
        }
    };
}

codes! {
    /// Why a connection ended.
    CloseReason {
        /// The peer closed its side, or sent Disconnect.
        ConnectionClosed = 3000, "connection closed";
        /// The node shuts down.
        Shutdown = 3001, "shutdown";
        /// A fault of ours.
        Internal = 3004, "internal error";
        /// The token's `exp` passed without a Refresh.
        Expired = 3005, "expired";
        /// The outbox stayed over its bound for longer than the write deadline.
        Slow = 3008, "slow";
        /// Writing to the socket failed.
        WriteError = 3009, "write error";
        /// A lagging subscriber could not be caught up: the log no longer reaches back.
        InsufficientState = 3010, "insufficient state";
        /// Nothing was heard for three heartbeat intervals.
        NoPong = 3012, "no pong";
        /// The message or byte rate limit was exceeded again after a warning.
        TooManyRequests = 3013, "too many requests";
        /// The socket was reset by the peer or by the kernel's timeouts.
        ConnectionReset = 3015, "connection reset";
        /// The node, the address or the accept rate is at its limit; try later or elsewhere.
        Busy = 3016, "busy";
        /// The token's `nbf` lies ahead: by the gateway's clock it is not good yet.
        NotYetValid = 3017, "token not yet valid";
        /// The token was not accepted.
        InvalidToken = 3500, "invalid token";
        /// A frame that cannot be read, or is not allowed in this state.
        BadRequest = 3501, "bad request";
        /// Sign-in (TLS handshake or Connect), or one frame, took longer than its deadline.
        Stale = 3502, "stale";
        /// The user has as many sessions as allowed.
        ConnectionLimit = 3504, "connection limit";
        /// The protocol version in Connect is not spoken here.
        InappropriateProtocol = 3506, "inappropriate protocol";
        /// A frame longer than the limit was announced.
        FrameTooBig = 3510, "frame too big";
        /// The TLS handshake or a TLS record was refused.
        TlsError = 3511, "tls error";
        /// A newer session of the same user and device replaced this one.
        TakenOver = 4500, "taken over";
    }
}

impl CloseReason {
    /// Whether a client is meant to come back.
    pub fn may_reconnect(self) -> bool {
        matches!(self.code(), 3000..=3499 | 4000..=4499)
    }
}

codes! {
    /// Why a request was refused; the connection lives on.
    ErrorCode {
        /// A fault of ours.
        Internal = 100, "internal";
        /// The room's namespace is not configured, or the name is malformed.
        UnknownRoom = 102, "unknown room";
        /// Neither the token nor the namespace allows it.
        PermissionDenied = 103, "permission denied";
        /// The session is in the room already.
        AlreadySubscribed = 105, "already subscribed";
        /// A configured bound (rooms, payload, name length) would be passed.
        LimitExceeded = 106, "limit exceeded";
        /// A field is missing or out of bounds.
        BadRequest = 107, "bad request";
        /// The namespace does not offer this (presence, history).
        NotAvailable = 108, "not available";
        /// The token in Refresh has ended already.
        TokenExpired = 109, "token expired";
        /// The rate limit was reached; the next excess closes the connection.
        TooManyRequests = 111, "too many requests";
        /// The token in Refresh was not accepted.
        InvalidToken = 400, "invalid token";
        /// The session is not in the room.
        NotSubscribed = 401, "not subscribed";
        /// The shard's memory for messages, the publisher's share of it, or the engine takes no more.
        StorageFull = 402, "storage full";
        /// More requests than allowed wait for their answer.
        TooManyInFlight = 403, "too many in flight";
        /// The `nbf` of the token in Refresh lies ahead.
        TokenNotYetValid = 404, "token not yet valid";
        /// The topic's home, or the way to its subscribers, has as much to do as it may hold; nothing was stored.
        Overloaded = 410, "overloaded";
    }
}

impl ErrorCode {
    /// Whether the same request may succeed later.
    pub fn is_temporary(self) -> bool {
        matches!(
            self,
            ErrorCode::Internal
                | ErrorCode::TooManyRequests
                | ErrorCode::StorageFull
                | ErrorCode::TooManyInFlight
                | ErrorCode::TokenNotYetValid
                | ErrorCode::Overloaded
        )
    }
}

/// Why a token was not accepted: for metrics and the log. The client is told a code that says what it may do, never the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// `exp` has passed.
    Expired,
    /// `nbf` lies ahead.
    NotYetValid,
    /// The signature is not that of the key.
    Signature,
    /// The algorithm is not supported, or not that of the key.
    Algorithm,
    /// There is no key with this `kid`, or none without one.
    UnknownKey,
    /// `aud` names nobody that the gateway is.
    Audience,
    /// `iss` is somebody else.
    Issuer,
    /// Not a token: too long, not three parts, not base64url, not JSON; or a header that we may not ignore (`crit`).
    Malformed,
    /// A claim is missing, has the wrong type or is out of bounds; or the token is another user's or another device's.
    Claims,
}

impl AuthError {
    /// Every value, for arrays of counters.
    pub const ALL: &'static [AuthError] = &[
        AuthError::Expired,
        AuthError::NotYetValid,
        AuthError::Signature,
        AuthError::Algorithm,
        AuthError::UnknownKey,
        AuthError::Audience,
        AuthError::Issuer,
        AuthError::Malformed,
        AuthError::Claims,
    ];

    /// Metric label and log field.
    pub fn label(self) -> &'static str {
        match self {
            AuthError::Expired => "expired",
            AuthError::NotYetValid => "not_yet_valid",
            AuthError::Signature => "signature",
            AuthError::Algorithm => "algorithm",
            AuthError::UnknownKey => "unknown_key",
            AuthError::Audience => "audience",
            AuthError::Issuer => "issuer",
            AuthError::Malformed => "malformed",
            AuthError::Claims => "claims",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_codes_are_listed_then_they_are_unique_and_ordered() {
        assert!(CloseReason::ALL.windows(2).all(|pair| pair[0].code() < pair[1].code()));
        assert!(ErrorCode::ALL.windows(2).all(|pair| pair[0].code() < pair[1].code()));
        for reason in CloseReason::ALL {
            assert_eq!(CloseReason::from_code(reason.code()), Some(*reason));
            assert_eq!(CloseReason::ALL[reason.index()], *reason);
        }
    }

    #[test]
    fn code_is_terminal_then_the_client_must_not_reconnect() {
        assert!(CloseReason::Shutdown.may_reconnect());
        assert!(CloseReason::Slow.may_reconnect());
        assert!(CloseReason::NotYetValid.may_reconnect() && ErrorCode::TokenNotYetValid.is_temporary());
        assert!(!CloseReason::TakenOver.may_reconnect());
        assert!(!CloseReason::InvalidToken.may_reconnect());
    }

    #[test]
    fn error_is_exported_then_it_has_its_own_label() {
        let labels: Vec<_> = AuthError::ALL.iter().map(|error| error.label()).collect();
        let wanted = ["expired", "not_yet_valid", "signature", "algorithm", "unknown_key", "audience", "issuer"];
        assert_eq!(labels, [&wanted[..], &["malformed", "claims"]].concat());
        for (index, error) in AuthError::ALL.iter().enumerate() {
            assert_eq!(*error as usize, index, "counters are indexed by it");
        }
    }
}
