//! What a home tells a region that follows it: which repos it may have, their logs, and what these
//! name.
//!
//! Nothing is told on the word of a hash (R17): packs are told of whose entries were, manifests of
//! whose packs were, xorbs of which these are made. What was told is remembered for a while; a
//! region that asks later asks for the entries again.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use ballast_format::hash::{PackHash, XorbHash};
use ballast_format::id::RepoId;
use ballast_format::log::{Entry, Head, Replication, RepoChange};
use ballast_format::manifest::ManifestId;
use ballast_format::name::RegionName;
use ballast_format::xorb::XorbFooter;
use ballast_node::download::ByteStream;
use ballast_node::hub::Hub;
use ballast_node::region::{Entries, Offered, StoredPack};
use ballast_node::state::homing::Away;
use ballast_node::{Error, Result};
use bytes::Bytes;
use quick_cache::sync::Cache;

use super::rules::Rules;

/// Packs and manifests that were told of lately, for all regions.
const KEPT_TOLD: usize = 1 << 20;
/// Packs that are being read.
const KEPT_PACKS: usize = 256;
/// Xorbs that are asked about at once.
pub(super) const MOST_XORBS: usize = 256;

/// A repo that a region may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The repo.
    pub repo: Offered,
    /// By which replication.
    pub by: RegionName,
}

/// What a home offers a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offers {
    /// Who offers it.
    pub home: Away,
    /// The replications.
    pub replications: BTreeMap<RegionName, Replication>,
    /// The repos.
    pub repos: Vec<Offer>,
    /// Of those that the region follows: repos that were deleted.
    pub gone: Vec<RepoId>,
}

/// How far a region is with a repo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Entries that are missing.
    pub lag_entries: u64,
    /// Bytes that are missing, as far as it knows.
    pub lag_bytes: u64,
    /// For how long, in seconds.
    pub lag_seconds: u64,
    /// Bytes of chunks that came.
    pub fetched: u64,
    /// Bytes of files whose chunks were there.
    pub saved: u64,
    /// How long what is missing may take, in seconds, if bytes go on coming as they did lately.
    pub eta_seconds: Option<u64>,
}

/// What xorbs are made of, in the order in which they were asked for; nothing for those that are
/// not there any more.
pub type Footers = Vec<Option<Arc<XorbFooter>>>;

/// A region whose repos are followed.
#[async_trait]
pub trait HomeLog: Send + Sync + 'static {
    /// What it offers, told how far its repos are here.
    async fn offers(&self, progress: &BTreeMap<RepoId, Progress>) -> Result<Offers>;

    /// Entries of a repo's log behind this one, as many as come at once; none at its end.
    async fn entries(&self, repo: RepoId, behind: u64) -> Result<Entries>;

    /// One entry's number and hash, if there is one of that number.
    async fn entry(&self, repo: RepoId, number: u64) -> Result<Option<Head>>;

    /// The length of a pack, and its bytes from its directory on.
    async fn pack_end(&self, repo: RepoId, pack: PackHash) -> Result<(u64, Bytes)>;

    /// Bytes of a pack.
    async fn pack_bytes(&self, repo: RepoId, pack: PackHash, range: Range<u64>) -> Result<Bytes>;

    /// The shard object that holds a manifest; nothing if it is not there any more.
    async fn shard(&self, repo: RepoId, manifest: &ManifestId) -> Result<Option<ByteStream>>;

    /// What xorbs of a manifest are made of.
    async fn footers(
        &self,
        repo: RepoId,
        manifest: &ManifestId,
        xorbs: &[XorbHash],
    ) -> Result<Footers>;
}

/// What regions told of their progress.
pub type Told = Arc<Mutex<BTreeMap<RegionName, BTreeMap<RepoId, Progress>>>>;

/// Which xorbs regions were told of lately: their chunks may be asked for.
pub struct Grants(Cache<(RegionName, XorbHash), ()>);

impl Default for Grants {
    fn default() -> Self {
        Self(Cache::new(KEPT_TOLD))
    }
}

impl Grants {
    /// Whether a region may have the chunks of a xorb.
    pub fn opens(&self, region: &RegionName, xorb: &XorbHash) -> bool {
        self.0.get(&(region.clone(), *xorb)).is_some()
    }
}

/// What a hub tells one other region.
pub struct LocalHome {
    hub: Arc<Hub>,
    to: RegionName,
    opened: Opened,
    told: Told,
    grants: Option<Arc<Grants>>,
}

/// What was told of lately.
struct Opened {
    packs: Cache<(RepoId, PackHash), ()>,
    manifests: Cache<(RepoId, ManifestId), ()>,
    reading: Cache<(RepoId, PackHash), Arc<StoredPack>>,
}

impl LocalHome {
    /// What this hub tells that region. `told` gets what the region says of its progress; `grants`,
    /// which xorbs it may ask a carrier for.
    pub fn new(hub: Arc<Hub>, to: RegionName, told: Told, grants: Option<Arc<Grants>>) -> Self {
        let opened = Opened {
            packs: Cache::new(KEPT_TOLD),
            manifests: Cache::new(KEPT_TOLD),
            reading: Cache::new(KEPT_PACKS),
        };
        Self { hub, to, opened, told, grants }
    }

    /// Refuses what does not go to the region, as if it were not there.
    fn check(&self, repo: RepoId) -> Result<()> {
        let record = self.hub.record_of(repo).ok_or(Error::RepoNotFound)?;
        let rules = Rules::of(&self.hub)?;
        let leads = rules.leads(record.kind, &record.name, &self.to);
        leads.map(|_| ()).ok_or(Error::RepoNotFound)
    }

