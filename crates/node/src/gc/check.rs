//! What a writer asks before it appends: is everything that the entry newly names still there, in
//! a copy that no list condemns and in which no damage was found? (Section 4.2, step 3.)

use std::collections::BTreeSet;

use ballast_format::ErrorKind;
use ballast_format::hash::{ShardHash, XorbHash};
use ballast_format::manifest::ManifestId;
use ballast_format::pack::FileLink;
use ballast_store::keyspace::{CopyKind, CopyName, Key};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::EPOCHS_BEHIND;
use crate::broken::{Step, is_left_out};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::repo::NewPack;
use crate::verify::Verdict;

/// Objects that are looked for at the same time.
const AT_ONCE: usize = 8;
/// Bytes that a copy is moved in.
const PIECE: u64 = 4 << 20;

impl Hub {
    /// Makes sure that what these packs bring may be named by an entry of this epoch. What only
    /// condemned copies hold is copied to a new name: clients were told that they need not send
    /// it again. What is gone has to come again.
    pub(crate) async fn confirm_named(&self, packs: &[NewPack], epoch: u64) -> Result<()> {
        self.read_condemned(epoch).await?;
        let nothing_to_check = self.condemned.is_empty() && self.quarantine.is_empty();
        if nothing_to_check || is_left_out(Step::Check) {
            return Ok(());
        }
        let mut manifests: BTreeSet<ManifestId> = BTreeSet::new();
        for pack in packs {
            if self.condemned.holds(&pack.copy) {
                // It was written for this commit, which slept through two collections.
                let reason = "the commit took too long: send it again".to_owned();
                return Err(Error::Busy { reason });
            }
            let links = pack.directory.links.iter().filter(|link| link.size > 0);
            manifests.extend(links.map(FileLink::manifest));
        }
        let shards: BTreeSet<ShardHash> = manifests.iter().map(|id| id.shard).collect();
        let confirm_shard = |shard| self.confirm_shard(shard, epoch);
        stream::iter(shards).map(confirm_shard).buffered(AT_ONCE).try_collect::<()>().await?;
        let mut xorbs: BTreeSet<XorbHash> = BTreeSet::new();
        for id in &manifests {
            let manifest = self.needed_manifest(id).await?;
            xorbs.extend(manifest.terms.iter().map(|term| term.xorb));
        }
        let confirm_xorb = |xorb| self.confirm_xorb(xorb, epoch);
        stream::iter(xorbs).map(confirm_xorb).buffered(AT_ONCE).try_collect::<()>().await
    }

    /// The same for one xorb.
    pub(crate) async fn confirm_xorb(&self, xorb: XorbHash, epoch: u64) -> Result<()> {
        let known = self.xorb_copy(&xorb).await?;
        if self.may_name(known, epoch).await? {
            return Ok(());
        }
        let copies = self.copies_by_trust(CopyKind::Xorb, *xorb.as_bytes()).await?;
        if let Some(copy) = copies.iter().find(|copy| self.relies_on(copy)) {
            self.caches.places.insert(xorb, *copy);
            return Ok(());
        }
        let mut faults = Faults::default();
        for copy in copies {
            match self.copy_again(&copy, xorb).await {
                Ok(()) => return Ok(()),
                Err(error) => faults.note(&copy, error),
            }
        }
        Err(faults.tell(|| format!("the xorb `{xorb}`")))
    }

    /// The same for one shard object.
    pub(crate) async fn confirm_shard(&self, shard: ShardHash, epoch: u64) -> Result<()> {
        let known = self.copies_by_trust(CopyKind::Shard, *shard.as_bytes()).await?;
        let mut is_fine = false;
        for copy in &known {
            is_fine |= self.may_name(Some(*copy), epoch).await?;
        }
        if is_fine {
            return Ok(());
        }
        let mut faults = Faults::default();
        for copy in known {
            match self.copy_shard(&copy, shard).await {
                Ok(()) => return Ok(()),
                Err(error) => faults.note(&copy, error),
            }
        }
        Err(faults.tell(|| format!("the shard `{shard}`")))
    }

    /// Whether an entry of this epoch may rely on a copy that we know of.
    async fn may_name(&self, copy: Option<CopyName>, epoch: u64) -> Result<bool> {
        let Some(copy) = copy.filter(|copy| self.relies_on(copy)) else {
            return Ok(false);
        };
        // No list that an entry of this epoch has not read may condemn it, so it is as we left it.
        if copy.epoch + EPOCHS_BEHIND > epoch {
            return Ok(true);
        }
        Ok(self.store().size(&Key::Copy(copy)).await?.is_some())
    }

    /// Copies a xorb to a name of its own, checking every chunk.
    async fn copy_again(&self, copy: &CopyName, xorb: XorbHash) -> Result<()> {
        let size = self.store().size(&Key::Copy(*copy)).await?.unwrap_or(0);
        let (store, key) = (self.store().clone(), Key::Copy(*copy));
        let starts = (0..size).step_by(usize::try_from(PIECE).unwrap_or(usize::MAX));
        let body = stream::iter(starts).then(move |start| {
            let (store, end) = (store.clone(), size.min(start + PIECE));
            async move { Ok::<Bytes, Error>(store.get_range(&key, start..end).await?) }
        });
        self.copy_xorb(xorb, Box::pin(body)).await
    }

    /// Copies a shard object to a name of its own, checking its hash.
    async fn copy_shard(&self, copy: &CopyName, shard: ShardHash) -> Result<()> {
        let epoch = self.store().epoch().await?;
        let new = self.store().new_copy(CopyKind::Shard, *shard.as_bytes(), epoch);
        let key = Key::Copy(*copy);
        match self.send_copy_as(copy, self.store(), &new).await? {
            Verdict::Sound { .. } => {}
            Verdict::Gone => return Err(Error::corrupt(format!("`{key}` is gone"))),
            Verdict::Damaged { what } => return Err(Error::corrupt(what)),
        }
        self.learn_copy(&new).await
    }
}

/// Why copies could not be copied.
#[derive(Default)]
struct Faults {
    /// One that says nothing of the content: the same may work later.
    passing: Option<Error>,
}

impl Faults {
    fn note(&mut self, copy: &CopyName, error: Error) {
        tracing::warn!(key = %Key::Copy(*copy), %error, "it was not copied");
        let is_of_content =
            matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Invalid);
        if !is_of_content {
            self.passing = Some(error);
        }
    }

    /// What a writer hears: to come again, unless no copy is any good. Who is told that something
    /// is gone sends it again, and need not.
    fn tell(self, what: impl FnOnce() -> String) -> Error {
        self.passing.unwrap_or_else(|| {
            let what = what();
            Error::invalid(format!("{what} is no longer here, or damaged: upload the file again"))
        })
    }
}
