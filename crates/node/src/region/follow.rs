//! Following a home: a repo begins here, its entries arrive, its settings change, and its home
//! becomes another region.

use ballast_format::hash::PackHash;
use ballast_format::id::RepoId;
use ballast_format::log::{CatalogueChange, Gating, Head, RepoChange, Visibility};
use ballast_format::name::{RegionName, RepoName};
use ballast_store::keyspace::LogId;
use ballast_store::reflog::Tail;
use bytes::Bytes;

use super::{Offered, derived, line_of};
use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::repo::MAX_REFS;
use crate::repo::create::{MAX_REPOS, check_free};
use crate::state::catalogue::{CatalogueState, RepoRecord};
use crate::state::homing::{Away, Standing};
use crate::state::ledger::New;
use crate::state::repo::NewPack;
use crate::state::rows;

/// Packs, and refs, that one entry names.
const PACKS_EACH: usize = 1000;
const REFS_EACH: usize = 5000;

/// Entries of a home's log that have come, with all that they name.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Which repo's.
    pub repo: RepoId,
    /// The term of the home that they came from.
    pub term: u64,
    /// The last of them.
    pub known: Head,
    /// The packs that they name; of the large files, those by whose manifests the repo reads them.
    pub packs: Vec<NewPack>,
}

impl Hub {
    /// Makes a repo known here that another region offers; none of its entries are here yet.
    pub async fn begin_to_follow(&self, offered: &Offered, home: &Away) -> Result<Repo> {
        let Offered { id, kind, creator, .. } = *offered;
        let created = CatalogueChange::RepoCreated {
            id,
            kind,
            name: offered.name.clone(),
            visibility: offered.visibility,
            creator,
            sdk: offered.sdk.clone(),
        };
        let follows = follows(id, home, (offered.term, Head::NOTHING), None);
        let changes = vec![created, follows];
        self.catalogue
            .append(self, New::by(None), |state| {
                if state.by_id(&id).is_some() {
                    return Ok(Vec::new());
                }
                check_free(state, kind, &offered.name)?;
                if state.repo_count() >= MAX_REPOS {
                    return Err(Error::Busy { reason: format!("the hub has {MAX_REPOS} repos") });
                }
                Ok(changes.clone())
            })
            .await?;
        self.follow_settings(offered).await?;
        let record = self.record_of(id).ok_or(Error::RepoNotFound)?;
        Ok(Repo { record })
    }

    /// Takes over a repo's name and settings from its home.
    pub async fn follow_settings(&self, offered: &Offered) -> Result<()> {
        self.catalogue
            .append(self, New::by(None), |state| {
                let record = state.by_id(&offered.id).ok_or(Error::RepoNotFound)?;
                if record.homing.away.is_none() {
                    return Ok(Vec::new());
                }
                let changes = settings_changes(&record, offered);
                if changes.iter().any(|change| matches!(change, CatalogueChange::RepoMoved { .. }))
                    && record.name.folded() != offered.name.folded()
                {
                    check_free(state, record.kind, &offered.name)?;
                }
                Ok(changes)
            })
            .await
    }

    /// The home deleted a repo that this region follows.
    pub async fn follow_deletion(&self, id: RepoId) -> Result<()> {
        self.catalogue
            .append(self, New::by(None), |state| match state.by_id(&id) {
                Some(record) if record.homing.away.is_some() => {
                    Ok(vec![CatalogueChange::RepoDeleted { id }])
                }
                _ => Ok(Vec::new()),
            })
            .await?;
        self.forget_tally(&id);
        self.forget_facts(&id).await
    }

    /// Stores an entry of a home's log; it counts when it has arrived.
    pub async fn keep_entry(&self, repo: RepoId, number: u64, bytes: Bytes) -> Result<()> {
        // What is kept may be behind what counts so far.
        Ok(self.log_of(LogId::Repo(repo)).copy(number, bytes).await?)
    }

