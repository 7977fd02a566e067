//! chunk.
