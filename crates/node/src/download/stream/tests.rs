//! Bytes come back as they were, or not at all.

use std::sync::Arc;
use std::time::Duration;

use ballast_format::hash::XorbHash;
use ballast_store::keyspace::{CopyKind, Key, Prefix};
use ballast_testkit::clock::Dice;
use ballast_testkit::content::{bf16_weights, repetitive, splitmix};
use futures_util::future;
use object_store::ObjectStoreExt as _;

use super::*;
use crate::access::Repo;
use crate::rig::{Rig, sha256};
use crate::upload::tests::client::{Session, Xorb, all_of, put_xorb};

/// A model with one file of all kinds of chunks, in two xorbs, with repeats.
struct Scene {
    rig: Rig,
    repo: Repo,
    content: Vec<u8>,
    session: Session,
    link: FileLink,
}

impl Scene {
    async fn new() -> Self {
        let rig = Rig::start().await;
        let repo = rig.repo(&rig.admin, "admin/model").await;
        let first = [splitmix(1, 900_000), bf16_weights(2, 900_000), splitmix(3, 200_000)];
        let mut session = Session::of(&first.concat());
        let second = [repetitive(4, 400_000), vec![0; 900_000]].concat();
        let first = first.concat();
        let content = [&first[..], &second, &first, &second].concat();
        session.add(&content);
        session.files.swap(0, 1);
        session.commit(&rig, &rig.admin, &repo, "w.bin").await;
        let found = rig.hub.find_upload(&rig.admin, &repo, &sha256(&content)).await;
        let link = found.expect("it looks").expect("it was committed");
        Self { rig, repo, content, session, link }
    }

    async fn read(&self, hub: &Arc<Hub>, range: Range<u64>) -> Result<Vec<u8>> {
        all_of(hub.read_file(&self.link, range).await?).await
    }

    /// The copy of the first xorb, which holds most of the file.
    async fn copy(&self) -> CopyName {
        self.copies().await[0]
    }

    async fn copies(&self) -> Vec<CopyName> {
        let hash = *self.session.xorbs[0].hash().as_bytes();
        let listed = self.rig.hub.store().copies(CopyKind::Xorb, hash).await;
        let copy = |listed: ballast_store::objects::Listed| match listed.key {
            Key::Copy(copy) => copy,
            _ => panic!("it is no copy"),
        };
        listed.expect("it lists").into_iter().map(copy).collect()
    }

    /// Turns a bit of a chunk in the store.
    async fn damage(&self, copy: &CopyName, chunk: u32) {
        let path = Key::Copy(*copy).path();
        let stored = self.rig.objects.get(&path).await.expect("it is there");
        let mut bytes = stored.bytes().await.expect("it reads").to_vec();
        let place = self.session.xorbs[0].footer.byte_range(chunk..chunk + 1);
        let place = usize::try_from(place.expect("a chunk").end - 5).expect("small");
        bytes[place] ^= 4;
        self.rig.objects.put(&path, bytes.into()).await.expect("it writes");
    }

    /// Where a chunk of the first xorb lies in the file, which begins as that does.
    fn place(&self, chunk: u32) -> Range<u64> {
        let footer = &self.session.xorbs[0].footer;
        let start = |chunk| u64::from(footer.uncompressed_start(chunk));
        start(chunk)..start(chunk + 1)
    }
}

fn part<'a>(content: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    &content
        [usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small")]
}

#[tokio::test]
async fn any_range_of_a_file_is_the_sources_whether_it_was_checked_before_or_not() -> Result<()> {
    let scene = Scene::new().await;
    let size = scene.link.size;
    // One hub knows its chunks to be sound, the other has read none of them.
    for hub in [Arc::clone(&scene.rig.hub), scene.rig.another().await] {
        let mut dice = Dice::new(11);
        let mut ranges = vec![0..size, 0..1, size - 1..size, 0..0];
        for _ in 0..100 {
            let start = dice.below(size);
            let most = [10, 200_000, size][usize::try_from(dice.below(3)).expect("small")];
            let length = dice.below(most);
            ranges.push(start..(start + length).min(size));
        }
        for range in ranges {
            let read = scene.read(&hub, range.clone()).await?;
            assert!(read == part(&scene.content, &range), "{range:?}");
        }
        let beyond = hub.read_file(&scene.link, 0..size + 1).await;
        assert!(matches!(beyond, Err(Error::Unsatisfiable { .. })));
    }
    Ok(())
}

