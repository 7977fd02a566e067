//! What revisions are made of, read to be carried elsewhere, and taken in where they arrive.
//!
//! Reading asks for nobody's rights: whoever carries a hub's content has its store. Taking in goes
//! the way of uploads: chunks, then what is made of them, each hashed before anything refers to it;
//! one log entry at the end makes a repo's revisions visible.

mod reach;
mod take;

pub use reach::{Reached, ReachedObject};
pub use take::{Objects, Published, Refs, TakenObject};

use std::ops::Range;
use std::sync::Arc;

use ballast_format::hash::{ObjectHash, XorbHash};
use ballast_format::manifest::{Manifest, ManifestId};
use ballast_format::name::{RepoKind, RepoName};
use ballast_format::xorb::XorbFooter;
use bytes::Bytes;

use crate::access::Repo;
use crate::download::piece::Piece;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::catalogue::CatalogueState;
use crate::upload::runs_of;

impl Hub {
    /// The repo of this name, whoever may see it.
    pub fn carried_repo(&self, kind: RepoKind, name: &RepoName) -> Option<Repo> {
        let by_name = |state: &CatalogueState| state.by_name(kind, name);
        self.catalogue.read(by_name).map(|record| Repo { record })
    }

    /// Whether a repo has all of these objects.
    pub async fn has_objects(&self, repo: &Repo, ids: &[ObjectHash]) -> Result<bool> {
        // The log as it is now: what the index has of it is read.
        self.state_of(repo.id()).await?;
        Ok(self.known_objects(repo.id(), ids).await?.iter().all(|is_known| *is_known))
    }

    /// What a file is made of.
    pub async fn carried_manifest(&self, id: &ManifestId) -> Result<Arc<Manifest>> {
        self.needed_manifest(id).await
    }

    /// What the copy of a xorb that is read has in it.
    pub async fn carried_footer(&self, xorb: &XorbHash) -> Result<Arc<XorbFooter>> {
        Ok(self.needed_xorb(xorb).await?.1)
    }

    /// The serialized chunks of a run, as the copy that is read has them; each was hashed.
    pub async fn carried_chunks(&self, xorb: &XorbHash, chunks: Range<u32>) -> Result<Bytes> {
        let (copy, footer) = self.needed_xorb(xorb).await?;
        self.read_piece(&Piece::new(copy, &footer, chunks)?).await
    }

    /// The bytes of some chunks of a file, counted from its first, each hashed; nothing if the file
    /// does not have so many. All of them are in memory at once.
    pub async fn carried_run(
        &self,
        id: &ManifestId,
        chunks: Range<u64>,
    ) -> Result<Option<Vec<Bytes>>> {
        let manifest = self.needed_manifest(id).await?;
        let Some(runs) = runs_of(&manifest, chunks) else { return Ok(None) };
        let mut bytes = Vec::new();
        for (xorb, run) in runs {
            let (copy, footer) = self.needed_xorb(&xorb).await?;
            bytes.extend(self.read_anywhere(Piece::new(copy, &footer, run)?).await?);
        }
        Ok(Some(bytes))
    }

    /// The content of an object of a repo, which has the id that it is asked for by.
    pub async fn carried_object(&self, repo: &Repo, id: &ObjectHash) -> Result<Bytes> {
        let row = self.object_row(repo.id(), id).await?;
        let row = row.ok_or_else(|| Error::corrupt(format!("the object `{id}` is missing")))?;
        self.read_object(id, &row).await
    }
}
