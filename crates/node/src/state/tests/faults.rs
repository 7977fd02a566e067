//! Stores and indexes that fail.

use std::sync::Arc;

use ballast_format::pack::{FileLink, PackBuilder};
use ballast_store::index::open::Opened;
use ballast_store::index::{Batch, Index as _, Table, schema};
use ballast_store::keyspace::{CopyKind, LogId, Prefix};
use ballast_store::objects::Store;
use ballast_testkit::clock::SimEnv;
use ballast_testkit::content::splitmix;
use ballast_testkit::fault::{FaultStore, Rates};
use futures_util::TryStreamExt as _;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _};

use super::{Kept, branch, make_branch};
use crate::access::Access;
use crate::account::NewUser;
use crate::error::Result;
use crate::hub::Freshness;
use crate::rig::{Rig, open_with, path, sha256};
use crate::state::mend::MendIndex;
use crate::worker::Worker as _;

#[tokio::test]
async fn an_entry_that_won_and_is_not_indexed_is_seen_by_the_next_answer() -> Result<()> {
    let rig = Rig::start().await;
    let repo = rig.repo(&rig.admin, "admin/won").await;
    let tip = rig.main(&repo).await;
    let (index, rebuild) = (Kept::default(), Opened::Rebuild { reason: "new".into() });
    let (objects, env) = (&rig.objects, &rig.env);
    let hub = open_with(objects, env, index.handle(), rebuild, Freshness::Exclusive).await?;
    index.refuse_writes(true);
    let name = branch("won");
    let refused = hub.append_repo(&repo, None, &[], make_branch(&name, tip)).await;
    assert!(refused.is_err());
    // It cannot be indexed still: no answer is better than an old one.
    assert!(hub.repo_state(&repo).await.is_err());
    index.refuse_writes(false);
    MendIndex::default().work(&hub).await;
    assert!(hub.repo_state(&repo).await?.refs.contains_key(&name));
    Ok(())
}

#[tokio::test]
async fn an_account_change_that_won_and_is_not_indexed_counts_after_the_next_look() -> Result<()> {
    let rig = Rig::start().await;
    let (index, rebuild) = (Kept::default(), Opened::Rebuild { reason: "new".into() });
    let (objects, env) = (&rig.objects, &rig.env);
    let hub = open_with(objects, env, index.handle(), rebuild, Freshness::Exclusive).await?;
    let user = |name| NewUser { name, fullname: "", email: None, admin: false };
    index.refuse_writes(true);
    assert!(hub.create_user(&rig.admin, &user("zoe")).await.is_err());
    assert!(hub.freshen().await.is_err());
    index.refuse_writes(false);
    MendIndex::default().work(&hub).await;
    hub.freshen().await?;
    assert_eq!(hub.user_of_name("zoe")?.name.as_str(), "zoe");
    Ok(())
}

