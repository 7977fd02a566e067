//! What a Xet client makes of a file before it sends it.

pub(crate) use ballast_testkit::xet::{Packed, ShardFile, pack, shard};
