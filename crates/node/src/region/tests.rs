//! Two regions, each with a store of its own; what one needs of the other is handed over here.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use ballast_format::log::{Entry, RepoChange};
use ballast_format::name::RegionName;
use ballast_testkit::content::splitmix;
use bytes::Bytes;
use futures_util::stream;

use super::*;
use crate::access::{Access, Repo};
use crate::error::{Error, Result};
use crate::gc::Collection;
use crate::hub::Hub;
use crate::rig::{Rig, path};
use crate::state::homing::Away;

struct FromHub<'a>(&'a Hub, StoredPack);

#[async_trait]
impl Pieces for FromHub<'_> {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.0.pack_bytes(&self.1, range).await
    }
}

fn region(name: &str) -> Away {
    let region = RegionName::parse(name).expect("a name");
    Away { region, address: format!("https://{name}.example") }
}

/// What one region offers of a repo.
async fn offer(hub: &Hub, id: RepoId) -> Result<Offered> {
    let offered = hub.offered(|record| record.id == id).await?;
    offered.into_iter().next().ok_or(Error::RepoNotFound)
}

/// Brings what an entry names, and keeps the entry.
async fn bring_entry(
    from: &Hub,
    to: &Arc<Hub>,
    id: RepoId,
    (number, bytes): (u64, Bytes),
) -> Result<Vec<crate::state::repo::NewPack>> {
    let entry = Entry::<RepoChange>::decode(&bytes)?;
    let mut packs = Vec::new();
    for change in &entry.changes {
        let RepoChange::PackAdded { pack } = change else { continue };
        let stored = from.stored_pack(id, *pack).await?;
        let end = (stored.size, stored.tail.clone());
        let taken = to.take_pack(*pack, end, &FromHub(from, stored)).await?;
        for link in &taken.directory.links {
            let manifest = from.carried_manifest(&link.manifest()).await?;
            let xorbs: BTreeSet<_> = manifest.terms.iter().map(|term| term.xorb).collect();
            for xorb in xorbs {
                let footer = from.carried_footer(&xorb).await?;
                let chunks = from.carried_chunks(&xorb, 0..footer.chunk_count()).await?;
                let body = Box::pin(stream::iter([Ok(chunks)]));
                to.put_xorb(&bringer(id), xorb, None, body).await?;
            }
            let shard = from.stored_shard(link.shard).await?.expect("it is there");
            to.take_shard(id, link.shard, shard).await?;
        }
        packs.push(taken);
    }
    to.keep_entry(id, number, bytes).await?;
    Ok(packs)
}

/// Brings everything that a region offers of a repo.
async fn bring(from: &Hub, to: &Arc<Hub>, id: RepoId, home: &str) -> Result<Repo> {
    let offered = offer(from, id).await?;
    let repo = to.begin_to_follow(&offered, &region(home)).await?;
    loop {
        let known = to.record_of(id).expect("it is known").homing.known;
        let Some(next) = from.entries_behind(id, known.number).await?.into_iter().next() else {
            if !offered.is_home {
                to.take_home(id, &region("there").region, known).await?;
            }
            return Ok(repo);
        };
        let number = next.0;
        let packs = bring_entry(from, to, id, next).await?;
        let known = from.entry_head(id, number).await?.expect("it is there");
        to.arrive(Arrival { repo: id, term: offered.term, known, packs }).await?;
    }
}

async fn log(hub: &Hub, id: RepoId) -> Result<Entries> {
    hub.entries_behind(id, 0).await
}

async fn check_equal(one: &Rig, other: &Rig, id: RepoId) -> Result<()> {
    assert_eq!(log(&one.hub, id).await?, log(&other.hub, id).await?);
    let refs = |state: Arc<crate::state::repo::RepoState>| state.refs.clone();
    assert_eq!(refs(one.hub.state_of(id).await?), refs(other.hub.state_of(id).await?));
    Ok(())
}

/// Two regions, a repo of the first with a large file, and the second's view of it.
async fn scene() -> Result<(Rig, Rig, Repo, Repo, Vec<u8>)> {
    let (here, there) = (Rig::start().await, Rig::start().await);
    let repo = here.repo(&here.admin, "admin/model").await;
    let content = splitmix(1, 700_000);
    here.put_large(&here.admin, &repo, "weights.bin", &content).await;
    here.put(&here.admin, &repo, "README.md", "read me").await?;
    let copy = bring(&here.hub, &there.hub, repo.id(), "here").await?;
    Ok((here, there, repo, copy, content))
}

