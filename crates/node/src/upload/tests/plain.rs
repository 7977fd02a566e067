//! Files that come as plain bytes, whole or in parts.

use std::sync::Arc;
use std::time::Duration;

use ballast_format::ErrorKind;
use ballast_format::chunk::split;
use ballast_format::hash::{ChunkHash, Sha256};
use ballast_format::hash_tree::file_hash;
use ballast_store::keyspace::{CopyKind, Prefix};
use ballast_testkit::content::{bf16_weights, repetitive, splitmix};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};

use super::client::{Session, all_of, body, commit};
use crate::access::{Caller, Repo};
use crate::error::Result;
use crate::rig::{Rig, sha256};

async fn start() -> (Rig, Repo) {
    let rig = Rig::start().await;
    let repo = rig.repo(&rig.admin, "admin/model").await;
    (rig, repo)
}

async fn put(rig: &Rig, caller: &Caller, repo: &Repo, content: &[u8]) -> Result<()> {
    let size = content.len() as u64;
    let sent = body(&Bytes::copy_from_slice(content));
    rig.hub.put_file(caller, repo, sha256(content), size, sent).await
}

/// Bytes that all xorbs take, and how many they are.
async fn stored(rig: &Rig) -> (u64, usize) {
    let listed = rig.hub.store().list(&Prefix::Copies(CopyKind::Xorb));
    let listed: Vec<_> = listed.try_collect().await.expect("it lists");
    (listed.iter().map(|listed| listed.size).sum(), listed.len())
}

/// How many objects there are of a set.
async fn count(rig: &Rig, prefix: Prefix) -> usize {
    let listed = rig.hub.store().list(&prefix);
    listed.try_collect::<Vec<_>>().await.expect("it lists").len()
}

async fn read(rig: &Rig, caller: &Caller, repo: &Repo, content: &[u8]) -> Vec<u8> {
    let link = rig.hub.find_upload(caller, repo, &sha256(content)).await;
    let link = link.expect("the index answers").expect("it was uploaded");
    let bytes = rig.hub.read_file(&link, 0..link.size).await.expect("it reads");
    all_of(bytes).await.expect("it reads")
}

#[tokio::test]
async fn a_file_gets_the_hash_that_a_xet_client_gives_it_and_comes_back() -> Result<()> {
    let (rig, repo) = start().await;
    for content in
        [vec![7], splitmix(1, 3_000_000), bf16_weights(2, 3_000_000), repetitive(3, 900_000)]
    {
        put(&rig, &rig.admin, &repo, &content).await?;
        let link = rig.hub.find_upload(&rig.admin, &repo, &sha256(&content)).await?;
        let leaves = split(&content).map(|chunk| (ChunkHash::of(chunk), chunk.len() as u64));
        assert_eq!(link.expect("it was uploaded").file, file_hash(leaves));
        assert!(read(&rig, &rig.admin, &repo, &content).await == content);
    }
    // An empty file is nobody's business here.
    put(&rig, &rig.admin, &repo, &[]).await?;
    Ok(())
}

#[tokio::test]
async fn what_is_not_as_it_was_said_leaves_nothing_that_anyone_can_find() -> Result<()> {
    let (rig, repo) = start().await;
    let content = splitmix(1, 3_000_000);
    let (size, digest) = (content.len() as u64, sha256(&content));
    let bytes = Bytes::copy_from_slice(&content);
    let other = Sha256::from_bytes([3; 32]);
    let lost = stream::once(future::ready(Err(crate::Error::invalid("lost"))));
    let broken = Box::pin(body(&bytes.slice(..2_500_000)).chain(lost));
    for (digest, size, sent) in [
        (other, size, body(&bytes)),
        (digest, size + 1, body(&bytes)),
        (digest, size - 1, body(&bytes)),
        (digest, 0, body(&bytes)),
        (digest, size, body(&bytes.slice(..2_999_999))),
        (digest, size, body(&bytes.slice(1..))),
        (digest, size, broken as _),
    ] {
        let put = rig.hub.put_file(&rig.admin, &repo, digest, size, sent).await;
        assert_eq!(put.expect_err("a lie").kind(), ErrorKind::Invalid);
        for digest in [digest, other] {
            assert!(rig.hub.find_upload(&rig.admin, &repo, &digest).await?.is_none());
        }
        let first = ChunkHash::of(split(&content).next().expect("some"));
        assert!(rig.hub.dedup_answer(&rig.admin, None, first).await?.is_none());
        assert_eq!(count(&rig, Prefix::Pins).await, 0);
        assert_eq!(count(&rig, Prefix::Copies(CopyKind::Shard)).await, 0);
        let session = Session::of(&content);
        assert!(!rig.hub.xorb_known(&rig.admin, session.xorbs[0].hash()).await?);
    }
    let anonymous = rig.hub.put_file(&Caller::Anonymous, &repo, digest, size, body(&bytes));
    assert_eq!(anonymous.await.expect_err("who is it").kind(), ErrorKind::Denied);
    put(&rig, &rig.admin, &repo, &content).await
}

