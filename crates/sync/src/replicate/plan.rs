//! What to do about an offer, and what entries of a home's log name.

use std::collections::HashMap;

use ballast_format::hash::{PackHash, Sha256};
use ballast_format::id::RepoId;
use ballast_format::log::{Entry, Head, RepoChange};
use ballast_format::name::RegionName;
use ballast_format::pack::{FileLink, PackDirectory};
use ballast_node::region::Offered;
use ballast_node::state::homing::Homing;
use ballast_node::{Error, Result};
use ballast_store::reflog::Tail;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::home::HomeLog;

/// Entries whose packs are asked about at once: the way to a home takes long.
const ASKED_AT_ONCE: usize = 16;

/// What is to be done about a repo that another region offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is not known here: begin to follow it.
    Begin,
    /// Go on with its entries.
    Pull,
    /// Its home moved to the region that offers it, or from there on to this one: that is followed.
    Turn,
    /// Two regions are its home in one term: a person must say which.
    Torn,
    /// Nothing.
    Leave,
}

impl Step {
    /// What is to be done in the region `us`, as it knows the repo.
    pub(super) fn of(
        here: Option<&Homing>,
        (us, from): (Option<&RegionName>, &RegionName),
        offered: &Offered,
    ) -> Self {
        // Even of one that is not its home: it may have ended its term for this region.
        let Some(here) = here else { return Self::Begin };
        let is_newer = offered.term > here.term;
        // Whoever was cut off may not know that it lost the home, when it gets it again.
        let is_ours = us.is_some() && offered.given_to.as_ref() == us;
        match &here.away {
            _ if is_newer && (offered.is_home || is_ours) => Self::Turn,
            None if offered.is_home && offered.term == here.term => Self::Torn,
            Some(away) if away.region == *from && offered.term == here.term => Self::Pull,
            _ => Self::Leave,
        }
    }
}

/// An entry of a home's log, and the packs that it names.
pub(super) struct Planned {
    pub(super) number: u64,
    pub(super) bytes: Bytes,
    pub(super) entry: Entry<RepoChange>,
    /// The tail of the log that ends with it.
    pub(super) tail: Tail,
    pub(super) packs: Vec<PlannedPack>,
}

/// A pack, as its home describes it.
pub(super) struct PlannedPack {
    pub(super) size: u64,
    pub(super) tail: Bytes,
    pub(super) directory: PackDirectory,
}

impl Planned {
    pub(super) fn head(&self) -> Head {
        Head { number: self.number, hash: self.tail.hash }
    }

    /// The large files that it links.
    pub(super) fn links(&self) -> impl Iterator<Item = &FileLink> {
        let links = self.packs.iter().flat_map(|pack| &pack.directory.links);
        links.filter(|link| link.size > 0)
    }
}

/// Reads entries behind a tail, as many as come at once, but no more than `most`. They must follow
/// it, each the one before.
pub(super) async fn read(
    home: &dyn HomeLog,
    repo: RepoId,
    tail: Tail,
    most: usize,
) -> Result<Vec<Planned>> {
    let mut planned: Vec<Planned> = Vec::new();
    let mut last = tail;
    for (number, bytes) in home.entries(repo, tail.number).await?.into_iter().take(most) {
        let entry = Entry::<RepoChange>::decode(&bytes)?;
        let wrong = match last.refuses(&entry) {
            None if number != last.number + 1 => Some("entries are left out".to_owned()),
            wrong => wrong,
        };
        if let Some(reason) = wrong {
            let reason =
                format!("entry {number} of the home does not follow what is here: {reason}");
            return Err(Error::Conflict { reason });
        }
        last = Tail::of(number, &bytes, &entry);
        planned.push(Planned { number, bytes, entry, tail: last, packs: Vec::new() });
    }
    let asked: Vec<BoxFuture<'_, Result<Vec<PlannedPack>>>> = planned
        .iter()
        .map(|planned| read_packs(home, repo, named(&planned.entry)).boxed())
        .collect();
    let packs: Vec<Result<Vec<PlannedPack>>> =
        stream::iter(asked).buffered(ASKED_AT_ONCE).collect().await;
    for (planned, packs) in planned.iter_mut().zip(packs) {
        planned.packs = packs?;
    }
    Ok(planned)
}