#[tokio::test]
async fn a_copied_repo_has_the_same_log_and_is_written_only_at_home() -> Result<()> {
    let (here, there, repo, copy, content) = scene().await?;
    check_equal(&here, &there, repo.id()).await?;
    assert_eq!(there.read(&copy, "weights.bin").await?, content);
    assert_eq!(there.text(&copy, "README.md").await, "read me");
    let refused = there.hub.repo_by_id(&there.admin, repo.id(), Access::Write);
    let Err(Error::AwayFromHome { region, address, .. }) = &refused else {
        panic!("a writer was let in: {refused:?}")
    };
    assert_eq!((region.as_str(), address.as_str()), ("here", "https://here.example"));
    let appended = there
        .hub
        .append_repo(&copy, None, &[], |state| {
            let commit = state.main().expect("it arrived");
            let name = ballast_format::name::RefName::tag("v1").expect("a name");
            Ok(vec![RepoChange::RefSet { name, old: None, new: commit }])
        })
        .await;
    assert!(matches!(appended, Err(Error::AwayFromHome { .. })), "{appended:?}");
    // Another process, with an index of its own, knows the same.
    let another = there.another().await;
    assert_eq!(log(&another, repo.id()).await?, log(&here.hub, repo.id()).await?);
    Ok(())
}

#[tokio::test]
async fn an_entry_counts_when_it_has_arrived_and_not_before() -> Result<()> {
    let (here, there, repo, copy, _) = scene().await?;
    here.put(&here.admin, &repo, "new", "new").await?;
    let known = there.hub.record_of(repo.id()).expect("known").homing.known;
    let next = here.hub.entries_behind(repo.id(), known.number).await?.remove(0);
    let number = next.0;
    let packs = bring_entry(&here.hub, &there.hub, repo.id(), next).await?;
    for hub in [Arc::clone(&there.hub), there.another().await] {
        assert_eq!(log(&hub, repo.id()).await?.len() as u64, known.number);
    }
    // Nor does it keep a collection from its work, or a check of the logs from calling them sound.
    there.hub.plan_collection().await?;
    let (told, mut heard) = tokio::sync::mpsc::channel(100);
    assert_eq!(there.hub.verify_audit(&there.admin, &[], told).await?, 0);
    while heard.recv().await.is_some() {}
    let known = here.hub.entry_head(repo.id(), number).await?.expect("there");
    there.hub.arrive(Arrival { repo: repo.id(), term: 1, known, packs }).await?;
    assert_eq!(there.text(&copy, "new").await, "new");
    check_equal(&here, &there, repo.id()).await
}

#[tokio::test]
async fn a_home_moves_and_comes_back() -> Result<()> {
    let (here, there, repo, copy, content) = scene().await?;
    let id = repo.id();
    here.hub.move_home(&here.admin, &repo, &region("there")).await?;
    let late = here.put(&here.admin, &repo, "late", "late").await;
    assert!(matches!(late, Err(Error::AwayFromHome { .. })), "{late:?}");
    assert!(!here.hub.is_home_of(id).await?);
    bring(&here.hub, &there.hub, id, "here").await?;
    assert!(there.hub.is_home_of(id).await?);
    there.put(&there.admin, &copy, "there", "written there").await?;
    let common = there.hub.entry_head(id, log(&here.hub, id).await?.len() as u64).await?;
    let common = common.expect("all of it arrived");
    let term = offer(&there.hub, id).await?.term;
    here.hub.follow_another(id, &region("there"), term, common).await?;
    bring(&there.hub, &here.hub, id, "there").await?;
    check_equal(&here, &there, id).await?;
    assert_eq!(here.text(&repo, "there").await, "written there");
    assert_eq!(here.read(&repo, "weights.bin").await?, content);
    // Nothing was lost, so nothing is kept apart.
    assert_eq!(here.hub.known_repos().len(), 1);
    // Both know it when they begin anew.
    let (a, b) = (here.another().await, there.another().await);
    assert_eq!(log(&a, id).await?, log(&b, id).await?);
    assert!(b.is_home_of(id).await? && !a.is_home_of(id).await?);
    Ok(())
}

