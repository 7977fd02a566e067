//! Copying a whole hub into another store, while it serves: a backup, and the way back.
//!
//! The order makes it right at any moment. The logs are read first, so that it is known what must
//! be there; then everything that they lead to is copied, each byte hashed on its way; it is made
//! sure that nothing is missing; only then are the logs written, up to where they were read. So a
//! log in the copy never names what the copy does not have, wherever it is cut short. What a
//! collection of garbage swept in between makes it read the logs again.
//!
//! Objects are never changed, so a second backup to the same place copies what is new. It deletes
//! nothing there. A store that holds anything else, or a hub that went its own way, is refused.

mod export;
mod logs;
#[cfg(test)]
mod tests;

pub use export::Exported;

use std::collections::{BTreeSet, HashMap, HashSet};

use ballast_format::hash::XorbHash;
use ballast_format::limits::MAX_TALLY_BYTES;
use ballast_store::keyspace::{CopyKind, CopyName, Key, Prefix};
use ballast_store::objects::{Put, Store};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use self::logs::Snapshot;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::verify::Verdict;

/// Objects that are copied at the same time.
const AT_ONCE: usize = 4;
/// Small objects that are copied at the same time.
const SMALL_AT_ONCE: usize = 16;
/// How often everything is looked at, if collections of garbage come in between.
const ROUNDS: usize = 3;
/// The longest list, layout or secret.
const SMALL_BYTES: u64 = 5_000_000;

/// What a copy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be kept: what is there already is not copied again.
    Backup,
    /// To be served: there must be no hub yet.
    Restore,
}

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Repos that the copy has.
    pub repos: u64,
    /// Xorbs, shard objects and packs that were copied.
    pub objects: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Those that were there already.
    pub present: u64,
    /// Log entries that were copied.
    pub entries: u64,
    /// What is damaged or missing, and so is not in the copy; each once.
    pub unsound: BTreeSet<String>,
}

/// Hears how far it is.
pub type Heard<'a> = &'a dyn Fn(&Copied);

/// What is in the copy.
type Present = HashSet<(CopyKind, [u8; 32])>;

impl Hub {
    /// Copies everything into another store. Damage does not stop it: what is damaged is named, and
    /// left out.
    pub async fn copy_to(&self, to: &Store, purpose: Purpose, heard: Heard<'_>) -> Result<Copied> {
        self.claim(to, purpose).await?;
        let mut copied = Copied::default();
        let mut round = 1;
        let snapshot = loop {
            let snapshot = self.snapshot(&mut copied).await?;
            // After the logs: every list up to the epochs that they name.
            self.copy_lists(to).await?;
            let present = self.copy_copies(to, &mut copied, heard).await?;
            let missing = self.missing(&snapshot, &present, &mut copied).await?;
            if missing.is_empty() {
                break snapshot;
            }
            if round == ROUNDS {
                copied.unsound.extend(missing);
                break snapshot;
            }
            tracing::info!(missing = missing.len(), "objects went away meanwhile: once more");
            round += 1;
        };
        self.copy_pins(to).await?;
        self.copy_tallies(to).await?;
        self.copy_receipts(to).await?;
        self.copy_logs(to, &snapshot, &mut copied).await?;
        copied.repos = snapshot.repos.len() as u64;
        // The sign that the copy is whole; never there before.
        self.copy_small(to, &Key::Layout).await?;
        heard(&copied);
        Ok(copied)
    }

    /// Makes sure that the other store is empty, or holds this hub; then nobody else's goes there.
    async fn claim(&self, to: &Store, purpose: Purpose) -> Result<()> {
        let own = self.store().get(&Key::Secret, SMALL_BYTES).await?;
        let own = own.ok_or_else(|| Error::corrupt("the hub's secret is gone"))?;
        let theirs = to.get(&Key::Secret, SMALL_BYTES).await?;
        let is_whole = to.size(&Key::Layout).await?.is_some();
        match theirs {
            None if is_whole || !is_empty(to).await? => {
                return Err(Error::invalid("there is something else at the destination"));
            }
            Some(theirs) if theirs != own => {
                return Err(Error::invalid("there is another hub at the destination"));
            }
            Some(_) if is_whole && purpose == Purpose::Restore => {
                return Err(Error::invalid("there is a hub at the destination already"));
            }
            _ => {}
        }
        // First of all, so that a copy that is cut short is known for what it is.
        self.copy_small(to, &Key::Secret).await
    }

    /// Copies all that is there and not in the copy yet.
    async fn copy_copies(
        &self,
        to: &Store,
        copied: &mut Copied,
        heard: Heard<'_>,
    ) -> Result<Present> {
        let mut present = Present::new();
        copied.present = 0;
        for kind in CopyKind::ALL {
            for share in 0..=u8::MAX {
                let prefix = Prefix::CopiesShare(kind, share);
                let there = sizes_of(to, &prefix).await?;
                let mut new = Vec::new();
                for (copy, size) in sizes_of(self.store(), &prefix).await? {
                    match there.get(&copy) {
                        Some(kept) if *kept == size => copied.present += 1,
                        Some(_) => {
                            let key = Key::Copy(copy);
                            copied.unsound.insert(format!("`{key}` has another size in the copy"));
                        }
                        None => new.push(copy),
                    }
                }
                present.extend(there.keys().map(|copy| (copy.kind, copy.hash)));
                self.copy_new(to, new, copied, &mut present).await?;
                heard(copied);
            }
        }
        Ok(present)
    }

