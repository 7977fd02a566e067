use std::sync::Arc;

use ballast_format::pack::FileLink;
use ballast_store::keyspace::CopyKind;
use ballast_testkit::content::{bf16_weights, splitmix};
use object_store::ObjectStoreExt as _;
use tokio::sync::mpsc;

use super::*;
use crate::access::Repo;
use crate::error::Error;
use crate::rig::{Rig, path, sha256};
use crate::upload::commit::Asked;
use crate::upload::tests::client::Session;
use crate::verify::Report;

/// A repo with a large and a small file.
struct Scene {
    rig: Rig,
    repo: Repo,
    content: Vec<u8>,
}

impl Scene {
    async fn new() -> Self {
        let rig = Rig::start().await;
        let repo = rig.repo(&rig.admin, "admin/model").await;
        let content = bf16_weights(1, 900_000);
        rig.put_large(&rig.admin, &repo, "w.bin", &content).await;
        rig.put(&rig.admin, &repo, "a.txt", "some words").await.expect("a commit");
        Self { rig, repo, content }
    }

    async fn copies(&self, kind: CopyKind) -> Vec<CopyName> {
        let mut listed = self.rig.hub.store().list(&Prefix::Copies(kind));
        let mut copies = Vec::new();
        while let Some(listed) = listed.try_next().await.expect("it lists") {
            let Key::Copy(copy) = listed.key else { panic!("it is no copy") };
            copies.push(copy);
        }
        copies
    }

    async fn the(&self, kind: CopyKind) -> CopyName {
        let copies = self.copies(kind).await;
        assert_eq!(copies.len(), 1, "{copies:?}");
        copies[0]
    }

    /// Turns a bit; the byte at this share of the object's length.
    async fn damage(&self, copy: &CopyName, part: f64) {
        let path = Key::Copy(*copy).path();
        let stored = self.rig.objects.get(&path).await.expect("it is there");
        let mut bytes = stored.bytes().await.expect("it reads").to_vec();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a place in a small object"
        )]
        let place = (bytes.len() as f64 * part) as usize;
        bytes[place] ^= 4;
        self.rig.objects.put(&path, bytes.into()).await.expect("it writes");
    }

    async fn notes(&self) -> usize {
        let notes = self.rig.hub.store().list(&Prefix::Damaged);
        notes.try_collect::<Vec<_>>().await.expect("it lists").len()
    }

    async fn link(&self, hub: &Hub) -> FileLink {
        let found = hub.find_upload(&self.rig.admin, &self.repo, &sha256(&self.content)).await;
        found.expect("it looks").expect("it is there")
    }

    async fn has_file(&self, hub: &Hub) -> bool {
        let (sha256, size) = (sha256(&self.content), self.content.len() as u64);
        hub.has_file(&self.rig.admin, &self.repo, &sha256, size).await.expect("it looks")
    }

    /// What is said to be at this path.
    async fn oid(&self, name: &str) -> Option<String> {
        let main = self.rig.main(&self.repo).await;
        let asked = [Asked { path: path(name), size: 10, sample: b"words".to_vec() }];
        let judged = self.rig.hub.preupload(&self.repo, Some(main), &asked, None, None).await;
        judged.expect("it judges").remove(0).oid
    }

    async fn verify(&self) -> u64 {
        let (reports, mut heard) = mpsc::channel::<Report>(4);
        let listen = async { while heard.recv().await.is_some() {} };
        let (checked, ()) = tokio::join!(self.rig.hub.verify(None, reports), listen);
        checked.expect("it ends").damaged
    }

    /// Another process; it has read nothing yet.
    async fn another(&self) -> Arc<Hub> {
        self.rig.another().await
    }
}

#[tokio::test]
async fn damage_is_noted_and_every_later_process_knows_without_reading() -> Result<()> {
    let scene = Scene::new().await;
    let xorb = scene.the(CopyKind::Xorb).await;
    let early = scene.another().await;
    scene.damage(&xorb, 0.5).await;
    let hub = scene.another().await;
    let link = scene.link(&hub).await;
    let read = hub.read_file(&link, 0..link.size).await;
    let read = match read {
        Ok(stream) => crate::upload::tests::client::all_of(stream).await,
        Err(error) => Err(error),
    };
    assert!(matches!(read, Err(Error::Corrupt { .. })));
    assert_eq!(scene.notes().await, 0, "it is only suspected");
    hub.settle_damage().await?;
    assert_eq!(scene.notes().await, 1);
    hub.settle_damage().await?;
    let later = scene.another().await;
    assert!(later.distrusts(&xorb) && !scene.has_file(&later).await);
    assert!(!early.distrusts(&xorb));
    early.read_damage().await?;
    assert!(early.distrusts(&xorb), "those that run learn it, too");
    Ok(())
}

