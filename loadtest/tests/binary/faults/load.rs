//! The loads that faults are injected into: small ones, whose messages are counted by hand.

use crate::proxy::{Book, Subject};
use crate::support::Folder;

/// A load of some seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// 5 pairs, 200 messages a second.
    P2p,
    /// 2 rooms with 6 members each, of whom 2 publish; 40 messages a second.
    Room,
    /// One population of 12 clients that is in two rooms as above, writes 120 messages a second in pairs, and sends 60 Pings
    /// a second.
    Mixed,
    /// 5 pairs, 200 messages a second to users who are away.
    Offline,
    /// 10 clients, 200 Pings a second.
    Ping,
    /// 10 clients that only keep their connections alive.
    Idle,
    /// 10 clients that only keep their connections alive, after all of them have left and come back.
    Storm,
    /// 10 clients, of whom 20 a second leave and come back.
    Churn,
    /// `Mixed`, and a population of 6, of whom 12 a second leave and come back: they have no messages.
    Guests,
    /// `Mixed`, where 12 clients a second leave and come back.
    MixedChurn,
    /// 5 pairs, where each sender has [`Load::CLOSED_LOOP_WINDOW`] messages under way.
    ClosedLoop,
}

impl Load {
    pub(super) const ALL: [Load; 5] = [Load::P2p, Load::Room, Load::Mixed, Load::Offline, Load::Ping];
    /// Those that are about connections.
    pub(super) const OF_CONNECTIONS: [Load; 3] = [Load::Idle, Load::Storm, Load::Churn];
    /// Those whose clients are connected all the time.
    pub(super) const ONLINE: [Load; 4] = [Load::P2p, Load::Room, Load::Mixed, Load::Ping];
    /// Those with messages.
    pub(super) const WITH_MESSAGES: [Load; 4] = [Load::P2p, Load::Room, Load::Mixed, Load::Offline];
    pub(super) const WITH_MESSAGES_AND_GUESTS: [Load; 5] =
        [Load::P2p, Load::Room, Load::Mixed, Load::Offline, Load::Guests];
    /// Those with Pings.
    pub(super) const WITH_PINGS: [Load; 2] = [Load::Ping, Load::Mixed];

    pub(super) const CLOSED_LOOP_WINDOW: u64 = 2;

    /// What the load tester is called with, besides where the gateway is; over TLS or not. `name` tells runs on one gateway apart.
    pub(super) fn arguments(self, name: &str, seconds: u64, tls: bool, folder: &Folder) -> Vec<String> {
        let room = format!("chat:{name}");
        let duration = format!("{seconds}s");
        let arguments = match self {
            Load::P2p => vec!["p2p", "--connections", "10", "--rate", "200", "--duration", &duration],
            Load::Offline => vec!["offline", "--connections", "10", "--rate", "200", "--duration", &duration],
            Load::Ping => vec!["ping", "--connections", "10", "--rate", "200", "--duration", &duration],
            Load::ClosedLoop => vec!["p2p", "--connections", "10", "--closed-loop", "2", "--duration", &duration],
            Load::Idle => vec!["idle", "--connections", "10", "--duration", &duration],
            Load::Storm => vec!["storm", "--connections", "10", "--duration", &duration],
            Load::Churn => vec!["churn", "--connections", "10", "--rate", "20", "--duration", &duration],
            Load::Room => vec![
                "room",
                "--connections",
                "12",
                "--rooms",
                "2",
                "--publishers",
                "2",
                "--room-name",
                &room,
                "--rate",
                "40",
                "--duration",
                &duration,
            ],
            Load::Mixed | Load::Guests | Load::MixedChurn => {
                let churn = if self == Load::MixedChurn { "churn = 12.0\n" } else { "" };
                let guests = match self {
                    Load::Guests => "[[populations]]\nname = 'guests'\nconnections = 6\nchurn = 12.0\n",
                    _ => "",
                };
                let guests = if guests.is_empty() { String::new() } else { format!("{guests}tls = {tls}\n") };
                let file = folder.path(&format!("{name}.toml"));
                let text = format!(
                    "[[populations]]\nname = 'all'\nconnections = 12\ntls = {tls}\n{churn}{guests}\
                     [[streams]]\npopulation = 'all'\nkind = 'pairs'\nrate = 120.0\n\
                     [[streams]]\npopulation = 'all'\nkind = 'rooms'\nrate = 40.0\nrooms = 2\npublishers = 2\nroom = '{room}'\n\
                     [[streams]]\npopulation = 'all'\nkind = 'pings'\nrate = 60.0\n\
                     [[phases]]\nname = 'steady'\nduration = '{duration}'\n"
                );
                std::fs::write(&file, text).unwrap();
                return vec!["mixed".to_owned(), file];
            }
        };
        arguments.into_iter().map(str::to_owned).collect()
    }

