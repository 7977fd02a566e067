//! What a region tells another one of its repos.
//!
//! Whoever calls has asked whether the other region may have the repo.

use ballast_format::hash::{PackHash, ShardHash};
use ballast_format::id::{RepoId, UserId};
use ballast_format::log::{Gating, Head, RepoChange, Visibility};
use ballast_format::name::{RegionName, RepoKind, RepoName};
use ballast_format::pack::PackDirectory;
use ballast_store::keyspace::{CopyKind, CopyName, Key, LogId};
use ballast_store::reflog::Tail;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::access::Repo;
use crate::download::ByteStream;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::catalogue::RepoRecord;
use crate::state::homing::Standing;
use crate::state::rows;

/// Repos whose logs are looked at at the same time.
const AT_ONCE: usize = 16;
/// Bytes of a shard object that are read at once.
const PIECE: u64 = 1 << 20;

/// A repo, as a region offers it to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Its name for ever.
    pub id: RepoId,
    /// What it holds.
    pub kind: RepoKind,
    /// Its name for now.
    pub name: RepoName,
    /// Who may see it.
    pub visibility: Visibility,
    /// Whether readers must ask for its files.
    pub gating: Gating,
    /// Who created it.
    pub creator: UserId,
    /// Whether an administrator has closed it.
    pub disabled: bool,
    /// A line about it.
    pub description: Option<String>,
    /// For a space: what runs it.
    pub sdk: Option<String>,
    /// Whether nobody may open discussions.
    pub discussions_disabled: bool,
    /// Whether the region that offers it is its home.
    pub is_home: bool,
    /// If it was the home in this term: for which region it ended that.
    pub given_to: Option<RegionName>,
    /// The home's term.
    pub term: u64,
    /// The last entry that the region has.
    pub tail: Head,
}

/// Entries of a log, as they are stored, with their numbers.
pub type Entries = Vec<(u64, Bytes)>;

/// A pack that is read for another region.
#[derive(Clone, Debug)]
pub struct StoredPack {
    copy: CopyName,
    /// How long it is.
    pub size: u64,
    /// Its bytes from its directory on.
    pub tail: Bytes,
    /// What is in it.
    pub directory: PackDirectory,
}

impl Hub {
    /// What there is of the repos that `keep` lets through. Mirrors are left out: every region may
    /// have its own.
    pub async fn offered(&self, keep: impl Fn(&RepoRecord) -> bool) -> Result<Vec<Offered>> {
        self.freshen().await?;
        let records = self.records(|record| record.upstream.is_none() && keep(record));
        let repos = records.into_iter().map(|record| Repo { record });
        stream::iter(repos).map(|repo| self.offered_one(repo)).buffered(AT_ONCE).try_collect().await
    }

    async fn offered_one(&self, repo: Repo) -> Result<Offered> {
        // One that was left without its first commit gets it.
        self.repo_state(&repo).await?;
        let (tail, standing) = self.place_of(repo.id()).await?;
        let record = RepoRecord::clone(&repo.record);
        Ok(Offered {
            id: record.id,
            kind: record.kind,
            name: record.name,
            visibility: record.visibility,
            gating: record.gating,
            creator: record.creator,
            disabled: record.disabled,
            description: record.description,
            sdk: record.sdk,
            discussions_disabled: record.discussions_disabled,
            is_home: matches!(standing, Standing::Home { .. }),
            given_to: match standing {
                Standing::Away(to) if record.homing.away.is_none() => Some(to.region),
                _ => None,
            },
            term: record.homing.term,
            tail: Head { number: tail.number, hash: tail.hash },
        })
    }

    /// Entries of a repo's log behind this one, as many as are read at once.
    pub async fn entries_behind(&self, repo: RepoId, number: u64) -> Result<Entries> {
        let log = self.log_of(LogId::Repo(repo));
        let tail = match number {
            0 => Some(Tail::EMPTY),
            number => log.read::<RepoChange>(number).await?.map(|stored| stored.tail),
        };
        let Some(tail) = tail else { return Ok(Vec::new()) };
        let page = log.read_after::<RepoChange>(&tail).await?;
        Ok(page.into_iter().map(|stored| (stored.tail.number, stored.bytes)).collect())
    }

    /// This entry of a repo's log, if it has one of that number.
    pub async fn entry_head(&self, repo: RepoId, number: u64) -> Result<Option<Head>> {
        if number == 0 {
            return Ok(Some(Head::NOTHING));
        }
        let stored = self.log_of(LogId::Repo(repo)).read::<RepoChange>(number).await?;
        Ok(stored.map(|stored| Head { number, hash: stored.tail.hash }))
    }

    /// A pack that a repo's log names.
    pub async fn stored_pack(&self, repo: RepoId, pack: PackHash) -> Result<StoredPack> {
        let (copy, directory) = rows::find_pack(self, repo, pack).await?;
        let key = Key::Copy(copy);
        let size = self.store().size(&key).await?;
        let size = size.ok_or_else(|| Error::corrupt(format!("`{key}` is gone")))?;
        let tail = self.store().get_range(&key, directory.contents_end()..size).await?;
        Ok(StoredPack { copy, size, tail, directory })
    }

    /// Bytes of a pack.
    pub async fn pack_bytes(
        &self,
        pack: &StoredPack,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes> {
        Ok(self.store().get_range(&Key::Copy(pack.copy), range).await?)
    }

    /// A shard object, from its first byte on; nothing if it is not here (any more).
    pub async fn stored_shard(&self, shard: ShardHash) -> Result<Option<ByteStream>> {
        let copies = self.copies_by_trust(CopyKind::Shard, *shard.as_bytes()).await?;
        let Some(copy) = copies.first().copied() else { return Ok(None) };
        let key = Key::Copy(copy);
        let Some(size) = self.store().size(&key).await? else { return Ok(None) };
        let store = self.store().clone();
        let starts = (0..size).step_by(usize::try_from(PIECE).unwrap_or(usize::MAX));
        let read = move |start: u64| {
            let store = store.clone();
            async move { Ok(store.get_range(&key, start..size.min(start + PIECE)).await?) }
        };
        Ok(Some(Box::pin(stream::iter(starts).then(read))))
    }
}
