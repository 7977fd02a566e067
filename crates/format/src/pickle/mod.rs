//! Pickles, read and never run: which names a pickle would import, and whether it is what it seems.
//!
//! A pickle is a program for a small machine. [`Walker`] takes its bytes as they come, follows
//! stack, marks and memo as far as names of imports go, and reports every import. Whoever loads the
//! pickle runs what these names stand for, so a pickle is safe only if each name is on a list of
//! names that are known to do no harm, and if it was followed to its end. It promises bounded
//! memory, never panics, and stops where Python's own reader would stop; what it can't follow is a
//! [`Problem`], never safe. It does not say what a harmful pickle would do.

use std::collections::BTreeMap;
use std::fmt;

mod allow;
mod array;
mod machine;
mod opcode;
#[cfg(test)]
mod tests;
mod value;
mod walker;

pub use allow::safety;
pub use walker::{Progress, Walker};

/// Imports that are kept of one pickle; more than that is a [`Problem`].
pub const MAX_IMPORTS: usize = 1000;
/// Bytes of a name that are kept.
pub const MAX_NAME_BYTES: usize = 256;
/// Values that wait on the stack.
const MAX_STACK: usize = 1 << 18;
/// Values that the memo holds.
const MAX_MEMO: usize = 1 << 19;
/// Texts that are kept because they may be names, in bytes.
const MAX_TEXT_BYTES: usize = 32 << 20;
/// Storages of tensors that a pickle may name.
const MAX_STORAGES: usize = 200_000;

/// Which edition of the rules this is: the list of names, and what is looked at. A verdict of
/// another edition is made anew.
pub const RULES: u32 = 1;

/// What an import may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Safety {
    /// It is on the list of names that do no harm.
    Innocuous,
    /// It names a part of a program in `TorchScript`, which runs in a machine of its own.
    Suspicious,
    /// It is not on the list.
    Dangerous,
}

impl Safety {
    /// The word that clients know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Innocuous => "innocuous",
            Self::Suspicious => "suspicious",
            Self::Dangerous => "dangerous",
        }
    }
}

/// A name that a pickle imports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Import {
    /// The module, as the pickle has it.
    pub module: String,
    /// The name in the module; may have dots.
    pub name: String,
    /// What it may do.
    pub safety: Safety,
}

/// Why a pickle is not to be trusted although none of the names that were found is dangerous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Problem {
    /// It ends before it says so.
    Truncated,
    /// A byte is no instruction, or an instruction's argument makes no sense.
    Malformed,
    /// It takes from the stack, or from the memo, what is not there.
    Underflow,
    /// Its protocol is newer than those that are known.
    Protocol,
    /// It needs more stack, memo or names than are followed.
    TooLarge,
    /// A name that it imports is computed.
    ComputedImport,
    /// It imports by a number that only the loading program can resolve.
    Extension,
    /// It calls what was not imported by name.
    ComputedCall,
    /// It changes what it imported.
    ChangesImport,
    /// An array in the stream is not laid out so that all readers agree where it ends.
    Array,
    /// Something follows the last pickle.
    Trailing,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the pickle ends too early",
            Self::Malformed => "the pickle has an instruction that there is not",
            Self::Underflow => "the pickle uses values that are not there",
            Self::Protocol => "the pickle has an unknown protocol",
            Self::TooLarge => "the pickle is larger than is followed",
            Self::ComputedImport => "the pickle computes a name that it imports",
            Self::Extension => "the pickle imports by a number",
            Self::ComputedCall => "the pickle calls what it did not import by name",
            Self::ChangesImport => "the pickle changes what it imports",
            Self::Array => "the pickle holds an array that readers may disagree about",
            Self::Trailing => "something follows the last pickle",
        })
    }
}

/// What was found in one pickle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Each import once, in the order in which they came.
    pub imports: Vec<Import>,
    /// What was wrong, each once, in order.
    pub problems: Vec<Problem>,
    /// How often something is called or given a state.
    pub calls: u64,
    /// The storages of tensors that it names by persistent ids, with their sizes in bytes.
    pub storages: BTreeMap<String, u64>,
    /// Whether all persistent ids were such storages of a known size.
    pub storages_known: bool,
    /// The number that the whole pickle is, if it is one; in the form of little-endian bytes.
    pub number: Option<Vec<u8>>,
}

impl Report {
    /// Notes a problem, once.
    pub fn note(&mut self, problem: Problem) {
        if let Err(at) = self.problems.binary_search(&problem) {
            self.problems.insert(at, problem);
        }
    }

    /// Whether it imports a name that is not on the list.
    pub fn is_dangerous(&self) -> bool {
        self.imports.iter().any(|import| import.safety == Safety::Dangerous)
    }
}
