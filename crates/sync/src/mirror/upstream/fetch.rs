//! A file's bytes by the best way that an upstream has: out of its xorbs, or as they are.

use ballast_format::hash::{FileHash, ObjectHash};
use ballast_node::pool::Pool;
use bytes::Bytes;

use super::error::Error;
use super::file::Download;
use super::listing::{Entry, EntryKind};
use super::xet::{Target, XetDownload};
use super::{Repo, Upstream};

/// Smaller files are had faster as they are: xorbs take three questions more.
const XET_FROM: u64 = 8 << 20;

/// The bytes of a file, from some offset to its end. Where xorbs fail, the rest comes as it is.
pub struct Fetch {
    upstream: Upstream,
    repo: Repo,
    commit: ObjectHash,
    entry: Entry,
    /// The next byte to hand out.
    at: u64,
    way: Way,
}

enum Way {
    Xet(Box<XetDownload>),
    Plain(Box<Download>),
}

impl Fetch {
    /// Whether the bytes come out of xorbs at the moment.
    pub fn is_xet(&self) -> bool {
        matches!(self.way, Way::Xet(_))
    }

    /// The next bytes, or nothing after the last one of the file.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let next = match &mut self.way {
            Way::Plain(download) => return download.chunk().await,
            Way::Xet(download) => download.chunk().await,
        };
        let error = match next {
            Ok(bytes) => {
                self.at += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
                return Ok(bytes);
            }
            Err(error) => error,
        };
        if let Some(hash) = self.entry.xet_hash {
            self.upstream.distrusted.insert(hash, ());
        }
        if self.at == self.entry.size {
            // All was handed out, and is not the file.
            return Err(error);
        }
        let (repo, path) = (&self.repo, &self.entry.path);
        tracing::info!(%repo, %path, %error, "the rest of a file comes without xorbs");
        let opened = self.upstream.open(repo, self.commit, path, self.at, Some(&self.entry)).await;
        let mut download = Box::new(opened?);
        let bytes = download.chunk().await;
        self.way = Way::Plain(download);
        bytes
    }
}

impl Upstream {
    /// A file's bytes from an offset on, by the best way there is; `entry` is what is known of it,
    /// with which everything is compared. Whether they are the file's, whoever stores them sees;
    /// where they were not, its xorbs are not asked for again.
    pub async fn fetch(
        &self,
        pool: &Pool,
        repo: &Repo,
        commit: ObjectHash,
        entry: &Entry,
        from: u64,
    ) -> Result<Fetch, Error> {
        let mut entry = entry.clone();
        if entry.xet_hash.is_none() && self.may_have_xorbs(&entry) {
            entry.xet_hash = self.xet_hash(repo, commit, &entry).await;
        }
        let hash = entry
            .xet_hash
            .filter(|hash| self.may_have_xorbs(&entry) && self.distrusted.get(hash).is_none());
        let way = match hash {
            Some(file) if from < entry.size => {
                let target = Target { repo: repo.clone(), commit, file, size: entry.size };
                Way::Xet(Box::new(XetDownload::new(self, pool, target, from)))
            }
            _ => Way::Plain(Box::new(
                self.open(repo, commit, &entry.path, from, Some(&entry)).await?,
            )),
        };
        Ok(Fetch { upstream: self.clone(), repo: repo.clone(), commit, entry, at: from, way })
    }

    fn may_have_xorbs(&self, entry: &Entry) -> bool {
        let is_large = entry.kind == EntryKind::File && entry.large.is_some();
        self.xet && is_large && entry.size >= XET_FROM
    }

    /// The Xet hash of a file of which only the rest is known; an upstream that does not tell has
    /// none.
    async fn xet_hash(&self, repo: &Repo, commit: ObjectHash, entry: &Entry) -> Option<FileHash> {
        let listed = self.paths(repo, commit, std::slice::from_ref(&entry.path)).await.ok()?;
        let listed = listed.into_iter().find(|listed| listed.path == entry.path)?;
        listed.xet_hash.filter(|_| listed.large == entry.large && listed.size == entry.size)
    }
}