/// What an index holds is believed only as far as it is a chain; the rest comes from the store.
#[tokio::test]
async fn holes_and_garbage_in_the_index_are_filled_from_the_store() -> Result<()> {
    let rig = Rig::start().await;
    let repo = rig.repo(&rig.admin, "admin/holes").await;
    let tip = rig.main(&repo).await;
    for i in 0..10 {
        let name = branch(&format!("b{i}"));
        rig.hub.append_repo(&repo, None, &[], make_branch(&name, tip)).await?;
    }
    let expected = rig.hub.repo_state(&repo).await?;
    let (objects, env) = (&rig.objects, &rig.env);
    let log = LogId::Repo(repo.id());
    let key = |number| schema::log_key(&log, number);
    let breaks: [fn(&mut Batch, Vec<u8>); 2] = [
        |batch, key| {
            batch.delete(Table::Log, key);
        },
        |batch, key| {
            batch.put(Table::Log, key, [7; 70].to_vec());
        },
    ];
    for (i, spoil) in breaks.iter().enumerate() {
        for number in [1, 5, 11] {
            let index = Kept::default();
            let rebuild = Opened::Rebuild { reason: "new".into() };
            let freshness = Freshness::Exclusive;
            let hub = open_with(objects, env, index.handle(), rebuild, freshness).await?;
            hub.close().await?;
            let mut batch = Batch::new();
            spoil(&mut batch, key(number));
            index.apply(batch)?;
            let hub = open_with(objects, env, index.handle(), Opened::Clean, freshness).await?;
            let seen = hub.repo_state(&repo).await?;
            assert_eq!(seen, expected, "break {i} at {number}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_lost_pack_takes_neither_its_repo_nor_others_away() -> Result<()> {
    let rig = Rig::start().await;
    let admin = &rig.admin;
    let (hurt, sound) = (rig.repo(admin, "admin/hurt").await, rig.repo(admin, "admin/sound").await);
    rig.put(admin, &sound, "a", "fine").await?;
    let before = packs(&rig).await;
    rig.put(admin, &hurt, "a", "lost soon").await?;
    let lost = packs(&rig).await.into_iter().find(|path| !before.contains(path));
    rig.put(admin, &hurt, "b", "kept").await?;
    rig.objects.delete(&lost.expect("a new pack")).await.expect("it was there");

    let again = rig.another().await;
    let expected = rig.hub.repo_state(&hurt).await?;
    assert_eq!(again.repo_state(&hurt).await?, expected);
    let repo = again.repo_by_id(admin, sound.id(), Access::Read)?;
    assert_eq!(again.repo_state(&repo).await?.entries, 2);
    Ok(())
}

async fn packs(rig: &Rig) -> Vec<object_store::path::Path> {
    let store = Store::new(Arc::clone(&rig.objects), Arc::clone(&rig.env) as _);
    let listed = store.list(&Prefix::Copies(CopyKind::Pack));
    let listed: Vec<_> = listed.try_collect().await.expect("it lists");
    listed.iter().map(|found| found.key.path()).collect()
}

/// R3: whatever the store does, what was acknowledged is there, once, for everybody.
#[tokio::test]
async fn what_was_acknowledged_over_a_failing_store_is_there() -> Result<()> {
    for seed in 0..12 {
        let faulty = FaultStore::new(Arc::new(InMemory::new()), seed);
        let objects: Arc<dyn ObjectStore> = Arc::clone(&faulty) as _;
        let rig = Rig::over(objects, SimEnv::hasty(seed)).await;
        let other = rig.another().await;
        faulty.set_rates(Rates {
            refused: 60,
            reply_lost: 120,
            late: 40,
            landing: 200,
            ..Rates::default()
        });
        let mut acknowledged = Vec::new();
        for i in 0..40 {
            let hub = if i % 2 == 0 { &rig.hub } else { &other };
            let name = format!("u{i}");
            let user = NewUser { name: &name, fullname: "", email: None, admin: false };
            if hub.create_user(&rig.admin, &user).await.is_ok() {
                acknowledged.push(name);
            }
        }
        faulty.set_rates(Rates::default());
        faulty.land_all().await;
        rig.hub.freshen().await?;
        other.freshen().await?;
        assert!(acknowledged.len() > 10, "seed {seed}: hardly anything worked");
        for hub in [&rig.hub, &other, &rig.another().await] {
            let names = hub.list_users(&rig.admin)?;
            let names: Vec<_> = names.iter().map(|user| user.name.as_str()).collect();
            for name in &acknowledged {
                let times = names.iter().filter(|found| *found == name).count();
                assert_eq!(times, 1, "seed {seed}: {name}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_store_with_another_layout_or_without_its_secret_is_refused() -> Result<()> {
    use ballast_store::keyspace::Key;
    for (key, content) in [(Key::Layout, Some("ballast store, layout 9\n")), (Key::Secret, None)] {
        let rig = Rig::start().await;
        let path = key.path();
        rig.objects.delete(&path).await.expect("it is there");
        if let Some(content) = content {
            rig.objects.put(&path, content.into()).await.expect("put");
        }
        let index = Kept::default().handle();
        let rebuild = Opened::Rebuild { reason: "new".into() };
        let (objects, env) = (&rig.objects, &rig.env);
        let opened = open_with(objects, env, index, rebuild, Freshness::Exclusive).await;
        assert!(opened.is_err(), "{key}");
    }
    Ok(())
}

#[tokio::test]
async fn a_link_that_was_replaced_leads_nowhere_and_keeps_nobody_from_reading_on() -> Result<()> {
    let rig = Rig::start().await;
    let repo = rig.repo(&rig.admin, "admin/model").await;
    let (other, content) = (rig.another().await, splitmix(1, 200_000));
    rig.put_large(&rig.admin, &repo, "w.bin", &content).await;
    let link = rig.hub.find_upload(&rig.admin, &repo, &sha256(&content)).await?.expect("a link");
    for listed in rig.hub.store().copies(CopyKind::Shard, *link.shard.as_bytes()).await? {
        rig.objects.delete(&listed.key.path()).await.expect("it is there");
    }
    // Lost: perhaps it is only not visible yet.
    assert!(other.repo_state(&repo).await.is_err());
    // Replaced: it was collected.
    let manifest = rig.hub.needed_manifest(&link.manifest()).await?;
    let shard = rig.hub.register_as(rig.admin.user()?.user, vec![(*manifest).clone()]).await?;
    let mut pack = PackBuilder::new();
    pack.link(FileLink { shard, ..link });
    let pack = rig.hub.store_pack(pack, Vec::new()).await?;
    rig.hub.append_packs(repo.id(), None, &[pack], |_| Ok(Some(Vec::new()))).await?;
    rig.put(&rig.admin, &repo, "a.txt", "words").await?;
    let main = rig.main(&repo).await;
    assert_eq!(other.repo_state(&repo).await?.main(), Some(main));
    assert_eq!(other.item(&repo, main, &path("a.txt")).await?.size, 5);
    assert!(!other.reconstruct(&repo, link.file, None).await?.fetches.is_empty());
    Ok(())
}
