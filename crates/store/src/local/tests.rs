//! Tests of the folder: its lock, its leftovers, its ranges. What every backend must do is in
//! `tests/backends.rs`.

use bytes::Bytes;
use futures_util::StreamExt;

use super::*;
use crate::env::quick::QuickEnv;
use crate::keyspace::{CopyKind, Key, Prefix};
use crate::objects::{Store, Writing};

fn open(folder: &Path) -> (Store, FolderLock) {
    let (inner, lock) = LocalStore::open(folder).expect("opens");
    (Store::new(inner, QuickEnv::shared()).with_writing(Writing::LOCAL), lock)
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("reads") {
            let path = entry.expect("reads").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

#[tokio::test]
async fn a_second_process_is_told_who_holds_the_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (store, lock) = open(folder.path());
    let error = LocalStore::open(folder.path()).expect_err("it is in use");
    let text = error.to_string();
    assert!(text.contains(&folder.path().display().to_string()), "{text}");
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");

    drop(lock);
    assert!(LocalStore::open(folder.path()).is_err(), "the store still lives");
    drop(store);
    LocalStore::open(folder.path()).expect("it is free");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    fs::write(&file, "in the way").expect("writes");
    let error = LocalStore::open(&file.join("data")).expect_err("a file is in the way");
    assert!(error.to_string().contains("file/data"), "{error}");
}

#[tokio::test]
async fn what_a_crash_left_is_removed_and_what_was_stored_is_not() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (store, lock) = open(folder.path());
    let key = Key::Copy(store.new_copy(CopyKind::Xorb, [1; 32], 0));
    store.put_new(&key, Bytes::from_static(b"whole")).await?;
    // A process that dies here leaves its half-written file, and a lock file that names it.
    let mut writer = store.writer(&store.new_copy(CopyKind::Xorb, [2; 32], 0).into())?;
    writer.write(vec![7; 3 * 1024 * 1024].into()).await?;
    let half: Vec<_> = files(folder.path())
        .into_iter()
        .filter(|path| path.to_string_lossy().contains('#'))
        .collect();
    assert_eq!(half.len(), 1);
    assert_eq!(store.list(&Prefix::All).count().await, 1, "half is not there");

    let crashed = tempfile::tempdir().expect("a temporary folder");
    for path in files(folder.path()) {
        let target = crashed.path().join(path.strip_prefix(folder.path()).expect("below it"));
        fs::create_dir_all(target.parent().expect("below a folder")).expect("creates");
        fs::copy(&path, &target).expect("copies");
    }
    let (after, _lock) = open(crashed.path());
    assert!(files(crashed.path()).iter().all(|path| !path.to_string_lossy().contains('#')));
    assert_eq!(after.get(&key, 10).await?, Some(Bytes::from_static(b"whole")));
    drop((writer, store, lock));
    Ok(())
}

#[tokio::test]
async fn after_a_crash_the_volume_is_synced_before_anything_is_served() -> Result<()> {
    use super::volume::shaky::{EIO, Shaky};

    let folder = tempfile::tempdir().expect("a temporary folder");
    let objects = folder.path().join("objects");
    let open_on = |volume: &Arc<Shaky>| {
        LocalStore::open_on(folder.path(), 0, Arc::clone(volume) as Arc<dyn Volume>)
    };
    let volume = Arc::new(Shaky::new());
    drop(open_on(&volume)?);
    drop(open_on(&volume)?);
    assert!(volume.take_synced().is_empty(), "the last stop was clean");

    // What a process that died leaves: a lock file with its number.
    fs::write(folder.path().join("lock"), "process 1\n").expect("writes");
    fs::write(objects.join("visible"), "not synced").expect("writes");
    volume.fail_next(&[EIO]);
    let error = open_on(&volume).expect_err("nobody knows what is on the disk");
    assert!(matches!(error, Error::Folder { .. }), "{error}");
    drop(open_on(&volume)?);
    assert_eq!(volume.take_synced(), [objects]);
    Ok(())
}

#[tokio::test]
async fn uploads_end_before_the_disk_is_full_and_logs_go_on() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // No volume has so much room.
    let (inner, _lock) = LocalStore::open_keeping(folder.path(), 1 << 60)?;
    let store = Store::new(inner, QuickEnv::shared()).with_writing(Writing::LOCAL);
    let key = Key::Copy(store.new_copy(CopyKind::Xorb, [1; 32], 0));
    let refused = store.put_new(&key, Bytes::from_static(b"x")).await;
    assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
    let mut writer = store.writer(&key)?;
    let refused = writer.write(vec![7; 3 * 1024 * 1024].into()).await;
    assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
    store.put_absent(&Key::Gc(1), Bytes::from_static(b"x")).await?;
    let left = files(&folder.path().join("objects"));
    assert_eq!(left.len(), 1, "{left:?}");
    Ok(())
}

#[cfg(unix)]
#[test]
fn a_new_data_folder_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("deep/data");
    let (_, lock) = LocalStore::open(&data).expect("opens");
    let mode = fs::metadata(&data).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    drop(lock);
}

#[tokio::test]
async fn a_range_of_a_file_is_exact_wherever_it_lies() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (store, _lock) = open(folder.path());
    let whole: Bytes =
        (0..3_000_000_u32).map(|i| u8::try_from(i % 253).expect("under 253")).collect();
    let key = Key::Copy(store.new_copy(CopyKind::Xorb, [1; 32], 0));
    let mut writer = store.writer(&key)?;
    for piece in whole.chunks(70_000) {
        writer.write(Bytes::copy_from_slice(piece)).await?;
    }
    assert!(writer.is_in_parts());
    assert_eq!(writer.finish().await?, 3_000_000);
    for range in [0..1, 0..3_000_000, 999_999..2_000_001, 2_999_999..3_000_000] {
        let wanted = usize::try_from(range.start).expect("small")
            ..usize::try_from(range.end).expect("small");
        assert_eq!(store.get_range(&key, range).await?, whole.slice(wanted));
    }
    for beyond in [2_999_999..3_000_001, 3_000_000..3_000_001, 4_000_000..4_000_001] {
        let error = store.get_range(&key, beyond).await.expect_err("beyond the end");
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
    let absent = Key::Copy(store.new_copy(CopyKind::Xorb, [1; 32], 0));
    assert!(matches!(store.get_range(&absent, 0..1).await, Err(Error::NotFound { .. })));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweeping_takes_empty_folders_along_and_never_a_fresh_copy() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (store, _lock) = open(folder.path());
    let put_and_sweep = |round: u64| {
        let store = store.clone();
        async move {
            let key = Key::Copy(store.new_copy(CopyKind::Shard, [1; 32], round));
            store.put_new(&key, Bytes::from_static(b"x")).await?;
            assert_eq!(store.get(&key, 1).await?, Some(Bytes::from_static(b"x")));
            store.sweep(&key).await
        }
    };
    // All in one folder, which comes and goes under their feet.
    for round in 0..20 {
        futures_util::future::try_join_all((0..8).map(|_| put_and_sweep(round))).await?;
    }
    let left = fs::read_dir(folder.path().join("objects")).expect("reads").count();
    assert_eq!(left, 0);
    Ok(())
}

#[test]
fn only_what_the_file_system_calls_staging_is_a_leftover() {
    for name in ["a#1", "00000000000000000001#12", "a#b#3"] {
        assert!(is_leftover(name), "{name}");
    }
    for name in ["a", "a#", "a#x", "a#1x", "layout", "00000000000000000001.done"] {
        assert!(!is_leftover(name), "{name}");
    }
}
