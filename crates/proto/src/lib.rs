//! What processes of ours say to each other: the messages and services of `proto/v1`.
//!
//! It is spoken and never stored: what outlives a process has one encoding, by hand, in `format`.

/// Version 1.
pub mod v1 {
    #![expect(missing_docs, reason = "the comments stand in `proto/v1`")]
    #![allow(clippy::pedantic, clippy::clone_on_ref_ptr, unreachable_pub)]
    #![allow(unused_qualifications, clippy::use_self, clippy::or_fun_call)]

    tonic::include_proto!("ballast.v1");
}

/// The longest message, in bytes. Whoever has more to say streams.
pub const LONGEST_MESSAGE: usize = 1 << 20;