#[tokio::test]
async fn what_was_only_read_wrong_is_trusted_again() -> Result<()> {
    let scene = Scene::new().await;
    for kind in CopyKind::ALL {
        for copy in scene.copies(kind).await {
            scene.rig.hub.distrust(&copy, "a bit was turned on its way");
        }
    }
    assert!(!scene.has_file(&scene.rig.hub).await);
    scene.rig.hub.settle_damage().await?;
    assert!(scene.rig.hub.quarantine.is_empty() && scene.has_file(&scene.rig.hub).await);
    assert_eq!(scene.notes().await, 0);
    Ok(())
}

#[tokio::test]
async fn a_large_file_that_is_sent_again_is_whole_again() -> Result<()> {
    for kind in [CopyKind::Xorb, CopyKind::Shard] {
        let scene = Scene::new().await;
        let copy = scene.the(kind).await;
        scene.damage(&copy, 0.5).await;
        assert!(scene.verify().await > 0);
        let oid = scene.oid("w.bin").await;
        assert_eq!(oid, None, "clients pass over what they are told is there");
        assert!(!scene.has_file(&scene.rig.hub).await);
        // Sent again, and committed again to the same path.
        scene.rig.put_large(&scene.rig.admin, &scene.repo, "w.bin", &scene.content).await;
        assert!(scene.has_file(&scene.rig.hub).await && scene.oid("w.bin").await.is_some());
        for hub in [Arc::clone(&scene.rig.hub), scene.another().await] {
            let main = scene.rig.main(&scene.repo).await;
            let item = hub.item(&scene.repo, main, &path("w.bin")).await?;
            let stream = hub.open_item(&scene.repo, &item, 0..item.size).await?;
            let read = crate::upload::tests::client::all_of(stream).await?;
            assert!(read == scene.content, "{kind:?}");
        }
        assert_eq!(scene.copies(kind).await.len(), 2, "what is damaged is not deleted");
    }
    Ok(())
}

#[tokio::test]
async fn a_file_that_comes_back_cut_otherwise_is_whole_again_and_gc_goes_on() -> Result<()> {
    let scene = Scene::new().await;
    // Another user's, packed with something else, so that its xorb has another name.
    let other = scene.rig.user("other").await;
    let theirs = scene.rig.repo(&other, "other/model").await;
    let more = [&splitmix(9, 300_000)[..], &scene.content].concat();
    for kind in [CopyKind::Xorb, CopyKind::Shard] {
        let copy = scene.the(kind).await;
        scene.damage(&copy, 0.5).await;
    }
    assert!(scene.verify().await > 0);
    let mut session = Session::of(&more);
    session.add(&scene.content);
    session.send(&scene.rig.hub, &other, &theirs).await?;
    let mut draft = scene.rig.draft(&other, &theirs).await;
    draft.add_large(path("w.bin"), sha256(&scene.content), None).await?;
    draft.finish().await?;
    // The repo's own is still damaged; who may read the other's makes it whole by committing it.
    let mut draft = scene.rig.draft(&scene.rig.admin, &scene.repo).await;
    draft.add_large(path("w.bin"), sha256(&scene.content), None).await?;
    assert!(draft.finish().await?.changed);
    assert!(scene.rig.read(&scene.repo, "w.bin").await? == scene.content);
    let another = scene.another().await;
    let main = scene.rig.main(&scene.repo).await;
    let item = another.item(&scene.repo, main, &path("w.bin")).await?;
    assert_eq!(item.large.and_then(|large| large.link()), Some(scene.link(&another).await));
    // All promises ran out: nothing but the commits counts.
    scene.rig.env.advance(Duration::from_hours(24 * 60));
    let plan = scene.rig.hub.plan_collection().await?;
    assert!(plan.reachable > 0);
    Ok(())
}