#[tokio::test]
async fn any_range_of_a_copy_is_as_it_is_stored() -> Result<()> {
    let scene = Scene::new().await;
    let (copy, sent) = (scene.copy().await, &scene.session.xorbs[0].body);
    let length = sent.len() as u64;
    for hub in [Arc::clone(&scene.rig.hub), scene.rig.another().await] {
        let mut dice = Dice::new(5);
        let mut ranges = vec![0..length, 0..1, length - 1..length, 7..7];
        for _ in 0..60 {
            let (a, b) = (dice.below(length), dice.below(length));
            ranges.push(a.min(b)..a.max(b));
        }
        for range in ranges {
            let fetched = all_of(hub.fetch(copy, range.clone()).await?).await?;
            assert!(fetched == part(sent, &range), "{range:?}");
        }
        // The footer is nobody's business.
        let beyond = hub.fetch(copy, 0..length + 1).await;
        assert!(matches!(beyond, Err(Error::Unsatisfiable { .. })));
    }
    Ok(())
}

#[tokio::test]
async fn a_damaged_chunk_is_never_sent_and_all_others_are() -> Result<()> {
    let scene = Scene::new().await;
    let (copy, footer) = (scene.copy().await, &scene.session.xorbs[0].footer);
    let chunks = [3, footer.chunk_count() / 2];
    for chunk in chunks {
        scene.damage(&copy, chunk).await;
    }
    // A process that has checked nothing yet.
    let hub = scene.rig.another().await;
    for chunk in chunks {
        let place = scene.place(chunk);
        let error = scene.read(&hub, place.clone()).await.expect_err("it is damaged");
        assert!(
            matches!(&error, Error::Corrupt { what } if what.contains(&Key::Copy(copy).to_string()))
        );
        let bytes = footer.byte_range(chunk..chunk + 1)?;
        let fetched = hub.fetch(copy, bytes).await;
        assert!(matches!(fetched.err(), Some(Error::Corrupt { .. })));
        for beside in [place.start - 10..place.start, place.end..place.end + 10] {
            assert_eq!(scene.read(&hub, beside.clone()).await?, part(&scene.content, &beside));
        }
    }
    // A stream that runs into the damage has sent nothing wrong before.
    let (start, end) = (scene.place(4).start, scene.place(chunks[1]).start);
    let mut read = hub.read_file(&scene.link, start..scene.link.size).await?;
    let mut seen = Vec::new();
    let failed = loop {
        match read.next().await.expect("it does not reach the end") {
            Ok(piece) => seen.extend_from_slice(&piece),
            Err(error) => break error,
        }
    };
    assert!(matches!(failed, Error::Corrupt { .. }));
    assert!((1..=end - start).contains(&(seen.len() as u64)));
    assert!(seen == part(&scene.content, &(start..start + seen.len() as u64)));
    Ok(())
}

#[tokio::test]
async fn a_client_that_sends_a_damaged_xorb_again_heals_it() -> Result<()> {
    let scene = Scene::new().await;
    let damaged = scene.copy().await;
    scene.damage(&damaged, 3).await;
    let hub = scene.rig.another().await;
    let (place, xorb) = (scene.place(3), &scene.session.xorbs[0]);
    assert!(hub.xorb_known(&scene.rig.admin, xorb.hash()).await?);
    assert!(scene.read(&hub, place.clone()).await.is_err());
    assert!(!hub.xorb_known(&scene.rig.admin, xorb.hash()).await?, "please send it");
    put_xorb(&hub, &scene.rig.admin, xorb).await?;
    assert_eq!(scene.copies().await.len(), 2);
    assert_eq!(scene.read(&hub, place.clone()).await?, part(&scene.content, &place));
    let answer = hub.reconstruct(&scene.repo, scene.link.file, None).await?;
    assert!(answer.fetches.iter().all(|fetch| fetch.copy != damaged));
    // Who still has a link to the damaged copy is sent for a new one.
    let bytes = xorb.footer.byte_range(3..4)?;
    let moved = hub.fetch(damaged, bytes).await;
    assert!(matches!(moved.err(), Some(Error::Denied { .. })));
    // A process that finds both takes the sound one when it must.
    let anew = scene.rig.another().await;
    assert!(scene.read(&anew, 0..scene.link.size).await? == scene.content);
    Ok(())
}

