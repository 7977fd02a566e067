//! A file's bytes by the best way that an upstream has: out of its xorbs, or as they are.

use std::pin::Pin;

use ballast_format::hash::{FileHash, ObjectHash};
use ballast_node::pool::Pool;
use ballast_node::upload::Came;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either, MaybeDone, maybe_done, select};

use super::error::Error;
use super::file::Download;
use super::listing::{Entry, EntryKind, Large};
use super::xet::{Here, Target, XetDownload};
use super::{Repo, Upstream};

/// Smaller files are had faster as they are: xorbs take three questions more.
const XET_FROM: u64 = 8 << 20;
/// What comes as it is while those questions are asked: somebody may be waiting.
const FRONT_BYTES: u64 = 2 << 20;
/// The same where what comes may be here.
const SHORT_FRONT_BYTES: u64 = 512 << 10;

/// The bytes of a file, from some offset to its end. Where xorbs fail, the rest comes as it is.
pub struct Fetch {
    upstream: Upstream,
    repo: Repo,
    commit: ObjectHash,
    entry: Entry,
    /// The next byte to hand out.
    at: u64,
    way: Way,
    /// What has come as it is, if that is the file's front: its first xorb begins there.
    head: Vec<Bytes>,
    /// What there is to tell of xorbs.
    came: Vec<Came>,
}

enum Way {
    /// The front as it is, while what follows is prepared.
    Front(Box<Download>, MaybeDone<BoxFuture<'static, Option<Box<XetDownload>>>>),
    Xet(Box<XetDownload>),
    Plain(Box<Download>),
}

impl Fetch {
    /// Whether the bytes come out of xorbs at the moment.
    pub fn is_xet(&self) -> bool {
        matches!(self.way, Way::Xet(_))
    }

    /// Whether the bytes that came last were here, and not fetched.
    pub fn was_here(&self) -> bool {
        matches!(&self.way, Way::Xet(download) if download.was_here())
    }

    /// What there is to tell of the upstream's xorbs since this was asked. It begins before the
    /// bytes that came last, and may go on behind them.
    pub(in crate::mirror) fn take_came(&mut self) -> Vec<Came> {
        std::mem::take(&mut self.came)
    }

    /// The next bytes, or nothing after the last one of the file.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(bytes) = self.front().await? {
            self.at += bytes.len() as u64;
            return Ok(Some(bytes));
        }
        let xorbs = match &mut self.way {
            Way::Plain(download) | Way::Front(download, _) => return download.chunk().await,
            Way::Xet(download) => download,
        };
        let error = match xorbs.chunk().await {
            Ok(bytes) => {
                self.came.append(&mut xorbs.take_came());
                self.at += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
                return Ok(bytes);
            }
            Err(error) => error,
        };
        self.upstream.distrust(&self.entry);
        let (repo, path) = (&self.repo, &self.entry.path);
        tracing::info!(%repo, %path, %error, "the rest of a file comes without xorbs");
        let opened = self.upstream.open(repo, self.commit, path, self.at, Some(&self.entry)).await;
        let mut download = Box::new(opened?);
        let bytes = download.chunk().await;
        self.way = Way::Plain(download);
        self.came.push(Came::Ends);
        bytes
    }

    /// The next bytes of the front, beside which what follows is prepared; nothing behind it.
    async fn front(&mut self) -> Result<Option<Bytes>, Error> {
        let (front, following) = match &mut self.way {
            Way::Front(front, following) if !matches!(following, MaybeDone::Gone) => {
                (front, following)
            }
            _ => return Ok(None),
        };
        let bytes = match select(front.chunk().boxed(), &mut *following).await {
            Either::Left((bytes, _)) => bytes?,
            Either::Right(((), bytes)) => bytes.await?,
        };
        if bytes.is_none() {
            (&mut *following).await;
            let head = std::mem::take(&mut self.head);
            if let Some(mut download) = Pin::new(following).take_output().flatten() {
                if !head.is_empty() {
                    download.behind(head).await;
                }
                self.way = Way::Xet(download);
            } else {
                front.go_on();
                self.came.push(Came::Ends);
            }
        } else if self.at == 0 || !self.head.is_empty() {
            self.head.extend(bytes.clone());
        }
        Ok(bytes)
    }
}

