//! What opens something to whoever holds it stays out of logs.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use ballast_testkit::content::splitmix;
use serde_json::json;
use tracing_subscriber::filter::LevelFilter;

use super::rig::Rig;
use super::upload::pack;

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_link_and_no_token_is_ever_logged() {
    // With one subscriber alone, a line that another test's thread reaches first, where there is
    // none, would be off for good. This one comes first and wants nothing.
    let quiet = tracing_subscriber::fmt().with_max_level(LevelFilter::OFF).finish();
    let _second = tracing::Dispatch::new(quiet);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);

    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let packed = pack(&splitmix(42, 500_000));
    rig.publish(&rig.admin, &repo, &packed).await;
    let token = rig.xet_token(&rig.admin, &repo, false);
    let document = rig.reconstruction(&token, &packed).await.expect(200).json();
    let url = &document["xorbs"][packed.hash().to_string()][0]["url"];
    let fetch = url.as_str().map(Rig::local).expect("a link").to_owned();
    rig.ask("GET", &fetch).range("bytes=0-99").send().await.expect(206);

    let asked = json!({
        "operation": "download",
        "objects": [{"oid": packed.sha256.to_string(), "size": packed.content.len()}],
    });
    let batch = rig.ask("POST", &format!("/{repo}.git/info/lfs/objects/batch"));
    let batch = batch.bearer(&rig.admin).json(&asked).send().await.expect(200).json();
    let href = &batch["objects"][0]["actions"]["download"]["href"];
    let object = href.as_str().map(Rig::local).expect("a link").to_owned();
    rig.ask("GET", &object).send().await.expect(200);
    let admin = rig.admin.clone();
    rig.stop().await;

    let text = log.text();
    assert!(text.contains("/xet/v1/fetch/***") && text.contains("/api/ballast/lfs/***"), "{text}");
    for link in [&fetch, &object] {
        let secret = link.rsplit('/').next().expect("a sealed text");
        assert!(secret.len() > 50 && !text.contains(secret));
    }
    assert!(!text.contains(&token) && !text.contains(&admin));
}