    async fn reading(&self, repo: RepoId, pack: PackHash) -> Result<Arc<StoredPack>> {
        if self.opened.packs.get(&(repo, pack)).is_none() {
            return Err(not_told("pack"));
        }
        if let Some(reading) = self.opened.reading.get(&(repo, pack)) {
            return Ok(reading);
        }
        let reading = Arc::new(self.hub.stored_pack(repo, pack).await?);
        self.opened.reading.insert((repo, pack), Arc::clone(&reading));
        Ok(reading)
    }

    /// Refuses a xorb in which another repo has chunks that may not be kept there: a xorb goes
    /// whole.
    async fn check_residency(&self, rules: &Rules, xorb: &XorbHash) -> Result<()> {
        for record in self.hub.repos_with(xorb).await? {
            if !rules.may_be_in(record.kind, &record.name, &self.to) {
                return Err(Error::denied(format!(
                    "the xorb `{xorb}` has chunks of `{}`, which may not be kept in `{}`\n\
                     hint: upload the file again to a repo that shares nothing with it",
                    record.name, self.to
                )));
            }
        }
        Ok(())
    }
}

fn not_told(what: &str) -> Error {
    Error::NotFound { what: format!("a {what} of which nothing was told lately") }
}

#[async_trait]
impl HomeLog for LocalHome {
    async fn offers(&self, progress: &BTreeMap<RepoId, Progress>) -> Result<Offers> {
        let home = self.hub.settings().region.clone();
        let home = home.ok_or_else(|| {
            let reason = "the other region does not know its own name\nhint: set `region.name`";
            Error::Busy { reason: reason.to_owned() }
        })?;
        let rules = Rules::of(&self.hub)?;
        let by = |offered: &Offered| {
            rules.leads(offered.kind, &offered.name, &self.to).map(|(name, ..)| name.clone())
        };
        let leads = |record: &ballast_node::state::catalogue::RepoRecord| {
            rules.leads(record.kind, &record.name, &self.to).is_some()
        };
        let repos = self.hub.offered(leads).await?;
        let repos = repos.into_iter().filter_map(|repo| Some(Offer { by: by(&repo)?, repo }));
        let gone = progress.keys().filter(|id| self.hub.record_of(**id).is_none());
        let offers = Offers {
            home,
            replications: rules.to(&self.to).into_iter().collect(),
            repos: repos.collect(),
            gone: gone.copied().collect(),
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(self.to.clone(), progress.clone());
        Ok(offers)
    }

    async fn entries(&self, repo: RepoId, behind: u64) -> Result<Entries> {
        self.check(repo)?;
        let entries = self.hub.entries_behind(repo, behind).await?;
        for (_, bytes) in &entries {
            for change in Entry::<RepoChange>::decode(bytes)?.changes {
                if let RepoChange::PackAdded { pack } = change {
                    self.opened.packs.insert((repo, pack), ());
                }
            }
        }
        Ok(entries)
    }

    async fn entry(&self, repo: RepoId, number: u64) -> Result<Option<Head>> {
        self.check(repo)?;
        self.hub.entry_head(repo, number).await
    }

    async fn pack_end(&self, repo: RepoId, pack: PackHash) -> Result<(u64, Bytes)> {
        self.check(repo)?;
        let stored = self.reading(repo, pack).await?;
        for link in &stored.directory.links {
            self.opened.manifests.insert((repo, link.manifest()), ());
        }
        Ok((stored.size, stored.tail.clone()))
    }

    async fn pack_bytes(&self, repo: RepoId, pack: PackHash, range: Range<u64>) -> Result<Bytes> {
        self.check(repo)?;
        let stored = self.reading(repo, pack).await?;
        self.hub.pack_bytes(&stored, range).await
    }

    async fn shard(&self, repo: RepoId, manifest: &ManifestId) -> Result<Option<ByteStream>> {
        self.check(repo)?;
        if self.opened.manifests.get(&(repo, *manifest)).is_none() {
            return Err(not_told("manifest"));
        }
        self.hub.stored_shard(manifest.shard).await
    }

    async fn footers(
        &self,
        repo: RepoId,
        manifest: &ManifestId,
        xorbs: &[XorbHash],
    ) -> Result<Footers> {
        self.check(repo)?;
        if self.opened.manifests.get(&(repo, *manifest)).is_none() {
            return Err(not_told("manifest"));
        }
        if xorbs.len() > MOST_XORBS {
            return Err(Error::invalid(format!("at most {MOST_XORBS} xorbs are asked about")));
        }
        let Some(manifest) = self.hub.known_manifest(manifest).await? else {
            return Ok(vec![None; xorbs.len()]);
        };
        let named: HashSet<XorbHash> = manifest.terms.iter().map(|term| term.xorb).collect();
        let rules = Rules::of(&self.hub)?;
        let mut footers = Vec::with_capacity(xorbs.len());
        for xorb in xorbs {
            if !named.contains(xorb) {
                return Err(not_told("xorb"));
            }
            self.check_residency(&rules, xorb).await?;
            let is_here = self.hub.has_xorb(xorb).await?;
            footers.push(match is_here {
                true => Some(self.hub.carried_footer(xorb).await?),
                false => None,
            });
        }
        if let Some(grants) = &self.grants {
            for xorb in xorbs {
                grants.0.insert((self.to.clone(), *xorb), ());
            }
        }
        Ok(footers)
    }
}