    async fn copy_new(
        &self,
        to: &Store,
        new: Vec<CopyName>,
        copied: &mut Copied,
        present: &mut Present,
    ) -> Result<()> {
        let send = |copy| async move { Ok::<_, Error>((copy, self.send_copy(&copy, to).await?)) };
        let mut sent = stream::iter(new).map(send).buffer_unordered(AT_ONCE);
        while let Some((copy, verdict)) = sent.try_next().await? {
            match verdict {
                Verdict::Sound { bytes } => {
                    copied.objects += 1;
                    copied.bytes += bytes;
                    present.insert((copy.kind, copy.hash));
                }
                Verdict::Damaged { what } => {
                    copied.unsound.insert(format!("`{}`: {what}", Key::Copy(copy)));
                }
                // Swept since it was listed. Whether that matters is seen below.
                Verdict::Gone => {}
            }
        }
        Ok(())
    }

    /// What the logs lead to and the copy does not have.
    async fn missing(
        &self,
        snapshot: &Snapshot,
        present: &Present,
        copied: &mut Copied,
    ) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        for pack in &snapshot.packs {
            if !present.contains(&(CopyKind::Pack, *pack.as_bytes())) {
                missing.push(format!("the pack `{pack}` is missing"));
            }
        }
        let mut xorbs: HashSet<XorbHash> = HashSet::new();
        for id in &snapshot.manifests {
            if !present.contains(&(CopyKind::Shard, *id.shard.as_bytes())) {
                missing.push(format!("the shard object `{}` is missing", id.shard));
                continue;
            }
            match self.needed_manifest(id).await {
                Ok(manifest) => xorbs.extend(manifest.terms.iter().map(|term| term.xorb)),
                Err(error) if error.is_corrupt() => {
                    copied.unsound.insert(error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        for xorb in xorbs {
            if !present.contains(&(CopyKind::Xorb, *xorb.as_bytes())) {
                missing.push(format!("the xorb `{xorb}` is missing"));
            }
        }
        Ok(missing)
    }

    async fn copy_lists(&self, to: &Store) -> Result<()> {
        let newest = self.store().epoch().await?;
        let keys = (1..=newest).flat_map(|epoch| [Key::Gc(epoch), Key::GcDone(epoch)]);
        stream::iter(keys.map(Ok))
            .try_for_each_concurrent(
                SMALL_AT_ONCE,
                |key| async move { self.copy_small(to, &key).await },
            )
            .await
    }

    /// Pins that have not run out: clients may still count on what they were promised.
    async fn copy_pins(&self, to: &Store) -> Result<()> {
        let now = self.env().now_ms();
        let there: HashSet<_> = ballast_store::pin::pins(to).try_collect().await?;
        let pins = ballast_store::pin::pins(self.store()).map_err(Error::from);
        pins.try_for_each_concurrent(SMALL_AT_ONCE, |pin| {
            let is_new = pin.until_ms > now && !there.contains(&pin);
            async move {
                if is_new {
                    to.put_new(&Key::Pin(pin), Bytes::new()).await?;
                }
                Ok(())
            }
        })
        .await
    }

    /// Counts of downloads. A day's sum counts for all records of the day, so one too many is no
    /// harm.
    async fn copy_tallies(&self, to: &Store) -> Result<()> {
        let there: HashSet<Key> =
            to.list(&Prefix::Tallies).map_ok(|listed| listed.key).try_collect().await?;
        let mut tallies = self.store().list(&Prefix::Tallies);
        while let Some(listed) = tallies.try_next().await? {
            if there.contains(&listed.key) {
                continue;
            }
            let bytes = self.store().get(&listed.key, MAX_TALLY_BYTES as u64).await?;
            if let Some(bytes) = bytes {
                to.put_absent(&listed.key, bytes).await?;
            }
        }
        Ok(())
    }

    /// What is known of bundles that came, and what is to be mirrored.
    async fn copy_receipts(&self, to: &Store) -> Result<()> {
        for prefix in [Prefix::Receipts, Prefix::MirrorJobs] {
            let mut small = self.store().list(&prefix);
            while let Some(listed) = small.try_next().await? {
                self.copy_small(to, &listed.key).await?;
            }
        }
        Ok(())
    }

    /// Copies an object that is small and never changes; one that is not there is passed over.
    async fn copy_small(&self, to: &Store, key: &Key) -> Result<()> {
        let Some(bytes) = self.store().get(key, SMALL_BYTES).await? else {
            return Ok(());
        };
        put_same(to, key, bytes).await
    }
}

/// Puts an object that must not differ from one that is there.
async fn put_same(to: &Store, key: &Key, bytes: Bytes) -> Result<()> {
    if to.size(key).await?.is_none() && to.put_absent(key, bytes.clone()).await? == Put::Stored {
        return Ok(());
    }
    match to.get(key, SMALL_BYTES).await? {
        Some(kept) if kept == bytes => Ok(()),
        _ => Err(Error::Conflict {
            reason: format!(
                "`{key}` differs at the destination: it went its own way, or is damaged; use \
                 another place"
            ),
        }),
    }
}

/// Whether a store has no object of a hub; what a probe leaves is none.
async fn is_empty(store: &Store) -> Result<bool> {
    let mut listed = store.list(&Prefix::All);
    while let Some(listed) = listed.try_next().await? {
        if !matches!(listed.key, Key::Probe { .. }) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The copies of a set, with their sizes.
async fn sizes_of(store: &Store, prefix: &Prefix) -> Result<HashMap<CopyName, u64>> {
    let mut listed = store.list(prefix);
    let mut sizes = HashMap::new();
    while let Some(listed) = listed.try_next().await? {
        if let Key::Copy(copy) = listed.key {
            sizes.insert(copy, listed.size);
        }
    }
    Ok(sizes)
}
