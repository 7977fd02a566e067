//! What a GGUF file says of the model in it: architecture, context length, parameters.
//!
//! The header is a list of typed values and a list of tensors, both of lengths that it states
//! itself. It is walked piece by piece; vocabularies, which make most of it, are passed over.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::feed::{Feed, Halt};

/// How much of a file is walked; headers with a vocabulary have some 10 MB.
pub const MAX_HEADER_BYTES: u64 = 32 << 20;
/// The longest text that is kept; chat templates are the longest that matter.
const MAX_TEXT_BYTES: u64 = 64 << 10;
const MAX_KEY_BYTES: u64 = 64 << 10;
/// How many values at most are kept until the architecture is known.
const MAX_CONTEXTS: usize = 16;
/// The format allows four.
const MAX_DIMENSIONS: u32 = 8;
/// How deep arrays may lie in arrays.
const MAX_DEPTH: u32 = 2;

/// What is known of the model in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gguf {
    /// Parameters in all.
    pub total: u64,
    /// Such as `llama`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Tokens that it was trained to look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    /// How a conversation is written for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
}

/// The types of values.
mod kind {
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
    pub(super) const U64: u32 = 10;
    pub(super) const I64: u32 = 11;

    /// The bytes of a value whose length is fixed.
    pub(super) fn width(kind: u32) -> Option<u64> {
        match kind {
            // u8, i8, bool
            0 | 1 | 7 => Some(1),
            // u16, i16
            2 | 3 => Some(2),
            // u32, i32, f32
            U32 | I32 | 6 => Some(4),
            // u64, i64, f64
            U64 | I64 | 12 => Some(8),
            _ => None,
        }
    }
}

/// A value that may matter.
enum Kept {
    Text(String),
    Number(u64),
    Nothing,
}

/// Walks a header.
pub async fn read(feed: &mut Feed) -> Result<Gguf, Halt> {
    if &feed.array::<4>().await? != b"GGUF" {
        return Err(Halt::Malformed("the file is not GGUF"));
    }
    // The first version had counts of four bytes and is not written any more; versions for
    // machines with the big end first have another number here.
    if !matches!(feed.u32().await?, 2 | 3) {
        return Err(Halt::Malformed("this version of GGUF is not known"));
    }
    let tensors = feed.u64().await?;
    let values = feed.u64().await?;
    let mut gguf = Gguf::default();
    let mut contexts = BTreeMap::new();
    for _ in 0..values {
        let key = text(feed, MAX_KEY_BYTES).await?;
        let key = key.ok_or(Halt::Malformed("a key is too long"))?;
        let context = key.strip_suffix(".context_length");
        let is_kept = context.is_some()
            || matches!(key.as_str(), "general.architecture" | "tokenizer.chat_template");
        match (key.as_str(), value(feed, is_kept).await?) {
            ("general.architecture", Kept::Text(name)) => gguf.architecture = Some(name),
            ("tokenizer.chat_template", Kept::Text(template)) => {
                gguf.chat_template = Some(template);
            }
            (_, Kept::Number(length)) if contexts.len() < MAX_CONTEXTS => {
                if let Some(architecture) = context {
                    contexts.insert(architecture.to_owned(), length);
                }
            }
            _ => {}
        }
    }
    gguf.context_length = gguf.architecture.as_ref().and_then(|name| contexts.remove(name));
    gguf.total = elements(feed, tensors).await?;
    Ok(gguf)
}

/// The files of a model that is split as `name-00001-of-00003.gguf`, by the name of one of them.
pub fn parts(path: &str) -> Option<Vec<String>> {
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    let (name, count) = path.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (name, number) = name.rsplit_once('-')?;
    if !is_number(number) || !is_number(count) {
        return None;
    }
    let last: u32 = count.parse().ok()?;
    Some((1..=last).map(|part| format!("{name}-{part:05}-of-{count}.gguf")).collect())
}

/// Adds up the elements of all tensors. Each step takes bytes of the feed, which has a limit.
async fn elements(feed: &mut Feed, tensors: u64) -> Result<u64, Halt> {
    let mut total = 0_u64;
    for _ in 0..tensors {
        let name = feed.u64().await?;
        feed.skip(name).await?;
        let dimensions = feed.u32().await?;
        if dimensions > MAX_DIMENSIONS {
            return Err(Halt::Malformed("a tensor has too many dimensions"));
        }
        let mut count = 1_u64;
        for _ in 0..dimensions {
            let size = feed.u64().await?;
            count = count.checked_mul(size).ok_or(Halt::Malformed("a tensor is too large"))?;
        }
        // Its type and where its data lies.
        feed.skip(4 + 8).await?;
        total = total.checked_add(count).ok_or(Halt::Malformed("there are too many parameters"))?;
    }
    Ok(total)
}

