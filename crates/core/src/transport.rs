//! What a connection runs over, and how its TLS began.

/// How a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Transport {
    /// TCP.
    Plain = 0,
    /// TLS over TCP.
    Tls = 1,
}

impl Transport {
    /// Every value.
    pub const ALL: [Transport; 2] = [Transport::Plain, Transport::Tls];

    /// Metric label and log field.
    pub fn label(self) -> &'static str {
        match self {
            Transport::Plain => "tcp",
            Transport::Tls => "tls",
        }
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
