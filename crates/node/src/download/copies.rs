//! Which copies there are of a xorb, and which of them is read.
//!
//! A hash is present if any copy of it is (Invariant 2), so a copy that is gone or damaged is
//! passed over for another one. The index says where copies are; what a promise is made on is
//! looked up in the store (Invariant 6).

use std::sync::Arc;

use ballast_format::hash::XorbHash;
use ballast_format::manifest::ManifestId;
use ballast_format::pack::FileLink;
use ballast_format::xorb::XorbFooter;
use ballast_store::index::schema;
use ballast_store::index::{Batch, Table};
use ballast_store::keyspace::{CopyKind, CopyName, Key};

use crate::broken::{Step, is_left_out};
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Copies of one hash that are looked at. More than two can only be a fault.
const LOOKED_AT: usize = 8;

impl Hub {
    /// The copy of this xorb that is read, if there is any: a damaged one only if there is no
    /// other.
    pub(crate) async fn xorb_copy(&self, xorb: &XorbHash) -> Result<Option<CopyName>> {
        if let Some(copy) = self.caches.places.get(xorb) {
            return Ok(Some(copy));
        }
        let copy = self.find_copy(xorb).await?;
        if let Some(copy) = copy {
            self.caches.places.insert(*xorb, copy);
        }
        Ok(copy)
    }

    async fn find_copy(&self, xorb: &XorbHash) -> Result<Option<CopyName>> {
        let prefix = schema::copies_prefix(CopyKind::Xorb, xorb.as_bytes());
        let rows = self.index().scan(Table::Copy, &prefix, None, LOOKED_AT).await?;
        for (key, _) in &rows {
            let copy = schema::copy_of(key)?;
            if self.relies_on(&copy) {
                return Ok(Some(copy));
            }
        }
        let mut last = None;
        let listed = self.store().copies(CopyKind::Xorb, *xorb.as_bytes());
        for listed in listed.await? {
            let Key::Copy(copy) = listed.key else {
                continue;
            };
            if self.distrusts(&copy) {
                last = last.or(Some(copy));
                continue;
            }
            self.note_copy(&copy, listed.size).await?;
            if !self.condemned.holds(&copy) {
                return Ok(Some(copy));
            }
            // Sound as long as it is there; others are better.
            last = Some(copy);
        }
        Ok(last)
    }

    /// A copy that the store has at this moment and in which no damage was found: only on such a
    /// one is anybody told that they need not send the xorb.
    pub(crate) async fn present_copy(&self, xorb: &XorbHash) -> Result<Option<CopyName>> {
        for _ in 0..LOOKED_AT {
            let Some(copy) = self.xorb_copy(xorb).await? else {
                return Ok(None);
            };
            // Dedup never offers what is condemned (Invariant 8).
            let is_condemned = self.condemned.holds(&copy) && !is_left_out(Step::OfferNone);
            if self.distrusts(&copy) || is_condemned {
                return Ok(None);
            }
            if self.store().size(&Key::Copy(copy)).await?.is_some() {
                return Ok(Some(copy));
            }
            self.forget(&copy).await?;
        }
        Ok(None)
    }

    /// A copy of a xorb with its footer: the first copy whose footer can be read.
    pub(crate) async fn open_xorb(
        &self,
        xorb: &XorbHash,
    ) -> Result<Option<(CopyName, Arc<XorbFooter>)>> {
        for _ in 0..LOOKED_AT {
            let Some(copy) = self.xorb_copy(xorb).await? else {
                return Ok(None);
            };
            let last = self.distrusts(&copy);
            match self.footer(&copy).await {
                Ok(footer) => return Ok(Some((copy, footer))),
                Err(Error::Store(ballast_store::Error::NotFound { .. })) => {
                    self.forget(&copy).await?;
                }
                Err(error) => match self.note_damage(&copy, error) {
                    // Perhaps there is another one.
                    Error::Corrupt { .. } if !last => {}
                    error => return Err(error),
                },
            }
        }
        Ok(None)
    }

