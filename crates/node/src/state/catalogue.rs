//! The catalogue: which repos there are, under which names, and who may see and likes them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use ballast_format::id::{RepoId, UserId};
use ballast_format::log::{AccessStatus, CatalogueChange, Entry, Gating, Replication, Visibility};
use ballast_format::name::{Namespace, RegionName, RepoKind, RepoName};

use super::homing::{Away, Homing};
use super::ledger::State;

/// What the catalogue knows about a repo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoRecord {
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
    /// When, in unix milliseconds.
    pub created_ms: u64,
    /// When its name or settings last changed, in unix milliseconds.
    pub changed_ms: u64,
    /// Whether an administrator has closed it.
    pub disabled: bool,
    /// A line about it.
    pub description: Option<String>,
    /// For a space: what runs it.
    pub sdk: Option<String>,
    /// Whether nobody may open discussions.
    pub discussions_disabled: bool,
    /// For a mirror: the address of the upstream that it is one of.
    pub upstream: Option<String>,
    /// Where its log grows.
    pub homing: Homing,
}

impl RepoRecord {
    fn new(
        id: RepoId,
        kind: RepoKind,
        name: RepoName,
        visibility: Visibility,
        creator: UserId,
        time_ms: u64,
    ) -> Self {
        Self {
            id,
            kind,
            name,
            visibility,
            gating: Gating::None,
            creator,
            created_ms: time_ms,
            changed_ms: time_ms,
            disabled: false,
            description: None,
            sdk: None,
            discussions_disabled: false,
            upstream: None,
            homing: Homing::default(),
        }
    }
}

/// Somebody's request for a gated repo's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRequest {
    /// Who asks.
    pub user: UserId,
    /// How it stands.
    pub status: AccessStatus,
    /// When it was made or decided, in unix milliseconds.
    pub time_ms: u64,
    /// What they filled in: a JSON object.
    pub fields: String,
    /// Why it was refused.
    pub reason: Option<String>,
}

/// A repo that somebody likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Like {
    /// Which.
    pub repo: RepoId,
    /// Since when, in unix milliseconds.
    pub time_ms: u64,
}

/// What came of comparing with another region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// When it was over, in unix milliseconds.
    pub time_ms: u64,
    /// How many repos were compared.
    pub repos: u64,
    /// How many faults were found.
    pub findings: u64,
}

/// The catalogue's state.
#[derive(Debug, Default)]
pub struct CatalogueState {
    repos: BTreeMap<RepoId, Arc<RepoRecord>>,
    /// Every name that leads to a repo: its own and former ones, folded.
    names: HashMap<(RepoKind, String), RepoId>,
    /// The names that repos have given up, folded; some may lead to others by now.
    former: HashMap<RepoId, Vec<String>>,
    /// Repos by the last part of their name, folded.
    by_last_part: HashMap<(RepoKind, String), BTreeSet<RepoId>>,
    /// Repos by their namespace, folded.
    by_namespace: HashMap<String, BTreeSet<RepoId>>,
    likers: HashMap<RepoId, HashSet<UserId>>,
    likes: HashMap<UserId, Vec<Like>>,
    requests: HashMap<RepoId, BTreeMap<UserId, AccessRequest>>,
    /// What goes to other regions.
    replications: BTreeMap<RegionName, Replication>,
    /// What came of comparing with other regions last.
    compared: BTreeMap<RegionName, Compared>,
    /// Ids under which entries of repos are that took the place of others.
    lines: HashSet<RepoId>,
}

impl CatalogueState {
    /// What goes to other regions, by name.
    pub fn replications(&self) -> &BTreeMap<RegionName, Replication> {
        &self.replications
    }

    /// What came of comparing with a region last.
    pub fn compared(&self, region: &RegionName) -> Option<Compared> {
        self.compared.get(region).copied()
    }

    /// Whether entries of some repo are kept under this id.
    pub(crate) fn is_line(&self, id: &RepoId) -> bool {
        self.lines.contains(id)
    }

    /// Every repo, in the order of their ids.
    pub fn repos(&self) -> impl Iterator<Item = &Arc<RepoRecord>> {
        self.repos.values()
    }

    /// The ids of all repos, in order.
    pub fn repo_ids(&self) -> Vec<RepoId> {
        self.repos.keys().copied().collect()
    }

    /// The repo of this id.
    pub fn by_id(&self, id: &RepoId) -> Option<Arc<RepoRecord>> {
        self.repos.get(id).map(Arc::clone)
    }

    /// The repo to which this name leads, its own or a former one.
    pub fn by_name(&self, kind: RepoKind, name: &RepoName) -> Option<Arc<RepoRecord>> {
        self.by_id(self.names.get(&(kind, name.folded()))?)
    }

    /// The repo that has this name now.
    pub fn by_own_name(&self, kind: RepoKind, name: &RepoName) -> Option<Arc<RepoRecord>> {
        self.by_name(kind, name).filter(|record| record.name.folded() == name.folded())
    }

