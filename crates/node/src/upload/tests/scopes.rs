//! Who may build on what: the right hashes in hand open nothing (R17), and the index may be lost
//! without changing any answer (R8).

use std::sync::Arc;
use std::time::Duration;

use ballast_format::ErrorKind;
use ballast_format::chunk::split;
use ballast_format::hash::{ChunkHash, XorbHash};
use ballast_format::log::Visibility;
use ballast_format::shard::UploadShard;
use ballast_testkit::content::splitmix;
use bytes::Bytes;

use super::client::{FileClaim, SegmentClaim, Session, Xorb, commit, encode, put_shard, put_xorb};
use crate::access::{Caller, Repo};
use crate::error::Result;
use crate::hub::Hub;
use crate::repo::Settings;
use crate::rig::{Rig, sha256};

const DAY: Duration = Duration::from_hours(24);

/// Alice has a private model; Bob has nothing to do with it.
struct Scene {
    rig: Rig,
    alice: Caller,
    bob: Caller,
    private: Repo,
    own: Repo,
    content: Vec<u8>,
    session: Session,
}

impl Scene {
    async fn new() -> Self {
        let rig = Rig::start().await;
        let (alice, bob) = (rig.user("alice").await, rig.user("bob").await);
        let private = rig.repo_with(&alice, "alice/secret", Visibility::Private).await;
        let own = rig.repo(&bob, "bob/model").await;
        let content = splitmix(1, 900_000);
        let session = Session::of(&content);
        session.commit(&rig, &alice, &private, "w.bin").await;
        Self { rig, alice, bob, private, own, content, session }
    }

    fn xorb(&self) -> &Xorb {
        &self.session.xorbs[0]
    }

    fn first_chunk(&self) -> ChunkHash {
        self.xorb().footer.chunk_hash(0)
    }

    /// Whether somebody can do anything with Alice's content without sending it.
    async fn reaches(&self, hub: &Arc<Hub>, caller: &Caller, repo: &Repo) -> [bool; 5] {
        let file = &self.session.files[0];
        let digest = sha256(&self.content);
        let all = "the hub answers";
        let answer = hub.dedup_answer(caller, None, self.first_chunk()).await.expect(all);
        let known = hub.xorb_known(caller, self.xorb().hash()).await.expect(all);
        let shard = encode(std::slice::from_ref(file), &[]);
        let put = put_shard(hub, caller, repo, shard).await;
        if let Err(error) = &put {
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("is unknown: upload it first"), "{error}");
        }
        let found = hub.find_upload(caller, repo, &digest).await.expect(all);
        let rebuilt = hub.reconstruct(repo, file.hash, None).await.is_ok();
        [answer.is_some(), known, put.is_ok(), found.is_some(), rebuilt]
    }
}

/// The chunks that an answer shows to its asker, by xorb.
fn shown(answer: Bytes, contents: &[&[u8]]) -> Vec<(XorbHash, Vec<u32>)> {
    let footer = answer.len() - 200;
    let key = *answer[footer + 72..].first_chunk::<32>().expect("a footer");
    let mine: std::collections::HashSet<ChunkHash> = contents
        .iter()
        .flat_map(|content| split(content))
        .map(|chunk| ChunkHash::of(chunk).keyed(&key))
        .collect();
    let mut answer = answer.to_vec();
    answer[footer + 72..footer + 104].fill(0);
    let shard = UploadShard::parse(Bytes::from(answer)).expect("a shard");
    let of_xorb = |xorb: ballast_format::shard::UploadXorb<'_>| {
        let chunks = (0..).zip(xorb.chunks());
        let known = chunks.filter(|(_, chunk)| mine.contains(&chunk.hash));
        (xorb.hash, known.map(|(index, _)| index).collect())
    };
    shard.xorbs().map(of_xorb).collect()
}