#[tokio::test]
async fn a_file_that_came_by_xet_is_not_stored_again() -> Result<()> {
    let (rig, repo) = start().await;
    let content = splitmix(1, 5_000_000);
    Session::of(&content).commit(&rig, &rig.admin, &repo, "w.bin").await;
    let before = stored(&rig).await;
    put(&rig, &rig.admin, &repo, &content).await?;
    assert_eq!(stored(&rig).await, before);

    // One with something in its middle costs that and what is cut anew around it.
    let mut changed = content.clone();
    changed.splice(2_000_000..2_000_010, splitmix(9, 50_000));
    put(&rig, &rig.admin, &repo, &changed).await?;
    let grown = stored(&rig).await.0 - before.0;
    assert!((50_000..500_000).contains(&grown), "{grown}");
    assert!(read(&rig, &rig.admin, &repo, &changed).await == changed);
    Ok(())
}

#[tokio::test]
async fn a_file_that_came_as_plain_bytes_answers_xet_clients() -> Result<()> {
    let (rig, repo) = start().await;
    let content = splitmix(1, 5_000_000);
    put(&rig, &rig.admin, &repo, &content).await?;
    commit(&rig, &rig.admin, &repo, "w.bin", sha256(&content)).await?;
    let reader = rig.user("reader").await;
    let own = rig.repo(&reader, "reader/model").await;
    let first = ChunkHash::of(split(&content).next().expect("some"));
    assert!(rig.hub.dedup_answer(&reader, None, first).await?.is_some());
    // The reader's client builds on the xorb that was packed here.
    let link = rig.hub.find_upload(&reader, &repo, &sha256(&content)).await?;
    let file = link.expect("it is public").file;
    let source = rig.repo_for(&reader, &repo);
    let rebuilt = rig.hub.reconstruct(&source, file, None).await?;
    let mut session = Session::default();
    for fetch in &rebuilt.fetches {
        let (_, footer) = rig.hub.needed_xorb(&fetch.xorb).await?;
        session.know(&footer);
    }
    let second = [&content[..], &splitmix(4, 300_000)].concat();
    session.add(&second);
    assert!(session.xorbs[0].body.len() < 500_000);
    session.commit(&rig, &reader, &own, "w.bin").await;
    assert!(rig.read(&own, "w.bin").await? == second);
    Ok(())
}

#[tokio::test]
async fn others_private_content_is_stored_again_as_far_as_anyone_can_tell() -> Result<()> {
    let (rig, repo) = start().await;
    let alice = rig.user("alice").await;
    let private = ballast_format::log::Visibility::Private;
    let secret = rig.repo_with(&alice, "alice/secret", private).await;
    let content = splitmix(1, 2_000_000);
    let mut session = Session::default();
    session.add_all(&[&splitmix(2, 500_000), &content]);
    session.commit(&rig, &alice, &secret, "w.bin").await;
    let bob = rig.user("bob").await;
    let before = stored(&rig).await;
    put(&rig, &bob, &repo, &content).await?;
    let grown = stored(&rig).await.0 - before.0;
    assert!(grown > 2_000_000, "he sent it, so he has it, in a xorb of his own");
    // The same xorb again is stored once for both.
    let before = stored(&rig).await;
    let carol = rig.user("carol").await;
    put(&rig, &carol, &repo, &content).await?;
    assert_eq!(stored(&rig).await, before);
    Ok(())
}

#[tokio::test]
async fn large_files_are_packed_into_several_xorbs_and_recognised_to_the_end() -> Result<()> {
    let (rig, repo) = start().await;
    let content = splitmix(1, 150_000_000);
    put(&rig, &rig.admin, &repo, &content).await?;
    let (bytes, xorbs) = stored(&rig).await;
    assert_eq!(xorbs, 3);
    assert!(bytes < 150_500_000);
    // What is put in front of it costs what comes before the next chunk that can be asked for.
    let (mut offset, mut first) = (0, None);
    for chunk in split(&content) {
        if offset > 0 && ChunkHash::of(chunk).modulo(1024) == 0 {
            first = first.or(Some(offset));
        }
        offset += chunk.len() as u64;
    }
    let longer = [&splitmix(2, 1000), &content[..]].concat();
    put(&rig, &rig.admin, &repo, &longer).await?;
    let grown = stored(&rig).await.0 - bytes;
    assert!(grown < first.expect("one in 64 MB") + 500_000, "{grown}, {first:?}");
    let again = [&content[..], &splitmix(2, 1000)].concat();
    let before = stored(&rig).await.0;
    put(&rig, &rig.admin, &repo, &again).await?;
    let grown = stored(&rig).await.0 - before;
    assert!(grown < 300_000, "{grown}");
    assert!(read(&rig, &rig.admin, &repo, &again).await == again);
    Ok(())
}

#[tokio::test]
async fn repeats_within_a_file_are_stored_once() -> Result<()> {
    let (rig, repo) = start().await;
    let content = [vec![0; 40_000_000], splitmix(1, 500_000), vec![0; 40_000_000]].concat();
    put(&rig, &rig.admin, &repo, &content).await?;
    assert!(stored(&rig).await.0 < 1_000_000);
    assert!(read(&rig, &rig.admin, &repo, &content).await == content);
    Ok(())
}