    /// The repos whose name ends so, in whatever namespace.
    pub fn by_last_part(&self, kind: RepoKind, name: &str) -> Vec<Arc<RepoRecord>> {
        let ids = self.by_last_part.get(&(kind, name.to_ascii_lowercase()));
        let record = |id| self.by_id(id);
        ids.into_iter().flatten().filter_map(record).collect()
    }

    /// The ids of the repos in a namespace, in order.
    pub fn in_namespace(&self, namespace: &Namespace) -> Vec<RepoId> {
        let ids = self.by_namespace.get(&namespace.folded());
        ids.into_iter().flatten().copied().collect()
    }

    /// How many repos there are in a namespace.
    pub fn count_in(&self, namespace: &Namespace) -> usize {
        self.by_namespace.get(&namespace.folded()).map_or(0, BTreeSet::len)
    }

    /// How many repos there are.
    pub fn repo_count(&self) -> usize {
        self.repos.len()
    }

    /// How many people like a repo.
    pub fn like_count(&self, id: &RepoId) -> u64 {
        self.likers.get(id).map_or(0, |users| users.len() as u64)
    }

    /// Who likes a repo, in no order.
    pub fn likers(&self, id: &RepoId) -> Vec<UserId> {
        self.likers.get(id).map(|users| users.iter().copied().collect()).unwrap_or_default()
    }

    /// Whether somebody likes a repo.
    pub fn is_liked(&self, id: &RepoId, user: &UserId) -> bool {
        self.likers.get(id).is_some_and(|users| users.contains(user))
    }

    /// What somebody likes, latest first.
    pub fn likes_of(&self, user: &UserId) -> Vec<Like> {
        let likes = self.likes.get(user).map(Vec::as_slice).unwrap_or_default();
        likes.iter().rev().copied().collect()
    }

    /// How somebody's request for a repo stands.
    pub fn access_status(&self, id: &RepoId, user: &UserId) -> Option<AccessStatus> {
        Some(self.requests.get(id)?.get(user)?.status)
    }

    /// How many repos somebody has asked for, without an answer so far.
    pub fn open_requests_of(&self, user: &UserId) -> usize {
        let is_open = |requests: &&BTreeMap<UserId, AccessRequest>| {
            let request = requests.get(user);
            request.is_some_and(|request| request.status == AccessStatus::Pending)
        };
        self.requests.values().filter(is_open).count()
    }

    /// The requests for a repo.
    pub fn requests(&self, id: &RepoId) -> Vec<AccessRequest> {
        self.requests.get(id).map(|all| all.values().cloned().collect()).unwrap_or_default()
    }

    fn change(&mut self, id: &RepoId, time_ms: u64, change: impl FnOnce(&mut RepoRecord)) {
        if let Some(record) = self.repos.get_mut(id) {
            let mut changed = RepoRecord::clone(record);
            changed.changed_ms = time_ms;
            change(&mut changed);
            *record = Arc::new(changed);
        }
    }

    fn create(&mut self, record: RepoRecord) {
        self.lead(&record);
        self.repos.insert(record.id, Arc::new(record));
    }

    /// Makes a repo's name lead to it, whatever it led to before.
    fn lead(&mut self, record: &RepoRecord) {
        let (kind, name) = (record.kind, &record.name);
        self.names.insert((kind, name.folded()), record.id);
        let last = (kind, name.name().to_ascii_lowercase());
        self.by_last_part.entry(last).or_default().insert(record.id);
        self.by_namespace.entry(name.namespace().folded()).or_default().insert(record.id);
    }

    /// Takes a repo away from where its name puts it; the name itself goes on leading to it.
    fn leave(&mut self, record: &RepoRecord) {
        let last = (record.kind, record.name.name().to_ascii_lowercase());
        take_out(&mut self.by_last_part, &last, record.id);
        take_out(&mut self.by_namespace, &record.name.namespace().folded(), record.id);
    }

    /// A former name goes on leading to the repo, until another takes it.
    fn rename(&mut self, id: &RepoId, to: &RepoName, time_ms: u64) {
        let Some(record) = self.by_id(id) else {
            return;
        };
        self.leave(&record);
        let former = record.name.folded();
        if former != to.folded() {
            self.former.entry(*id).or_default().push(former);
        }
        self.change(id, time_ms, |record| record.name = to.clone());
        if let Some(renamed) = self.by_id(id) {
            self.lead(&renamed);
        }
    }

    fn delete(&mut self, id: &RepoId) {
        let Some(record) = self.repos.remove(id) else {
            return;
        };
        self.leave(&record);
        let mut names = self.former.remove(id).unwrap_or_default();
        names.push(record.name.folded());
        for name in names {
            let key = (record.kind, name);
            if self.names.get(&key) == Some(id) {
                self.names.remove(&key);
            }
        }
        self.requests.remove(id);
        for user in self.likers.remove(id).unwrap_or_default() {
            if let Some(likes) = self.likes.get_mut(&user) {
                likes.retain(|like| like.repo != *id);
            }
        }
    }

    /// Changes where a repo's log grows; nothing of the repo itself changed by that.
    fn change_homing(&mut self, id: &RepoId, change: impl FnOnce(&mut Homing)) {
        if let Some(record) = self.repos.get_mut(id) {
            change(&mut Arc::make_mut(record).homing);
        }
    }

