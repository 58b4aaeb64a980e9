//! What a connection runs over, and how its TLS began.

/// How a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Transport {
    /// TCP.
    Plain = 0,
    /// TLS over TCP.
    Tls = 1,
    /// WebSocket over TCP.
    Ws = 2,
    /// WebSocket over TLS.
    Wss = 3,
}

impl Transport {
    /// Every value.
    pub const ALL: [Transport; 4] = [Transport::Plain, Transport::Tls, Transport::Ws, Transport::Wss];

    /// Metric label and log field.
    pub fn label(self) -> &'static str {
        match self {
            Transport::Plain => "tcp",
            Transport::Tls => "tls",
            Transport::Ws => "ws",
            Transport::Wss => "wss",
        }
    }

    /// Whether TLS lies between the socket and everything else.
    pub fn has_tls(self) -> bool {
        match self {
            Transport::Plain | Transport::Ws => false,
            Transport::Tls | Transport::Wss => true,
        }
    }

    /// Whether frames travel in messages of WebSocket.
    pub fn is_websocket(self) -> bool {
        match self {
            Transport::Plain | Transport::Tls => false,
            Transport::Ws | Transport::Wss => true,
        }
    }

    /// With WebSocket between this and the frames.
    #[must_use]
    pub fn with_websocket(self) -> Transport {
        if self.has_tls() { Transport::Wss } else { Transport::Ws }
    }
}

/// How a TLS connection was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// With a key exchange, a certificate and a signature.
    Full,
    /// With what an earlier connection has left: no certificate and no signature.
    Resumed,
}

impl Handshake {
    /// Every value.
    pub const ALL: [Handshake; 2] = [Handshake::Full, Handshake::Resumed];

    /// Metric label.
    pub fn label(self) -> &'static str {
        match self {
            Handshake::Full => "full",
            Handshake::Resumed => "resumed",
        }
    }
}
