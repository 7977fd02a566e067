//! What a hub remembers of the bundles that it took in: a receipt for each, never deleted.
//!
//! They are in the store, as everything that must not be lost: from them a hub knows that a bundle
//! comes again or late, and they say what the next one need not bring.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use ballast_format::bundle::{Receipt, Revision, Statement};
use ballast_format::hash::{BundleHash, ObjectHash, Sha256};
use ballast_format::limits::MAX_RECEIPT_BYTES;
use ballast_format::name::{RepoKind, RepoName};
use ballast_node::hub::Hub;
use ballast_store::env::nonce;
use ballast_store::keyspace::{Key, Prefix};
use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::error::{Error, Result};

/// Receipts of one creator that are read: a hundred years of a bundle each day. Of more, the
/// newest.
const MAX_RECEIPTS: usize = 40_000;

/// What came from one creator.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// The bundles, by their place in the creator's order.
    pub(super) bundles: BTreeMap<u64, BundleHash>,
    /// Every revision that is there, and which of its large files are not.
    revisions: BTreeMap<(RepoKind, RepoName, ObjectHash), BTreeSet<Sha256>>,
}

impl Received {
    /// Reads all receipts of a creator.
    pub(super) async fn of(hub: &Hub, creator: &[u8; 32]) -> Result<Self> {
        let listed = hub.store().list(&Prefix::ReceiptsOf(*creator));
        let mut keys: Vec<Key> =
            listed.map_ok(|listed| listed.key).try_collect().await.map_err(Error::from)?;
        keys.sort_unstable();
        let mut received = Self::default();
        for key in keys.iter().rev().take(MAX_RECEIPTS) {
            let Some(bytes) = hub.store().get(key, MAX_RECEIPT_BYTES as u64).await? else {
                continue;
            };
            let receipt = Receipt::decode(&bytes)?;
            received.bundles.insert(receipt.sequence, receipt.bundle);
            receipt.revisions.into_iter().for_each(|revision| received.note(revision));
        }
        Ok(received)
    }

    /// A revision is there. What came once is not absent any more.
    pub(super) fn note(&mut self, revision: Revision) {
        let Revision { kind, name, commit, absent } = revision;
        let absent: BTreeSet<Sha256> = absent.into_iter().collect();
        match self.revisions.entry((kind, name, commit)) {
            Entry::Vacant(new) => {
                new.insert(absent);
            }
            Entry::Occupied(mut known) => known.get_mut().retain(|file| absent.contains(file)),
        }
    }

    /// Whether this bundle came before.
    pub(super) fn has(&self, bundle: &BundleHash) -> bool {
        self.bundles.values().any(|known| known == bundle)
    }

    /// Writes down that a bundle came, with what is there now.
    pub(super) async fn keep(&self, hub: &Hub, statement: &Statement) -> Result<Receipt> {
        let revisions = self.revisions.iter().map(|((kind, name, commit), absent)| Revision {
            kind: *kind,
            name: name.clone(),
            commit: *commit,
            absent: absent.iter().copied().collect(),
        });
        let receipt = Receipt {
            creator: statement.creator,
            bundle: statement.bundle,
            sequence: statement.sequence,
            time_ms: hub.env().now_ms(),
            revisions: revisions.collect(),
        };
        let (creator, sequence) = (receipt.creator, receipt.sequence);
        let key = Key::Receipt { creator, sequence, nonce: nonce(hub.env().as_ref()) };
        hub.store().put_new(&key, Bytes::from(receipt.encode()?)).await?;
        Ok(receipt)
    }
}
