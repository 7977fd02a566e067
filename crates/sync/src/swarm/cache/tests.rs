mod peers;
mod rig;

use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use ballast_format::cached_file::{CachedFile, KeptPass};
use ballast_store::env::Env as _;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};

use self::rig::Rig;
use super::*;
use crate::swarm::sample::{CHUNK, Sample};

type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

#[tokio::test]
async fn a_file_filled_out_of_order_is_whole_and_stays_so() -> Outcome {
    let mut rig = Rig::new(1 << 20).await?;
    let sample = Sample::new(1, 10, 4);
    let filling = rig.begin(&sample).await?;
    for chunk in [9, 3, 0, 1, 2, 8, 7, 4, 5, 6] {
        assert_eq!(filling.write(chunk..chunk + 1, sample.bytes(chunk..chunk + 1)).await?, 1000);
    }
    assert_eq!(filling.write(0..3, sample.bytes(0..3)).await?, 0, "all of it was there");
    assert!(!rig.cache.is_whole(&sample.sha256()));
    filling.finish().await?;
    for _ in 0..2 {
        assert!(rig.cache.is_whole(&sample.sha256()));
        assert_eq!(rig.read_all(&sample).await?, sample.content);
        let (path, _) = rig.cache.path_of(&sample.sha256()).await?.expect("it is here");
        assert_eq!(fs::read(&path).expect("a file"), sample.content);
        assert!(fs::metadata(path).expect("a file").permissions().readonly());
        assert_eq!(rig.names(), ["", ".chunks"]);
        rig.reopen().await?;
    }
    assert!(matches!(rig.cache.begin(sample.about.clone()).await?, Begun::Whole(_)));
    Ok(())
}

#[tokio::test]
async fn a_description_that_is_wrong_leaves_nothing_behind() -> Outcome {
    let rig = Rig::new(1 << 20).await?;
    let sample = Sample::new(1, 3, 3);
    let (terms, chunks) = sample.parts();
    let about = CachedFile::new(Sha256::from_bytes([7; 32]), terms, &chunks)?;
    let Begun::Filling(filling) = rig.cache.begin(about).await? else { panic!("it is new") };
    filling.write(0..3, sample.bytes(0..3)).await?;
    assert!(matches!(filling.finish().await, Err(Error::Corrupt { .. })));
    assert_eq!((rig.names(), rig.cache.fill().bytes), (Vec::new(), 0));
    Ok(())
}

#[tokio::test]
async fn what_came_before_a_kill_is_hashed_again_and_kept_if_it_is_right() -> Outcome {
    let mut rig = Rig::new(1 << 20).await?;
    let sample = Sample::new(1, 10, 4);
    let filling = rig.begin(&sample).await?;
    for chunk in [0, 1, 5, 9] {
        filling.write(chunk..chunk + 1, sample.bytes(chunk..chunk + 1)).await?;
    }
    filling.rest(None).await?;
    let part = rig.path(&sample, ".part");
    fs::File::options().write(true).open(part)?.write_all_at(b"x", 1500)?;
    rig.reopen().await?;
    let filling = rig.begin(&sample).await?;
    assert!(filling.file().has(1), "so the disk says");
    assert_eq!(filling.believe().await?, 3000);
    let here: Vec<u32> = (0..10).filter(|chunk| filling.file().has(*chunk)).collect();
    assert_eq!(here, [0, 5, 9]);
    for chunk in [1, 2, 3, 4, 6, 7, 8] {
        filling.write(chunk..chunk + 1, sample.bytes(chunk..chunk + 1)).await?;
    }
    filling.finish().await?;
    assert_eq!(rig.read_all(&sample).await?, sample.content);
    Ok(())
}

