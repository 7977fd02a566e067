//! What an upstream hub has, brought here: when a client asks for it, or as a job.

pub mod jobs;
pub mod pull;
pub(crate) mod rules;
pub mod upstream;
