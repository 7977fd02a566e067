//! What has not arrived here is read through from its home; what is large of it stays (ADR 53).
//!
//! Whoever calls was found to be allowed to read the repo here. A repo that a home offers becomes
//! known; of a log, what is behind the last entry that has arrived is read ahead; bytes of a large
//! file come xorb by xorb, as they come to who follows, and need not come again for that. A pause,
//! or a window, of a replication keeps nobody waiting who asks; its limit holds.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::ErrorKind;
use ballast_format::hash::Sha256;
use ballast_format::id::RepoId;
use ballast_format::manifest::{Manifest, Term};
use ballast_format::name::{FilePath, RegionName, RepoKind, RepoName};
use ballast_format::pack::FileLink;
use ballast_node::access::Repo;
use ballast_node::download::ByteStream;
use ballast_node::hub::Hub;
use ballast_node::origin::{Figure, Origin, Wanted};
use ballast_node::{Error, Result};
use futures_util::future::join_all;
use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};

use super::chunks::Chunks;
use super::follower::Follower;
use super::home::{MOST_XORBS, Offer};
use super::plan::read;
use super::pull::bring_pack;
use super::unreachable;

/// How long it is believed that a home has nothing new.
const LATELY: Duration = Duration::from_secs(1);
/// How long a client waits for a home, and for the first bytes of a file.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long somebody waits who asks for a repo that may not be anywhere.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);
/// When to ask again for what is on its way, in seconds.
const SOON_SECONDS: u64 = 2;
/// Entries whose packs are brought before these are known: who is cut off goes on behind them.
const ENTRIES: usize = 64;
/// Bytes of a file for which xorbs come before they are handed out, if they are that small.
const PART_BYTES: u64 = 8 << 20;

/// Asks the regions that are followed for what has not arrived.
#[derive(Default)]
pub struct Through {
    followers: Mutex<BTreeMap<RegionName, Arc<Follower>>>,
}

impl Through {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<RegionName, Arc<Follower>>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on a region is asked that is followed under this name.
    pub fn add(&self, name: RegionName, follower: Arc<Follower>) {
        self.lock().insert(name, follower);
    }

    /// It is asked no more.
    pub fn remove(&self, name: &RegionName) {
        self.lock().remove(name);
    }

    /// Who follows the home of a repo.
    fn of(&self, repo: &Repo) -> Option<Arc<Follower>> {
        let away = repo.record.homing.away.as_ref()?;
        let all = self.lock();
        let found = all.values().find(|follower| {
            follower.board().read(|status| status.region.as_ref() == Some(&away.region))
        });
        found.map(Arc::clone)
    }
}

/// What came of asking a repo's home, if it comes soon enough; nothing if that does not give it.
async fn asked<T>(
    hub: &Hub,
    repo: &Repo,
    what: &str,
    outcome: impl Future<Output = Result<T>>,
) -> Result<Option<T>> {
    let error = tokio::select! {
        biased;
        outcome = outcome => match outcome {
            Ok(outcome) => return Ok(Some(outcome)),
            Err(error) => error,
        },
        () = hub.env().sleep(PATIENCE) => return Err(Error::Upstream {
            reason: format!("{what} is being fetched from its home; ask again"),
            retry_seconds: SOON_SECONDS,
        }),
    };
    // What exactly broke, and what a home says of other repos, is for those who run the hub.
    match &error {
        Error::Upstream { .. } | Error::Invalid { .. } | Error::Conflict { .. } => {
            tracing::info!(repo = %repo.name(), %error, "a home can't be read through");
            Err(away(repo))
        }
        _ if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Denied) => {
            tracing::info!(repo = %repo.name(), %error, "a home does not give what is asked for");
            Ok(None)
        }
        _ => Err(error),
    }
}

/// The home of a repo can't be asked.
fn away(repo: &Repo) -> Error {
    let home = repo.record.homing.away.as_ref().map(|away| away.region.to_string());
    let (home, name) = (home.unwrap_or_default(), repo.name());
    unreachable(format!("`{home}`, the home of `{name}`, does not answer as it should; ask again"))
}

