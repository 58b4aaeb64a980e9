//! Log lines about connections: one when a session begins, one when a connection ends.
//!
//! Anybody who can reach a listener can make connections end before sign-in, as many as they like: of those a few lines a
//! second are written in full, and the others are summed in one. Connections that have said nothing, as load balancers
//! make them to see whether the port is open, are only seen at level debug.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringgate_core::close::CloseReason;
use ringgate_core::id::{Address, ConnectionKey, ShardId};
use ringgate_core::shard::{CloseRecord, SignInRecord};
use ringgate_net::proxy::ProxyFailure;

/// Lines a shard writes each second about connections that end before sign-in.
const LINES_PER_SECOND: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// The log of one shard's connections.
pub(super) struct ConnectionLog {
    shard: ShardId,
    second_began: Instant,
    lines: u32,
    /// What was not written in this second, by reason.
    more: Vec<(&'static str, u64)>,
}

/// Where the line about a closed connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Info,
    Debug,
}

impl ConnectionLog {
    pub(super) fn new(shard: ShardId, now: Instant) -> Self {
        ConnectionLog { shard, second_began: now, lines: 0, more: Vec::new() }
    }

    pub(super) fn signed_in(&self, connection: ConnectionKey, record: &SignInRecord) {
        tracing::info!(
            connection = %Address { shard: self.shard, connection },
            user = &*record.user,
            device = &*record.device,
            client = if record.client.is_empty() { "-" } else { &*record.client },
            peer = %record.peer,
            transport = record.transport.label(),
            "signed in"
        );
    }

    /// `has_spoken` if any byte had come; `cause` says more than the record where more is known.
    pub(super) fn closed(
        &mut self,
        connection: ConnectionKey,
        reason: CloseReason,
        record: &CloseRecord,
        has_spoken: bool,
        cause: Option<&str>,
    ) {
        let detail = if record.detail.is_empty() { reason.label() } else { record.detail };
        let line = match (&record.user, has_spoken) {
            (Some(_), _) => Line::Info,
            (None, false) if is_of_peer(reason) => Line::Debug,
            (None, _) => self.before_sign_in(detail),
        };
        macro_rules! write_line {
            ($level:ident) => {
                tracing::$level!(
                    connection = %Address { shard: self.shard, connection },
                    user = record.user.as_deref().unwrap_or("-"),
                    device = record.device.as_deref().unwrap_or("-"),
                    peer = %record.peer,
                    transport = record.transport.label(),
                    code = reason.code(),
                    reason = cause.unwrap_or(detail),
                    "connection closed"
                )
            };
        }
        match line {
            Line::Info => write_line!(info),
            Line::Debug => write_line!(debug),
        }
    }

    /// A connection that a proxy should have introduced.
    pub(super) fn refused(&mut self, peer: SocketAddr, failure: ProxyFailure) {
        let shard = self.shard.0;
        match self.before_sign_in("without a header of the PROXY protocol") {
            Line::Info => tracing::info!(shard, %peer, reason = %failure, "connection refused"),
            Line::Debug => tracing::debug!(shard, %peer, reason = %failure, "connection refused"),
        }
    }

    fn before_sign_in(&mut self, detail: &'static str) -> Line {
        if self.lines < LINES_PER_SECOND {
            self.lines += 1;
            return Line::Info;
        }
        match self.more.iter_mut().find(|(known, _)| *known == detail) {
            Some((_, count)) => *count += 1,
            None => self.more.push((detail, 1)),
        }
        Line::Debug
    }

    /// To be called every turn: writes the sum of a second that is over.
    pub(super) fn turn(&mut self, now: Instant) {
        if self.lines == 0 || now.saturating_duration_since(self.second_began) < SECOND {
            return;
        }
        if let Some(sum) = self.end_second(now) {
            tracing::info!(shard = self.shard.0, "{sum}");
        }
    }

    fn end_second(&mut self, now: Instant) -> Option<String> {
        self.second_began = now;
        self.lines = 0;
        if self.more.is_empty() {
            return None;
        }
        let total: u64 = self.more.iter().map(|(_, count)| count).sum();
        let mut sum = format!("{total} more closes before sign-in: ");
        for (index, (reason, count)) in self.more.drain(..).enumerate() {
            // Writing into a String cannot fail.
            let _ = write!(sum, "{}{reason} x {count}", if index > 0 { ", " } else { "" });
        }
        Some(sum)
    }
}

/// Whether the peer has ended the connection.
fn is_of_peer(reason: CloseReason) -> bool {
    matches!(reason, CloseReason::ConnectionClosed | CloseReason::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_closes_before_sign_in_then_a_few_lines_and_one_sum_a_second() {
        let began = Instant::now();
        let mut log = ConnectionLog::new(ShardId(0), began);
        let of = |log: &mut ConnectionLog, detail, count: u32| {
            (0..count).filter(|_| log.before_sign_in(detail) == Line::Info).count()
        };
        assert_eq!(of(&mut log, "invalid token", 8), 8);
        assert_eq!(of(&mut log, "an HTTP request", 5), 2);
        assert_eq!(of(&mut log, "invalid token", 20), 0);
        let sum = log.end_second(began + SECOND).unwrap();
        assert_eq!(sum, "23 more closes before sign-in: an HTTP request x 3, invalid token x 20");
        // The next second begins anew, and has nothing to sum.
        assert_eq!(of(&mut log, "invalid token", 10), 10);
        assert_eq!(log.end_second(began + SECOND * 2), None);
    }
}
