//! Reconstructions follow every rule that clients rely on, for any range of any file.

use std::collections::HashMap;

use ballast_format::hash::FileHash;
use ballast_format::range::RangeRequest;
use ballast_store::keyspace::Key;
use ballast_testkit::content::{bf16_weights, splitmix};
use object_store::ObjectStoreExt as _;
use proptest::prelude::*;

use super::*;
use crate::rig::Rig;
use crate::upload::tests::client::Session;

/// A model with one file of many terms: known runs of an older file, zeros, and new content.
struct Scene {
    rig: Rig,
    repo: Repo,
    content: Vec<u8>,
    file: FileHash,
}

impl Scene {
    async fn new() -> Self {
        let rig = Rig::start().await;
        let repo = rig.repo(&rig.admin, "admin/model").await;
        let old = splitmix(1, 2_000_000);
        let mut session = Session::of(&old);
        session.commit(&rig, &rig.admin, &repo, "old.bin").await;
        let footer = session.xorbs[0].footer.clone();
        let at = |chunk| footer.uncompressed_start(chunk) as usize;
        let content = [
            &old[..at(5)],
            &bf16_weights(2, 700_000),
            &old[at(3)..at(9)],
            &vec![0; 1_000_000],
            &old[at(20)..],
            &old[at(9)..at(12)],
        ];
        let content = content.concat();
        session = Session::default();
        session.know(&footer);
        session.add(&content);
        let file = session.files[0].hash;
        session.commit(&rig, &rig.admin, &repo, "new.bin").await;
        Self { rig, repo, content, file }
    }

    async fn reconstruct(&self, range: &str) -> Result<Reconstruction> {
        let range = RangeRequest::parse(range).expect("a range");
        let range = Some(&range);
        self.rig.hub.reconstruct(&self.repo, self.file, range).await
    }

    /// Does what a client does with an answer: fetches each range once and cuts terms out of it.
    async fn assemble(&self, answer: &Reconstruction) -> Vec<u8> {
        let mut blocks = HashMap::new();
        for fetch in &answer.fetches {
            let stored = self.rig.objects.get(&Key::Copy(fetch.copy).path()).await;
            let stored = stored.expect("it is there").bytes().await.expect("it reads");
            let place = fetch.bytes.start as usize..fetch.bytes.end as usize;
            let (_, footer) = self.rig.hub.needed_xorb(&fetch.xorb).await.expect("sound");
            let mut chunks = Vec::new();
            let mut decoder = ballast_format::xorb::ChunkDecoder::new();
            let decoded =
                decoder.decode_chunks(&stored[place], &footer, fetch.chunks.clone(), true, |c| {
                    chunks.push(c.to_vec());
                    Ok(())
                });
            decoded.expect("the bytes are those of the chunks");
            let before = blocks.insert((fetch.xorb, fetch.chunks.start), (fetch, chunks));
            assert!(before.is_none(), "two ranges have one start");
        }
        let mut bytes = Vec::new();
        for term in &answer.terms {
            let inside: Vec<_> = blocks
                .values()
                .filter(|(fetch, _)| {
                    fetch.xorb == term.xorb
                        && fetch.chunks.start <= term.chunks.start
                        && term.chunks.end <= fetch.chunks.end
                })
                .collect();
            let [(fetch, chunks)] = inside[..] else {
                panic!("a term lies in {} ranges", inside.len())
            };
            let start = (term.chunks.start - fetch.chunks.start) as usize;
            let count = term.chunks.len();
            let term_bytes = chunks[start..start + count].concat();
            assert_eq!(term_bytes.len(), term.length as usize);
            bytes.extend(term_bytes);
        }
        bytes.split_off(usize::try_from(answer.offset_into_first_range).expect("small"))
    }
}

fn check_fetches(answer: &Reconstruction) {
    for (number, fetch) in answer.fetches.iter().enumerate() {
        for other in &answer.fetches[number + 1..] {
            let touch = fetch.xorb == other.xorb
                && fetch.chunks.start <= other.chunks.end
                && other.chunks.start <= fetch.chunks.end;
            assert!(!touch, "{fetch:?} and {other:?} are to be one");
        }
    }
}