#[tokio::test]
async fn a_copy_that_is_gone_or_has_lost_its_end_is_damage_and_no_404() -> Result<()> {
    let scene = Scene::new().await;
    let copy = scene.copy().await;
    let path = Key::Copy(copy).path();
    let stored = scene.rig.objects.get(&path).await.expect("it is there");
    let stored = stored.bytes().await.expect("it reads");
    let cut = stored.slice(..stored.len() - 1000);
    scene.rig.objects.put(&path, cut.into()).await.expect("it writes");
    let hub = scene.rig.another().await;
    let place = scene.place(3);
    assert!(matches!(scene.read(&hub, place.clone()).await, Err(Error::Corrupt { .. })));
    scene.rig.objects.delete(&path).await.expect("it was there");
    for hub in [hub, scene.rig.another().await] {
        assert!(matches!(scene.read(&hub, place.clone()).await, Err(Error::Corrupt { .. })));
        let file = scene.link.file;
        let answer = hub.reconstruct(&scene.repo, file, None).await;
        assert!(matches!(answer, Err(Error::Corrupt { .. })));
    }
    Ok(())
}

#[tokio::test]
async fn slow_readers_hold_no_more_than_the_budget_and_keep_nobody_waiting() -> Result<()> {
    let scene = Scene::new().await;
    let hub = &scene.rig.hub;
    let (copy, length) = (scene.copy().await, scene.session.xorbs[0].body.len() as u64);
    // Each has got one piece, which is still on its way to the socket.
    let mut slow = Vec::new();
    for number in 0..400 {
        let mut stream = if number % 2 == 0 {
            hub.fetch(copy, 0..length).await?
        } else {
            hub.read_file(&scene.link, 0..scene.link.size).await?
        };
        let piece = stream.next().await.expect("a piece")?;
        slow.push((stream, piece));
    }
    let free = hub.caches.flow.free_bytes();
    assert!(free > 8 << 20, "{free}");
    assert!(scene.read(hub, 0..scene.link.size).await? == scene.content);
    drop(slow);
    assert_eq!(hub.caches.flow.free_bytes(), 96 << 20);
    Ok(())
}

#[tokio::test]
async fn the_budget_is_given_back_by_streams_that_are_dropped_or_read_to_the_end() -> Result<()> {
    let scene = Scene::new().await;
    let hub = &scene.rig.hub;
    for _ in 0..20 {
        let mut stream = hub.read_file(&scene.link, 0..scene.link.size).await?;
        let piece = stream.next().await.expect("a piece")?;
        drop(stream);
        drop(piece);
    }
    let reads = (0..8).map(|_| scene.read(hub, 0..scene.link.size));
    for read in future::join_all(reads).await {
        assert!(read? == scene.content);
    }
    assert_eq!(hub.caches.flow.free_bytes(), 96 << 20);
    Ok(())
}

#[tokio::test]
async fn a_xorb_that_nobody_uses_can_be_fetched_too() -> Result<()> {
    let rig = Rig::start().await;
    let xorb = Xorb::of(&[&splitmix(1, 300_000)]);
    put_xorb(&rig.hub, &rig.admin, &xorb).await?;
    let hash = XorbHash::from_bytes(*xorb.hash().as_bytes());
    let (copy, _) = rig.hub.needed_xorb(&hash).await?;
    rig.env.advance(Duration::from_hours(24 * 60));
    let fetched = all_of(rig.hub.fetch(copy, 100..5000).await?).await?;
    assert_eq!(fetched, xorb.body[100..5000]);
    let listed = rig.hub.store().list(&Prefix::CopiesOf(CopyKind::Xorb, copy.hash));
    assert_eq!(listed.count().await, 1);
    Ok(())
}

#[test]
fn a_cut_keeps_what_is_wanted_and_nothing_empty() {
    let pieces = || vec![Bytes::from("abc"), Bytes::from("defg"), Bytes::from("h")];
    let text = |wanted| cut(pieces(), &wanted).concat();
    assert_eq!(text(0..8), b"abcdefgh");
    assert_eq!(text(1..2), b"b");
    assert_eq!(text(2..5), b"cde");
    assert_eq!(text(7..8), b"h");
    assert_eq!(cut(pieces(), &(3..7)), ["defg"]);
    assert!(cut(pieces(), &(4..4)).is_empty());
}