/// Text, or `None` where it is longer than `limit` and has been passed over.
async fn text(feed: &mut Feed, limit: u64) -> Result<Option<String>, Halt> {
    let length = feed.u64().await?;
    if length > limit {
        feed.skip(length).await?;
        return Ok(None);
    }
    let bytes = feed.bytes(length).await?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// One value with its type before it.
async fn value(feed: &mut Feed, is_kept: bool) -> Result<Kept, Halt> {
    let what = feed.u32().await?;
    if !is_kept {
        skip(feed, what).await?;
        return Ok(Kept::Nothing);
    }
    Ok(match what {
        kind::STRING => text(feed, MAX_TEXT_BYTES).await?.map_or(Kept::Nothing, Kept::Text),
        kind::U32 => Kept::Number(u64::from(feed.u32().await?)),
        kind::U64 => Kept::Number(feed.u64().await?),
        kind::I32 => {
            let number = i32::from_le_bytes(feed.array().await?);
            u64::try_from(number).map_or(Kept::Nothing, Kept::Number)
        }
        kind::I64 => {
            let number = i64::from_le_bytes(feed.array().await?);
            u64::try_from(number).map_or(Kept::Nothing, Kept::Number)
        }
        other => {
            skip(feed, other).await?;
            Kept::Nothing
        }
    })
}

/// Passes over a value, or over the items of an array and of arrays in it.
async fn skip(feed: &mut Feed, what: u32) -> Result<(), Halt> {
    // The arrays that are open: the type of their items and how many are still to come.
    let mut open = vec![(what, 1_u64)];
    while let Some((what, left)) = open.last_mut() {
        let what = *what;
        if let Some(width) = kind::width(what) {
            let length = width.checked_mul(*left).ok_or(Halt::Malformed("an array is too long"))?;
            open.pop();
            feed.skip(length).await?;
            continue;
        }
        let Some(rest) = left.checked_sub(1) else {
            open.pop();
            continue;
        };
        *left = rest;
        match what {
            kind::STRING => {
                let length = feed.u64().await?;
                feed.skip(length).await?;
            }
            kind::ARRAY if open.len() <= MAX_DEPTH as usize => {
                let items = feed.u32().await?;
                let count = feed.u64().await?;
                open.push((items, count));
            }
            kind::ARRAY => return Err(Halt::Malformed("arrays are nested too deeply")),
            _ => return Err(Halt::Malformed("a value has an unknown type")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::feed::tests::streamed;
    use super::*;

    #[derive(Default)]
    struct Writer(Vec<u8>);

    impl Writer {
        fn new(version: u32, tensors: u64, values: u64) -> Self {
            let mut writer = Self(b"GGUF".to_vec());
            writer.u32(version).u64(tensors).u64(values);
            writer
        }

        fn u32(&mut self, number: u32) -> &mut Self {
            self.0.extend_from_slice(&number.to_le_bytes());
            self
        }

        fn u64(&mut self, number: u64) -> &mut Self {
            self.0.extend_from_slice(&number.to_le_bytes());
            self
        }

        fn text(&mut self, text: &str) -> &mut Self {
            self.u64(text.len() as u64).0.extend_from_slice(text.as_bytes());
            self
        }

        fn tensor(&mut self, name: &str, shape: &[u64]) -> &mut Self {
            self.text(name).u32(u32::try_from(shape.len()).expect("it is short"));
            for size in shape {
                self.u64(*size);
            }
            self.u32(0).u64(0)
        }
    }

    fn model() -> Writer {
        let mut file = Writer::new(3, 2, 6);
        file.text("llama.context_length").u32(kind::U32).u32(4096);
        file.text("general.architecture").u32(kind::STRING).text("llama");
        file.text("tokenizer.ggml.tokens").u32(kind::ARRAY).u32(kind::STRING).u64(3);
        file.text("<s>").text("").text("</s>");
        file.text("tokenizer.ggml.scores").u32(kind::ARRAY).u32(6).u64(3).u32(0).u32(0).u32(0);
        file.text("other.context_length").u32(kind::U64).u64(1);
        file.text("tokenizer.chat_template").u32(kind::STRING).text("{{ messages }}");
        file.tensor("a", &[10, 20]).tensor("b", &[5]);
        file
    }

    async fn parse(file: &[u8], piece: usize) -> Result<Gguf, Halt> {
        read(&mut Feed::new(streamed(file, piece), MAX_HEADER_BYTES)).await
    }

    #[tokio::test]
    async fn a_header_is_walked_in_pieces_of_any_size() {
        let expected = Gguf {
            total: 205,
            architecture: Some("llama".into()),
            context_length: Some(4096),
            chat_template: Some("{{ messages }}".into()),
        };
        for piece in [1, 3, 17, 1 << 20] {
            assert_eq!(parse(&model().0, piece).await.ok(), Some(expected.clone()));
        }
    }

    #[test]
    fn a_split_model_has_as_many_files_as_its_name_says() {
        let expected = ["q4/m-00001-of-00002.gguf", "q4/m-00002-of-00002.gguf"];
        let found = parts("q4/m-00001-of-00002.gguf").expect("it is split");
        assert_eq!(found, expected);
        for whole in ["m.gguf", "m-1-of-2.gguf", "m-00001-of-00002.bin", "-of-.gguf"] {
            assert_eq!(parts(whole), None, "{whole}");
        }
    }

    #[tokio::test]
    async fn a_header_that_is_cut_anywhere_is_refused() {
        let file = model().0;
        for length in 0..file.len() {
            assert!(parse(&file[..length], 64).await.is_err(), "{length}");
        }
    }

    #[tokio::test]
    async fn claims_of_any_size_cost_nothing() {
        let long = u64::MAX;
        let mut files = vec![Writer::new(3, long, 0), Writer::new(3, 0, long)];
        let mut file = Writer::new(3, 0, 1);
        file.u64(long);
        files.push(file);
        for (what, items) in [(kind::STRING, long), (kind::U64, long), (kind::U64, long / 8)] {
            let mut file = Writer::new(3, 0, 1);
            file.text("k").u32(kind::ARRAY).u32(what).u64(items);
            files.push(file);
        }
        let mut file = Writer::new(3, 1, 0);
        file.text("t").u32(2).u64(long).u64(2).u32(0).u64(0);
        files.push(file);
        let mut file = Writer::new(3, 1, 0);
        file.text("t").u32(u32::MAX);
        files.push(file);
        for file in files {
            assert!(parse(&file.0, 64).await.is_err());
        }
    }

    #[tokio::test]
    async fn nested_arrays_end_at_the_limit() {
        for (depth, is_read) in [(1, true), (2, true), (3, false), (1000, false)] {
            let mut file = Writer::new(3, 0, 1);
            file.text("k").u32(kind::ARRAY);
            for _ in 1..depth {
                file.u32(kind::ARRAY).u64(1);
            }
            file.u32(kind::U32).u64(1).u32(7);
            assert_eq!(parse(&file.0, 64).await.is_ok(), is_read, "{depth}");
        }
        // Arrays of nothing take no bytes of the file for their items, so they may not be many.
        let mut file = Writer::new(3, 0, 1);
        file.text("k").u32(kind::ARRAY).u32(kind::ARRAY).u64(u64::MAX);
        assert!(parse(&file.0, 64).await.is_err());
    }

    #[tokio::test]
    async fn other_files_are_refused() {
        assert!(parse(b"", 1).await.is_err());
        assert!(parse(b"GGML\x03\0\0\0", 8).await.is_err());
        assert!(parse(&Writer::new(1, 0, 0).0, 8).await.is_err());
        assert!(parse(&Writer::new(3, 0, 0).0, 8).await.is_ok());
    }

    proptest! {
        #[test]
        fn noise_never_panics(
            noise in prop::collection::vec(any::<u8>(), 0..400),
            at in 0_usize..200,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("it can");
            let mut file = Writer::new(3, 3, 3).0;
            file.extend_from_slice(&noise);
            let _ = runtime.block_on(parse(&file, 16));
            let mut file = model().0;
            for (n, byte) in noise.iter().take(8).enumerate() {
                let length = file.len();
                file[(at + n * 7) % length] = *byte;
            }
            let _ = runtime.block_on(parse(&file, 16));
        }
    }
}
