//! How many parameters of which type a safetensors file holds: from its header, without its data.
//!
//! A header is JSON with one entry for each tensor. It is added up while it is parsed; no table of
//! the tensors is made, and a header that is damaged counts for nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::Visitor;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess};
use serde::{Deserialize, Serialize};

use super::feed::{Feed, Halt};

/// The longest header that is read. The format allows 100 MB; those of real models, split into
/// files as they are, have some hundred KB.
pub const MAX_HEADER_BYTES: u64 = 25 << 20;
/// The types that the format knows are fewer.
const MAX_TYPES: usize = 64;
const MAX_TYPE_BYTES: usize = 16;

/// Parameters in all and by type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// By type, as the files spell it: `BF16`.
    pub parameters: BTreeMap<String, u64>,
    /// Their sum.
    pub total: u64,
}

impl Parameters {
    fn add(&mut self, kind: &str, count: u64) -> Result<(), &'static str> {
        let is_plain = kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if kind.is_empty() || kind.len() > MAX_TYPE_BYTES || !is_plain {
            return Err("a tensor has a type of no known form");
        }
        let total = self.total.checked_add(count).ok_or("there are too many parameters")?;
        if let Some(sum) = self.parameters.get_mut(kind) {
            *sum += count;
        } else if self.parameters.len() == MAX_TYPES {
            return Err("there are too many types");
        } else {
            self.parameters.insert(kind.to_owned(), count);
        }
        self.total = total;
        Ok(())
    }

    /// Adds what another file of the same model holds.
    pub fn merge(&mut self, other: &Self) -> Result<(), &'static str> {
        other.parameters.iter().try_for_each(|(kind, count)| self.add(kind, *count))
    }
}

/// The header of a file: the JSON text, or why there is none.
pub async fn header(feed: &mut Feed) -> Result<Vec<u8>, Halt> {
    let length = feed.u64().await?;
    if length < 2 || length > feed.left() {
        return Err(Halt::Malformed("the header's length is not that of a safetensors file"));
    }
    feed.bytes(length).await
}

/// Adds a header up.
pub fn tally(header: &[u8]) -> Result<Parameters, Halt> {
    let mut parameters = Parameters::default();
    let mut reader = serde_json::Deserializer::from_slice(header);
    Tensors(&mut parameters)
        .deserialize(&mut reader)
        .and_then(|()| reader.end())
        .map_err(|_| Halt::Malformed("the header is not that of a safetensors file"))?;
    Ok(parameters)
}

struct Tensors<'a>(&'a mut Parameters);

impl<'de> DeserializeSeed<'de> for Tensors<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Tensors<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a mapping of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(name) = entries.next_key::<Text<'de>>()? {
            if name.0 == "__metadata__" {
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
            let tensor = entries.next_value::<Tensor<'de>>()?;
            self.0.add(&tensor.dtype.0, tensor.shape.0).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Tensor<'a> {
    #[serde(borrow)]
    dtype: Text<'a>,
    shape: Elements,
}

/// Text that is not copied where the JSON has it as it is.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The product of a shape.
struct Elements(u64);

impl<'de> Deserialize<'de> for Elements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Product;

        impl<'de> Visitor<'de> for Product {
            type Value = Elements;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sizes: A) -> Result<Elements, A::Error> {
                let mut product = 1_u64;
                while let Some(size) = sizes.next_element::<u64>()? {
                    let next = product.checked_mul(size);
                    product = next.ok_or_else(|| A::Error::custom("a tensor is too large"))?;
                }
                Ok(Elements(product))
            }
        }

        deserializer.deserialize_seq(Product)
    }
}

