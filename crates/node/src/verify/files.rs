//! Checking large files: the manifest, the xorbs that it names, and the bytes that they make.

use std::sync::Arc;

use ballast_format::hash::Sha256;
use ballast_format::id::RepoId;
use ballast_format::limits::MAX_MANIFEST_BYTES;
use ballast_format::manifest::{FRONT_BYTES, Manifest, ManifestPlace, ShardDirectory};
use ballast_format::pack::FileLink;
use ballast_store::index::Table;
use ballast_store::index::schema::{self, FileRow, ManifestRow};
use ballast_store::keyspace::{CopyKind, CopyName, Key, Prefix};
use futures_util::StreamExt as _;
use sha2::Digest as _;

use super::{Check, Depth, Fault, Found};
use crate::error::{Error, Result};
use crate::hub::Hub;

impl Hub {
    /// The large file that a repo knows by this SHA-256.
    pub(crate) async fn link_of(&self, repo: RepoId, sha256: &Sha256) -> Result<Option<FileLink>> {
        let row = self.index().get(Table::File, &schema::file_key(&repo, sha256)).await?;
        let row = row.map(|row| FileRow::decode(&row)).transpose()?;
        Ok(row.map(|FileRow { manifest, size }| FileLink {
            sha256: *sha256,
            file: manifest.file,
            shard: manifest.shard,
            size,
        }))
    }
}

impl Check {
    /// Checks the file behind a pointer.
    pub(super) async fn large_file(&mut self, link: &FileLink) -> Result<Found> {
        if link.size == 0 {
            return Ok(None);
        }
        if let Some(known) = self.files.get(&link.manifest()) {
            return Ok(known.clone());
        }
        let found = self.look_at_file(link).await?;
        self.files.insert(link.manifest(), found.clone());
        Ok(found)
    }

    async fn look_at_file(&mut self, link: &FileLink) -> Result<Found> {
        let (row, manifest) = match self.manifest_of(link).await? {
            Ok(found) => found,
            Err(fault) => return Ok(Some(fault)),
        };
        let key = Key::Copy(row.shard);
        let says = (manifest.file, manifest.sha256, manifest.size);
        if says != (link.file, link.sha256, link.size) {
            let problem = format!("its manifest of `{}` is of another file", link.file);
            return Ok(Some(self.damaged(&key, &problem)));
        }
        let mut fault = None;
        for term in &manifest.terms {
            let found = self.xorb(&term.xorb).await?;
            fault = fault.or(found);
        }
        if fault.is_some() {
            return Ok(fault);
        }
        self.content(manifest).await
    }

    /// The manifest of a file, from a copy of its shard object that is sound, if there is any.
    async fn manifest_of(
        &mut self,
        link: &FileLink,
    ) -> Result<std::result::Result<(ManifestRow, Manifest), Arc<Fault>>> {
        let mut tried: Vec<CopyName> = Vec::new();
        loop {
            let row = match self.hub.manifest_row(&link.manifest()).await {
                Ok(Some(row)) => row,
                Ok(None) => {
                    let object = format!("the manifest of `{}`", link.file);
                    return Ok(Err(self.damaged(&object, &"it is missing")));
                }
                Err(error) => {
                    let object = format!("the shard object `{}`", link.shard);
                    return Ok(Err(self.fault(&object, error)?));
                }
            };
            self.manifests.insert((row.shard, row.offset));
            let fault = match self.shard(&row.shard).await? {
                Some(fault) => fault,
                None => match self.read_manifest(&row).await {
                    Ok(manifest) => {
                        self.count(u64::from(row.length)).await?;
                        return Ok(Ok((row, manifest)));
                    }
                    Err(error) => self.copy_fault(&row.shard, error)?,
                },
            };
            if tried.contains(&row.shard) || !self.learn_other(link).await? {
                return Ok(Err(fault));
            }
            tried.push(row.shard);
        }
    }

    /// Lets the index name another copy of the file's shard object, if there is one.
    async fn learn_other(&mut self, link: &FileLink) -> Result<bool> {
        match self.hub.learn_shard(&link.shard).await {
            Err(error) if error.is_corrupt() => Ok(false),
            learnt => learnt,
        }
    }