#[async_trait]
impl Origin for Through {
    async fn bring_repo(&self, hub: &Arc<Hub>, kind: RepoKind, name: &RepoName) -> Result<()> {
        let followers: Vec<Arc<Follower>> = self.lock().values().map(Arc::clone).collect();
        let asked = followers.iter().map(|follower| follower.make_known(kind, name));
        // Whoever can't be asked is not waited for: nothing says that there is such a repo.
        tokio::select! {
            biased;
            asked = join_all(asked) => {
                for error in asked.into_iter().filter_map(Result::err) {
                    tracing::debug!(repo = %name, %error, "another region is not asked for a repo");
                }
            }
            () = hub.env().sleep(SHORT_PATIENCE) => {}
        }
        Ok(())
    }

    async fn bring_revision(&self, hub: &Arc<Hub>, repo: &Repo, _: &str, _: bool) -> Result<()> {
        let follower = self.of(repo).ok_or_else(|| away(repo))?;
        // If it does not give it to us (any more), what is known here is all that there is.
        asked(hub, repo, "this revision", follower.read_ahead(repo.id())).await.map(drop)
    }

    async fn open(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
        range: Range<u64>,
    ) -> Result<ByteStream> {
        let Some(link) = hub.ahead_link(repo.id(), &wanted.sha256) else {
            // It has arrived since the caller looked.
            let item = hub.item(repo, wanted.commit, &FilePath::parse(&wanted.path)?).await?;
            if item.is_here() {
                return hub.open_item(repo, &item, range).await;
            }
            return Err(unreachable(format!("`{}` is not known any more; ask again", wanted.path)));
        };
        let follower = self.of(repo).ok_or_else(|| away(repo))?;
        let opened = async {
            match follower.open(repo.id(), link, range.clone()).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    // The home began anew, and does not remember what it told us of.
                    follower.hear_again(repo.id()).await?;
                    follower.open(repo.id(), link, range).await
                }
                opened => opened,
            }
        };
        let opened = asked(hub, repo, "this file", opened).await?;
        opened.ok_or_else(|| unreachable("the home of this repo does not give this file"))
    }

    fn stale_since(&self, _: RepoId) -> Option<u64> {
        None
    }

    // What is handed out was verified chunk by chunk.
    fn was_wrong(&self, _: &Hub, _: RepoId, _: &Sha256) -> bool {
        false
    }

    fn figures(&self) -> Vec<Figure> {
        Vec::new()
    }
}

