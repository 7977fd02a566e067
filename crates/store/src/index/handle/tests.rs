//! Tests of the threads between asynchronous code and an engine.

use super::super::memory::Memory;
use super::*;

/// An engine that panics when it reads the key `boom`.
struct Explosive(Memory);

impl Index for Explosive {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        assert_ne!(key, b"boom", "as the test wants");
        self.0.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>> {
        self.0.scan(table, prefix, after, limit)
    }

    fn apply(&self, batch: Batch) -> Result<()> {
        self.0.apply(batch)
    }

    fn flush(&self) -> Result<()> {
        self.0.flush()
    }
}

#[tokio::test]
async fn what_was_applied_is_there_for_every_kind_of_question() -> Result<()> {
    let index = IndexHandle::over(Memory::new())?;
    let mut batch = Batch::new();
    batch.put(Table::Meta, *b"a", *b"1").put(Table::Meta, *b"b", *b"2");
    index.apply(batch).await?;
    assert_eq!(index.get(Table::Meta, b"a").await?, Some(b"1".to_vec()));
    let many = vec![b"b".to_vec(), b"x".to_vec(), b"a".to_vec()];
    assert_eq!(
        index.get_many(Table::Meta, many).await?,
        [Some(b"2".to_vec()), None, Some(b"1".to_vec())]
    );
    let rows = index.scan(Table::Meta, b"", Some(b"a"), 10).await?;
    assert_eq!(rows, [(b"b".to_vec(), b"2".to_vec())]);
    Ok(())
}

#[tokio::test]
async fn more_callers_than_the_queue_has_room_for_are_all_served() -> Result<()> {
    let index = IndexHandle::over(Memory::new())?;
    let mut batch = Batch::new();
    batch.put(Table::Meta, *b"a", *b"1");
    index.apply(batch).await?;
    let all = (0..READ_QUEUE * 3).map(|_| index.get(Table::Meta, b"a"));
    let answers = futures_util::future::try_join_all(all).await?;
    assert!(answers.iter().all(|answer| answer.as_deref() == Some(b"1")));
    Ok(())
}

#[tokio::test]
async fn after_the_close_every_call_says_so() -> Result<()> {
    let index = IndexHandle::over(Memory::new())?;
    let clone = index.clone();
    index.close().await?;
    assert!(matches!(clone.get(Table::Meta, b"a").await, Err(Error::Index { .. })));
    let mut batch = Batch::new();
    batch.put(Table::Meta, *b"a", *b"1");
    assert!(matches!(clone.apply(batch).await, Err(Error::Index { .. })));
    assert!(matches!(clone.close().await, Err(Error::Index { .. })));
    Ok(())
}

#[tokio::test]
async fn a_panic_of_the_engine_is_an_error_and_ends_all_trust() -> Result<()> {
    let index = IndexHandle::over(Explosive(Memory::new()))?;
    assert!(index.get(Table::Meta, b"fine").await?.is_none());
    for (key, why) in [(b"boom", "panicked"), (b"fine", "made anew")] {
        let error = index.get(Table::Meta, key).await.expect_err("not believed");
        assert!(error.to_string().contains(why), "{error}");
    }
    assert!(index.is_broken());
    assert!(index.close().await.is_err(), "no clean stop");
    Ok(())
}

#[tokio::test]
async fn a_caller_that_goes_away_does_no_harm() -> Result<()> {
    let index = IndexHandle::over(Memory::new())?;
    for _ in 0..100 {
        let question = index.get(Table::Meta, b"a");
        drop(tokio::time::timeout(std::time::Duration::ZERO, question).await);
    }
    assert!(index.get(Table::Meta, b"a").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn an_engine_that_failed_is_replaced_by_an_empty_one_and_is_not_believed_later() -> Result<()>
{
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = Files::of(folder.path(), "");
    let index = IndexHandle::start(Arc::new(Explosive(Memory::new())), Some(files), true)?;
    let mut batch = Batch::new();
    batch.put(Table::Meta, *b"a", *b"1");
    index.apply(batch.clone()).await?;
    assert!(index.get(Table::Meta, b"boom").await.is_err() && index.is_broken());
    index.replace().await?;
    assert!(!index.is_broken() && index.generation() == 1);
    assert!(index.get(Table::Meta, b"a").await?.is_none(), "it is empty");
    index.apply(batch).await?;
    assert!(index.get(Table::Meta, b"boom").await?.is_none(), "another engine");
    index.mark_whole();
    index.close().await?;
    let (_, opened) = super::super::open(folder.path())?;
    assert!(matches!(opened, super::super::Opened::Rebuild { .. }));
    Ok(())
}

#[tokio::test]
async fn where_its_folder_can_not_be_used_a_new_engine_is_in_memory() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = Files::of(&folder.path().join("gone"), "");
    let index = IndexHandle::start(Arc::new(Explosive(Memory::new())), Some(files), true)?;
    assert!(index.get(Table::Meta, b"boom").await.is_err());
    index.replace().await?;
    let mut batch = Batch::new();
    batch.put(Table::Meta, *b"a", *b"1");
    index.apply(batch).await?;
    assert!(index.get(Table::Meta, b"a").await?.is_some());
    index.mark_whole();
    index.close().await
}
