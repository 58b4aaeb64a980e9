//! What a configuration that is read again may change while the gateway runs, and what needs a restart: certificate, token
//! keys and log level are exchanged; everything else is compared with what the gateway was started with, and named.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::LazyLock;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Config, ListenerConfig, RedisConfig, Runtime, default_text, raw};
use ringgate_core::limits::Settings;
use ringgate_core::units::{parse_duration_ms, parse_size};
use ringgate_net::ws::Rules;

/// Values that need no restart: whole sections end with a dot.
const EXCHANGED: &[&str] = &["token.", "tls.", "logging.level"];

/// What a gateway was started with, as far as a restart is needed to change it.
#[derive(Clone, PartialEq)]
pub struct Running {
    settings: Settings,
    runtime: Runtime,
    listeners: Vec<ListenerConfig>,
    websocket: Rules,
    admin: Option<SocketAddr>,
    admin_hosts: Vec<String>,
    health: Option<SocketAddr>,
    redis: Option<RedisConfig>,
    json: bool,
    values: Values,
}

/// Values of a file by their dotted keys, defaults included. Those that are exchanged, secrets among them, are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Values(BTreeMap<String, String>);

impl Running {
    /// To be taken before the configuration is used up.
    pub fn of(config: &Config) -> Running {
        Running {
            settings: config.settings.clone(),
            runtime: config.runtime.clone(),
            listeners: config.listeners.clone(),
            websocket: config.websocket.clone(),
            admin: config.admin,
            admin_hosts: config.admin_hosts.clone(),
            health: config.health,
            redis: config.redis.clone(),
            json: config.logging.json,
            values: config.values.clone(),
        }
    }

    /// The keys whose new values need a restart to have an effect.
    pub fn needs_restart(&self, new: &Config) -> Vec<String> {
        let new = Running::of(new);
        let sections = [
            ("runtime", self.runtime == new.runtime),
            ("listeners", self.listeners == new.listeners),
            ("websocket", self.websocket == new.websocket),
            ("admin", (self.admin, &self.admin_hosts, self.health) == (new.admin, &new.admin_hosts, new.health)),
            ("redis", self.redis == new.redis),
            ("logging", self.json == new.json),
            ("", self.settings == new.settings),
        ];
        let section_of = |key: &str| {
            let name = key.split(['.', '[']).next().unwrap_or_default();
            sections.iter().position(|(section, _)| *section == name).unwrap_or(sections.len() - 1)
        };
        let mut names: Vec<String> = Vec::new();
        let keys = self.values.0.keys().chain(new.values.0.keys().filter(|key| !self.values.0.contains_key(*key)));
        for key in keys.filter(|key| self.values.0.get(*key) != new.values.0.get(*key)) {
            // A value that is only written differently has not changed.
            if !sections.get(section_of(key)).is_some_and(|(_, same)| *same) {
                names.push(key.clone());
            }
        }
        // The content of a file may have changed without its key.
        if let (Some(old), Some(new_redis)) = (&self.redis, &new.redis) {
            for (key, same) in [
                ("redis.password_file", old.password == new_redis.password),
                ("redis.ca_file", old.tls == new_redis.tls),
            ] {
                let is_missing = !same && !names.iter().any(|name| name == key);
                names.extend(Some(key.to_owned()).filter(|key| is_missing && new.values.0.contains_key(key)));
            }
        }
        names.sort();
        names
    }
}

impl Values {
    /// Of a file that was understood.
    pub(super) fn of(text: &str) -> Values {
        let mut values = BTreeMap::new();
        for (text, is_default) in [(default_text(), true), (text, false)] {
            let Ok(sections) = toml::from_str::<Sections>(text) else { continue };
            for (key, value) in &sections.0 {
                if !is_default && value.is_array() {
                    // A list in the file takes the place of the default one.
                    let start = format!("{key}[");
                    values.retain(|key: &String, _| !key.starts_with(&start));
                }
                flatten(key, value, &mut values);
            }
        }
        let is_exchanged = |key: &str| EXCHANGED.iter().any(|start| key.starts_with(start));
        values.retain(|key, _| !is_exchanged(key));
        Values(values)
    }
}

/// The sections of a file but those that are exchanged as a whole. What they hold, such as a secret, is not copied: nobody
/// would wipe the copy.
struct Sections(Vec<(String, toml::Value)>);

struct SectionsVisitor;

impl<'de> Visitor<'de> for SectionsVisitor {
    type Value = Sections;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sections")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sections, A::Error> {
        let mut sections = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if EXCHANGED.iter().any(|start| start.strip_suffix('.') == Some(&name)) {
                map.next_value::<IgnoredAny>()?;
            } else if name == "redis" {
                let WithoutPassword(table) = map.next_value()?;
                sections.push((name, toml::Value::Table(table)));
            } else {
                sections.push((name, map.next_value()?));
            }
        }
        Ok(Sections(sections))
    }
}

impl<'de> Deserialize<'de> for Sections {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sections, D::Error> {
        deserializer.deserialize_map(SectionsVisitor)
    }
}

/// `[redis]` with a number in place of each password, which tells whether that has changed.
struct WithoutPassword(toml::Table);

struct WithoutPasswordVisitor;

impl<'de> Visitor<'de> for WithoutPasswordVisitor {
    type Value = WithoutPassword;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a section")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WithoutPassword, A::Error> {
        /// Nobody outside this process can try passwords against what it makes of them.
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let mut table = toml::Table::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = match name.as_str() {
                "password" | "sentinel_password" => {
                    let secret: raw::Secret = map.next_value()?;
                    toml::Value::String(format!("{:016x}", KEY.hash_one(secret.0.as_str())))
                }
                _ => map.next_value()?,
            };
            table.insert(name, value);
        }
        Ok(WithoutPassword(table))
    }
}

impl<'de> Deserialize<'de> for WithoutPassword {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WithoutPassword, D::Error> {
        deserializer.deserialize_map(WithoutPasswordVisitor)
    }
}

fn flatten(key: &str, value: &toml::Value, values: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                flatten(&format!("{key}.{name}"), value, values);
            }
        }
        toml::Value::Array(list) if list.iter().any(toml::Value::is_table) => {
            for (index, value) in list.iter().enumerate() {
                flatten(&format!("{key}[{index}]"), value, values);
            }
        }
        toml::Value::String(text) => {
            let number = parse_duration_ms(text).or_else(|_| parse_size(text));
            values.insert(key.to_owned(), number.map_or_else(|_| text.clone(), |number| number.to_string()));
        }
        other => {
            values.insert(key.to_owned(), other.to_string());
        }
    }
}
