//! A copy of a hub is a hub: whole, byte for byte, whatever happens meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ballast_format::log::Visibility;
use ballast_store::keyspace::LogId;
use ballast_store::objects::Store;
use ballast_testkit::content::splitmix;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _};

use super::*;
use crate::access::Repo;
use crate::rig::{Rig, path};

fn quiet(_: &Copied) {}

struct Place {
    objects: Arc<dyn ObjectStore>,
}

impl Place {
    fn new() -> Self {
        Self { objects: Arc::new(InMemory::new()) }
    }

    fn store(&self, rig: &Rig) -> Store {
        Store::new(Arc::clone(&self.objects), Arc::clone(&rig.env) as _)
    }

    /// The same rig, on the copy.
    async fn hub(&self, rig: &Rig) -> Rig {
        let copy = Rig {
            env: Arc::clone(&rig.env),
            objects: Arc::clone(&self.objects),
            hub: Arc::clone(&rig.hub),
            admin: rig.admin.clone(),
        };
        Rig { hub: copy.another().await, ..copy }
    }
}

async fn reader(rig: &Rig) -> Arc<Hub> {
    let store = Store::new(Arc::clone(&rig.objects), Arc::clone(&rig.env) as _);
    Hub::open_to_read(store, Arc::clone(&rig.env) as _).await.expect("there is a hub")
}

async fn backup(rig: &Rig, to: &Place) -> Result<Copied> {
    reader(rig).await.copy_to(&to.store(rig), Purpose::Backup, &quiet).await
}

async fn scene() -> (Rig, Repo) {
    let rig = Rig::start().await;
    let repo = rig.repo(&rig.admin, "admin/model").await;
    rig.put_large(&rig.admin, &repo, "w.bin", &splitmix(1, 400_000)).await;
    rig.put(&rig.admin, &repo, "docs/a.txt", "some words").await.expect("a commit");
    (rig, repo)
}

#[tokio::test]
async fn a_copy_has_everything_and_a_second_one_only_what_is_new() -> Result<()> {
    let (rig, repo) = scene().await;
    let to = Place::new();
    let first = backup(&rig, &to).await?;
    assert_eq!((first.repos, first.present, first.unsound.len()), (1, 0, 0));
    assert!(first.objects >= 5 && first.entries >= 5 && first.bytes > 400_000, "{first:?}");
    let copy = to.hub(&rig).await;
    assert!(copy.read(&repo, "w.bin").await? == splitmix(1, 400_000));
    assert_eq!(copy.text(&repo, "docs/a.txt").await, "some words");
    rig.put_large(&rig.admin, &repo, "v.bin", &splitmix(2, 300_000)).await;
    let second = backup(&rig, &to).await?;
    assert_eq!((second.objects, second.entries, second.present), (3, 1, first.objects));
    let third = backup(&rig, &to).await?;
    assert_eq!((third.objects, third.entries), (0, 0));
    let copy = to.hub(&rig).await;
    assert!(copy.read(&repo, "v.bin").await? == splitmix(2, 300_000));
    let main = rig.main(&repo).await;
    assert_eq!(copy.main(&repo).await, main);
    Ok(())
}

#[tokio::test]
async fn what_is_committed_and_collected_meanwhile_leaves_the_copy_whole() -> Result<()> {
    let (rig, repo) = scene().await;
    let doomed = rig.repo_with(&rig.admin, "admin/doomed", Visibility::Private).await;
    rig.put_large(&rig.admin, &doomed, "x.bin", &splitmix(7, 300_000)).await;
    rig.env.advance(Duration::from_hours(24 * 60));
    let reading = reader(&rig).await;
    let mut copied = Copied::default();
    // As `copy_to` does it, with a collection between the logs and the objects.
    let to = Place::new();
    let store = to.store(&rig);
    reading.claim(&store, Purpose::Backup).await?;
    let snapshot = reading.snapshot(&mut copied).await?;
    rig.hub.delete_repo(&rig.admin, &doomed).await?;
    for _ in 0..12 {
        rig.hub.collect().await?;
        rig.env.advance(Duration::from_hours(24 * 60));
    }
    let present = reading.copy_copies(&store, &mut copied, &quiet).await?;
    let missing = reading.missing(&snapshot, &present, &mut copied).await?;
    let noticed = !missing.is_empty() || !copied.unsound.is_empty();
    let gone = rig.hub.store().list(&Prefix::Copies(CopyKind::Xorb));
    let left = gone.try_collect::<Vec<_>>().await?.len();
    assert_eq!(noticed, left == 1, "{left} xorbs are left: {missing:?}");
    // The whole of it, with commits going on.
    let commits = AtomicU64::new(0);
    let write = async {
        for number in 0..10_u64 {
            let content = format!("words {number}");
            rig.put(&rig.admin, &repo, "docs/a.txt", content).await.expect("a commit");
            commits.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    };
    let (done, ()) = tokio::join!(backup(&rig, &to), write);
    assert!(done?.unsound.is_empty());
    let copy = to.hub(&rig).await;
    let main = copy.main(&repo).await;
    assert!(copy.read_at(&repo, main, "w.bin").await? == splitmix(1, 400_000));
    assert!(!copy.text(&repo, "docs/a.txt").await.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_restore_goes_where_nothing_is_and_a_cut_one_is_not_served() -> Result<()> {
    let (rig, repo) = scene().await;
    let (kept, fresh) = (Place::new(), Place::new());
    backup(&rig, &kept).await?;
    let from = Hub::open_to_read(kept.store(&rig), Arc::clone(&rig.env) as _).await?;
    // Cut short: all but the sign that it is whole.
    from.copy_to(&fresh.store(&rig), Purpose::Restore, &quiet).await?;
    fresh.objects.delete(&Key::Layout.path()).await.expect("it was there");
    let refused = Hub::open_to_read(fresh.store(&rig), Arc::clone(&rig.env) as _).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })));
    let index =
        ballast_store::index::IndexHandle::over(ballast_store::index::memory::Memory::new())?;
    let opened = ballast_store::index::open::Opened::Clean;
    let freshness = crate::hub::Freshness::Exclusive;
    let served = crate::rig::open_with(&fresh.objects, &rig.env, index, opened, freshness).await;
    assert!(matches!(&served, Err(Error::Invalid { reason }) if reason.contains("hint:")));
    let again = from.copy_to(&fresh.store(&rig), Purpose::Restore, &quiet).await?;
    assert_eq!(again.objects, 0, "it goes on where it was");
    assert!(fresh.hub(&rig).await.read(&repo, "w.bin").await? == splitmix(1, 400_000));
    let twice = from.copy_to(&fresh.store(&rig), Purpose::Restore, &quiet).await;
    assert!(matches!(twice, Err(Error::Invalid { .. })), "there is a hub already");
    let (other, _) = scene_with_another_secret().await;
    let onto = reader(&other).await.copy_to(&kept.store(&rig), Purpose::Backup, &quiet).await;
    assert!(matches!(onto, Err(Error::Invalid { .. })), "it is another hub's");
    Ok(())
}