#[tokio::test]
async fn a_small_file_that_is_committed_again_is_whole_again() -> Result<()> {
    let scene = Scene::new().await;
    let main = scene.rig.main(&scene.repo).await;
    let item = scene.rig.hub.item(&scene.repo, main, &path("a.txt")).await?;
    let row = scene.rig.hub.object_row(scene.repo.id(), &item.id).await?.expect("a row");
    let key = Key::Copy(row.pack).path();
    let stored = scene.rig.objects.get(&key).await.expect("it is there");
    let mut bytes = stored.bytes().await.expect("it reads").to_vec();
    bytes[usize::try_from(row.offset).expect("small")] ^= 1;
    scene.rig.objects.put(&key, bytes.into()).await.expect("it writes");
    assert!(matches!(scene.rig.read(&scene.repo, "a.txt").await, Err(Error::Corrupt { .. })));
    assert_eq!(scene.oid("a.txt").await, None);
    scene.rig.hub.settle_damage().await?;
    assert_eq!(scene.notes().await, 1);
    let again = scene.rig.put(&scene.rig.admin, &scene.repo, "a.txt", "some words").await?;
    assert!(again.changed, "it changes no file, and mends one");
    assert_eq!(scene.rig.text(&scene.repo, "a.txt").await, "some words");
    assert!(scene.oid("a.txt").await.is_some());
    let another = scene.another().await;
    let content = another.raw_blob(&scene.repo, &item, 100).await?;
    assert_eq!(&content[..], b"some words");
    let again = scene.rig.put(&scene.rig.admin, &scene.repo, "a.txt", "some words").await?;
    assert!(!again.changed);
    Ok(())
}

#[tokio::test]
async fn a_commit_does_not_rely_on_what_is_damaged() -> Result<()> {
    let scene = Scene::new().await;
    let xorb = scene.the(CopyKind::Xorb).await;
    let mut draft = scene.rig.draft(&scene.rig.admin, &scene.repo).await;
    draft.add_large(path("again.bin"), sha256(&scene.content), None).await?;
    let other = scene.rig.repo(&scene.rig.admin, "admin/other").await;
    let mut into_other = scene.rig.draft(&scene.rig.admin, &other).await;
    into_other.add_large(path("w.bin"), sha256(&scene.content), None).await?;
    scene.damage(&xorb, 0.5).await;
    scene.rig.hub.distrust(&xorb, "it was read");
    let refused = into_other.finish().await;
    assert!(matches!(&refused, Err(Error::Invalid { reason }) if reason.contains("damaged")));
    // Within the repo it changes nothing about what the repo relies on.
    draft.finish().await?;
    Ok(())
}

#[tokio::test]
async fn of_two_shard_objects_the_sound_one_is_read() -> Result<()> {
    let scene = Scene::new().await;
    let shard = scene.the(CopyKind::Shard).await;
    let second = scene.rig.hub.store().new_copy(shard.kind, shard.hash, shard.epoch);
    let stored = scene.rig.objects.get(&Key::Copy(shard).path()).await.expect("it is there");
    let stored = stored.bytes().await.expect("it reads");
    scene.rig.objects.put(&Key::Copy(second).path(), stored.into()).await.expect("put");
    for part in [0.1, 0.9] {
        scene.damage(&shard, part).await;
        let hub = scene.another().await;
        let main = scene.rig.main(&scene.repo).await;
        let item = hub.item(&scene.repo, main, &path("w.bin")).await?;
        let stream = hub.open_item(&scene.repo, &item, 0..item.size).await?;
        let read = crate::upload::tests::client::all_of(stream).await?;
        assert!(read == scene.content && scene.has_file(&hub).await);
    }
    Ok(())
}

#[tokio::test]
async fn what_is_lost_is_noted_and_what_was_swept_is_not() -> Result<()> {
    let scene = Scene::new().await;
    let xorb = scene.the(CopyKind::Xorb).await;
    scene.rig.objects.delete(&Key::Copy(xorb).path()).await.expect("it was there");
    let read = scene.rig.read(&scene.repo, "w.bin").await;
    assert!(matches!(read, Err(Error::Corrupt { .. })), "no 404");
    scene.rig.hub.settle_damage().await?;
    assert_eq!(scene.notes().await, 1);
    assert!(!scene.has_file(&scene.rig.hub).await, "please send it");
    scene.rig.upload(&scene.rig.admin, &scene.repo, &scene.content).await;
    assert!(scene.rig.read(&scene.repo, "w.bin").await? == scene.content);
    scene.rig.hub.settle_notes().await?;
    assert_eq!(scene.notes().await, 0, "nobody misses it");
    Ok(())
}

#[tokio::test]
async fn what_a_person_put_back_is_trusted_after_a_check() -> Result<()> {
    let scene = Scene::new().await;
    let xorb = scene.the(CopyKind::Xorb).await;
    let key = Key::Copy(xorb).path();
    let stored = scene.rig.objects.get(&key).await.expect("it is there");
    let stored = stored.bytes().await.expect("it reads");
    scene.damage(&xorb, 0.5).await;
    assert_eq!((scene.verify().await, scene.notes().await), (1, 1));
    scene.rig.objects.put(&key, stored.into()).await.expect("it writes");
    assert_eq!((scene.verify().await, scene.notes().await), (0, 0));
    assert!(scene.has_file(&scene.rig.hub).await);
    Ok(())
}