#[tokio::test]
async fn any_range_is_made_of_the_chunks_that_hold_it_and_no_others() {
    let scene = Scene::new().await;
    let size = scene.content.len();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(1));
    let mut ranges = vec![(0, size), (0, 1), (size - 1, size), (size / 2, size / 2 + 1)];
    for _ in 0..150 {
        let tree = (0..size, 1..size).new_tree(&mut runner).expect("a value");
        let (start, length) = proptest::strategy::ValueTree::current(&tree);
        ranges.push((start, (start + length).min(size)));
    }
    for (start, end) in ranges {
        let answer = scene.reconstruct(&format!("bytes={start}-{}", end - 1)).await;
        let answer = answer.expect("it is inside");
        check_fetches(&answer);
        let bytes = scene.assemble(&answer).await;
        assert!(bytes[..end - start] == scene.content[start..end], "{start}..{end}");
        // Nothing is there that the range does not touch.
        let first = &answer.terms[0];
        let last = answer.terms.last().expect("one at least");
        let (_, footer) = scene.rig.hub.needed_xorb(&first.xorb).await.expect("sound");
        assert!(
            answer.offset_into_first_range < u64::from(footer.chunk_length(first.chunks.start))
        );
        let (_, footer) = scene.rig.hub.needed_xorb(&last.xorb).await.expect("sound");
        let over = bytes.len() - (end - start);
        assert!(over < footer.chunk_length(last.chunks.end - 1) as usize);
    }
}

#[tokio::test]
async fn ends_beyond_the_file_are_cut_and_starts_beyond_it_are_refused() -> Result<()> {
    let scene = Scene::new().await;
    let size = scene.content.len() as u64;
    let whole = scene.rig.hub.reconstruct(&scene.repo, scene.file, None).await?;
    for range in [
        "bytes=0-".to_owned(),
        format!("bytes=0-{}", size + 1000),
        "bytes=0-18446744073709551614".to_owned(),
        "bytes=0-18446744073709551615".to_owned(),
        format!("bytes=-{}", size * 2),
    ] {
        assert_eq!(scene.reconstruct(&range).await?, whole, "{range}");
    }
    assert!(scene.assemble(&whole).await == scene.content);
    for range in [format!("bytes={size}-"), format!("bytes={}-{}", size + 5, size + 9)] {
        let refused = scene.reconstruct(&range).await;
        assert!(matches!(refused, Err(Error::Unsatisfiable { size: s }) if s == size));
    }
    Ok(())
}

#[tokio::test]
async fn repeated_runs_are_fetched_once() -> Result<()> {
    let scene = Scene::new().await;
    let whole = scene.rig.hub.reconstruct(&scene.repo, scene.file, None).await?;
    let fetched: u64 = whole.fetches.iter().map(|fetch| fetch.bytes.end - fetch.bytes.start).sum();
    assert!(whole.terms.len() > 10);
    assert!(whole.fetches.len() <= 4, "{:?}", whole.fetches);
    assert!(fetched < 3_500_000);
    Ok(())
}

#[tokio::test]
async fn files_that_the_repo_does_not_hold_are_not_there() -> Result<()> {
    let scene = Scene::new().await;
    let other = scene.rig.repo(&scene.rig.admin, "admin/other").await;
    let missing = scene.rig.hub.reconstruct(&other, scene.file, None).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })));
    let unheard_of = FileHash::from_bytes([9; 32]);
    let missing = scene.rig.hub.reconstruct(&scene.repo, unheard_of, None).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })));
    Ok(())
}

#[tokio::test]
async fn an_empty_file_has_empty_lists_and_nothing_past_its_start() -> Result<()> {
    let scene = Scene::new().await;
    let (hub, repo) = (&scene.rig.hub, &scene.repo);
    let nothing = Reconstruction::default();
    assert_eq!(hub.reconstruct(repo, FileHash::ZERO, None).await?, nothing);
    for (range, is_there) in [("bytes=0-", true), ("bytes=0-99", true), ("bytes=1-", false)] {
        let range = RangeRequest::parse(range)?;
        let answer = hub.reconstruct(repo, FileHash::ZERO, Some(&range)).await;
        assert_eq!(answer.is_ok(), is_there);
    }
    Ok(())
}