/// The files that an index of a split model names, each once, in order.
pub fn shards(index: &[u8]) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let mut reader = serde_json::Deserializer::from_slice(index);
    let index = Index::deserialize(&mut reader).ok()?;
    let files: std::collections::BTreeSet<String> = index.weight_map.into_values().collect();
    Some(files.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::feed::tests::streamed;
    use super::*;

    fn file(header: &Value) -> Vec<u8> {
        let text = header.to_string();
        let mut file = (text.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(text.as_bytes());
        file
    }

    async fn read(file: &[u8], piece: usize) -> Result<Parameters, Halt> {
        let mut feed = Feed::new(streamed(file, piece), MAX_HEADER_BYTES);
        tally(&header(&mut feed).await?)
    }

    #[tokio::test]
    async fn parameters_are_added_up_by_type() {
        let mut file = file(&json!({
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "BF16", "shape": [10, 20], "data_offsets": [0, 400]},
            "b": {"dtype": "BF16", "shape": [], "data_offsets": [400, 402]},
            "c\"": {"dtype": "F32", "shape": [3], "data_offsets": [402, 414]},
            "d": {"dtype": "I8", "shape": [0, 7], "data_offsets": [414, 414]},
        }));
        file.extend_from_slice(&[1; 1000]);
        for piece in [1, 5, 4096] {
            let parameters = read(&file, piece).await.expect("it is well formed");
            assert_eq!(parameters.total, 204);
            let by_type: Vec<_> = parameters.parameters.into_iter().collect();
            let expected = [("BF16", 201), ("F32", 3), ("I8", 0)];
            assert_eq!(by_type, expected.map(|(kind, count)| (kind.to_owned(), count)));
        }
    }

    #[tokio::test]
    async fn lies_about_lengths_and_shapes_are_refused() {
        for length in [0, 1, MAX_HEADER_BYTES, u64::MAX] {
            let mut file = length.to_le_bytes().to_vec();
            file.extend_from_slice(b"{}");
            assert!(read(&file, 64).await.is_err(), "{length}");
        }
        let tensor = |dtype: Value, shape: Value| json!({"a": {"dtype": dtype, "shape": shape}});
        for header in [
            tensor(json!("F32"), json!([u64::MAX, 2])),
            tensor(json!("F32"), json!([-1])),
            tensor(json!("F32"), json!([1.5])),
            tensor(json!("a type as long as a sentence"), json!([1])),
            tensor(json!(""), json!([1])),
            tensor(json!(32), json!([1])),
            json!({"a": {"shape": [1]}}),
            json!([]),
        ] {
            assert!(read(&file(&header), 64).await.is_err(), "{header}");
        }
    }

    #[test]
    fn as_many_types_as_one_likes_are_refused() {
        let tensor = |n: usize| (format!("t{n}"), json!({"dtype": format!("T{n}"), "shape": [1]}));
        let header = Value::Object((0..=MAX_TYPES).map(tensor).collect());
        assert!(tally(header.to_string().as_bytes()).is_err());
    }

    #[test]
    fn sums_do_not_overflow() {
        let mut sum = Parameters::default();
        let half = tally(format!(r#"{{"a":{{"dtype":"F32","shape":[{}]}}}}"#, u64::MAX).as_bytes());
        let half = half.expect("it is one tensor");
        assert!(sum.merge(&half).is_ok());
        assert!(sum.merge(&half).is_err());
    }

    #[test]
    fn an_index_names_each_file_once() {
        let index = json!({"metadata": {}, "weight_map": {"a": "2", "b": "1", "c": "2"}});
        assert_eq!(shards(index.to_string().as_bytes()), Some(vec!["1".into(), "2".into()]));
        assert_eq!(shards(b"{}"), None);
        assert_eq!(shards(b"[1"), None);
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..300)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("it can");
            let _ = runtime.block_on(read(&noise, 16));
            let _ = tally(&noise);
            let _ = shards(&noise);
        }

        #[test]
        fn sums_are_those_of_the_shapes(shapes in prop::collection::vec(
            prop::collection::vec(0_u64..50, 0..4), 0..30,
        )) {
            let tensor = |(n, shape): (usize, &Vec<u64>)| {
                (format!("t{n}"), json!({"dtype": "F16", "shape": shape, "data_offsets": [0, 0]}))
            };
            let header = Value::Object(shapes.iter().enumerate().map(tensor).collect());
            let parameters = tally(header.to_string().as_bytes()).expect("it is well formed");
            let expected: u64 = shapes.iter().map(|shape| shape.iter().product::<u64>()).sum();
            prop_assert_eq!(parameters.total, expected);
        }
    }
}
