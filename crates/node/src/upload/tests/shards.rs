//! Shards: every claim is checked, all or nothing.

use ballast_format::ErrorKind;
use ballast_format::hash::{FileHash, RangeHash, Sha256, XorbHash};
use ballast_format::log::Visibility;
use ballast_format::pack::FileLink;
use ballast_store::keyspace::{CopyKind, Prefix};
use ballast_testkit::content::{bf16_weights, repetitive, splitmix};
use ballast_testkit::fault::FaultStore;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::memory::InMemory;
use proptest::prelude::*;
use std::sync::Arc;

use super::client::{
    FileClaim, SegmentClaim, Session, Xorb, XorbClaim, all_of, commit, encode, put_shard, put_xorb,
};
use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::rig::{Rig, sha256};
use ballast_testkit::clock::SimEnv;

async fn start() -> (Rig, Repo) {
    let rig = Rig::start().await;
    let repo = rig.repo(&rig.admin, "admin/model").await;
    (rig, repo)
}

async fn shard_objects(rig: &Rig) -> usize {
    let listed = rig.hub.store().list(&Prefix::Copies(CopyKind::Shard));
    listed.try_collect::<Vec<_>>().await.expect("it lists").len()
}

#[tokio::test]
async fn a_file_can_be_committed_and_read_as_soon_as_its_shard_is_taken() -> Result<()> {
    let (rig, repo) = start().await;
    let content = [splitmix(1, 900_000), bf16_weights(2, 1_500_000), repetitive(3, 300_000)];
    let content = content.concat();
    let session = Session::of(&content);
    let put = session.send(&rig.hub, &rig.admin, &repo).await?;
    assert!(put.stored && put.hash.is_some());
    let file = session.files[0].hash;
    let found = rig.hub.find_upload(&rig.admin, &repo, &sha256(&content)).await?;
    let shard = put.hash.expect("it was stored");
    let size = content.len() as u64;
    let expected = FileLink { sha256: sha256(&content), file, shard, size };
    assert_eq!(found, Some(expected));
    let missing = rig.hub.reconstruct(&repo, file, None).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })), "no commit names it yet");
    commit(&rig, &rig.admin, &repo, "w.bin", sha256(&content)).await?;
    assert_eq!(rig.read(&repo, "w.bin").await?, content);
    rig.hub.reconstruct(&repo, file, None).await?;
    Ok(())
}