#[tokio::test]
async fn a_stranger_with_all_the_right_hashes_can_do_nothing_with_them() -> Result<()> {
    let scene = Scene::new().await;
    let Scene { rig, bob, own, .. } = &scene;
    assert_eq!(scene.reaches(&rig.hub, bob, own).await, [false; 5]);
    // Nor can the owner's own content be had through a repo that does not hold it.
    let file = scene.session.files[0].hash;
    assert!(rig.hub.reconstruct(own, file, None).await.is_err());
    let digest = sha256(&scene.content);
    assert!(commit(rig, bob, own, "stolen.bin", digest).await.is_err());
    assert_eq!(scene.reaches(&rig.hub, &scene.alice, &scene.private).await, [true; 5]);
    Ok(())
}

#[tokio::test]
async fn who_sends_the_content_has_it_and_learns_nothing_from_how_it_goes() -> Result<()> {
    let scene = Scene::new().await;
    let Scene { rig, bob, own, .. } = &scene;
    assert!(put_xorb(&rig.hub, bob, scene.xorb()).await?, "new, as far as he knows");
    let put = put_shard(&rig.hub, bob, own, scene.session.shard()).await?;
    assert!(put.stored, "new, as far as he knows");
    commit(rig, bob, own, "mine.bin", sha256(&scene.content)).await?;
    assert_eq!(rig.read(own, "mine.bin").await?, scene.content);
    assert_eq!(scene.reaches(&rig.hub, bob, own).await, [true; 5]);
    Ok(())
}

#[tokio::test]
async fn what_a_repo_shows_to_readers_they_may_build_on_as_long_as_it_does() -> Result<()> {
    let scene = Scene::new().await;
    let Scene { rig, alice, bob, private, own, .. } = &scene;
    let settings = |visibility| Settings { visibility: Some(visibility), ..Settings::default() };
    rig.hub.change_settings(alice, private, &settings(Visibility::Public)).await?;
    let file = &scene.session.files[0];
    let shard = || encode(std::slice::from_ref(file), &[]);
    assert!(rig.hub.dedup_answer(bob, None, scene.first_chunk()).await?.is_some());
    rig.hub.change_settings(alice, private, &settings(Visibility::Private)).await?;
    assert_eq!(scene.reaches(&rig.hub, bob, own).await, [false; 5]);
    rig.hub.change_settings(alice, private, &settings(Visibility::Public)).await?;
    assert!(put_shard(&rig.hub, bob, own, shard()).await?.stored);
    commit(rig, bob, own, "copy.bin", sha256(&scene.content)).await?;
    // What he committed stays his, whatever becomes of the source.
    rig.hub.change_settings(alice, private, &settings(Visibility::Private)).await?;
    assert_eq!(rig.read(own, "copy.bin").await?, scene.content);
    assert_eq!(scene.reaches(&rig.hub, bob, own).await, [true; 5]);
    Ok(())
}

#[tokio::test]
async fn a_public_file_does_not_open_the_rest_of_the_xorbs_that_it_uses() -> Result<()> {
    let scene = Scene::new().await;
    let Scene { rig, alice, bob, own, .. } = &scene;
    // Alice publishes a file that starts as her secret one does; her client deduplicates it.
    let footer = &scene.xorb().footer;
    let shared = footer.uncompressed_start(4) as usize;
    let published = [&scene.content[..shared], &splitmix(2, 300_000)].concat();
    let public = rig.repo(alice, "alice/open").await;
    let mut session = Session::default();
    session.know(footer);
    session.add(&published);
    assert_eq!(session.files[0].segments[0].chunks, 0..4);
    session.commit(rig, alice, &public, "w.bin").await;

    // Bob may use the four chunks, and not the fifth, of which he has guessed everything.
    let answer = rig.hub.dedup_answer(bob, None, scene.first_chunk()).await?;
    let answer = shown(answer.expect("it is public"), &[&scene.content, &published]);
    assert_eq!(answer[0], (scene.xorb().hash(), vec![0, 1, 2, 3]));
    assert_eq!(answer.len(), 2);
    assert!(!rig.hub.xorb_known(bob, scene.xorb().hash()).await?);
    let claim = |chunks: std::ops::Range<u32>| {
        let start = footer.uncompressed_start(chunks.start) as usize;
        let end = footer.uncompressed_start(chunks.end) as usize;
        let content = &scene.content[start..end];
        let leaves = chunks
            .clone()
            .map(|index| (footer.chunk_hash(index), u64::from(footer.chunk_length(index))));
        let file = FileClaim {
            hash: ballast_format::hash_tree::file_hash(leaves),
            sha256: Some(sha256(content)),
            segments: vec![SegmentClaim::of(footer, chunks)],
            is_proven: true,
        };
        encode(&[file], &[])
    };
    for stolen in [4..5, 3..5, 0..5, 0..footer.chunk_count()] {
        let put = put_shard(&rig.hub, bob, own, claim(stolen)).await;
        let error = put.expect_err("it is not his to use").to_string();
        assert!(error.contains("is unknown: upload it first"), "{error}");
    }
    for fair in [0..4, 1..3, 3..4] {
        put_shard(&rig.hub, bob, own, claim(fair)).await?;
    }
    // Alice sees all of it.
    let answer = rig.hub.dedup_answer(alice, None, scene.first_chunk()).await?;
    let all = shown(answer.expect("hers"), &[&scene.content]);
    let count = footer.chunk_count();
    assert!(all.contains(&(scene.xorb().hash(), (0..count).collect())));
    Ok(())
}

