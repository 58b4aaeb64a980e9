//! The Lua scripts, in `scripts/`: whatever has to be one step for all nodes. Each says in its head what keys and
//! arguments it takes and what it answers; `topic.lua` has what those of topics share.
//!
//! The hash of a topic, as they keep it (numbers in decimal):
//!
//! | field | what |
//! |---|---|
//! | `e` | epoch |
//! | `n` | there is a stream of this epoch, or was one |
//! | `b` | epochs before, up to where their messages are here: `<epoch>-<offset>`, oldest first, with blanks between |
//! | `f`, `l` | floor and lost |
//! | `k` | `1` once the user has signed in |
//! | `g` | forgotten_at |
//! | `q` | the newest fence |
//! | `d:<device>` | `fence cursor away skipped run shard session`; `-` where there is none. No cursor: claimed, and no state was told yet |
//!
//! What sessions need goes on where Redis has no memory left (`allow_oom.lua`); messages are refused then.
//!
//! Redis runs them by the hash that it answered when they were loaded, which is for each connection anew.

macro_rules! scripts {
    ($($name:ident $($file:literal)+,)*) => {
        /// Names a script.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Script {
            $($name,)*
        }

        impl Script {
            pub(crate) const ALL: &[Script] = &[$(Script::$name,)*];

            pub(crate) fn source(self) -> &'static str {
                match self {
                    $(Script::$name => concat!($(include_str!(concat!("scripts/", $file)),)+),)*
                }
            }
        }
    };
}

scripts! {
    Append "append.lua" "topic.lua" "append_anew.lua",
    Find "find.lua",
    Load "allow_oom.lua" "topic.lua" "load.lua",
    Read "topic.lua" "read.lua",
    Cursor "allow_oom.lua" "topic.lua" "cursor.lua",
    Claim "allow_oom.lua" "topic.lua" "claim.lua",
    Release "allow_oom.lua" "topic.lua" "release.lua",
    Members "allow_oom.lua" "members.lua",
    Presence "presence.lua",
    Generation "allow_oom.lua" "generation.lua",
    Lease "allow_oom.lua" "lease.lua",
    Probe "probe.lua",
}

/// The hashes that a server has answered for [`Script::ALL`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Hashes(pub(crate) Vec<Vec<u8>>);

impl Hashes {
    pub(crate) fn of(&self, script: Script) -> &[u8] {
        self.0.get(script as usize).map_or(&[], |hash| hash)
    }
}
