//! NumericDate (RFC 7519, 2): seconds since 1970-01-01 UTC as any JSON number. Issuers write 1900000000, 1900000000.0,
//! 1900000000.25 and 1.9e9.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

/// See the module. Times before 1970 are 1970, and those beyond 64 bits the last that there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Date {
    Whole(u64),
    /// A number with a fraction or an exponent; finite.
    Real(f64),
}

impl Date {
    /// Rounded down: a token may end up to 1 s early, never late.
    pub(super) fn seconds_begun(self) -> u64 {
        match self {
            Date::Whole(seconds) => seconds,
            // Casts saturate.
            Date::Real(seconds) => seconds.floor() as u64,
        }
    }

    /// The first whole second not before it: what begins then never begins early.
    pub(super) fn seconds_whole(self) -> u64 {
        match self {
            Date::Whole(seconds) => seconds,
            Date::Real(seconds) => seconds.ceil() as u64,
        }
    }
}

struct DateVisitor;

impl Visitor<'_> for DateVisitor {
    type Value = Date;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of seconds since 1970")
    }

    fn visit_u64<E>(self, seconds: u64) -> Result<Date, E> {
        Ok(Date::Whole(seconds))
    }

    fn visit_i64<E>(self, seconds: i64) -> Result<Date, E> {
        Ok(Date::Whole(u64::try_from(seconds).unwrap_or(0)))
    }

    fn visit_f64<E>(self, seconds: f64) -> Result<Date, E> {
        Ok(Date::Real(seconds))
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
        deserializer.deserialize_any(DateVisitor)
    }
}
