//! Bundles: repos in signed files, for a hub that no network leads to.
//!
//! Creating reads a hub's store and writes a folder; verifying needs the folder and a public key;
//! importing brings what is in the folder into a hub, by the way of uploads, and leaves a receipt
//! from which the next bundle is made. Each can be cut at any moment and run again. Layout:
//! `docs/formats/bundle.md`.

mod create;
mod error;
mod folder;
mod import;
mod key;
mod lookup;
mod materials;
mod open;
mod plan;
mod receipts;
mod taking;
mod verify;

pub use create::{Created, Heard, LeftOut, NewBundle, Wish, create};
pub use error::{Error, Result};
pub use import::{Imported, ImportedRepo, Outcome, Standing, Step, import};
pub use key::{PublicKey, SigningKey};
pub use open::{Affected, OpenBundle, open};
pub use verify::{Verified, VolumeState, verify};
