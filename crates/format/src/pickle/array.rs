//! Arrays that `joblib` writes into the stream, behind the instruction that describes them.

use super::value::Value;

/// The most that an array's beginning is moved by.
const MAX_ALIGNMENT: u64 = 16;

/// What follows in the stream instead of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inline {
    /// A byte that says how much padding follows, at most this many, and then so many bytes.
    Bytes { alignment: u64, length: u64 },
    /// A pickle of its own.
    Pickle,
}

/// What the state of an array's description says; `None` where readers may disagree about it.
/// Which imports are numpy's types, `is_dtype` knows.
pub(super) fn described(
    state: &[(std::sync::Arc<str>, Value)],
    is_dtype: impl Fn(usize) -> bool,
) -> Option<Inline> {
    let get = |key: &str| {
        // The last one counts, as in a dictionary.
        state.iter().rev().find(|(name, _)| &**name == key).map(|(_, value)| value)
    };
    let Some(Value::Made(import, Some(dtype))) = get("dtype") else { return None };
    if !is_dtype(*import) {
        return None;
    }
    let item = item_bytes(dtype)?;
    let mut length = match item {
        Item::Object => return Some(Inline::Pickle),
        Item::Bytes(bytes) => bytes,
    };
    for side in get("shape")?.items()? {
        length = length.checked_mul(side.count()?)?;
    }
    // Without alignment the array's own first byte would be the next instruction for a reader that
    // does not know of arrays.
    let alignment = get("numpy_array_alignment_bytes")?.count()?;
    (1..=MAX_ALIGNMENT).contains(&alignment).then_some(Inline::Bytes { alignment, length })
}

enum Item {
    Object,
    Bytes(u64),
}

/// How long an element of a type such as `f8` is.
fn item_bytes(dtype: &str) -> Option<Item> {
    let dtype = dtype.trim_start_matches(['<', '>', '=', '|']);
    let kind = dtype.chars().next()?;
    let size = &dtype[kind.len_utf8()..];
    if kind == 'O' {
        return Some(Item::Object);
    }
    if size.is_empty() || !size.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let size: u64 = size.parse().ok()?;
    match kind {
        'b' | 'i' | 'u' | 'f' | 'c' => Some(Item::Bytes(size)),
        // Texts may change their length with their state, and records may hold objects.
        _ => None,
    }
}
