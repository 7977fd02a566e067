//! JSON from strangers: not too deep, and no key twice in one object.
//!
//! Two programs that read an object with a key twice may disagree about what it says, so it says
//! nothing here.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess};
use serde::de::{IgnoredAny, Visitor};

use crate::error::Failure;

/// How deep objects and arrays may be nested.
const DEEPEST: usize = 64;

/// Reads `bytes` as a `T`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let explain = |error: serde_json::Error| Failure::invalid(format!("the JSON is bad: {error}"));
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Walk { depth: 0 }.deserialize(&mut reader).and_then(|()| reader.end()).map_err(explain)?;
    serde_json::from_slice(bytes).map_err(explain)
}

/// Walks a value without keeping it.
#[derive(Clone, Copy)]
struct Walk {
    depth: usize,
}

impl Walk {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == DEEPEST {
            return Err(E::custom("it is nested too deeply"));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut keys = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if keys.contains(&key) {
                let _ = entries.next_value::<IgnoredAny>();
                return Err(A::Error::custom(format!("the key `{key}` stands twice in an object")));
            }
            keys.insert(key);
            entries.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::decode;

    #[test]
    fn a_key_may_stand_once() {
        assert!(decode::<Value>(br#"{"a": {"b": 1}, "b": [null, true, 1.5, -2, "x"]}"#).is_ok());
        let failure = decode::<Value>(br#"[{"a": 1, "a": 2}]"#).expect_err("twice");
        assert!(failure.message().contains("`a` stands twice"), "{}", failure.message());
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(decode::<Value>(nested(64).as_bytes()).is_ok());
        assert!(decode::<Value>(nested(65).as_bytes()).is_err());
        assert!(decode::<Value>(nested(100_000).as_bytes()).is_err());
    }

    #[test]
    fn what_follows_the_value_is_refused() {
        assert!(decode::<Value>(b"{} {}").is_err());
        assert!(decode::<Value>(b"").is_err());
    }
}
