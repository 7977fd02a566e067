//! One after another, by what it is about.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// A turn, to be held while its lock is.
pub(super) type Turn = Arc<tokio::sync::Mutex<()>>;

/// The turns that somebody holds or waits for.
pub(super) struct Turns<K>(Mutex<HashMap<K, Turn>>);

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Turns<K> {
    /// What lets one go after another.
    pub(super) fn of(&self, key: K) -> Turn {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(key).or_default())
    }
}
