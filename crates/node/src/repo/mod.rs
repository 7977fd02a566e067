//! Repos: creating, renaming, deleting them; their settings, refs, likes, gates and pull requests.

mod create;
mod gate;
mod held;
mod like;
mod pull;
mod refs;
mod settings;

pub use create::NewRepo;
pub use gate::AccessRequestView;
pub use held::HeldFile;
pub use pull::NewPull;
pub use refs::{RefView, Refs};
pub use settings::Settings;
