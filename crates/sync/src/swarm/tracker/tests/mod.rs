//! What a tracker tells whom.

mod roster;
mod service;
