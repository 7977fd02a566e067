//! What the machine knows of a value: as much as names, shapes and calls need, and no more.
//!
//! Values own nothing deep, so that what is dropped is dropped in a few steps whatever the pickle
//! built.

use std::sync::Arc;

/// Elements of a tuple that is kept.
pub(super) const MAX_TUPLE: usize = 8;
/// How deep kept tuples stand in each other.
const MAX_DEPTH: u8 = 3;

/// A value on the stack or in the memo.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// One of which nothing needs to be known.
    Other,
    /// A whole number.
    Int(i64),
    /// A text that may be a name.
    Text(Arc<str>),
    /// An import, by its number.
    Global(usize),
    /// What a call of an import gave, with the text that was its first argument.
    Made(usize, Option<Arc<str>>),
    /// A short tuple, and how deep it is.
    Tuple(Arc<[Self]>, u8),
    /// A small dictionary, by its number.
    Dict(u64),
}

impl Value {
    /// A tuple, kept if it is short and flat.
    pub(super) fn tuple(items: &[Self]) -> Self {
        let depth = |item: &Self| if let Self::Tuple(_, depth) = item { depth + 1 } else { 0 };
        let deepest = items.iter().map(depth).max().unwrap_or(0);
        if items.len() > MAX_TUPLE || deepest > MAX_DEPTH {
            return Self::Other;
        }
        Self::Tuple(items.into(), deepest)
    }

    pub(super) fn text(&self) -> Option<&Arc<str>> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn items(&self) -> Option<&[Self]> {
        match self {
            Self::Tuple(items, _) => Some(items),
            _ => None,
        }
    }

    pub(super) fn count(&self) -> Option<u64> {
        match self {
            Self::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }
}

/// Whether a text may be a module, a name, a key or a type: others are forgotten.
pub(super) fn may_be_name(bytes: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"_.<>=|-:/ ".contains(b);
    bytes.len() <= super::MAX_NAME_BYTES && bytes.iter().all(plain)
}
