//! Keys that are not believed any more, though their certificates have not ended.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use super::PeerKey;

/// The most keys that may be revoked at once: half of what a message may have. A key is forgotten
/// when no certificate for it can be good any more, which is after a day.
const MOST_REVOKED: usize = 16 * 1024;

/// What is revoked now. All clones share it.
#[derive(Clone)]
pub struct Revocations(watch::Sender<Arc<BTreeSet<PeerKey>>>);

impl Default for Revocations {
    fn default() -> Self {
        Self(watch::Sender::new(Arc::default()))
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Revocations({})", self.0.borrow().len())
    }
}

impl Revocations {
    /// Whether this key is not believed any more.
    pub fn has(&self, key: &PeerKey) -> bool {
        self.0.borrow().contains(key)
    }

    /// All of them, in their order.
    pub fn keys(&self) -> Vec<PeerKey> {
        self.0.borrow().iter().copied().collect()
    }

    /// What shows two sides that they know the same.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for key in self.0.borrow().iter() {
            hasher.update(key.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// From now on these are revoked, and no others. Connections of theirs end.
    pub fn replace(&self, keys: impl IntoIterator<Item = PeerKey>) {
        let keys: BTreeSet<PeerKey> = keys.into_iter().take(MOST_REVOKED).collect();
        self.0.send_if_modified(|known| {
            let is_new = **known != keys;
            if is_new {
                *known = Arc::new(keys);
            }
            is_new
        });
    }

    /// Resolves once this key is revoked: when a connection of its owner must end.
    pub async fn revoked(&self, key: PeerKey) {
        let mut changes = self.0.subscribe();
        if changes.wait_for(|keys| keys.contains(&key)).await.is_err() {
            // Nobody can revoke anything any more.
            std::future::pending::<()>().await;
        }
    }
}