    /// Messages and Pings a second.
    pub(super) fn rate(self) -> u64 {
        match self {
            Load::P2p | Load::Offline | Load::Ping => 200,
            Load::Room => 40,
            Load::Mixed | Load::Guests | Load::MixedChurn => 220,
            Load::Idle | Load::Storm | Load::Churn | Load::ClosedLoop => 0,
        }
    }

    pub(super) fn clients(self) -> u64 {
        match self {
            Load::Room | Load::Mixed | Load::MixedChurn => 12,
            Load::Guests => 18,
            _ => 10,
        }
    }

    /// Whether it sends Pings besides those that keep connections alive.
    pub(super) fn has_pings(self) -> bool {
        matches!(self, Load::Ping | Load::Mixed | Load::Guests | Load::MixedChurn)
    }

    /// Whether its clients come back although it is not told to have them do so.
    pub(super) fn always_reconnects(self) -> bool {
        self == Load::Storm
    }

    /// Whether a run of this load is well under way.
    pub(super) fn is_under_way(self, book: &Book) -> bool {
        match self {
            Load::Idle => book.pongs_since >= 5,
            // Everybody has left once.
            Load::Storm => book.sign_ins >= 2 * self.clients() && book.pongs_since >= 5,
            Load::Churn => book.sign_ins >= 2 * self.clients(),
            _ => book.published() + book.pings >= self.rate() / 4,
        }
    }

    /// How many flows there are of this kind of frames, and how long each is after a second.
    pub(super) fn flows(self, subject: Subject) -> Vec<u64> {
        let pairs = |pairs: usize, each: u64| vec![each; pairs];
        // Each of 12 members gets 10 messages of each of 2 publishers.
        let rooms = || vec![10; 24];
        match (self, subject) {
            (Load::P2p | Load::Offline, Subject::Ping | Subject::Pong)
            | (Load::Room, Subject::Ping | Subject::Pong)
            | (Load::Ping, Subject::Publish | Subject::Published | Subject::Message) => Vec::new(),
            (Load::P2p | Load::Offline, _) => pairs(5, 40),
            (Load::Room, Subject::Message) => rooms(),
            (Load::Room, _) => vec![10; 4],
            (Load::Idle | Load::Storm | Load::Churn, _) => Vec::new(),
            (Load::MixedChurn | Load::ClosedLoop, _) => panic!("nobody knows beforehand what is sent"),
            // Guests have no messages.
            (Load::Mixed | Load::Guests, Subject::Message) => [pairs(6, 20), rooms()].concat(),
            // The first half writes in pairs, and each third client publishes in its room.
            (Load::Mixed | Load::Guests, Subject::Publish | Subject::Published) => vec![30, 20, 20, 30, 20, 20, 10, 10],
            (Load::Mixed | Load::Guests, Subject::Ping | Subject::Pong) => vec![5; 12],
            (Load::Ping, _) => vec![20; 10],
        }
    }
}