impl Upstream {
    /// A file's bytes from an offset on, by the best way there is; `entry` is what is known of it,
    /// with which everything is compared. Whether they are the file's, whoever stores them sees,
    /// and says so by `distrust`.
    pub async fn fetch(
        &self,
        pool: &Pool,
        repo: &Repo,
        commit: ObjectHash,
        entry: &Entry,
        from: u64,
    ) -> Result<Fetch, Error> {
        self.fetch_beside(pool, None, (repo, commit), entry, from).await
    }

    /// The same, with files that are here and of which parts need not be fetched.
    pub(in crate::mirror) async fn fetch_beside(
        &self,
        pool: &Pool,
        here: Option<Here>,
        (repo, commit): (&Repo, ObjectHash),
        entry: &Entry,
        from: u64,
    ) -> Result<Fetch, Error> {
        let front_bytes = if here.is_some() { SHORT_FRONT_BYTES } else { FRONT_BYTES };
        let until = from.saturating_add(front_bytes);
        let may_have_xorbs = until < entry.size && self.may_have_xorbs(entry);
        let end = may_have_xorbs.then_some(until);
        let opened = self.open_until(repo, commit, &entry.path, (from, end), Some(entry)).await;
        let mut front = Box::new(opened?);
        let mut entry = entry.clone();
        entry.xet_hash =
            entry.xet_hash.or_else(|| front.xet_hash().and_then(|hash| hash.parse().ok()));
        let mut came = Vec::new();
        let way = if may_have_xorbs && (entry.xet_hash.is_some() || front.is_ranged()) {
            let (at, entry) = ((repo.clone(), commit), entry.clone());
            let following = self.clone().xorbs(pool.clone(), at, entry, until, here);
            Way::Front(front, maybe_done(following.boxed()))
        } else {
            front.go_on();
            came.push(Came::Ends);
            Way::Plain(front)
        };
        let (upstream, repo, head) = (self.clone(), repo.clone(), Vec::new());
        Ok(Fetch { upstream, repo, commit, entry, at: from, way, head, came })
    }

    /// A file out of its xorbs, from an offset on, ready to be handed out; nothing if the upstream
    /// does not have it so, or was wrong about it.
    async fn xorbs(
        self,
        pool: Pool,
        (repo, commit): (Repo, ObjectHash),
        entry: Entry,
        from: u64,
        here: Option<Here>,
    ) -> Option<Box<XetDownload>> {
        let file = match entry.xet_hash {
            Some(file) => file,
            None => self.xet_hash(&repo, commit, &entry).await?,
        };
        let target = Target { repo, commit, file, size: entry.size };
        Some(Box::new(XetDownload::new(&self, &pool, target, from, here).prepare().await))
    }

    /// Remembers that a file's xorbs did not make the file.
    pub fn distrust(&self, entry: &Entry) {
        if let Some(large) = entry.large {
            self.distrusted.insert(large.sha256, ());
        }
    }

    pub(super) fn may_have_xorbs(&self, entry: &Entry) -> bool {
        let is_trusted = |large: Large| self.distrusted.get(&large.sha256).is_none();
        let is_large = entry.kind == EntryKind::File && entry.large.is_some_and(is_trusted);
        self.xet && is_large && entry.size >= XET_FROM
    }

    /// The Xet hash of a file of which only the rest is known; an upstream that does not tell has
    /// none.
    pub(super) async fn xet_hash(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        entry: &Entry,
    ) -> Option<FileHash> {
        let listed = self.paths(repo, commit, std::slice::from_ref(&entry.path)).await.ok()?;
        let listed = listed.into_iter().find(|listed| listed.path == entry.path)?;
        listed.xet_hash.filter(|_| listed.large == entry.large && listed.size == entry.size)
    }
}
