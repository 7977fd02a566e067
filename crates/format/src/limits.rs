//! Every maximum that the formats have, each with its reason.
//!
//! Limits on requests and queues belong to whoever serves them; only what bounds a format is here.

/// The smallest chunk, except for the last of a file: an eighth of the target.
pub const MIN_CHUNK_BYTES: usize = 8192;

/// The size that chunking aims at.
pub const TARGET_CHUNK_BYTES: usize = 65_536;

/// The largest chunk: twice the target. Clients refuse to read a larger one.
pub const MAX_CHUNK_BYTES: usize = 131_072;

/// The longest payload of a chunk. Clients refuse to read a longer one; what they write is never
/// longer than the chunk itself.
pub const MAX_CHUNK_PAYLOAD_BYTES: usize = 262_144;

/// The most chunks in a xorb. Clients keep chunk numbers in 16 bits and would skip those beyond.
pub const MAX_XORB_CHUNKS: usize = 8192;

/// The most uncompressed bytes in a xorb: clients buffer as much.
pub const MAX_XORB_BYTES: usize = 67_108_864;

/// The most serialized bytes of a xorb's chunks: a full one of incompressible chunks, each with
/// its header of eight bytes.
pub const MAX_XORB_SERIALIZED_BYTES: usize = MAX_XORB_BYTES + 8 * MAX_XORB_CHUNKS;

/// The longest footer of a xorb: that of the most chunks.
pub const MAX_XORB_FOOTER_BYTES: usize = 92 + 40 * MAX_XORB_CHUNKS + 4;

/// The longest body of a xorb upload: older clients send a footer behind the chunks.
pub const MAX_XORB_UPLOAD_BYTES: usize = MAX_XORB_SERIALIZED_BYTES + MAX_XORB_FOOTER_BYTES;

/// The longest shard in an upload: clients merge theirs up to this size and post several beyond.
pub const MAX_SHARD_BYTES: usize = 67_108_864;

/// Files that one shard may name: twice what one commit can. What is made of so many tiny ones
/// takes some 100 MB before it is stored.
pub const MAX_SHARD_FILES: usize = 50_000;

/// Chunks that the files of one shard may be made of, each counted as often as it is named: twice
/// those of the largest file. Each costs a step of a hash tree, and 96 bytes can name 8,192.
pub const MAX_SHARD_CHUNKS: u64 = 2 * MAX_FILE_BYTES / TARGET_CHUNK_BYTES as u64;

/// Bytes that the files of one shard may have whose SHA-256 must be computed: those of the largest
/// file, ten minutes of a core. A shard of 64 MiB describes some 90 GB of new content.
pub const MAX_SHARD_REHASHED_BYTES: u64 = MAX_FILE_BYTES;

/// Chunks of one shard that answer dedup queries, besides each file's first: four times those of
/// the largest file.
pub const MAX_SHARD_SAMPLES: u64 = 65_536;

/// The largest file: twice what the public hub takes. A shard of some kilobytes can name any number
/// of bytes, all of which we must hash.
pub const MAX_FILE_BYTES: u64 = 1 << 40;

/// The most ranges in one `Range` header. Nobody honest asks for more, and each costs a look at
/// all others.
pub const MAX_RANGES: usize = 16;

/// Characters in one part of a repo's name, as on the public hub.
pub const MAX_NAME_BYTES: usize = 96;

/// Characters in a node's name: it is a part of a certificate and of a host's name.
pub const MAX_NODE_NAME_BYTES: usize = 63;

/// Longest name of a region: a label of a host name, so that a region may be called as its host.
pub const MAX_REGION_BYTES: usize = 63;

/// Bytes in a file's path: what every system of today can hold.
pub const MAX_PATH_BYTES: usize = 1024;

/// Bytes in one part of a path, and in a ref's name: most file systems take no more.
pub const MAX_PATH_COMPONENT_BYTES: usize = 255;

/// Parts of a path: deeper trees are made to hurt, not to be read.
pub const MAX_PATH_DEPTH: usize = 64;

/// Bytes of a log entry: it is one put, never a multipart upload, so that it is there or not.
pub const MAX_ENTRY_BYTES: usize = 5_000_000;

/// Changes that one log entry may make.
pub const MAX_ENTRY_CHANGES: usize = 10_000;

/// Bytes of a pack's directory: 25,000 operations of a commit and the trees they touch need a
/// tenth of it.
pub const MAX_PACK_DIRECTORY_BYTES: usize = 64 << 20;

/// Bytes of one file's manifest: a shard upload holds 48 bytes for each term and is limited itself.
pub const MAX_MANIFEST_BYTES: usize = 80 << 20;

/// Files that one shard may register.
pub const MAX_MANIFESTS: usize = 500_000;

/// Bytes of a tally: what some 600,000 repos were downloaded on one day. A node writes one a
/// minute, if there was anything.
pub const MAX_TALLY_BYTES: usize = 16 << 20;

/// Copies that one gc epoch condemns: its list is one put, and what is over waits for the next.
pub const MAX_CONDEMNED: usize = 100_000;

/// What an upstream says of one commit: git's messages have no limit, ours have 64 KiB, and whoever
/// brings it cuts it to that.
pub const MAX_UPSTREAM_COMMIT_BYTES: usize = 262_144;

/// Bytes of a bundle's list of contents, which is held whole: about a million files and folders.
pub const MAX_BUNDLE_CONTENTS_BYTES: usize = 64 << 20;

/// Volumes of one bundle: as many names as `NNNN.ballast` has.
pub const MAX_BUNDLE_VOLUMES: usize = 9999;

/// Bytes of git objects in one record of a bundle, unless one alone is longer: they are held at
/// once where they are taken in.
pub const MAX_OBJECTS_RECORD_BYTES: u64 = 16 << 20;

/// Bytes of a receipt: some 40,000 revisions. It is one put, as a log entry is.
pub const MAX_RECEIPT_BYTES: usize = 5_000_000;

/// Xorbs that one permit may name: those of 2 TiB. It is one message.
pub const MAX_PERMIT_XORBS: usize = 32_768;

/// Bytes of a permit, without its signature.
pub const MAX_PERMIT_BYTES: usize = 32 * MAX_PERMIT_XORBS + 256;

/// Bytes of what a process keeps of its having joined: two certificates, and some names.
pub const MAX_MEMBER_BYTES: usize = 64 * 1024;

/// Bytes of a mirror job: some hundred patterns, and a message.
pub const MAX_MIRROR_JOB_BYTES: usize = 64 * 1024;

/// Patterns of a mirror job. Each file of a repo is held against each.
pub const MAX_JOB_PATTERNS: usize = 200;

/// Chunks of one file in a node's cache: twice those of the largest file ([`MAX_SHARD_CHUNKS`]).
pub const MAX_CACHED_CHUNKS: usize = 33_554_432;

/// Bytes of what a node keeps of how it may have a file: the permits of some 15 TiB. That of a
/// larger file is not kept.
pub const MAX_KEPT_PASS_BYTES: usize = 8 << 20;
