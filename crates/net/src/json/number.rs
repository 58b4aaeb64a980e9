//! Numbers that JavaScript cannot hold: 64 bits as decimal digits in a string, ids of 128 bits as hexadecimal ones.

use std::fmt;

use ringgate_core::id::{ClientMessageId, Position};
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A number of 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digits(pub(super) u64);

impl Serialize for Digits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfText;

        impl Visitor<'_> for OfText {
            type Value = Digits;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string of decimal digits, a number below 2^64")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Digits, E> {
                // `parse` would take a sign, too.
                let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                let number = digits.and_then(|digits| digits.parse().ok());
                number.map(Digits).ok_or_else(|| E::invalid_value(Unexpected::Other("another string"), &self))
            }
        }

        deserializer.deserialize_str(OfText)
    }
}

/// A place in a topic's log.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Place {
    epoch: Digits,
    offset: Digits,
}

impl From<Place> for Position {
    fn from(place: Place) -> Position {
        Position { epoch: place.epoch.0, offset: place.offset.0 }
    }
}

impl From<Position> for Place {
    fn from(position: Position) -> Place {
        Place { epoch: Digits(position.epoch), offset: Digits(position.offset) }
    }
}

/// A [`ClientMessageId`] as 32 hexadecimal digits, with or without the dashes of a UUID; it is written with them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Id(pub(super) ClientMessageId);

/// Digits before each dash of a UUID.
const DASHES: [usize; 4] = [8, 12, 16, 20];
const DIGITS: usize = 32;

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ClientMessageId { high, low } = self.0;
        let [a, b, c] = [high >> 32, (high >> 16) & 0xffff, high & 0xffff];
        let [d, e] = [low >> 48, low & 0xffff_ffff_ffff];
        serializer.collect_str(&format_args!("{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}"))
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfText;

        impl Visitor<'_> for OfText {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string of 32 hexadecimal digits, or a UUID")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Id, E> {
                id(text).map(Id).ok_or_else(|| E::invalid_value(Unexpected::Other("another string"), &self))
            }
        }

        deserializer.deserialize_str(OfText)
    }
}

fn id(text: &str) -> Option<ClientMessageId> {
    let has_dashes = text.len() == DIGITS + DASHES.len();
    let (mut number, mut digits) = (0u128, 0);
    for (at, character) in text.chars().enumerate() {
        let is_dash = has_dashes && DASHES.iter().enumerate().any(|(nth, before)| before + nth == at);
        match character.to_digit(16) {
            Some(digit) if !is_dash && digits < DIGITS => {
                number = number << 4 | u128::from(digit);
                digits += 1;
            }
            None if is_dash && character == '-' => {}
            _ => return None,
        }
    }
    (digits == DIGITS).then_some(ClientMessageId { high: (number >> 64) as u64, low: number as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_has_dashes_or_none_then_it_is_read_and_every_other_text_is_not() {
        let expected = ClientMessageId { high: 0x0123_4567_89ab_cdef, low: 0xfedc_ba98_7654_3210 };
        for text in ["0123456789abcdeffedcba9876543210", "01234567-89AB-cdef-fedc-ba9876543210"] {
            assert_eq!(id(text), Some(expected), "{text}");
        }
        let written = serde_json::to_string(&Id(expected)).expect("a string");
        assert_eq!(written, "\"01234567-89ab-cdef-fedc-ba9876543210\"");
        let long = "0".repeat(33);
        for text in [
            "",
            "0123",
            &long,
            "0123456789abcdeffedcba987654321g",
            "012345678-9ab-cdef-fedc-ba9876543210",
            "+123456789abcdeffedcba9876543210",
            "0123456789abcdef-fedcba9876543210---",
        ] {
            assert_eq!(id(text), None, "{text}");
        }
    }

    #[test]
    fn number_is_no_string_of_digits_then_it_is_refused() {
        let read = |json: &str| serde_json::from_str::<Digits>(json).ok().map(|digits| digits.0);
        assert_eq!((read("\"18446744073709551615\""), read("\"0\"")), (Some(u64::MAX), Some(0)));
        for json in ["18", "\"18446744073709551616\"", "\"\"", "\"+1\"", "\"-1\"", "\" 1\"", "\"1.0\"", "null"] {
            assert_eq!(read(json), None, "{json}");
        }
    }
}
