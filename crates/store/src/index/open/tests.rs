//! Tests of when an index is believed.

use super::super::{Batch, Table};
use super::*;

fn reason(opened: &Opened) -> &str {
    match opened {
        Opened::Clean => "",
        Opened::Rebuild { reason } => reason,
    }
}

/// An index with one row that was filled and closed in an orderly way.
async fn closed_index() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (index, opened) = open(folder.path()).expect("opens");
    assert_eq!(reason(&opened), "there is none yet");
    put(&index, b"a").await;
    index.mark_whole();
    index.close().await.expect("closes");
    folder
}

async fn put(index: &IndexHandle, key: &[u8]) {
    let mut batch = Batch::new();
    batch.put(Table::Meta, key, *b"1");
    index.apply(batch).await.expect("applies");
}

async fn has(index: &IndexHandle, key: &[u8]) -> bool {
    index.get(Table::Meta, key).await.expect("reads").is_some()
}

#[tokio::test]
async fn an_orderly_stop_keeps_the_rows_again_and_again() {
    let folder = closed_index().await;
    for key in [*b"b", *b"c", *b"d"] {
        let (index, opened) = open(folder.path()).expect("opens");
        assert_eq!(opened, Opened::Clean);
        assert!(has(&index, b"a").await);
        put(&index, &key).await;
        index.close().await.expect("closes");
    }
    let (index, _) = open(folder.path()).expect("opens");
    assert!(has(&index, b"d").await);
}

#[tokio::test]
async fn a_stop_without_a_close_means_rebuild() {
    let folder = closed_index().await;
    let (index, opened) = open(folder.path()).expect("opens");
    assert_eq!(opened, Opened::Clean);
    index.flush().await.expect("flushes");
    // Whatever is on disk now is what a kill would leave.
    let after_kill = tempfile::tempdir().expect("a temporary folder");
    copy_folder(folder.path(), after_kill.path());
    let (index, opened) = open(after_kill.path()).expect("opens");
    assert_eq!(reason(&opened), "the last stop was not clean");
    assert!(!has(&index, b"a").await);
}

#[tokio::test]
async fn a_close_in_the_middle_of_a_rebuild_means_rebuild() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (index, _) = open(folder.path()).expect("opens");
    put(&index, b"half").await;
    index.close().await.expect("closes");
    let (index, opened) = open(folder.path()).expect("opens");
    assert_eq!(reason(&opened), "the last stop was not clean");
    assert!(!has(&index, b"half").await);
}

#[tokio::test]
async fn another_schema_means_rebuild() {
    let folder = closed_index().await;
    fs::write(folder.path().join("schema"), "999999\n").expect("writes");
    let (index, opened) = open(folder.path()).expect("opens");
    assert!(reason(&opened).contains("999999"), "{opened:?}");
    assert!(!has(&index, b"a").await);
}

#[tokio::test]
async fn an_engine_that_does_not_open_means_rebuild() {
    let folder = closed_index().await;
    let database = folder.path().join("sled").join("conf");
    fs::write(&database, b"nonsense that no engine wrote").expect("writes");
    let (index, opened) = open(folder.path()).expect("opens");
    assert!(reason(&opened).contains("the index failed"), "{opened:?}");
    assert!(!has(&index, b"a").await);
    index.mark_whole();
    index.close().await.expect("closes");
    let (_, opened) = open(folder.path()).expect("opens");
    assert_eq!(opened, Opened::Clean);
}

#[tokio::test]
async fn a_damaged_database_never_takes_the_process_down() {
    for damage in 0..24_u64 {
        let folder = closed_index().await;
        let path = folder.path().join("sled").join("db");
        let mut bytes = fs::read(&path).expect("reads");
        let length = bytes.len();
        let at = usize::try_from(damage).expect("small") * 97 % length;
        if damage % 3 == 0 {
            bytes.truncate(at);
        } else {
            bytes[at..].iter_mut().take(300).for_each(|byte| *byte ^= 0x5a);
        }
        fs::write(&path, bytes).expect("writes");
        let (index, opened) = open(folder.path()).expect("opens, empty or not");
        // Whether the engine notices is its own affair, which is why it is never believed after
        // a stop that was not clean; here it may say either.
        if matches!(opened, Opened::Rebuild { .. }) {
            assert!(!has(&index, b"a").await);
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("reads") {
        let entry = entry.expect("reads");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("reads").is_dir() {
            fs::create_dir(&target).expect("creates");
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("copies");
        }
    }
}

#[tokio::test]
async fn an_index_of_another_store_is_not_believed() {
    let folder = closed_index().await;
    let (index, opened) = open_for(folder.path(), "s3://models").expect("opens");
    assert_eq!(reason(&opened), "it was made from another store");
    assert!(!has(&index, b"a").await);
    index.mark_whole();
    index.close().await.expect("closes");
    let (index, opened) = open_for(folder.path(), "s3://models").expect("opens");
    assert_eq!(opened, Opened::Clean);
    index.close().await.expect("closes");
    let (_, opened) = open(folder.path()).expect("opens");
    assert_eq!(reason(&opened), "it was made from another store");
}
