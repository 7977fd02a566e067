//! Commits: operations on paths, written as packs, and visible with one log entry.

mod attributes;
mod draft;
mod folder;
mod preupload;
mod write;

pub use draft::{CommitHeader, Committed, Draft};
pub use preupload::{Asked, Verdict};
pub use write::StoredFile;

/// What the first commit of a repo holds.
const ATTRIBUTES_PATH: &str = ".gitattributes";

/// Regular files may have so many bytes; what is larger is a large file.
pub const MAX_REGULAR_BYTES: u64 = 10 << 20;