    /// Every chunk is sound; what is left is that they are the right ones in the right order.
    async fn content(&mut self, manifest: Manifest) -> Result<Found> {
        if self.depth == Depth::Known {
            return Ok(None);
        }
        let manifest = Arc::new(manifest);
        let mut bytes = self.hub.read_manifest(Arc::clone(&manifest), 0..manifest.size);
        let mut hasher = sha2::Sha256::new();
        let object = || format!("the file `{}`", manifest.file);
        while let Some(piece) = bytes.next().await {
            match piece {
                Ok(piece) => {
                    let hashing = self.hub.pool().run(move || {
                        hasher.update(&piece);
                        hasher
                    });
                    hasher = hashing.await?;
                }
                Err(error) => return Ok(Some(self.fault(&object(), error)?)),
            }
        }
        if hasher.finalize().as_slice() == manifest.sha256.as_bytes() {
            return Ok(None);
        }
        Ok(Some(self.damaged(&object(), &"its bytes have another SHA-256")))
    }

    async fn read_manifest(&self, row: &ManifestRow) -> Result<Manifest> {
        if row.length as usize > MAX_MANIFEST_BYTES {
            return Err(Error::corrupt("a manifest in it is too long"));
        }
        let range = row.offset..row.offset + u64::from(row.length);
        let bytes = self.hub.store().get_range(&Key::Copy(row.shard), range).await?;
        let manifest = self.hub.pool().run(move || Manifest::decode(&bytes)).await?;
        manifest.map_err(|error| Error::corrupt(error.to_string()))
    }

    /// Checks the directory of a shard object, from which the index would be made anew.
    async fn shard(&mut self, copy: &CopyName) -> Result<Found> {
        if let Some(known) = self.shards.get(copy) {
            return Ok(known.clone());
        }
        if self.passes_over(CopyKind::Shard, &copy.hash) {
            return Ok(None);
        }
        let found = match self.read_shard(copy).await {
            Ok((bytes, _)) => {
                self.count(bytes).await?;
                None
            }
            Err(error) => Some(self.copy_fault(copy, error)?),
        };
        self.shards.insert(*copy, found.clone());
        Ok(found)
    }

    /// Checks the shard objects of the whole hub: those that no commit needs yet, too, since
    /// clients were told that they need not send again what is in them.
    pub(super) async fn all_shards(&mut self) -> Result<()> {
        let mut listed = self.hub.store().list(&Prefix::Copies(CopyKind::Shard));
        while let Some(listed) = listed.next().await {
            let Key::Copy(copy) = listed?.key else {
                continue;
            };
            if self.shard(&copy).await?.is_some() {
                continue;
            }
            // Its directory is sound: it was read just now, or a moment ago.
            let places = match self.read_shard(&copy).await {
                Ok((_, directory)) => directory.places,
                Err(error) => {
                    self.copy_fault(&copy, error)?;
                    continue;
                }
            };
            for ManifestPlace { file, sha256, size, offset, length } in places {
                if !self.manifests.insert((copy, offset)) {
                    continue;
                }
                let row = ManifestRow { shard: copy, offset, length, size, sha256 };
                match self.read_manifest(&row).await {
                    Ok(manifest) if manifest.file == file => self.count(u64::from(length)).await?,
                    Ok(_) => {
                        self.hub.distrust(&copy, "it holds another file");
                        self.damaged(&Key::Copy(copy), &"it holds another file");
                    }
                    Err(error) => drop(self.copy_fault(&copy, error)?),
                }
            }
        }
        Ok(())
    }

    async fn read_shard(&self, copy: &CopyName) -> Result<(u64, ShardDirectory)> {
        let damaged = |error: ballast_format::Error| Error::corrupt(error.to_string());
        let (store, key) = (self.hub.store(), Key::Copy(*copy));
        let front = store.get_range(&key, 0..FRONT_BYTES as u64).await?;
        let length = ShardDirectory::front_length(&front).map_err(damaged)? as u64;
        let front = store.get_range(&key, 0..length).await?;
        let directory = ShardDirectory::decode(&front).map_err(damaged)?;
        let end =
            directory.places.last().map_or(length, |place| place.offset + u64::from(place.length));
        match store.size(&key).await? {
            Some(size) if size == end => Ok((length, directory)),
            _ => Err(Error::corrupt("it does not end where its directory says")),
        }
    }
}
