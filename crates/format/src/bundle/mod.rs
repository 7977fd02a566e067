//! Bundles: repos in a few files, for places that no network leads to.
//!
//! A bundle is a folder. Its list of contents ([`Contents`]) says what is in it and names it by its
//! hash; volumes ([`VolumeHead`], [`Directory`]) hold the bytes, in records; one signed statement
//! ([`Statement`]) says which volumes belong to it, who made it and when. What came through is
//! written down as a receipt ([`Receipt`]), from which the next bundle is made. Layout:
//! `docs/formats/bundle.md`.

mod contents;
mod receipt;
mod statement;
mod volume;

pub use contents::{
    BaseFile, CarriedFile, CarriedObject, CarriedRef, CarriedRepo, Contents, NamedFile, ObjectRun,
    Record, RecordKind, Run,
};
pub use receipt::{Receipt, Revision};
pub use statement::{SIGNATURE_BYTES, SignedStatement, Statement, VolumeSum};
pub use volume::{Directory, TAIL_BYTES, VolumeHead, VolumeRecord};

#[cfg(test)]
mod tests;
