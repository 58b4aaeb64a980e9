//! Connect, token, inbox, Connected; and Refresh later.

use std::sync::Arc;

use super::requests::WEIGHT_OF_REFRESH;
use super::rooms::Wish;
use crate::close::{AuthError, CloseReason, ErrorCode};
use crate::id::{ConnectionKey, InboxKey, Now, ShardId};
use crate::metrics::Recovery;
use crate::session::{Grant, InboxFeed, Lag, Memberships, PendingConnect, PendingRoom, Phase, Session};
use crate::shard::letter::Attach;
use crate::shard::{Effect, Shard, SignInRecord, ToHome};
use crate::topics::Attachment;
use crate::wire::frames::{Connect, Connected, PROTOCOL_VERSION, RoomCursor};

/// Recent device names: most sessions have one of a few (`phone`, `web`), and share its memory.
#[derive(Debug, Default)]
pub(in crate::shard) struct DeviceNames {
    names: Vec<Arc<str>>,
    oldest: usize,
}

const DEVICE_NAMES_MAX: usize = 16;

impl DeviceNames {
    fn share(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.iter().find(|known| ***known == *name) {
            return known.clone();
        }
        let name: Arc<str> = Arc::from(name);
        if self.names.len() < DEVICE_NAMES_MAX {
            self.names.push(name.clone());
        } else if let Some(place) = self.names.get_mut(self.oldest) {
            *place = name.clone();
            self.oldest = (self.oldest + 1) % DEVICE_NAMES_MAX;
        }
        name
    }
}

impl Shard {
    pub(super) fn on_connect(&mut self, key: ConnectionKey, connect: &Connect<'_>, now: Now) {
        if connect.version != PROTOCOL_VERSION {
            return self.close(key, CloseReason::InappropriateProtocol, "this gateway speaks version 1", now);
        }
        let device = self.devices.share(connect.device);
        let pending = PendingConnect {
            request: connect.request,
            device,
            client: connect.client.into(),
            inbox: connect.inbox,
            rooms: connect
                .rooms
                .iter()
                .map(|RoomCursor { room, since, recover }| PendingRoom { name: room.to_owned(), since, recover })
                .collect(),
            ping_interval_ms: connect.ping_interval_ms,
            receive_window: connect.receive_window,
        };
        if let Some(connection) = self.connections.get_mut(key) {
            connection.phase = Phase::Verifying;
            connection.pending = Some(Box::new(pending));
        }
        self.effects.push_back(Effect::Verify { connection: key, refresh: None, token: connect.token.into() });
    }

    pub(in crate::shard) fn on_verified(
        &mut self,
        key: ConnectionKey,
        refresh: Option<u32>,
        result: Result<Grant, AuthError>,
        now: Now,
    ) {
        let is_others = result.as_ref().is_ok_and(|grant| !self.is_bearer(key, grant));
        let result = if is_others { Err(AuthError::Claims) } else { result };
        match &result {
            Ok(_) => self.metrics.auth_succeeded.increment(),
            Err(error) => self.metrics.auth_failed[*error].increment(),
        }
        match refresh {
            Some(request) => self.on_refreshed(key, request, result, now),
            None if is_others => self.close(key, CloseReason::InvalidToken, "the token is for another device", now),
            None => self.on_signed_in(key, result, now),
        }
    }

    /// Whether the token is for the device that Connect names, or for the session that it is to prolong. Yes for connections
    /// that have ended: the answer has no effect then.
    fn is_bearer(&self, key: ConnectionKey, grant: &Grant) -> bool {
        let Some(connection) = self.connections.get(key) else { return true };
        let (device, user) = match (&connection.pending, &connection.session) {
            (Some(pending), _) => (&pending.device, None),
            (None, Some(session)) => (&session.device, Some(&session.user)),
            (None, None) => return true,
        };
        user.is_none_or(|user| *grant.user == **user) && grant.device.as_ref().is_none_or(|own| **own == **device)
    }

    /// Whether the answer to an [`Effect::Verify`] would still be used. Verifying the token of a connection that has ended
    /// would delay the others.
    pub fn awaits_verification(&self, key: ConnectionKey, refresh: bool) -> bool {
        self.connections.get(key).is_some_and(|connection| match refresh {
            true => connection.is_ready(),
            false => connection.phase == Phase::Verifying,
        })
    }