#[tokio::test]
async fn another_owners_layout_of_the_same_file_does_not_get_in_the_way() -> Result<()> {
    let scene = Scene::new().await;
    let Scene { rig, bob, own, .. } = &scene;
    // Bob has the same file, packed with another, and does not commit it for now.
    let mut session = Session::default();
    let other = splitmix(7, 400_000);
    session.add_all(&[&other, &scene.content]);
    session.send(&rig.hub, bob, own).await?;
    for (caller, xorb) in [(&scene.alice, scene.xorb()), (bob, &session.xorbs[0])] {
        let answer = rig.hub.dedup_answer(caller, None, scene.first_chunk()).await?;
        let shown = shown(answer.expect("they have it"), &[&scene.content, &other]);
        let count = xorb.footer.chunk_count();
        assert_eq!(shown, [(xorb.hash(), (0..count).collect())]);
    }
    assert_eq!(scene.reaches(&rig.hub, &scene.alice, &scene.private).await, [true; 5]);
    assert_eq!(rig.read(&scene.private, "w.bin").await?, scene.content);
    Ok(())
}

#[tokio::test]
async fn keys_of_answers_are_the_askers_own_and_change_each_day() -> Result<()> {
    let scene = Scene::new().await;
    let Scene { rig, alice, .. } = &scene;
    let carol = rig.user("carol").await;
    let public = rig.repo(alice, "alice/open").await;
    commit(rig, alice, &public, "w.bin", sha256(&scene.content)).await?;
    let chunk = scene.first_chunk();
    let asked = async |caller: &Caller| {
        let answer = rig.hub.dedup_answer(caller, None, chunk).await;
        let answer = answer.expect("the hub answers").expect("it is known");
        let footer = &answer[answer.len() - 200..];
        let number = |at: usize| u64::from_le_bytes(*footer[at..].first_chunk().expect("a number"));
        (footer[72..104].to_vec(), number(104), number(112))
    };
    let (key, created, expires) = asked(alice).await;
    assert_eq!(asked(alice).await.0, key, "one key for many answers");
    assert_ne!(asked(&carol).await.0, key, "and not that of others");
    assert!(expires - created > 24 * 60 * 60 && expires - created <= 48 * 60 * 60);
    rig.env.advance(DAY);
    assert_ne!(asked(alice).await.0, key);
    Ok(())
}