    /// Makes entries count that were kept. What they name is looked up once more: it may have been
    /// condemned since it came (Invariants 5 and 8).
    pub async fn arrive(&self, arrival: Arrival) -> Result<()> {
        let Arrival { repo: id, term, known, packs } = arrival;
        let before = self.state_of(id).await?.main();
        let new = New { packs: &packs, ..New::by(None) };
        self.catalogue
            .append(self, new, |state| {
                let record = state.by_id(&id).ok_or(Error::RepoNotFound)?;
                let homing = &record.homing;
                if homing.term != term {
                    // What was kept is not where entries are looked for by now.
                    let reason = "its home changed while entries came".to_owned();
                    return Err(Error::Conflict { reason });
                }
                if homing.away.is_none() || homing.known.number >= known.number {
                    // Another process was here first.
                    return Ok(Vec::new());
                }
                Ok(vec![CatalogueChange::RepoArrived { id, known }])
            })
            .await?;
        let after = self.state_of(id).await?.main();
        self.ahead.forget(id, known.number);
        if after != before
            && let Some(record) = self.record_of(id)
        {
            self.strong()?.main_moved(&Repo { record }).await;
        }
        Ok(())
    }

    /// Makes this region, which is called so, the home of a repo that it follows, if the log ends
    /// by saying so and all of it is here.
    pub async fn take_home(&self, id: RepoId, here: &RegionName, known: Head) -> Result<()> {
        let state = self.state_of(id).await?;
        let Some(moved) = state.home.as_ref().filter(|moved| moved.to.region == *here) else {
            return Ok(());
        };
        let term = moved.term;
        self.catalogue
            .append(self, New::by(None), |state| {
                let record = state.by_id(&id).ok_or(Error::RepoNotFound)?;
                let homing = &record.homing;
                let is_due = homing.away.is_some() && homing.known == known && homing.term < term;
                Ok(if is_due { vec![homed_here(id, term, known)] } else { Vec::new() })
            })
            .await
    }

    /// From now on another region is the home, in this term; what both have ends with `common`.
    /// What this region has beyond that counts no more. If it was the home itself, what it
    /// acknowledged since is kept in a repo of its own.
    pub async fn follow_another(
        &self,
        id: RepoId,
        home: &Away,
        term: u64,
        common: Head,
    ) -> Result<()> {
        let record = self.record_of(id).ok_or(Error::RepoNotFound)?;
        if record.homing.away.is_none() {
            self.close_term(&record, home, term).await?;
            self.rescue(&record, term, common).await?;
        }
        let change = follows(id, home, (term, common), Some(line_of(id, term)));
        self.catalogue
            .append(self, New::by(None), |state| {
                let record = state.by_id(&id).ok_or(Error::RepoNotFound)?;
                // Another process was first.
                let is_done = record.homing.term >= term;
                Ok(if is_done { Vec::new() } else { vec![change.clone()] })
            })
            .await?;
        self.state_of(id).await?;
        Ok(())
    }