    fn apply_of_regions(&mut self, change: &CatalogueChange, (time_ms, epoch): (u64, u64)) {
        match change {
            CatalogueChange::RepoFollows { id, home, address, term, known, line } => {
                self.lines.extend(*line);
                self.change_homing(id, |homing| {
                    let (region, address) = (home.clone(), address.clone());
                    homing.away = Some(Away { region, address });
                    (homing.term, homing.known) = (*term, *known);
                    if let Some(line) = line {
                        homing.turn_off(known.number, *line);
                    }
                });
            }
            CatalogueChange::RepoArrived { id, known } => {
                self.change_homing(id, |homing| homing.known = *known);
            }
            CatalogueChange::RepoHomed { id, term, known, line } => {
                self.lines.insert(*line);
                self.change_homing(id, |homing| {
                    homing.away = None;
                    (homing.term, homing.known, homing.epoch) = (*term, *known, epoch);
                    homing.turn_off(known.number, *line);
                });
            }
            CatalogueChange::ReplicationSet { name, rules } => {
                self.replications.insert(name.clone(), rules.clone());
            }
            CatalogueChange::ReplicationRemoved { name } => {
                self.replications.remove(name);
            }
            CatalogueChange::RegionCompared { region, repos, findings } => {
                let (repos, findings) = (*repos, *findings);
                self.compared.insert(region.clone(), Compared { time_ms, repos, findings });
            }
            _ => {}
        }
    }

    fn apply_change(&mut self, change: &CatalogueChange, (time_ms, epoch): (u64, u64)) {
        match change {
            CatalogueChange::RepoCreated { id, kind, name, visibility, creator, sdk } => {
                let (name, sdk) = (name.clone(), sdk.clone());
                let record = RepoRecord::new(*id, *kind, name, *visibility, *creator, time_ms);
                self.create(RepoRecord { sdk, ..record });
            }
            CatalogueChange::RepoMirrors { id, upstream } => {
                self.change(id, time_ms, |record| record.upstream = Some(upstream.clone()));
            }
            CatalogueChange::RepoFollows { .. }
            | CatalogueChange::RepoArrived { .. }
            | CatalogueChange::RepoHomed { .. }
            | CatalogueChange::ReplicationSet { .. }
            | CatalogueChange::ReplicationRemoved { .. }
            | CatalogueChange::RegionCompared { .. } => {
                self.apply_of_regions(change, (time_ms, epoch));
            }
            CatalogueChange::RepoMoved { id, to } => self.rename(id, to, time_ms),
            CatalogueChange::RepoDeleted { id } => self.delete(id),
            CatalogueChange::RepoSettings {
                id,
                visibility,
                gating,
                description,
                discussions_disabled,
                disabled,
            } => self.change(id, time_ms, |record| {
                record.visibility = visibility.unwrap_or(record.visibility);
                record.gating = gating.unwrap_or(record.gating);
                record.description = description.clone().or_else(|| record.description.take());
                record.discussions_disabled =
                    discussions_disabled.unwrap_or(record.discussions_disabled);
                record.disabled = disabled.unwrap_or(record.disabled);
            }),
            CatalogueChange::Liked { id, user } => {
                if self.repos.contains_key(id) && self.likers.entry(*id).or_default().insert(*user)
                {
                    self.likes.entry(*user).or_default().push(Like { repo: *id, time_ms });
                }
            }
            CatalogueChange::Unliked { id, user } => {
                if self.likers.get_mut(id).is_some_and(|users| users.remove(user))
                    && let Some(likes) = self.likes.get_mut(user)
                {
                    likes.retain(|like| like.repo != *id);
                }
            }
            CatalogueChange::AccessRequested { id, .. }
            | CatalogueChange::AccessDecided { id, .. }
                if !self.repos.contains_key(id) => {}
            CatalogueChange::AccessRequested { id, user, fields } => {
                let (status, fields) = (AccessStatus::Pending, fields.clone());
                let request = AccessRequest { user: *user, status, time_ms, fields, reason: None };
                self.requests.entry(*id).or_default().insert(*user, request);
            }
            CatalogueChange::AccessDecided { id, user, status, reason } => {
                let requests = self.requests.entry(*id).or_default();
                let fields = requests.get(user).map(|request| request.fields.clone());
                let request = AccessRequest {
                    user: *user,
                    status: *status,
                    time_ms,
                    fields: fields.unwrap_or_default(),
                    reason: reason.clone(),
                };
                requests.insert(*user, request);
            }
        }
    }
}

fn take_out<K: Eq + Hash>(sets: &mut HashMap<K, BTreeSet<RepoId>>, key: &K, id: RepoId) {
    if let Some(repos) = sets.get_mut(key) {
        repos.remove(&id);
        if repos.is_empty() {
            sets.remove(key);
        }
    }
}

impl State for CatalogueState {
    type Change = CatalogueChange;

    fn apply(&mut self, entry: &Entry<CatalogueChange>) {
        for change in &entry.changes {
            self.apply_change(change, (entry.time_ms, entry.epoch));
        }
    }
}