#[tokio::test]
async fn what_was_sent_and_never_committed_is_forgotten_after_its_time() -> Result<()> {
    let scene = Scene::new().await;
    let Scene { rig, bob, own, .. } = &scene;
    let content = splitmix(5, 500_000);
    let session = Session::of(&content);
    session.send(&rig.hub, bob, own).await?;
    let chunk = session.xorbs[0].footer.chunk_hash(0);
    let digest = sha256(&content);
    rig.env.advance(DAY * 18);
    assert!(rig.hub.dedup_answer(bob, None, chunk).await?.is_some());
    rig.env.advance(DAY * 2);
    // An answer lives for up to two days and clocks may be wrong by one: no more offers.
    assert!(rig.hub.dedup_answer(bob, None, chunk).await?.is_none());
    assert!(rig.hub.find_upload(bob, own, &digest).await?.is_some());
    let again = put_shard(&rig.hub, bob, own, session.shard()).await?;
    assert!(again.stored, "what was promised for three weeks is still there");
    rig.env.advance(DAY * 23);
    assert!(rig.hub.find_upload(bob, own, &digest).await?.is_none());
    assert!(!rig.hub.xorb_known(bob, session.xorbs[0].hash()).await?);
    assert!(put_shard(&rig.hub, bob, own, session.shard()).await.is_err());
    Ok(())
}

#[tokio::test]
async fn an_index_made_anew_gives_the_same_answers() -> Result<()> {
    let scene = Scene::new().await;
    let Scene { rig, bob, own, .. } = &scene;
    // Something of Bob's that no commit names, some of it only a xorb.
    let content = splitmix(5, 500_000);
    let session = Session::of(&content);
    session.send(&rig.hub, bob, own).await?;
    let alone = Xorb::of(&[&splitmix(6, 200_000)]);
    put_xorb(&rig.hub, bob, &alone).await?;
    let anew = rig.another().await;
    let chunk = session.xorbs[0].footer.chunk_hash(0);
    let digest = sha256(&content);
    for hub in [&rig.hub, &anew] {
        assert_eq!(scene.reaches(hub, bob, own).await, [false; 5]);
        assert_eq!(scene.reaches(hub, &scene.alice, &scene.private).await, [true; 5]);
        assert!(hub.xorb_known(bob, alone.hash()).await?);
        assert!(hub.xorb_known(bob, session.xorbs[0].hash()).await?);
        assert!(!hub.xorb_known(&scene.alice, alone.hash()).await?);
        assert!(hub.find_upload(bob, own, &digest).await?.is_some());
        assert!(hub.find_upload(&scene.alice, own, &digest).await?.is_none());
        assert!(hub.find_upload(&scene.alice, &scene.private, &digest).await?.is_none());
        let answer = hub.dedup_answer(bob, None, chunk).await?.expect("his own");
        assert_eq!(shown(answer, &[&content])[0].0, session.xorbs[0].hash());
        assert!(!put_shard(hub, bob, own, session.shard()).await?.stored);
    }
    let first = rig.hub.dedup_answer(&scene.alice, None, scene.first_chunk()).await?;
    assert_eq!(first, anew.dedup_answer(&scene.alice, None, scene.first_chunk()).await?);
    Ok(())
}

#[tokio::test]
async fn who_sends_a_new_beginning_is_told_once_what_the_repo_has() -> Result<()> {
    let scene = Scene::new().await;
    let Scene { rig, alice, bob, own, private, .. } = &scene;
    let unknown = ChunkHash::of(b"a beginning that nobody has");
    assert!(!crate::upload::is_sample(&unknown), "another text is needed");
    let guess =
        async |caller, repo, session| rig.hub.dedup_guess(caller, repo, unknown, session).await;
    let answer = guess(alice, private, "one").await?.expect("the repo's file");
    let count = scene.xorb().footer.chunk_count();
    let all = [(scene.xorb().hash(), (0..count).collect())];
    assert_eq!(shown(answer, &[&scene.content]), all);
    assert!(guess(alice, private, "one").await?.is_none());
    assert!(guess(alice, private, "two").await?.is_some());
    // Nothing of it reaches who may not read the repo, and an empty repo tells nothing.
    assert!(guess(bob, own, "three").await?.is_none());
    let leaked = guess(bob, private, "four").await?.map(|answer| shown(answer, &[&scene.content]));
    assert_eq!(leaked.unwrap_or_default(), []);
    Ok(())
}