#[tokio::test]
async fn the_same_shard_again_changes_nothing_and_is_a_success() -> Result<()> {
    let (rig, repo) = start().await;
    let session = Session::of(&splitmix(1, 400_000));
    assert!(session.send(&rig.hub, &rig.admin, &repo).await?.stored);
    let again = session.send(&rig.hub, &rig.admin, &repo).await?;
    assert!(!again.stored);
    assert_eq!(shard_objects(&rig).await, 1);
    // Days after, while it still counts, it is registered anew: it counts for three weeks from the
    // last time that somebody was told so.
    let days = |days: u64| std::time::Duration::from_hours(24 * days);
    rig.env.advance(days(5));
    assert!(session.send(&rig.hub, &rig.admin, &repo).await?.stored);
    rig.env.advance(days(21));
    let digest = session.files[0].sha256.expect("a digest");
    assert!(rig.hub.find_upload(&rig.admin, &repo, &digest).await?.is_some());
    rig.env.advance(days(2));
    assert!(rig.hub.find_upload(&rig.admin, &repo, &digest).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn several_files_share_xorbs_and_one_may_come_twice_or_be_empty() -> Result<()> {
    let (rig, repo) = start().await;
    let contents: Vec<_> = (0..5).map(|seed| splitmix(seed, 250_000)).collect();
    let mut session = Session::default();
    session.add_all(&contents.iter().map(Vec::as_slice).collect::<Vec<_>>());
    session.add(&contents[2]);
    session.files.push(FileClaim {
        hash: FileHash::ZERO,
        sha256: Some(Sha256::ZERO),
        segments: Vec::new(),
        is_proven: true,
    });
    assert_eq!(session.xorbs.len(), 1);
    let seen = std::sync::Mutex::new(Vec::new());
    session.send_xorbs(&rig.hub, &rig.admin).await?;
    let progress = |done, total| seen.lock().expect("a test").push((done, total));
    let shard = session.shard();
    let turn = rig.hub.shard_turn(&rig.admin).await?;
    rig.hub.put_shard(&rig.admin, &repo, turn, shard, &progress).await?;
    let seen = seen.into_inner().expect("a test");
    assert_eq!(seen, [(0, 5), (1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);
    for content in &contents {
        let link = rig.hub.find_upload(&rig.admin, &repo, &sha256(content)).await?;
        let link = link.expect("it was registered");
        let read = rig.hub.read_file(&link, 0..link.size).await?;
        assert_eq!(&all_of(read).await?, content);
    }
    Ok(())
}

/// One good file, and what a liar makes of the shard.
struct Lie {
    what: &'static str,
    tell: fn(&mut Vec<FileClaim>, &mut Vec<XorbClaim>),
}

const LIES: &[Lie] = &[
    Lie {
        what: "a chunk's hash in the xorb section",
        tell: |_, xorbs| xorbs[0].chunks[1].0 = xorbs[0].chunks[2].0,
    },
    Lie {
        what: "a chunk's length in the xorb section",
        tell: |_, xorbs| {
            xorbs[0].chunks[1].1 += 1;
            xorbs[0].chunks[2].1 -= 1;
        },
    },
    Lie {
        what: "a chunk left out of the xorb section",
        tell: |_, xorbs| xorbs[0].chunks.truncate(3),
    },
    Lie {
        what: "a xorb that nobody sent in the xorb section",
        tell: |_, xorbs| xorbs[0].hash = XorbHash::from_bytes([3; 32]),
    },
    Lie {
        what: "a segment of a xorb that nobody sent",
        tell: |files, _| files[0].segments[0].xorb = XorbHash::from_bytes([3; 32]),
    },
    Lie { what: "a segment's bytes", tell: |files, _| files[0].segments[0].length -= 1 },
    Lie {
        what: "a segment's proof",
        tell: |files, _| files[0].segments[0].proof = RangeHash::from_bytes([9; 32]),
    },
    Lie { what: "a segment's last chunk", tell: |files, _| files[0].segments[0].chunks.end -= 1 },
    Lie {
        what: "chunks beyond the xorb's last",
        tell: |files, _| files[0].segments[0].chunks.end += 1000,
    },
    Lie { what: "a segment left out", tell: |files, _| files[0].segments.clear() },
    Lie {
        what: "a segment twice",
        tell: |files, _| {
            let again = files[0].segments[0].clone();
            files[0].segments.push(again);
        },
    },
    Lie { what: "the file's hash", tell: |files, _| files[0].hash = FileHash::from_bytes([5; 32]) },
    Lie {
        what: "the file's SHA-256",
        tell: |files, _| files[0].sha256 = Some(Sha256::from_bytes([5; 32])),
    },
    Lie {
        what: "no proofs",
        tell: |files, _| files.iter_mut().for_each(|file| file.is_proven = false),
    },
    Lie {
        what: "two digests of one file",
        tell: |files, _| {
            let mut again = files[0].clone();
            again.sha256 = Some(Sha256::from_bytes([5; 32]));
            files.push(again);
        },
    },
];

#[tokio::test]
async fn no_lie_is_taken_and_with_it_nothing_else_of_the_shard() -> Result<()> {
    let (rig, repo) = start().await;
    let (content, innocent) = (splitmix(1, 700_000), splitmix(2, 300_000));
    let mut session = Session::of(&content);
    session.add(&innocent);
    session.send_xorbs(&rig.hub, &rig.admin).await?;
    for lie in LIES {
        let mut files = session.files.clone();
        let claims = session.xorbs.iter().map(|xorb| XorbClaim::of(&xorb.footer));
        let mut xorbs: Vec<XorbClaim> = claims.collect();
        (lie.tell)(&mut files, &mut xorbs);
        let put = put_shard(&rig.hub, &rig.admin, &repo, encode(&files, &xorbs)).await;
        let error = put.expect_err(lie.what);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{}: {error}", lie.what);
        for content in [&content, &innocent] {
            let digest = sha256(content);
            let found = rig.hub.find_upload(&rig.admin, &repo, &digest).await?;
            assert_eq!(found, None, "{}", lie.what);
        }
        let chunk = session.xorbs[0].footer.chunk_hash(0);
        assert!(rig.hub.dedup_answer(&rig.admin, None, chunk).await?.is_none(), "{}", lie.what);
    }
    assert_eq!(shard_objects(&rig).await, 0);
    // The truth is still welcome; so is a file of which no digest is said.
    session.files[1].sha256 = None;
    assert!(session.send(&rig.hub, &rig.admin, &repo).await?.stored);
    let found = rig.hub.find_upload(&rig.admin, &repo, &sha256(&innocent)).await?;
    assert_eq!(found.map(|link| link.file), Some(session.files[1].hash));
    Ok(())
}

#[tokio::test]
async fn a_known_file_with_another_digest_is_refused_too() -> Result<()> {
    let (rig, repo) = start().await;
    let mut session = Session::of(&splitmix(1, 300_000));
    session.commit(&rig, &rig.admin, &repo, "w.bin").await;
    session.files[0].sha256 = Some(sha256(b"something else"));
    let put = put_shard(&rig.hub, &rig.admin, &repo, session.shard()).await;
    assert_eq!(put.expect_err("a lie").kind(), ErrorKind::Invalid);
    Ok(())
}

#[tokio::test]
async fn counts_that_lie_cost_nothing_and_are_refused() -> Result<()> {
    let (rig, repo) = start().await;
    let shard = Session::of(b"hello world").shard();
    for at in [48 + 36, 48 * 6 + 36] {
        let mut lying = shard.to_vec();
        lying[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let put = put_shard(&rig.hub, &rig.admin, &repo, lying.into()).await;
        assert_eq!(put.expect_err("a lie").kind(), ErrorKind::Invalid);
    }
    for length in (0..shard.len()).step_by(7) {
        let put = put_shard(&rig.hub, &rig.admin, &repo, shard.slice(..length)).await;
        assert_eq!(put.expect_err("cut short").kind(), ErrorKind::Invalid);
    }
    Ok(())
}

#[tokio::test]
async fn a_sparse_file_repeats_one_chunk_and_it_is_read_once() -> Result<()> {
    let objects = FaultStore::new(Arc::new(InMemory::new()), 1);
    let rig = Rig::over(Arc::clone(&objects) as _, SimEnv::new(7)).await;
    let repo = rig.repo(&rig.admin, "admin/model").await;
    let tail = splitmix(1, 200_000);
    let zeros = vec![0; 131_072 * 2000];
    let content = [zeros.as_slice(), &tail].concat();
    let session = Session::of(&content);
    assert!(session.xorbs[0].body.len() < 300_000);
    assert_eq!(session.files[0].segments.len(), 2000);
    session.send_xorbs(&rig.hub, &rig.admin).await?;
    let before = objects.counts().gets;
    put_shard(&rig.hub, &rig.admin, &repo, session.shard()).await?;
    let reads = objects.counts().gets - before;
    assert!(reads < 10, "{reads} reads");
    let link = rig.hub.find_upload(&rig.admin, &repo, &sha256(&content)).await?;
    let link = link.expect("the digest was right");
    let before = objects.counts().gets;
    let read = all_of(rig.hub.read_file(&link, 0..link.size).await?).await?;
    assert!(read == content);
    let reads = objects.counts().gets - before;
    assert!(reads < 10, "{reads} reads");
    Ok(())
}

#[tokio::test]
async fn a_few_bytes_that_name_terabytes_are_refused() -> Result<()> {
    let (rig, repo) = start().await;
    let xorb = Xorb::of(&[&splitmix(1, 30_000_000)]);
    put_xorb(&rig.hub, &rig.admin, &xorb).await?;
    let segment = SegmentClaim::of(&xorb.footer, 0..xorb.footer.chunk_count());
    let file = FileClaim {
        hash: FileHash::from_bytes([1; 32]),
        sha256: None,
        segments: vec![segment; 50_000],
        is_proven: true,
    };
    let put = put_shard(&rig.hub, &rig.admin, &repo, encode(&[file], &[])).await;
    assert!(matches!(put, Err(Error::TooLarge { .. })));
    Ok(())
}

#[tokio::test]
async fn anonymous_callers_register_nothing() -> Result<()> {
    let (rig, repo) = start().await;
    let nobody = crate::access::Caller::Anonymous;
    let put = put_shard(&rig.hub, &nobody, &repo, Bytes::new()).await;
    assert!(matches!(put, Err(Error::LoginNeeded)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Files that share chunks with each other in any way come back as they were.
    #[test]
    fn whatever_files_are_made_of_they_come_back(
        pieces in prop::collection::vec((0..6_u64, 1..400_000_usize), 1..8),
        files in prop::collection::vec(prop::collection::vec(0..8_usize, 1..6), 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let (rig, repo) = start().await;
            let pieces: Vec<_> = pieces
                .into_iter()
                .map(|(seed, length)| match seed {
                    0 => vec![0; length],
                    1 => bf16_weights(seed, length),
                    _ => splitmix(seed, length),
                })
                .collect();
            let mut session = Session::default();
            let mut contents = Vec::new();
            for file in files {
                let parts = file.iter().map(|part| pieces[part % pieces.len()].as_slice());
                let content = parts.collect::<Vec<_>>().concat();
                session.add(&content);
                contents.push(content);
            }
            session.send(&rig.hub, &rig.admin, &repo).await.expect("it is all true");
            for content in contents {
                let link = rig.hub.find_upload(&rig.admin, &repo, &sha256(&content)).await;
                let link = link.expect("the index answers").expect("it was registered");
                let read = rig.hub.read_file(&link, 0..link.size).await.expect("it reads");
                assert!(all_of(read).await.expect("it reads") == content);
            }
        });
    }
}

/// How a file of a repo is put together: the xorbs that are named.
async fn named(hub: &Arc<Hub>, repo: &Repo, file: FileHash) -> Result<Vec<XorbHash>> {
    let made = hub.reconstruct(repo, file, None).await?;
    Ok(made.terms.iter().map(|term| term.xorb).collect())
}

#[tokio::test]
async fn how_others_packed_the_same_content_changes_nothing_for_a_repo() -> Result<()> {
    let (rig, repo) = start().await;
    let content = splitmix(8, 700_000);
    let ours = Session::of(&content);
    ours.commit(&rig, &rig.admin, &repo, "w.bin").await;
    let file = ours.files[0].hash;
    let before = named(&rig.hub, &repo, file).await?;

    // The same content, packed with more behind it, so that its xorb has another name.
    let other = rig.user("other").await;
    let theirs = rig.repo_with(&other, "other/private", Visibility::Private).await;
    let mut session = Session::default();
    session.add_all(&[&content, &splitmix(9, 300_000)]);
    session.send(&rig.hub, &other, &theirs).await?;
    commit(&rig, &other, &theirs, "w.bin", sha256(&content)).await?;

    let after = named(&rig.hub, &theirs, file).await?;
    assert_ne!(after, before, "each repo has its own way to the content");
    assert_eq!(named(&rig.hub, &repo, file).await?, before);
    let another = rig.another().await;
    assert_eq!(named(&another, &repo, file).await?, before, "a new index says the same");
    assert_eq!(named(&another, &theirs, file).await?, after);
    Ok(())
}

#[tokio::test]
async fn a_file_that_came_through_another_process_is_read() -> Result<()> {
    let (rig, repo) = start().await;
    let another = rig.another().await;
    let content = splitmix(10, 500_000);
    let session = Session::of(&content);
    session.commit(&rig, &rig.admin, &repo, "w.bin").await;
    another.repo_state(&repo).await?;
    let made = another.reconstruct(&repo, session.files[0].hash, None).await?;
    assert_eq!(made.terms.iter().map(|term| u64::from(term.length)).sum::<u64>(), 500_000);
    Ok(())
}

#[tokio::test]
async fn what_one_process_took_is_known_to_those_beside_it() -> Result<()> {
    let (rig, repo) = start().await;
    let (second, third) = (rig.another().await, rig.another().await);
    let content = splitmix(11, 600_000);
    let session = Session::of(&content);
    session.send_xorbs(&rig.hub, &rig.admin).await?;
    let shard = encode(&session.files, &[]);
    assert!(put_shard(&second, &rig.admin, &repo, shard).await?.stored);
    let mut draft = third.begin_commit(&rig.admin, repo.clone(), crate::rig::header()).await?;
    let size = Some(content.len() as u64);
    draft.add_large(crate::rig::path("w.bin"), sha256(&content), size).await?;
    draft.finish().await?;
    assert_eq!(rig.read(&repo, "w.bin").await?, content);

    // Others hear nothing of it.
    let stranger = rig.user("stranger").await;
    third.freshen().await?;
    let theirs = rig.repo_with(&stranger, "stranger/model", Visibility::Private).await;
    third.freshen().await?;
    let mut draft = third.begin_commit(&stranger, theirs, crate::rig::header()).await?;
    let other = Session::of(&splitmix(12, 600_000));
    other.send(&rig.hub, &rig.admin, &repo).await?;
    let sha256 = sha256(&splitmix(12, 600_000));
    assert!(draft.add_large(crate::rig::path("w.bin"), sha256, size).await.is_err());
    Ok(())
}
