use std::time::Duration;

use ballast_format::name::{FilePath, RepoKind, RepoName};
use ballast_store::env::RealEnv;
use ballast_testkit::content::{bf16_weights, splitmix};
use ballast_testkit::hub::{Lie, PublicHub, Troubles};

use super::super::{Entry, Patience, Settings};
use super::*;

const MODEL: &str = "org/model";
const WEIGHTS: &str = "model.safetensors";

struct Case {
    hub: PublicHub,
    upstream: Upstream,
    pool: Pool,
    repo: Repo,
    commit: ObjectHash,
    entry: Entry,
    content: Vec<u8>,
}

/// A file of several xorbs, half of which compresses.
async fn case() -> Case {
    let hub = PublicHub::start(11).expect("a free port");
    hub.offer_xet();
    let content = [splitmix(2, 6_000_000), bf16_weights(3, 6_000_000)].concat();
    let commit = hub.push(MODEL, &[(WEIGHTS, &content)]);
    let settings = Settings {
        private_networks: vec!["127.0.0.2/32".to_owned()],
        patience: Patience {
            tries: 4,
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(20),
        },
        ..Settings::of(hub.endpoint())
    };
    let upstream = Upstream::new(&settings, RealEnv::shared()).expect("right settings");
    let repo = Repo { kind: RepoKind::Model, name: RepoName::parse(MODEL).expect("a name") };
    let path = FilePath::parse(WEIGHTS).expect("a path");
    let entry = upstream.paths(&repo, commit, &[path]).await.expect("listed").remove(0);
    assert!(entry.xet_hash.is_some());
    Case { hub, upstream, pool: Pool::new(1), repo, commit, entry, content }
}

impl Case {
    async fn fetch(&self, from: u64) -> Result<(Vec<u8>, bool), Error> {
        let Self { upstream, pool, repo, commit, entry, .. } = self;
        let mut fetch = upstream.fetch(pool, repo, *commit, entry, from).await?;
        let mut all = Vec::new();
        while let Some(bytes) = fetch.chunk().await? {
            all.extend_from_slice(&bytes);
        }
        Ok((all, fetch.is_xet()))
    }
}

#[tokio::test]
async fn a_file_comes_out_of_xorbs_from_any_byte() {
    let case = case().await;
    for from in [0, 1, 4_500_000, 9_900_000] {
        case.hub.clear_counts();
        let (got, is_xet) = case.fetch(from as u64).await.expect("sent");
        assert!(got == case.content[from..] && is_xet, "from {from}");
        let sent = case.hub.sent_in_all();
        assert!(sent < (got.len() + got.len() / 4) as u64, "{sent} bytes for {}", got.len());
    }
    // What is shorter than a front comes as it is.
    let last = case.content.len() - 1;
    let (got, is_xet) = case.fetch(last as u64).await.expect("sent");
    assert!(got == case.content[last..] && !is_xet);
}

#[tokio::test]
async fn whoever_does_not_know_the_xet_hash_asks_for_it() {
    let mut case = case().await;
    case.entry.xet_hash = None;
    let (got, is_xet) = case.fetch(0).await.expect("sent");
    assert!(got == case.content && is_xet);
}

#[tokio::test]
async fn whatever_goes_wrong_with_xorbs_the_file_comes_whole() {
    let mut case = case().await;
    let patience = Patience { tries: 30, ..case.upstream.patience() };
    case.upstream = case.upstream.with_patience(patience);
    for seed in 0..4 {
        case.hub.set_troubles(Troubles {
            unavailable: 100 + 50 * seed,
            reset: 100,
            html: 50,
            truncated: 200,
            ..Troubles::default()
        });
        case.upstream.distrusted.clear();
        let (got, _) = case.fetch(100).await.expect("patience");
        assert!(got == case.content[100..], "{seed}");
    }
}

#[tokio::test]
async fn without_ranges_or_with_broken_chunks_the_file_comes_as_it_is() {
    let case = case().await;
    for troubles in [
        Troubles { no_ranges: true, ..Troubles::default() },
        Troubles { lie: Some(Lie::Chunks), ..Troubles::default() },
    ] {
        case.upstream.distrusted.clear();
        case.hub.set_troubles(troubles.clone());
        case.hub.clear_counts();
        match case.fetch(0).await {
            Ok((got, is_xet)) if got == case.content => assert!(!is_xet, "{troubles:?}"),
            // Whoever stores the file sees it.
            Ok(_) => case.upstream.distrust(&case.entry),
            Err(error) => assert!(matches!(error, Error::Lied { .. }), "{error}"),
        }
        // Whatever was wrong, the xorbs are not asked for again.
        case.hub.set_troubles(Troubles::default());
        let (got, is_xet) = case.fetch(0).await.expect("as it is");
        assert!(got == case.content && !is_xet);
    }
}

#[tokio::test]
async fn a_file_whose_xorbs_made_another_one_comes_as_it_is() {
    let case = case().await;
    case.hub.set_troubles(Troubles { lie: Some(Lie::Terms), ..Troubles::default() });
    let (got, is_xet) = case.fetch(0).await.expect("some bytes");
    assert!(got != case.content && is_xet);
    case.upstream.distrust(&case.entry);
    let (got, is_xet) = case.fetch(0).await.expect("as it is");
    assert!(got == case.content && !is_xet);
}