#[tokio::test]
async fn what_may_be_shown_of_a_file_is_kept_until_it_is_over_or_the_file_is_whole() -> Outcome {
    let mut rig = Rig::new(1 << 20).await?;
    let sample = Sample::new(1, 10, 4);
    let until_ms = rig.env.now_ms() + 1000;
    let (ticket, permits) = (vec![1], vec![vec![2]]);
    let sha256 = sample.sha256();
    let pass = KeptPass { sha256, until_ms, piece_bytes: 7, stripes: 3, ticket, permits };
    let filling = rig.begin(&sample).await?;
    filling.keep_pass(pass.clone()).await;
    filling.rest(None).await?;
    for _ in 0..2 {
        let kept = rig.cache.recall(&sha256).await?;
        assert_eq!(kept, Some((sample.about.clone(), pass.clone())));
        drop(kept);
        rig.cache.let_go();
        rig.reopen().await?;
    }
    assert_eq!(rig.cache.recall(&Sample::new(2, 10, 4).sha256()).await?, None, "nothing of it");
    rig.env.advance(Duration::from_secs(1));
    assert_eq!(rig.cache.recall(&sha256).await?, None, "it is over");
    rig.fill(&sample).await?;
    assert_eq!(rig.cache.recall(&sha256).await?, None, "it is whole");
    assert_eq!(rig.names(), ["", ".chunks"]);
    Ok(())
}

