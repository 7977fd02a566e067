//! Repos: creating, renaming, deleting them; their settings, refs, likes, gates and pull requests.

pub(crate) mod create;
mod gate;
mod held;
mod like;
mod mirrored;
mod pull;
mod refs;
mod settings;

pub use create::NewRepo;
pub use gate::AccessRequestView;
pub use held::HeldFile;
pub use mirrored::NewMirror;
pub use pull::NewPull;
pub(crate) use refs::MAX_REFS;
pub use refs::{RefView, Refs};
pub use settings::Settings;
