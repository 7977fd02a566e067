//! What goes wrong at the fake hub: at random, by a seed, or always in one way.

use std::time::Duration;

/// What goes wrong at random, out of a thousand requests; and what is always so.
#[derive(Clone, Debug, Default)]
pub struct Troubles {
    /// The answer is 503.
    pub unavailable: u32,
    /// The connection is cut instead of an answer.
    pub reset: u32,
    /// The answer is 200 and a page that says nothing.
    pub html: u32,
    /// A file's bytes end early.
    pub truncated: u32,
    /// One of a file's bytes is another one.
    pub corrupted: u32,
    /// More bytes come than were promised.
    pub longer: u32,
    /// How long a body waits before each piece of 64 KiB.
    pub pause: Option<Duration>,
    /// How long every answer waits.
    pub latency: Option<Duration>,
    /// Files are sent whole, whatever range is asked for.
    pub no_ranges: bool,
    /// So many requests of one class may be made in such a window.
    pub limit: Option<(u64, Duration)>,
    /// Where a file's bytes come from.
    pub redirect: Redirect,
    /// A lie that is always told.
    pub lie: Option<Lie>,
}

/// Where a file's bytes come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Redirect {
    /// From where they are asked for.
    #[default]
    Here,
    /// From another host, by an address that is signed, for large files.
    Elsewhere,
    /// From this address, whatever is there.
    To(String),
    /// From where they are asked for, for ever.
    Loop,
}

/// A lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Files are of another commit than was asked for.
    Commit,
    /// Files have another `ETag` than the tree says.
    Etag,
    /// Files have another size than the tree says, and as many bytes.
    Size,
    /// What comes is another range than was asked for, and it says so.
    Range,
    /// A revision is another commit than was asked for.
    Revision,
    /// A tree has a path that leads out of it.
    Path,
    /// A tree has the same path twice.
    Twice,
    /// A large file has two sizes.
    TwoSizes,
    /// The next page is somewhere else.
    NextPage,
    /// The pages have no end: each is the same.
    Endless,
    /// What a tree lists has no hashes.
    NoHashes,
    /// Answers are larger than anything reasonable.
    Huge,
    /// Every 404 is a page of something else.
    NotFound,
    /// Bytes of a file are wrong.
    Bytes,
    /// Chunks are wrong.
    Chunks,
    /// Files are said to be made of other chunks.
    Terms,
}