    /// No process of this region appends to the log any more: the last entry says so.
    async fn close_term(&self, record: &RepoRecord, home: &Away, term: u64) -> Result<()> {
        let moved = RepoChange::HomeMoved {
            home: home.region.clone(),
            address: home.address.clone(),
            term,
        };
        let closed = self
            .append_packs(record.id, None, &[], |state| {
                let is_closed = state.home.as_ref().is_some_and(|moved| moved.term >= term);
                Ok((!is_closed).then(|| vec![moved.clone()]))
            })
            .await;
        match closed {
            Ok(_) | Err(Error::AwayFromHome { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Keeps what the log has behind `common` in a repo of its own, which nobody but this region
    /// has: it was acknowledged, and the new home never had it.
    async fn rescue(&self, record: &RepoRecord, term: u64, common: Head) -> Result<()> {
        let id = record.id;
        let state = self.newest_state(id).await?;
        let own = self.entries_behind(id, common.number).await?;
        let is_closing = |bytes: &Bytes| {
            let entry = ballast_format::log::Entry::<RepoChange>::decode(bytes);
            entry.is_ok_and(|entry| {
                let is_move = |change: &RepoChange| matches!(change, RepoChange::HomeMoved { .. });
                entry.changes.iter().all(is_move)
            })
        };
        if own.iter().all(|(_, bytes)| is_closing(bytes)) {
            return Ok(());
        }
        let new = derived("ballast 2026-11 what was acknowledged in a lost term", id, term);
        let name = rescue_name(&record.name, &new)?;
        self.catalogue
            .append(self, New::by(None), |state| {
                if state.by_id(&new).is_some() {
                    return Ok(Vec::new());
                }
                check_free(state, record.kind, &name)?;
                Ok(vec![CatalogueChange::RepoCreated {
                    id: new,
                    kind: record.kind,
                    name: name.clone(),
                    visibility: Visibility::Private,
                    creator: record.creator,
                    sdk: record.sdk.clone(),
                }])
            })
            .await?;
        let packs = self.live_packs(id).await?;
        for packs in packs.chunks(PACKS_EACH) {
            self.append_packs(new, None, packs, |_| Ok(Some(Vec::new()))).await?;
        }
        for _ in 0..=MAX_REFS / REFS_EACH {
            self.append_packs(new, None, &[], |there| {
                let refs = state.refs.iter();
                let other = refs.filter(|(name, commit)| there.refs.get(*name) != Some(*commit));
                let set = other.take(REFS_EACH).map(|(name, commit)| RepoChange::RefSet {
                    name: name.clone(),
                    old: there.refs.get(name).copied(),
                    new: *commit,
                });
                let set: Vec<_> = set.collect();
                Ok((!set.is_empty()).then_some(set))
            })
            .await?;
        }
        tracing::warn!(
            repo = %record.name, kept = %name, entries = own.len(), term,
            "another region is the home: what only this one has is kept apart",
        );
        Ok(())
    }

    /// The packs of a repo, each with those links that no later one replaces.
    async fn live_packs(&self, id: RepoId) -> Result<Vec<NewPack>> {
        let hashes: Vec<PackHash> = self.packs_of(id).await?;
        let last = self.manifests_of(id, &hashes).await?;
        let mut packs = Vec::with_capacity(hashes.len());
        for hash in hashes {
            let (copy, mut directory) = rows::find_pack(self, id, hash).await?;
            directory
                .links
                .retain(|link| link.size == 0 || last.get(&link.sha256) == Some(&link.manifest()));
            packs.push(NewPack { copy, directory: std::sync::Arc::new(directory) });
        }
        Ok(packs)
    }

    /// How far a repo's log is here.
    pub async fn tail_of(&self, id: RepoId) -> Result<Tail> {
        Ok(self.place_of(id).await?.0)
    }

    /// Whether this region may write to a repo that it knows.
    pub async fn is_home_of(&self, id: RepoId) -> Result<bool> {
        Ok(matches!(self.place_of(id).await?.1, Standing::Home { .. }))
    }

    /// The repos that this region follows, or is the home of.
    pub fn known_repos(&self) -> Vec<RepoId> {
        self.catalogue.read(CatalogueState::repo_ids)
    }
}

fn follows(
    id: RepoId,
    home: &Away,
    (term, known): (u64, Head),
    line: Option<RepoId>,
) -> CatalogueChange {
    let (region, address) = (home.region.clone(), home.address.clone());
    CatalogueChange::RepoFollows { id, home: region, address, term, known, line }
}

/// This region is the home of a repo in this term.
pub(super) fn homed_here(id: RepoId, term: u64, known: Head) -> CatalogueChange {
    CatalogueChange::RepoHomed { id, term, known, line: line_of(id, term) }
}

fn rescue_name(name: &RepoName, id: &RepoId) -> Result<RepoName> {
    let mark: String = id.to_string().chars().take(8).collect();
    let room = ballast_format::limits::MAX_NAME_BYTES - mark.len() - "-kept-".len();
    let stem: String = name.name().chars().take(room).collect();
    let stem = stem.trim_end_matches(['-', '.']);
    Ok(RepoName::new(name.namespace().clone(), &format!("{stem}-kept-{mark}"))?)
}

fn settings_changes(record: &RepoRecord, offered: &Offered) -> Vec<CatalogueChange> {
    let id = record.id;
    let mut changes = Vec::new();
    if record.name != offered.name {
        changes.push(CatalogueChange::RepoMoved { id, to: offered.name.clone() });
    }
    let differs = |is_other: bool| is_other.then_some(());
    let visibility = differs(record.visibility != offered.visibility).map(|()| offered.visibility);
    let gating: Option<Gating> = differs(record.gating != offered.gating).map(|()| offered.gating);
    let description =
        (record.description != offered.description).then(|| offered.description.clone()).flatten();
    let discussions_disabled = differs(record.discussions_disabled != offered.discussions_disabled)
        .map(|()| offered.discussions_disabled);
    let disabled = differs(record.disabled != offered.disabled).map(|()| offered.disabled);
    let is_other = visibility.is_some()
        || gating.is_some()
        || description.is_some()
        || discussions_disabled.is_some()
        || disabled.is_some();
    if is_other {
        changes.push(CatalogueChange::RepoSettings {
            id,
            visibility,
            gating,
            description,
            discussions_disabled,
            disabled,
        });
    }
    changes
}