    /// The same of a xorb that something stored refers to.
    pub(crate) async fn needed_xorb(&self, xorb: &XorbHash) -> Result<(CopyName, Arc<XorbFooter>)> {
        let open = self.open_xorb(xorb).await?;
        open.ok_or_else(|| missing(xorb))
    }

    /// Whether something new may rest on this copy: no damage was found in it, nor is it condemned.
    pub(crate) fn relies_on(&self, copy: &CopyName) -> bool {
        !self.distrusts(copy) && !self.condemned.holds(copy)
    }

    /// Whether damage was found in this copy.
    pub(crate) fn distrusts(&self, copy: &CopyName) -> bool {
        self.quarantine.holds(copy)
    }

    /// Damage was found in this copy: another one is read from now on, if there is any, and a
    /// client that brings the same content again heals it (R4).
    pub(crate) fn distrust(&self, copy: &CopyName, what: &str) {
        let is_new = self.quarantine.suspect(copy);
        if is_new && self.condemned.holds(copy) {
            tracing::debug!(key = %Key::Copy(*copy), what, "a condemned copy is not read any more");
        } else if is_new {
            tracing::error!(key = %Key::Copy(*copy), what, "a stored object is damaged");
        }
        self.caches.places.remove(&XorbHash::from_bytes(copy.hash));
    }

    /// This copy is not there any more. Swept or lost: that is found out in a while.
    pub(crate) fn miss(&self, copy: &CopyName) {
        if self.quarantine.suspect(copy) {
            tracing::warn!(key = %Key::Copy(*copy), "a copy that the index names is gone");
        }
        self.caches.places.remove(&XorbHash::from_bytes(copy.hash));
    }

    /// The store does not have this copy any more.
    async fn forget(&self, copy: &CopyName) -> Result<()> {
        self.miss(copy);
        self.drop_copy(copy).await
    }

    /// Whether a file can be read, and every copy that it needs may be relied on. What is not whole
    /// is asked for again.
    pub(crate) async fn is_whole(&self, link: &FileLink) -> Result<bool> {
        if link.size == 0 || self.quarantine.is_empty() {
            return Ok(true);
        }
        match self.is_manifest_whole(&link.manifest()).await {
            Err(error) if error.is_corrupt() => Ok(false),
            found => found,
        }
    }

    async fn is_manifest_whole(&self, id: &ManifestId) -> Result<bool> {
        let mut row = self.manifest_row(id).await?;
        if row.is_some_and(|row| self.distrusts(&row.shard)) {
            self.learn_shard(&id.shard).await?;
            row = self.manifest_row(id).await?;
        }
        if row.is_none_or(|row| self.distrusts(&row.shard)) {
            return Ok(false);
        }
        let manifest = self.needed_manifest(id).await?;
        let mut before = None;
        for term in &manifest.terms {
            if before.replace(term.xorb) == Some(term.xorb) {
                continue;
            }
            match self.xorb_copy(&term.xorb).await? {
                Some(copy) if !self.distrusts(&copy) => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Takes out of memory and index what is known of a copy.
    pub(crate) async fn drop_copy(&self, copy: &CopyName) -> Result<()> {
        self.caches.places.remove(&XorbHash::from_bytes(copy.hash));
        self.caches.footers.remove(copy);
        let mut batch = Batch::new();
        batch.delete(Table::Copy, schema::copy_key(copy));
        Ok(self.index().apply(batch).await?)
    }

    /// Notes a copy in the index.
    async fn note_copy(&self, copy: &CopyName, size: u64) -> Result<()> {
        let mut batch = Batch::new();
        batch.put(Table::Copy, schema::copy_key(copy), schema::number_row(size));
        Ok(self.index().apply(batch).await?)
    }
}

fn missing(xorb: &XorbHash) -> Error {
    Error::corrupt(format!("the xorb `{xorb}` is missing"))
}