#[tokio::test]
async fn after_a_power_cut_nothing_is_believed_that_was_not_synced() -> Outcome {
    let mut rig = Rig::new(1 << 20).await?;
    let sample = Sample::new(1, 4, 4);
    let filling = rig.begin(&sample).await?;
    filling.write(0..4, sample.bytes(0..4)).await?;
    filling.rest(None).await?;
    // The names are there, and none of the bytes.
    fs::write(rig.path(&sample, ".part"), vec![0; 4000])?;
    rig.reopen().await?;
    let filling = rig.begin(&sample).await?;
    assert_eq!(filling.believe().await?, 0);
    drop(filling);
    fs::write(rig.path(&sample, ".held"), b"noise")?;
    rig.reopen().await?;
    assert_eq!(rig.begin(&sample).await?.believe().await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_new_version_takes_from_the_old_one_what_they_share() -> Outcome {
    let rig = Rig::new(1 << 20).await?;
    let old = Sample::new(1, 100, 40);
    rig.fill(&old).await?;
    // Chunks 10 to 14 are new; all others are where the old version has them.
    let new = old.with_new(10..15, 2);
    let filling = rig.begin(&new).await?;
    assert_eq!(filling.take_local().await?, 95_000);
    assert_eq!(filling.take_local().await?, 0);
    assert_eq!(filling.file().next_missing(0), 10);
    assert_eq!(filling.file().next_missing(15), 100);
    filling.write(10..15, new.bytes(10..15)).await?;
    filling.finish().await?;
    assert_eq!(rig.read_all(&new).await?, new.content);
    Ok(())
}

#[tokio::test]
async fn a_chunk_that_a_file_has_twice_comes_once() -> Outcome {
    let rig = Rig::new(1 << 20).await?;
    let once = Sample::new(1, 6, 6);
    let (mut terms, mut chunks) = once.parts();
    let term = ballast_format::manifest::Term { chunks: 1..4, length: 3000, ..terms[0].clone() };
    terms.push(term);
    chunks.extend_from_within(1..4);
    let content = [&once.content[..], &once.content[1000..4000]].concat();
    let sample = Sample::of(content, terms, &chunks);
    let filling = rig.begin(&sample).await?;
    assert_eq!(filling.write(0..3, sample.bytes(0..3)).await?, 5000);
    assert_eq!(filling.write(8..9, sample.bytes(8..9)).await?, 2000);
    assert_eq!(filling.write(4..6, sample.bytes(4..6)).await?, 2000);
    filling.finish().await?;
    assert_eq!(rig.read_all(&sample).await?, sample.content);
    Ok(())
}

#[tokio::test]
async fn what_was_used_longest_ago_makes_room_and_what_is_pinned_or_used_does_not() -> Outcome {
    let mut rig = Rig::new(40_000).await?;
    let samples: Vec<Sample> = (1..=5).map(|seed| Sample::new(seed, 10, 10)).collect();
    for sample in &samples[..4] {
        rig.fill(sample).await?;
        rig.env.advance(Duration::from_secs(100));
    }
    // The first is used again, the second pinned, the third in use.
    rig.read_all(&samples[0]).await?;
    assert!(rig.cache.pin(&samples[1].sha256(), true).await?);
    let used = rig.cache.file(&samples[2].sha256()).await?.expect("it is here");
    rig.fill(&samples[4]).await?;
    assert_eq!(rig.here(&samples), [true, true, true, false, true]);
    assert_eq!(rig.cache.fill().evicted, 1);
    // Two in the way that can't go, and one that is too large for what is left.
    let large = Sample::new(9, 21, 21);
    assert!(matches!(rig.cache.begin(large.about.clone()).await, Err(Error::Full)));
    assert_eq!(rig.here(&samples), [true, true, true, false, true], "nothing went for nothing");
    drop(used);
    rig.fill(&large).await?;
    assert_eq!(rig.here(&samples), [false, true, false, false, false]);
    rig.reopen().await?;
    assert!(rig.cache.list().iter().any(|file| file.is_pinned));
    let larger = Sample::new(10, 41, 41);
    let refused = rig.cache.begin(larger.about.clone()).await;
    assert!(matches!(refused, Err(Error::TooLarge { size: 41_000, limit: 40_000, .. })));
    Ok(())
}

#[tokio::test]
async fn the_order_of_use_outlives_a_restart_and_a_smaller_cap_is_kept() -> Outcome {
    let mut rig = Rig::new(40_000).await?;
    let samples: Vec<Sample> = (1..=3).map(|seed| Sample::new(seed, 10, 10)).collect();
    for sample in &samples {
        rig.fill(sample).await?;
        rig.env.advance(Duration::from_secs(100));
    }
    rig.reopen().await?;
    rig.read_all(&samples[0]).await?;
    rig.cap_bytes = 15_000;
    rig.reopen().await?;
    assert_eq!(rig.here(&samples), [true, false, false]);
    Ok(())
}

#[tokio::test]
async fn a_chunk_that_the_disk_damaged_is_fetched_again_and_never_read() -> Outcome {
    let mut rig = Rig::new(1 << 20).await?;
    let sample = Sample::new(1, 5, 5);
    rig.fill(&sample).await?;
    rig.damage(&sample, 2500);
    rig.reopen().await?;
    let file = rig.cache.file(&sample.sha256()).await?.expect("it is here");
    let read: Vec<_> = rig.cache.stream(&file, 0..5000).collect().await;
    let bytes: Vec<&[u8]> =
        read.iter().filter_map(|piece| piece.as_ref().ok()).map(AsRef::as_ref).collect();
    let bytes = bytes.concat();
    assert_eq!(bytes, sample.content[..2000]);
    assert!(read.last().is_some_and(Result::is_err));
    drop(file);
    assert!(!rig.cache.is_whole(&sample.sha256()));
    assert_eq!(rig.names(), [".chunks", ".held", ".part"]);
    let filling = rig.begin(&sample).await?;
    assert_eq!(filling.believe().await?, 4000);
    filling.write(2..3, sample.bytes(2..3)).await?;
    filling.finish().await?;
    assert_eq!(rig.read_all(&sample).await?, sample.content);
    Ok(())
}

#[tokio::test]
async fn a_damaged_file_that_somebody_linked_to_is_left_to_them() -> Outcome {
    let mut rig = Rig::new(1 << 20).await?;
    let sample = Sample::new(1, 5, 5);
    rig.fill(&sample).await?;
    let link = rig.path(&sample, "").with_file_name("theirs");
    fs::hard_link(rig.path(&sample, ""), &link)?;
    rig.damage(&sample, 2500);
    rig.reopen().await?;
    assert!(rig.read_all(&sample).await.is_err());
    assert_eq!(rig.names(), Vec::<String>::new());
    assert_eq!(fs::read(link)?.len(), 5000);
    rig.fill(&sample).await?;
    Ok(())
}

#[tokio::test]
async fn readers_get_bytes_as_they_come_and_say_what_they_wait_for() -> Outcome {
    let rig = Rig::new(1 << 20).await?;
    let sample = Sample::new(1, 10, 10);
    let filling = rig.begin(&sample).await?;
    let mut stream = rig.cache.stream(filling.file(), 2500..7200);
    let wants = filling.file().wants();
    let mut left = rig.cache.stream(filling.file(), 0..100);
    assert!(left.next().now_or_never().is_none(), "nothing is here");
    drop(left);
    assert_eq!(wants.borrow().chunks().count(), 0, "who left does not wait");
    let mut next = Box::pin(stream.next());
    assert!(next.as_mut().now_or_never().is_none());
    assert_eq!(wants.borrow().chunks().cloned().collect::<Vec<_>>(), [2..8]);
    filling.write(7..8, sample.bytes(7..8)).await?;
    assert!(next.as_mut().now_or_never().is_none(), "not what it waits for");
    filling.write(2..4, sample.bytes(2..4)).await?;
    assert_eq!(next.await.expect("more")?, sample.content[2500..4000]);
    filling.write(4..7, sample.bytes(4..7)).await?;
    let rest: Vec<_> = stream.try_collect().await?;
    assert_eq!(rest.concat(), sample.content[4000..7200]);
    assert_eq!(wants.borrow().chunks().count(), 0);
    // Who waits for what nobody fetches any more hears why.
    let mut stream = rig.cache.stream(filling.file(), 0..100);
    let mut next = Box::pin(stream.next());
    assert!(next.as_mut().now_or_never().is_none());
    filling.rest(Some(Error::Full)).await?;
    assert!(matches!(next.await, Some(Err(Error::Full))));
    Ok(())
}

#[tokio::test]
async fn names_that_are_of_no_use_are_taken_away_and_others_are_not() -> Outcome {
    let mut rig = Rig::new(1 << 20).await?;
    let sample = Sample::new(1, 5, 5);
    rig.fill(&sample).await?;
    let other = Sha256::from_bytes([9; 32]);
    for name in [format!("{other}.part"), format!("{other}.held"), format!("{other}.held.new")] {
        fs::write(rig.folder.path().join(name), b"x")?;
    }
    fs::write(rig.folder.path().join("notes.txt"), b"x")?;
    rig.reopen().await?;
    assert_eq!(rig.names(), ["", ".chunks"]);
    assert!(rig.folder.path().join("notes.txt").exists());
    // A description that was cut short takes its file along.
    let chunks = rig.path(&sample, ".chunks");
    fs::write(&chunks, &fs::read(&chunks)?[..100])?;
    rig.reopen().await?;
    assert_eq!((rig.names(), rig.cache.fill().files), (Vec::new(), 0));
    Ok(())
}

#[tokio::test]
async fn a_folder_has_one_process() -> Outcome {
    let rig = Rig::new(1 << 20).await?;
    let second = Rig::open_in(rig.folder.path(), &rig.env, 1 << 20).await;
    assert!(second.is_err_and(|error| error.to_string().contains("another process")));
    Ok(())
}

#[tokio::test]
async fn a_file_that_lies_in_other_xorbs_now_is_begun_again() -> Outcome {
    let rig = Rig::new(1 << 20).await?;
    let sample = Sample::new(1, 6, 6);
    let filling = rig.begin(&sample).await?;
    filling.write(0..1, sample.bytes(0..1)).await?;
    assert!(matches!(rig.cache.begin(sample.about.clone()).await, Err(Error::Conflict { .. })));
    drop(filling);
    let (mut terms, chunks) = sample.parts();
    terms[0].xorb = XorbHash::from_bytes([0xaa; 32]);
    let moved = Sample::of(sample.content.clone(), terms, &chunks);
    let filling = rig.begin(&moved).await?;
    assert_eq!(filling.believe().await?, 0);
    assert_eq!(rig.cache.fill().bytes, 6 * u64::from(CHUNK));
    Ok(())
}
