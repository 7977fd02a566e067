//! An index whose engine fails while the hub runs.

use std::sync::Arc;

use ballast_store::index::open::Opened;
use ballast_testkit::clock::SimEnv;
use ballast_testkit::content::splitmix;
use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::Kept;
use crate::access::Access;
use crate::error::Result;
use crate::hub::Freshness;
use crate::rig::{self, Rig};
use crate::state::mend::MendIndex;
use crate::worker::Worker as _;

#[tokio::test]
async fn an_index_that_fails_is_made_anew_while_the_hub_runs() -> Result<()> {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (env, index) = (SimEnv::new(3), Kept::default());
    let (handle, freshness) = (index.handle(), Freshness::Exclusive);
    let hub = rig::open_with(&objects, &env, handle, Opened::Clean, freshness).await?;
    let rig = Rig::of(objects, env, hub).await;
    let repo = rig.repo(&rig.admin, "admin/m").await;
    let content = splitmix(1, 300_000);
    rig.put_large(&rig.admin, &repo, "w.bin", &content).await;
    rig.put(&rig.admin, &repo, "a.txt", "a").await?;

    index.refuse_writes(true);
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
