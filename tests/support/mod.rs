//! What the end-to-end tests share: the built binary as a server, and the clients people have.
//!
//! A server's log is read at its end: an `ERROR` or `WARN` that the test did not announce fails it.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::print_stderr,
    reason = "each test file uses its own part of this, and none is a library"
)]

pub mod client;
pub mod connection;
pub mod disk;
pub mod http;
pub mod objects;
pub mod relay;
pub mod server;

use std::path::PathBuf;

/// The folder of this file's package.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Bytes that compress as little as trained weights do, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