    /// The token of a Connect was verified, or refused.
    fn on_signed_in(&mut self, key: ConnectionKey, result: Result<Grant, AuthError>, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        // In any other phase the connection is being closed.
        if connection.phase != Phase::Verifying {
            return;
        }
        let Some(pending) = connection.pending.take() else { return };
        let grant = match result {
            Ok(grant) => grant,
            Err(AuthError::Expired) => return self.close(key, CloseReason::Expired, "token expired", now),
            Err(AuthError::NotYetValid) => return self.close(key, CloseReason::NotYetValid, "", now),
            // The cause is only logged: a client that guesses tokens must not learn from it.
            Err(_) => return self.close(key, CloseReason::InvalidToken, "", now),
        };
        let user: Arc<str> = grant.user.into();
        connection.session = Some(Session {
            user: user.clone(),
            device: pending.device.clone(),
            expires_at: u32::try_from(grant.expires_at).unwrap_or(u32::MAX),
            grants: grant.rooms,
            inbox: InboxFeed::new(self.id, InboxKey { slot: 0, generation: 0 }, 0, 0, Lag::None),
            rooms: Memberships::default(),
            in_flight: 0,
            lagging: 0,
            ping_interval_ms: self.settings.client.ping_interval_of(pending.ping_interval_ms) as u32,
            receive_window: self.settings.inbox.receive_window_of(pending.receive_window),
        });
        let attach = Attach {
            user: user.clone(),
            device: pending.device.clone(),
            from: self.address(key),
            resume: pending.inbox,
            fence: 0,
        };
        if let Some(connection) = self.connections.get_mut(key) {
            connection.phase = Phase::Attaching;
            connection.pending = Some(pending);
        }
        self.post_to_home(self.home_of_user(&user), ToHome::Attach(Box::new(attach)));
    }

    /// The inbox's home has taken the session on: it is signed in.
    pub(in crate::shard) fn on_attached(
        &mut self,
        key: ConnectionKey,
        home: ShardId,
        inbox: InboxKey,
        attachment: &Attachment,
        now: Now,
    ) {
        let from = self.address(key);
        let waiting = self.connections.get_mut(key).filter(|connection| connection.phase == Phase::Attaching);
        let Some(connection) = waiting else {
            // The connection has ended.
            return self.post_to_home(home, ToHome::Detach { inbox, from });
        };
        connection.phase = Phase::Ready;
        let Some(pending) = connection.pending.take() else { return };
        connection.heard_ms = now.mono_ms();
        let Some(session) = connection.session.as_mut() else { return };
        let owed = attachment.start < attachment.position.offset;
        let lag = if owed { Lag::Behind } else { Lag::None };
        session.inbox = InboxFeed::new(home, inbox, attachment.position.epoch, attachment.start, lag);
        let user = session.user.clone();
        let (ping_interval_ms, receive_window) = (session.ping_interval_ms, session.receive_window);
        let (expires_at, expires_in_ms) = (u64::from(session.expires_at), session.expires_in_ms(now));
        let record = SignInRecord {
            user: user.clone(),
            device: session.device.clone(),
            client: pending.client,
            peer: connection.peer,
            transport: connection.transport,
        };
        self.effects.push_back(Effect::SignedIn { connection: key, record: Box::new(record) });
        self.metrics.sessions_active.add(1);
        if pending.inbox.is_some() {
            self.metrics.recoveries[Recovery::of(attachment.recovered)].increment();
        }
        let settings = self.settings.clone();
        self.reply(key, now, |encoder, out| {
            encoder.connected(
                out,
                &Connected {
                    request: pending.request,
                    session: from.to_u64(),
                    node: &settings.node,
                    user: &user,
                    ping_interval_ms,
                    pong_timeout_ms: settings.client.pong_timeout_ms as u32,
                    message_bytes_max: settings.client.message_bytes_max as u32,
                    rooms_max: settings.client.rooms_max as u16,
                    requests_in_flight_max: settings.client.requests_in_flight_max as u16,
                    expires_at,
                    inbox_recovered: attachment.recovered,
                    inbox: attachment.position,
                    server_time_ms: now.unix_ms,
                    expires_in_ms,
                    dedup_window_ms: u32::try_from(settings.dedup_window_ms).unwrap_or(u32::MAX),
                    frames_rate: settings.client.messages_rate,
                    frames_burst: settings.client.messages_burst,
                    bytes_rate: settings.client.bytes_rate,
                    bytes_burst: settings.client.bytes_burst,
                    receive_window,
                },
            );
        });
        self.rearm(key, now);
        if owed {
            self.catch_up(key);
        }
        for room in &pending.rooms {
            let wish = Wish { request: pending.request, room: &room.name, since: room.since, recover: room.recover };
            self.on_subscribe(key, wish, true, now);
        }
        self.unpark(key, now);
    }

    fn on_refreshed(&mut self, key: ConnectionKey, request: u32, result: Result<Grant, AuthError>, now: Now) {
        self.answered_heavy(key, WEIGHT_OF_REFRESH);
        // The session's end was put off while the new token was being verified.
        self.rearm(key, now);
        let Some(session) = self.session_mut(key) else { return };
        let grant = match result {
            Ok(grant) => grant,
            Err(AuthError::Expired) => return self.refuse(key, request, ErrorCode::TokenExpired, now),
            Err(AuthError::NotYetValid) => return self.refuse(key, request, ErrorCode::TokenNotYetValid, now),
            Err(_) => return self.refuse(key, request, ErrorCode::InvalidToken, now),
        };
        session.expires_at = u32::try_from(grant.expires_at).unwrap_or(u32::MAX);
        session.grants = grant.rooms;
        // What the session will keep to, as in Connected: not the token's own end, which may lie further ahead.
        let (expires_at, expires_in_ms) = (u64::from(session.expires_at), session.expires_in_ms(now));
        self.reply(key, now, |encoder, out| encoder.refreshed(out, request, expires_at, expires_in_ms));
        self.take_rooms_away(key, now);
        self.rearm(key, now);
    }
}
