//! YAML from strangers as JSON values: bounded in depth, nodes, aliases and bytes.
//!
//! Every card and evaluation file passes here. A document that says a key twice, nests too deeply
//! or grows by aliases is refused with the line where it happens; nothing is guessed.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy, Options};

/// The longest document that is read; cards of datasets with many configurations are long.
pub const MAX_YAML_BYTES: usize = 1 << 20;
/// How deep lists and mappings may be nested.
const MAX_DEPTH: usize = 32;
/// Nodes in a document.
const MAX_NODES: usize = 100_000;
/// Nodes that aliases may add; tools write a few for values that occur twice.
const MAX_REPLAYED: usize = 20_000;
/// Bytes of text in the result, aliases resolved.
const MAX_TEXT_BYTES: usize = 4 << 20;

/// Why a document is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line of the document, from 1, where it is known.
    pub line: Option<u64>,
    /// What is wrong there.
    pub message: String,
}

/// Reads one document.
pub fn parse(text: &str) -> Result<Value, Fault> {
    if text.len() > MAX_YAML_BYTES {
        let message = format!("it is longer than {MAX_YAML_BYTES} bytes");
        return Err(Fault { line: None, message });
    }
    let left = Cell::new(MAX_TEXT_BYTES);
    serde_saphyr::with_deserializer_from_str_with_options(text, options(), |deserializer| {
        Node { left: &left }.deserialize(deserializer)
    })
    .map_err(|error| {
        let line = error.location().map(|location| location.line());
        let message = error.without_snippet().to_string();
        Fault { line, message: message.chars().take(500).collect() }
    })
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_documents: 1,
            max_aliases: MAX_REPLAYED,
            max_anchors: MAX_REPLAYED,
            max_recorded_anchor_events: 4 * MAX_NODES,
            max_recorded_anchor_bytes: MAX_TEXT_BYTES,
            max_total_scalar_bytes: MAX_TEXT_BYTES,
            max_merge_keys: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED,
            max_replay_stack_depth: 8,
            max_alias_expansions_per_anchor: 1_000,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        // `language: no` is Norwegian.
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

/// Builds a value and counts the bytes of text in it, however often an alias repeats them.
#[derive(Clone, Copy)]
struct Node<'a> {
    left: &'a Cell<usize>,
}

impl Node<'_> {
    fn spend<E: serde::de::Error>(self, bytes: usize) -> Result<(), E> {
        // Empty values cost too: each is a node in memory.
        let left = self.left.get().checked_sub(bytes + 16);
        self.left
            .set(left.ok_or_else(|| E::custom("it is too long once its aliases are resolved"))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("YAML")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        self.spend(0)?;
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.spend(0)?;
        Ok(Value::from(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.spend(0)?;
        Ok(Value::from(value))
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Value, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Value, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        self.spend(0)?;
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.spend(value.len())?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        self.spend(value.len())?;
        Ok(Value::String(value))
    }

    fn visit_bytes<E: serde::de::Error>(self, value: &[u8]) -> Result<Value, E> {
        self.visit_str(&String::from_utf8_lossy(value))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        self.spend(0)?;
        Ok(Value::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(self)? {
            let key = match key {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(value) => value.to_string(),
                Value::Null => "null".to_owned(),
                Value::Array(_) | Value::Object(_) => {
                    return Err(A::Error::custom("a key is a list or a mapping"));
                }
            };
            let value = entries.next_value_seed(self)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_documents_become_the_json_that_they_mean() {
        let text = "language:\n- no\n- en\nlicense: mit\nsize: 12\nratio: 0.5\nok: true\nnone: ~\n\
                    date: 2024-01-02\nversion: \"1.0\"\n1: one\n";
        let expected = json!({
            "language": ["no", "en"], "license": "mit", "size": 12, "ratio": 0.5, "ok": true,
            "none": null, "date": "2024-01-02", "version": "1.0", "1": "one",
        });
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn what_is_not_a_number_stays_text() {
        assert_eq!(parse("a: .nan\nb: -.inf\n"), Ok(json!({"a": ".nan", "b": "-.inf"})));
        let long = "123456789012345678901234567890";
        assert_eq!(parse(&format!("a: {long}")).map(|v| v["a"].is_null()), Ok(false));
    }

    #[test]
    fn faults_name_their_line() {
        let fault = parse("a: 1\nb: [1,\n").expect_err("it is cut off");
        assert!(fault.line.is_some(), "{fault:?}");
        assert!(!fault.message.is_empty());
        let fault = parse("a: 1\na: 2\n").expect_err("twice");
        assert_eq!(fault.line, Some(2), "{fault:?}");
    }

    #[test]
    fn aliases_are_resolved_but_not_for_ever() {
        let text = "a: &x [1, 2]\nb: *x\n";
        assert_eq!(parse(text), Ok(json!({"a": [1, 2], "b": [1, 2]})));
        let mut bomb = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
        for level in 1..12 {
            let before = level - 1;
            bomb.push_str(&format!("a{level}: &a{level} ["));
            bomb.push_str(&format!("*a{before}, ").repeat(9));
            bomb.push_str("]\n");
        }
        assert!(parse(&bomb).is_err());
    }

    #[test]
    fn long_text_is_not_multiplied_by_aliases() {
        let long = "x".repeat(500_000);
        let text = format!("a: &x {long}\nb: [{}]\n", "*x, ".repeat(900));
        assert!(parse(&text).is_err());
    }

    #[test]
    fn depth_and_length_have_limits() {
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&format!("{}{}", "[".repeat(64), "]".repeat(64))).is_err());
        assert!(parse(&format!("{}{}", "[".repeat(16), "]".repeat(16))).is_ok());
        let lines: Vec<String> = (0..200).map(|n| " ".repeat(n) + "a:\n").collect();
        let deep = lines.concat();
        assert!(parse(&deep).is_err());
        assert!(parse(&"a".repeat(MAX_YAML_BYTES + 1)).is_err());
        assert!(parse(&"- a\n".repeat(MAX_NODES + 1)).is_err());
    }

    proptest! {
        #[test]
        fn noise_is_refused_or_read(text in "[-: \\[\\]{}&*!|>'\"%@`#,?a-z0-9\n\t~<=.]{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn any_text_is_refused_or_read(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn json_is_yaml(words in prop::collection::vec("[a-z]{1,12}", 0..20)) {
            let value = json!({ "words": words });
            prop_assert_eq!(parse(&value.to_string()), Ok(value));
        }
    }
}