/// The packs that an entry names.
fn named(entry: &Entry<RepoChange>) -> Vec<PackHash> {
    let pack = |change: &RepoChange| match change {
        RepoChange::PackAdded { pack } => Some(*pack),
        _ => None,
    };
    entry.changes.iter().filter_map(pack).collect()
}

async fn read_packs(
    home: &dyn HomeLog,
    repo: RepoId,
    packs: Vec<PackHash>,
) -> Result<Vec<PlannedPack>> {
    let mut read = Vec::with_capacity(packs.len());
    for pack in packs {
        read.push(read_pack(home, repo, pack).await?);
    }
    Ok(read)
}

async fn read_pack(home: &dyn HomeLog, repo: RepoId, pack: PackHash) -> Result<PlannedPack> {
    let (size, tail) = home.pack_end(repo, pack).await?;
    let directory = PackDirectory::decode(&tail, size)?;
    if directory.hash != pack {
        return Err(Error::invalid(format!("not the pack `{pack}` came, but another")));
    }
    Ok(PlannedPack { size, tail, directory })
}

/// By which link each large file is read when all of these entries are there.
pub(super) fn last_links(page: &[Planned]) -> HashMap<Sha256, (usize, FileLink)> {
    let links = page
        .iter()
        .enumerate()
        .flat_map(|(at, planned)| planned.links().map(move |link| (link.sha256, (at, *link))));
    links.collect()
}

#[cfg(test)]
mod tests {
    use ballast_format::id::UserId;
    use ballast_format::log::{Gating, Visibility};
    use ballast_format::name::{RepoKind, RepoName};
    use ballast_node::state::homing::Away;

    use super::*;

    fn region(name: &str) -> RegionName {
        RegionName::parse(name).expect("a name")
    }

    fn offered(is_home: bool, term: u64) -> Offered {
        Offered {
            id: RepoId::from_bytes([1; 16]),
            kind: RepoKind::Model,
            name: RepoName::parse("a/b").expect("a name"),
            visibility: Visibility::Public,
            gating: Gating::None,
            creator: UserId::from_bytes([2; 16]),
            disabled: false,
            description: None,
            sdk: None,
            discussions_disabled: false,
            is_home,
            given_to: None,
            term,
            tail: Head::NOTHING,
        }
    }

    fn away(from: &str, term: u64) -> Homing {
        let away = Away { region: region(from), address: String::new() };
        Homing { away: Some(away), term, ..Homing::default() }
    }

    #[test]
    fn a_higher_term_wins_and_a_lower_one_is_never_followed() {
        let here = |term| Homing { term, ..Homing::default() };
        let step = |known: Option<Homing>, is_home, term| {
            Step::of(known.as_ref(), (None, &region("us")), &offered(is_home, term))
        };
        assert_eq!(step(None, true, 1), Step::Begin);
        assert_eq!(step(None, false, 1), Step::Begin, "its home may be coming here");
        assert_eq!(step(Some(away("us", 1)), true, 1), Step::Pull);
        assert_eq!(step(Some(away("us", 1)), false, 1), Step::Pull, "the rest of a term");
        assert_eq!(step(Some(away("us", 2)), true, 1), Step::Leave);
        assert_eq!(step(Some(away("eu", 1)), true, 1), Step::Leave);
        assert_eq!(step(Some(away("eu", 1)), true, 2), Step::Turn);
        assert_eq!(step(Some(here(1)), true, 2), Step::Turn);
        assert_eq!(step(Some(here(2)), true, 1), Step::Leave);
        assert_eq!(step(Some(here(2)), true, 2), Step::Torn);
        assert_eq!(step(Some(here(1)), false, 1), Step::Leave, "it follows us");
    }

    #[test]
    fn a_term_that_was_ended_for_this_region_is_followed_and_one_for_another_is_not() {
        let eu = region("eu");
        let step = |known: &Homing, to: &str| {
            let offered = Offered { given_to: Some(region(to)), ..offered(false, 2) };
            Step::of(Some(known), (Some(&eu), &region("us")), &offered)
        };
        // It never heard that `us` had taken the home from it, or from a third region.
        assert_eq!(step(&Homing::default(), "eu"), Step::Turn);
        assert_eq!(step(&away("asia", 1), "eu"), Step::Turn);
        assert_eq!(step(&away("us", 2), "eu"), Step::Pull);
        assert_eq!(step(&Homing { term: 3, ..Homing::default() }, "eu"), Step::Leave);
        assert_eq!(step(&Homing::default(), "asia"), Step::Leave);
    }
}
