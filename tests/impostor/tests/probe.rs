//! A server that looks whether an object is there, and writes then, answers a second put as it
//! should. Only writers at once show that several of them win.

use anyhow::{Context as _, Result};
use ballast_store::backend;
use ballast_store::env::RealEnv;
use ballast_store::objects::Store;
use ballast_store::probe::probe;
use ballast_testkit::s3::{BUCKET, Served, auth};
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_behind_s3_is_found_out_by_the_race() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join(BUCKET))?;
    let files = FileSystem::new(folder.path());
    let files = files.ok().context("the folder is there")?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(auth());
    let server = Served::start(builder.build())?;

    let place = format!("s3://{BUCKET}/hub").parse()?;
    let backend = backend::open(&place, &server.access(), 0)?;
    let store = Store::new(backend.objects, RealEnv::shared());
    let promises = probe(&store).await?;
    assert!(promises.refuses_second, "{promises}");
    assert!(!promises.single_winner, "{promises}");
    Ok(())
}
