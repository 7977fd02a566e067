//! What of a file that comes from another region is here already.

use std::collections::BTreeSet;
use std::sync::Arc;

use ballast_format::hash::XorbHash;
use ballast_format::id::RepoId;
use ballast_format::manifest::{Manifest, ManifestId};
use ballast_format::pack::FileLink;
use ballast_store::index::Table;
use ballast_store::index::schema::{self, ChunkRow, FileRow};

use crate::error::Result;
use crate::hub::Hub;

/// Chunks of a file by which others like it are looked for.
const MOST_SAMPLES: usize = 64;
/// Files that are found so for one chunk.
const MOST_FILES: usize = 4;
/// Xorbs in which chunks of one file are looked for.
const MOST_XORBS: usize = 256;

impl Hub {
    /// What a file is made of, if that is here.
    pub async fn known_manifest(&self, id: &ManifestId) -> Result<Option<Arc<Manifest>>> {
        self.manifest(id).await
    }

    /// Whether a xorb is here, in a copy that nobody condemned.
    pub async fn has_xorb(&self, xorb: &XorbHash) -> Result<bool> {
        Ok(self.present_copy(xorb).await?.is_some())
    }

    /// Xorbs that may have chunks of this file: those of the same file as it is here, and of files
    /// that share some of its chunks.
    pub async fn resembling(
        &self,
        repo: RepoId,
        link: &FileLink,
        manifest: &Manifest,
    ) -> Result<Vec<XorbHash>> {
        let mut xorbs: BTreeSet<XorbHash> = BTreeSet::new();
        let key = schema::file_key(&repo, &link.sha256);
        if let Some(row) = self.index().get(Table::File, &key).await? {
            self.add_xorbs(&FileRow::decode(&row)?.manifest, &mut xorbs).await?;
        }
        for sample in manifest.samples.iter().take(MOST_SAMPLES) {
            if xorbs.len() >= MOST_XORBS {
                break;
            }
            let prefix = schema::chunk_repos_prefix(&sample.chunk);
            let rows = self.index().scan(Table::Chunk, &prefix, None, MOST_FILES).await?;
            for (_, row) in rows {
                self.add_xorbs(&ChunkRow::decode(&row)?.manifest, &mut xorbs).await?;
            }
        }
        Ok(xorbs.into_iter().take(MOST_XORBS).collect())
    }

    async fn add_xorbs(&self, id: &ManifestId, xorbs: &mut BTreeSet<XorbHash>) -> Result<()> {
        // It may have been collected: then it tells nothing.
        if let Some(manifest) = self.manifest(id).await? {
            xorbs.extend(manifest.terms.iter().map(|term| term.xorb));
        }
        Ok(())
    }
}
