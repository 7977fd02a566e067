//! Many chunks packed into one object: what clients upload, what is stored, what is read back.
//!
//! A xorb is its serialized chunks one after another, each a header of eight bytes and a payload
//! that is compressed by itself. Stored xorbs end in a footer that tells where each chunk lies.
//! The hash of a xorb names the content of its chunks: how they are compressed, and the nonce of
//! the footer, may differ between copies (Invariant 7).
//!
//! Nothing here reads or writes an object; bytes are handed in and out.

mod compress;
mod footer;
mod frame;
mod group;
mod header;
mod reader;
mod validate;
mod writer;

pub use compress::{Compression, decompress};
pub use footer::XorbFooter;
pub use header::ChunkHeader;
pub use reader::ChunkDecoder;
pub use validate::XorbValidator;
pub use writer::XorbWriter;

#[cfg(test)]
mod tests;
