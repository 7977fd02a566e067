//! What large files of a home are made of, and what of it is not here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ballast_format::hash::{ChunkHash, XorbHash};
use ballast_format::id::RepoId;
use ballast_format::manifest::{Manifest, ManifestId, Term};
use ballast_format::pack::FileLink;
use ballast_format::xorb::XorbFooter;
use ballast_node::{Error, Result};

use super::follower::Follower;
#[cfg(doc)]
use super::home::MOST_XORBS;

/// Where chunks are that a file shares with what is here.
pub(super) type Held = HashMap<ChunkHash, (XorbHash, u32)>;

/// Chunks of files that are here, by hash, for one file that comes: some 70 MB.
const MOST_HELD: usize = 1 << 20;

/// How many bytes of a file are in these xorbs.
pub(super) fn bytes_in(terms: &[Term], xorbs: &[XorbHash]) -> u64 {
    let xorbs: HashSet<&XorbHash> = xorbs.iter().collect();
    let inside = terms.iter().filter(|term| xorbs.contains(&term.xorb));
    inside.map(|term| u64::from(term.length)).sum()
}

impl Follower {
    /// What a large file is made of; nothing if the home does not have that any more, as something
    /// else took its place.
    pub(super) async fn manifest(
        &self,
        repo: RepoId,
        link: &FileLink,
    ) -> Result<Option<Arc<Manifest>>> {
        let (hub, id) = (self.hub(), link.manifest());
        if hub.has_shard(&id.shard).await?
            && let Some(known) = hub.known_manifest(&id).await?
        {
            return Ok(Some(known));
        }
        let Some(body) = self.home().shard(repo, &id).await? else { return Ok(None) };
        hub.take_shard(repo, id.shard, body).await?;
        let manifest = hub.known_manifest(&id).await?.ok_or_else(|| {
            Error::invalid(format!("the shard `{}` has no file `{}`", id.shard, id.file))
        })?;
        Ok(Some(manifest))
    }

    /// Those xorbs of these terms that are not here, each once.
    pub(super) async fn lacking(&self, terms: &[Term]) -> Result<Vec<XorbHash>> {
        let (mut lacking, mut seen) = (Vec::new(), HashSet::new());
        for term in terms {
            if seen.insert(term.xorb) && !self.hub().has_xorb(&term.xorb).await? {
                lacking.push(term.xorb);
            }
        }
        Ok(lacking)
    }

    /// What xorbs of a manifest are made of, [`MOST_XORBS`] at most; nothing if one is not at the
    /// home any more.
    pub(super) async fn footers(
        &self,
        repo: RepoId,
        manifest: &ManifestId,
        xorbs: &[XorbHash],
    ) -> Result<Option<Vec<Arc<XorbFooter>>>> {
        let there = self.home().footers(repo, manifest, xorbs).await?;
        let there: Option<Vec<Arc<XorbFooter>>> = there.into_iter().collect();
        let Some(there) = there.filter(|there| there.len() == xorbs.len()) else {
            return Ok(None);
        };
        for (footer, xorb) in there.iter().zip(xorbs) {
            if footer.hash() != *xorb {
                return Err(Error::invalid(format!("not the xorb `{xorb}` was described")));
            }
        }
        Ok(Some(there))
    }

    /// Where chunks are that the file may share with what is here.
    pub(super) async fn held(
        &self,
        repo: RepoId,
        (link, manifest): (&FileLink, &Arc<Manifest>),
        lacking: &[XorbHash],
    ) -> Result<Held> {
        let (hub, mut held) = (self.hub(), Held::new());
        for xorb in hub.resembling(repo, link, manifest).await? {
            if lacking.contains(&xorb) || !hub.has_xorb(&xorb).await? {
                continue;
            }
            let footer = hub.carried_footer(&xorb).await?;
            if held.len() + footer.chunk_count() as usize > MOST_HELD {
                break;
            }
            held.extend((0..).zip(footer.chunk_hashes()).map(|(at, hash)| (*hash, (xorb, at))));
        }
        Ok(held)
    }
}
