//! What can go wrong in a region.
/// Result of a verb.
pub type Result<T> = std::result::Result<T, Error>;
/// Errors.
#[derive(Debug)]
pub enum Error {}