#[tokio::test]
async fn parts_make_a_file_and_are_gone_then() -> Result<()> {
    let (rig, repo) = start().await;
    let (hub, admin) = (&rig.hub, &rig.admin);
    let content = Bytes::from(splitmix(1, 5_000_000));
    let upload = hub.begin_parts();
    let mut tags = Vec::new();
    for (number, part) in (1..).zip(content.chunks(2_000_000)) {
        let part = content.slice_ref(part);
        tags.push((number, hub.put_part(admin, upload, number, 2_000_000, body(&part)).await?));
    }
    // One part was sent twice; the later answer counts.
    let again = content.slice(2_000_000..4_000_000);
    let first = std::mem::replace(
        &mut tags[1].1,
        hub.put_part(admin, upload, 2, 2_000_000, body(&again)).await?,
    );
    assert_ne!(first, tags[1].1);
    let said = (sha256(&content), 5_000_000);
    for (wrong, what) in [
        (tags[..2].to_vec(), "too few"),
        (vec![tags[1].clone(), tags[0].clone(), tags[2].clone()], "out of order"),
        (vec![tags[0].clone(), tags[2].clone()], "a gap"),
        (vec![tags[0].clone(), (2, "zz".to_owned()), tags[2].clone()], "no tag"),
        (vec![tags[0].clone(), (2, "0".repeat(16)), tags[2].clone()], "another tag"),
    ] {
        let done = hub.complete_parts(admin, &repo, upload, said, &wrong).await;
        assert_eq!(done.expect_err(what).kind(), ErrorKind::Invalid, "{what}");
    }
    let other = (sha256(b"other"), 5_000_000);
    assert!(hub.complete_parts(admin, &repo, upload, other, &tags).await.is_err());
    hub.complete_parts(admin, &repo, upload, said, &tags).await?;
    assert_eq!(count(&rig, Prefix::Parts(upload)).await, 0);
    assert!(read(&rig, admin, &repo, &content).await == content);
    // The answer was lost, so the client asks again.
    hub.complete_parts(admin, &repo, upload, said, &tags).await?;
    let stranger = rig.user("stranger").await;
    assert!(hub.complete_parts(&stranger, &repo, upload, said, &tags).await.is_err());
    Ok(())
}

#[tokio::test]
async fn parts_have_limits_and_abandoned_ones_go() -> Result<()> {
    let (rig, _) = start().await;
    let hub = &rig.hub;
    let upload = hub.begin_parts();
    let part = Bytes::from(splitmix(1, 100_000));
    for number in [0, 10_001, u32::MAX] {
        assert!(hub.put_part(&rig.admin, upload, number, 1 << 20, body(&part)).await.is_err());
    }
    assert!(hub.put_part(&rig.admin, upload, 1, 99_999, body(&part)).await.is_err());
    assert_eq!(count(&rig, Prefix::AllParts).await, 0);
    hub.put_part(&rig.admin, upload, 1, 100_000, body(&part)).await?;
    // The store in memory has the real time; the hub's is set to it first.
    let listed = hub.store().list(&Prefix::AllParts).try_next().await?;
    rig.env.set_wall_ms(listed.expect("one part").modified_ms);
    let sweep = || crate::worker::Worker::work(&crate::upload::SweepParts, hub);
    rig.env.advance(Duration::from_hours(71));
    sweep().await;
    assert_eq!(count(&rig, Prefix::AllParts).await, 1);
    rig.env.advance(Duration::from_hours(2));
    sweep().await;
    assert_eq!(count(&rig, Prefix::AllParts).await, 0);
    Ok(())
}

#[tokio::test]
async fn uploads_that_are_given_up_stop_storing() -> Result<()> {
    let (rig, repo) = start().await;
    let content = Bytes::from(splitmix(1, 80_000_000));
    let hub = Arc::clone(&rig.hub);
    let sent = Box::pin(body(&content.slice(..79_000_000)).chain(stream::pending()));
    let size = content.len() as u64;
    let putting = hub.put_file(&rig.admin, &repo, sha256(&content), size, sent);
    let mut putting = Box::pin(putting);
    // Until the first xorb is there.
    loop {
        let turn = future::select(&mut putting, Box::pin(tokio::task::yield_now())).await;
        assert!(matches!(turn, future::Either::Right(_)));
        if stored(&rig).await.1 == 1 {
            break;
        }
    }
    drop(putting);
    let session = Session::of(&content[..1_000_000]);
    let chunk = session.xorbs[0].footer.chunk_hash(0);
    assert!(rig.hub.dedup_answer(&rig.admin, None, chunk).await?.is_none());
    assert_eq!(count(&rig, Prefix::Pins).await, 0);
    // The second try finds the first xorb stored, and says nothing about it.
    put(&rig, &rig.admin, &repo, &content).await?;
    assert_eq!(stored(&rig).await.1, 2);
    Ok(())
}