impl Follower {
    /// Makes a repo known here that the home has under this name.
    async fn make_known(&self, kind: RepoKind, name: &RepoName) -> Result<()> {
        if self.board().read(|status| status.problem.is_some()) {
            return Ok(());
        }
        let offers = self.look(LATELY).await?;
        let folded = name.folded();
        let is_it = |offer: &&Offer| {
            offer.repo.is_home && offer.repo.kind == kind && offer.repo.name.folded() == folded
        };
        match offers.repos.iter().find(is_it) {
            Some(offer) if self.hub().record_of(offer.repo.id).is_none() => {
                self.hub().begin_to_follow(&offer.repo, &offers.home).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Reads a repo's log at its home to the end, and brings the packs that it names.
    async fn read_ahead(&self, id: RepoId) -> Result<()> {
        let turn = self.reading.of(id);
        let _turn = turn.lock().await;
        let (hub, home) = (self.hub(), self.home());
        while let Some(tail) = hub.ahead_tail(id, LATELY).await? {
            let page = read(home, id, tail, ENTRIES).await?;
            if page.is_empty() {
                return hub.end_ahead(id, tail);
            }
            for planned in page {
                let mut packs = Vec::with_capacity(planned.packs.len());
                for pack in &planned.packs {
                    packs.push(bring_pack(hub, home, id, pack).await?);
                }
                hub.add_ahead(id, &planned.entry, planned.tail, &packs)?;
            }
        }
        Ok(())
    }

    /// Has the home tell once more what its log names behind what has arrived here.
    async fn hear_again(&self, id: RepoId) -> Result<()> {
        let mut tail = self.hub().tail_of(id).await?;
        while let Some(last) = read(self.home(), id, tail, ENTRIES).await?.last() {
            tail = last.tail;
        }
        Ok(())
    }

    /// These bytes of a large file; the first part of them has come.
    async fn open(
        self: &Arc<Self>,
        repo: RepoId,
        link: FileLink,
        range: Range<u64>,
    ) -> Result<ByteStream> {
        let manifest = self.manifest(repo, &link).await?.ok_or_else(changed)?;
        let file = Arc::new(Passing { follower: Arc::clone(self), repo, link, manifest });
        let hub = Arc::clone(self.hub());
        let mut parts = parts(&file.manifest.terms, &range).into_iter();
        let Some(first) = parts.next() else { return Ok(Box::pin(stream::empty())) };
        file.bring(&first).await?;
        // Nothing is asked for while a client reads: a slow one would keep a request open.
        let rest = stream::iter(parts).then(move |part| {
            let file = Arc::clone(&file);
            async move {
                file.bring(&part).await?;
                Ok::<_, Error>(part)
            }
        });
        let all = stream::once(future::ready(Ok(first))).chain(rest);
        let bytes = all.and_then(move |part| {
            let hub = Arc::clone(&hub);
            async move {
                let bytes = hub.read_file(&link, part.bytes).await.map_err(gone)?;
                Ok(bytes.map_err(gone))
            }
        });
        Ok(bytes.try_flatten().boxed())
    }

    /// What brings chunks of a repo now.
    fn chunks_of(&self, repo: RepoId) -> Result<Arc<Chunks>> {
        let offers = self.offers();
        let found = offers.as_ref().and_then(|offers| {
            let offer = offers.repos.iter().find(|offer| offer.repo.id == repo)?;
            Some(self.chunks(&offer.by, offers.replications.get(&offer.by)?))
        });
        found.ok_or_else(|| unreachable("the home does not let this repo go any more"))
    }
}

/// Nobody keeps what no log names from being collected: then it comes again.
fn gone(error: Error) -> Error {
    match error.kind() == ErrorKind::Corrupt {
        true => unreachable("what had come of this file is gone; ask again"),
        false => error,
    }
}

fn changed() -> Error {
    unreachable("this file was put together anew at its home; ask again")
}

/// A file that is read while it comes.
struct Passing {
    follower: Arc<Follower>,
    repo: RepoId,
    link: FileLink,
    manifest: Arc<Manifest>,
}

/// A part of a file whose xorbs come before any byte of it is handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    terms: Range<usize>,
    bytes: Range<u64>,
}

/// The parts that these bytes of a file are in.
fn parts(terms: &[Term], wanted: &Range<u64>) -> Vec<Part> {
    let (mut parts, mut end): (Vec<Part>, u64) = (Vec::new(), 0);
    for (at, term) in terms.iter().enumerate() {
        let start = end;
        end += u64::from(term.length);
        let bytes = start.max(wanted.start)..end.min(wanted.end);
        if bytes.is_empty() {
            continue;
        }
        match parts.last_mut() {
            Some(part) if bytes.end - part.bytes.start <= PART_BYTES => {
                (part.terms.end, part.bytes.end) = (at + 1, bytes.end);
            }
            _ => parts.push(Part { terms: at..at + 1, bytes }),
        }
    }
    parts
}

impl Passing {
    /// Brings the xorbs of a part that are not here.
    async fn bring(&self, part: &Part) -> Result<()> {
        let (follower, repo, manifest) = (&self.follower, self.repo, &self.manifest);
        let lacking = follower.lacking(&manifest.terms[part.terms.clone()]).await?;
        if lacking.is_empty() {
            return Ok(());
        }
        let chunks = follower.chunks_of(repo)?;
        let held = follower.held(repo, (&self.link, manifest), &lacking).await?;
        let told = |bytes: u64| follower.came((repo, self.link.sha256), bytes, 0);
        for xorbs in lacking.chunks(MOST_XORBS) {
            let footers = follower.footers(repo, &self.link.manifest(), xorbs).await?;
            for footer in &footers.ok_or_else(changed)? {
                chunks.bring(repo, footer, &held, &told).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ballast_format::hash::XorbHash;

    use super::*;

    #[test]
    fn a_part_has_what_is_wanted_of_a_large_term_or_of_several_small_ones() {
        let term = |length| Term { xorb: XorbHash::from_bytes([1; 32]), chunks: 0..1, length };
        let large = u32::try_from(PART_BYTES * 2).expect("it fits");
        let terms = [term(10), term(20), term(large), term(5)];
        let end = 35 + 2 * PART_BYTES;
        let part = |terms, bytes| Part { terms, bytes };
        let all = [part(0..2, 0..30), part(2..3, 30..end - 5), part(3..4, end - 5..end)];
        assert_eq!(parts(&terms, &(0..end)), all);
        assert_eq!(parts(&terms, &(15..31)), [part(1..3, 15..31)]);
        assert_eq!(parts(&terms, &(end - 1..end)), [part(3..4, end - 1..end)]);
        assert_eq!(parts(&terms, &(7..7)), []);
    }
}