/// Another hub.
async fn scene_with_another_secret() -> (Rig, Repo) {
    let env = ballast_testkit::clock::SimEnv::new(99);
    let rig = Rig::over(Arc::new(InMemory::new()), env).await;
    let repo = rig.repo(&rig.admin, "admin/model").await;
    (rig, repo)
}

#[tokio::test]
async fn a_copy_that_went_its_own_way_is_left_alone() -> Result<()> {
    let (rig, repo) = scene().await;
    let to = Place::new();
    backup(&rig, &to).await?;
    let copy = to.hub(&rig).await;
    let repo_there = copy.hub.repo_by_id(&rig.admin, repo.id(), crate::access::Access::Write)?;
    copy.put(&rig.admin, &repo_there, "b.txt", "there").await?;
    let longer = backup(&rig, &to).await;
    assert!(matches!(&longer, Err(Error::Conflict { .. })), "{longer:?}");
    rig.put(&rig.admin, &repo, "b.txt", "here").await?;
    let other = backup(&rig, &to).await;
    assert!(matches!(&other, Err(Error::Conflict { .. })), "{other:?}");
    Ok(())
}

#[tokio::test]
async fn damage_is_left_out_and_named_and_another_copy_taken() -> Result<()> {
    let (rig, repo) = scene().await;
    rig.put_large(&rig.admin, &repo, "v.bin", &splitmix(2, 300_000)).await;
    let xorbs = rig.hub.store().list(&Prefix::Copies(CopyKind::Xorb));
    let xorbs: Vec<Key> = xorbs.map_ok(|listed| listed.key).try_collect().await?;
    let stored = rig.objects.get(&xorbs[0].path()).await.expect("it is there");
    let mut bytes = stored.bytes().await.expect("it reads").to_vec();
    let sound = bytes.clone();
    bytes[1000] ^= 1;
    rig.objects.put(&xorbs[0].path(), bytes.into()).await.expect("it writes");
    let to = Place::new();
    let copied = backup(&rig, &to).await?;
    let named: Vec<&String> = copied.unsound.iter().collect();
    assert_eq!(named.len(), 2, "the copy is damaged, and the xorb missing: {named:?}");
    assert!(to.objects.head(&xorbs[0].path()).await.is_err());
    let copy = to.hub(&rig).await;
    assert!(copy.read(&repo, "v.bin").await.is_ok() || copy.read(&repo, "w.bin").await.is_ok());
    // Mended, and backed up again.
    let Key::Copy(copy_name) = xorbs[0] else { panic!("it is a copy") };
    let another = rig.hub.store().new_copy(CopyKind::Xorb, copy_name.hash, 0);
    rig.objects.put(&Key::Copy(another).path(), sound.into()).await.expect("it writes");
    let copied = backup(&rig, &to).await?;
    assert_eq!((copied.objects, copied.unsound.len()), (1, 1), "{copied:?}");
    let copy = to.hub(&rig).await;
    assert!(copy.read(&repo, "w.bin").await? == splitmix(1, 400_000));
    assert!(copy.read(&repo, "v.bin").await? == splitmix(2, 300_000));
    Ok(())
}

#[tokio::test]
async fn a_repo_whose_log_is_damaged_is_copied_as_far_as_it_is_sound() -> Result<()> {
    let (rig, repo) = scene().await;
    let other = rig.repo(&rig.admin, "admin/other").await;
    rig.put(&rig.admin, &other, "b.txt", "sound").await?;
    let state = rig.hub.repo_state(&repo).await?;
    let entry = Key::LogEntry(LogId::Repo(repo.id()), state.entries).path();
    rig.objects.put(&entry, "nonsense".into()).await.expect("it writes");
    let to = Place::new();
    let copied = backup(&rig, &to).await?;
    assert_eq!(copied.unsound.len(), 1, "{:?}", copied.unsound);
    let copy = to.hub(&rig).await;
    assert_eq!(copy.text(&other, "b.txt").await, "sound");
    assert!(copy.read(&repo, "w.bin").await? == splitmix(1, 400_000));
    let item = copy.hub.item(&repo, copy.main(&repo).await, &path("docs/a.txt")).await;
    assert!(item.is_err(), "the commit that the damaged entry made is not there");
    Ok(())
}