#[tokio::test]
async fn after_a_loss_the_old_home_follows_and_keeps_what_only_it_has() -> Result<()> {
    let (here, there, repo, copy, _) = scene().await?;
    let id = repo.id();
    let lost = splitmix(2, 300_000);
    here.put_large(&here.admin, &repo, "lost.bin", &lost).await;
    let tail = log(&there.hub, id).await?.len() as u64;
    let promoted = there.hub.promote(&there.admin, &copy).await?;
    assert_eq!((promoted.term, promoted.behind.number), (2, tail));
    there.put(&there.admin, &copy, "new", "new").await?;
    // The old home knows nothing of it so far, and goes on.
    here.put(&here.admin, &repo, "also-lost", "lost").await?;
    let common = here.hub.entry_head(id, tail).await?.expect("it is there");
    assert_eq!(Some(common), there.hub.entry_head(id, tail).await?);
    for _ in 0..2 {
        // Again changes nothing.
        here.hub.follow_another(id, &region("there"), 2, common).await?;
    }
    let late = here.put(&here.admin, &repo, "late", "late").await;
    assert!(matches!(late, Err(Error::AwayFromHome { .. })), "{late:?}");
    bring(&there.hub, &here.hub, id, "there").await?;
    check_equal(&here, &there, id).await?;
    assert_eq!(here.text(&repo, "new").await, "new");
    assert!(here.read(&repo, "lost.bin").await.is_err());
    let another = here.another().await;
    assert_eq!(log(&another, id).await?, log(&there.hub, id).await?);
    let kept: Vec<_> = here.hub.records(|record| record.id != id);
    let [kept] = kept.as_slice() else { panic!("not one repo: {kept:?}") };
    let kept = Repo { record: Arc::clone(kept) };
    assert_eq!(here.read(&kept, "lost.bin").await?, lost);
    assert_eq!(here.text(&kept, "also-lost").await, "lost");
    assert!(here.hub.item(&repo, here.main(&kept).await, &path("lost.bin")).await.is_err());
    Ok(())
}

#[tokio::test]
async fn who_takes_over_counts_epochs_of_its_own_store() -> Result<()> {
    let (here, there, repo, copy, _) = scene().await?;
    let id = repo.id();
    // The home's epochs are far beyond those of the other store.
    for number in 0..3 {
        let other = here.repo(&here.admin, &format!("admin/other-{number}")).await;
        here.hub.delete_repo(&here.admin, &other).await?;
        while !matches!(here.hub.collect().await?, Collection::Nothing | Collection::Done { .. }) {
            here.env.advance(std::time::Duration::from_hours(100));
        }
    }
    here.put(&here.admin, &repo, "more", "more").await?;
    bring(&here.hub, &there.hub, id, "here").await?;
    there.hub.promote(&there.admin, &copy).await?;
    there.put(&there.admin, &copy, "new", "new").await?;
    assert_eq!(there.text(&copy, "more").await, "more");
    there.another().await.state_of(id).await?;
    Ok(())
}

#[tokio::test]
async fn what_came_with_other_bytes_is_refused() -> Result<()> {
    struct Liar<'a>(FromHub<'a>);
    #[async_trait]
    impl Pieces for Liar<'_> {
        async fn read(&self, range: Range<u64>) -> Result<Bytes> {
            let mut bytes = self.0.read(range).await?.to_vec();
            if let Some(byte) = bytes.first_mut() {
                *byte ^= 1;
            }
            Ok(bytes.into())
        }
    }
    let (here, there, repo, ..) = scene().await?;
    let packs = here.hub.packs_of(repo.id()).await?;
    let before = there.stored().await.len();
    let stored = here.hub.stored_pack(repo.id(), packs[0]).await?;
    let end = (stored.size, stored.tail.clone());
    let liar = Liar(FromHub(&here.hub, stored.clone()));
    assert!(there.hub.take_pack(packs[0], end.clone(), &liar).await.is_err());
    let fine = FromHub(&here.hub, stored);
    assert!(there.hub.take_pack(packs[1], end, &fine).await.is_err());
    let body = Box::pin(stream::iter([Ok(Bytes::from_static(b"a shard"))]));
    let shard = ballast_format::hash::ShardHash::from_bytes([1; 32]);
    assert!(there.hub.take_shard(repo.id(), shard, body).await.is_err());
    assert_eq!(there.stored().await.len(), before);
    Ok(())
}
