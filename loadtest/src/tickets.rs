//! TLS tickets, as many clients together hold them: each has one from its last connection, and a client that connects
//! for the first time has none.
//!
//! A ticket of TLS 1.3 is good for one connection and not bound to a client, so all are kept in one list; a client
//! that comes back takes one. rustls' own store keeps eight for a server, and newcomers would take those.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// Most tickets kept; some 60 MB.
const TICKETS_MAX: usize = 1 << 16;

/// Tickets of the clients of one server. First and later connections have views of the same list.
#[derive(Debug, Default)]
struct Memory {
    tickets: Vec<Tls13ClientSessionValue>,
    /// One of TLS 1.2, which is good for any number of connections.
    session: Option<Tls12ClientSessionValue>,
    group: Option<NamedGroup>,
}

#[derive(Debug)]
struct View {
    memory: Arc<Mutex<Memory>>,
    has_been_there: bool,
}

/// For a client's first connection, and for those after it.
pub(crate) fn resumption() -> [Resumption; 2] {
    let memory = Arc::<Mutex<Memory>>::default();
    [false, true].map(|has_been_there| Resumption::store(Arc::new(View { memory: memory.clone(), has_been_there })))
}

impl View {
    fn with<T>(&self, act: impl FnOnce(&mut Memory) -> T) -> T {
        act(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientSessionStore for View {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.with(|memory| memory.group = Some(group));
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.with(|memory| memory.group)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.with(|memory| memory.session = Some(value));
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.with(|memory| memory.session.clone().filter(|_| self.has_been_there))
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.with(|memory| memory.session = None);
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.with(|memory| {
            if memory.tickets.len() < TICKETS_MAX {
                memory.tickets.push(value);
            }
        });
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        if self.has_been_there { self.with(|memory| memory.tickets.pop()) } else { None }
    }
}
