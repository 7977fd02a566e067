//! An index whose engine fails while the hub runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ballast_store::index::memory::Memory;
use ballast_store::index::open::Opened;
use ballast_store::index::{Batch, Index, IndexHandle, Row, Table};
use ballast_testkit::clock::SimEnv;
use ballast_testkit::content::splitmix;
use object_store::ObjectStore;
use object_store::memory::InMemory;

use crate::access::Access;
use crate::error::Result;
use crate::hub::Freshness;
use crate::rig::{self, Rig};
use crate::state::mend::MendIndex;
use crate::worker::Worker as _;

/// An engine whose disk may be full.
#[derive(Default)]
struct OnFullDisk {
    rows: Memory,
    is_full: Arc<AtomicBool>,
}

impl OnFullDisk {
    fn check(&self) -> ballast_store::Result<()> {
        match self.is_full.load(Ordering::Relaxed) {
            true => Err(ballast_store::Error::index("the disk is full")),
            false => Ok(()),
        }
    }
}

impl Index for OnFullDisk {
    fn get(&self, table: Table, key: &[u8]) -> ballast_store::Result<Option<Vec<u8>>> {
        self.rows.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> ballast_store::Result<Vec<Row>> {
        self.rows.scan(table, prefix, after, limit)
    }

    fn apply(&self, batch: Batch) -> ballast_store::Result<()> {
        self.check()?;
        self.rows.apply(batch)
    }

    fn flush(&self) -> ballast_store::Result<()> {
        self.check()?;
        self.rows.flush()
    }
}

#[tokio::test]
async fn an_index_that_fails_is_made_anew_while_the_hub_runs() -> Result<()> {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (env, engine) = (SimEnv::new(3), OnFullDisk::default());
    let is_full = Arc::clone(&engine.is_full);
    let index = IndexHandle::over(engine)?;
    let hub = rig::open_with(&objects, &env, index, Opened::Clean, Freshness::Exclusive).await?;
    let rig = Rig::of(objects, env, hub).await;
    let repo = rig.repo(&rig.admin, "admin/m").await;
    let content = splitmix(1, 300_000);
    rig.put_large(&rig.admin, &repo, "w.bin", &content).await;
    rig.put(&rig.admin, &repo, "a.txt", "a").await?;

    is_full.store(true, Ordering::Relaxed);
    let refused = rig.put(&rig.admin, &repo, "b.txt", "b").await.expect_err("no room");
    assert_eq!(refused.kind(), ballast_format::ErrorKind::Unavailable, "{refused}");
    assert!(rig.hub.index().is_broken());
    let mend = MendIndex::default();
    mend.work(&rig.hub).await;
    assert!(!rig.hub.index().is_broken());

    let repo = rig.hub.repo_by_id(&rig.admin, repo.id(), Access::Write)?;
    rig.put(&rig.admin, &repo, "b.txt", "b").await?;
    rig.put(&rig.admin, &repo, "c.txt", "c").await?;
    assert_eq!(rig.read(&repo, "w.bin").await?, content);
    for name in ["a", "b", "c"] {
        assert_eq!(rig.read(&repo, &format!("{name}.txt")).await?, name.as_bytes());
    }
    // What was uploaded before need not be sent again.
    let sha256 = rig::sha256(&content);
    assert!(rig.hub.has_file(&rig.admin, &repo, &sha256, content.len() as u64).await?);
    Ok(())
}
