use std::time::Duration;

use ballast_format::hash::XorbHash;
use ballast_format::name::{FilePath, RepoKind, RepoName};
use ballast_format::xorb::XorbValidator;
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

/// What was told of xorbs.
#[derive(Default)]
struct Told {
    /// Where each begins, what it is called, and its chunks.
    xorbs: Vec<(u64, XorbHash, Vec<u8>)>,
    is_open: bool,
    has_ended: bool,
}

impl Told {
    /// Takes in what was told with bytes that begin here.
    fn take(&mut self, came: Vec<Came>, at: u64) {
        for came in came {
            match came {
                Came::Begins { xorb, at: begins } => {
                    // Only the first one may lie in what came before.
                    assert!(begins >= at || self.xorbs.is_empty(), "{begins} after {at}");
                    self.xorbs.push((begins, xorb, Vec::new()));
                    self.is_open = true;
                }
                Came::Chunks(bytes) => {
                    let last = self.xorbs.last_mut().expect("one has begun");
                    assert!(self.is_open, "chunks of none");
                    last.2.extend_from_slice(&bytes);
                }
                Came::Ends => (self.is_open, self.has_ended) = (false, true),
            }
        }
    }

    /// Those that have their names: where they begin in the file, and where they end.
    fn whole(&self) -> Vec<Range<u64>> {
        let whole = self.xorbs.iter().filter_map(|(at, name, bytes)| {
            let mut validator = XorbValidator::new();
            validator.feed(bytes).ok()?;
            let footer = validator.finish(*name).ok()?;
            Some(*at..*at + u64::from(footer.total_length()))
        });
        whole.collect()
    }
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
        let (all, is_xet, _) = self.fetch_telling(from).await?;
        Ok((all, is_xet))
    }

    /// The same, with what is told of xorbs.
    async fn fetch_telling(&self, from: u64) -> Result<(Vec<u8>, bool, Told), Error> {
        let Self { upstream, pool, repo, commit, entry, .. } = self;
        let mut fetch = upstream.fetch(pool, repo, *commit, entry, from).await?;
        let (mut all, mut told) = (Vec::new(), Told::default());
        while let Some(bytes) = fetch.chunk().await? {
            told.take(fetch.take_came(), from + all.len() as u64);
            all.extend_from_slice(&bytes);
        }
        told.take(fetch.take_came(), u64::MAX);
        Ok((all, fetch.is_xet(), told))
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

/// Whether these follow each other from the first byte of a file to its last.
fn is_all(whole: &[Range<u64>], size: usize) -> bool {
    let mut at = 0;
    whole.iter().all(|range| std::mem::replace(&mut at, range.end) == range.start)
        && at == size as u64
}

#[tokio::test]
async fn xorbs_come_as_they_are_from_the_files_first_byte_to_its_last() {
    let case = case().await;
    let (got, _, told) = case.fetch_telling(0).await.expect("sent");
    assert!(got == case.content);
    // The first one begins in the front, which came without xorbs.
    let whole = told.whole();
    assert!(whole.len() > 2 && is_all(&whole, case.content.len()), "{whole:?}");
    // Of a file that goes on from the middle of a xorb, that one is not whole.
    let (_, _, told) = case.fetch_telling(1_000_000).await.expect("sent");
    assert_eq!(told.whole(), whole[1..]);
    assert!(told.has_ended, "what comes before the next one would wait");
}

#[tokio::test]
async fn a_xorb_goes_on_over_the_end_of_a_part() {
    let case = case().await;
    let Case { upstream, pool, repo, commit, entry, content, .. } = &case;
    let file = entry.xet_hash.expect("it has xorbs");
    let target = Target { repo: repo.clone(), commit: *commit, file, size: entry.size };
    for part_bytes in [100_000, 1_000_000, 5_000_000] {
        let mut download = XetDownload::new(upstream, pool, target.clone(), 0, None);
        download.part_bytes = part_bytes;
        let (mut all, mut told) = (Vec::new(), Told::default());
        while let Some(bytes) = download.chunk().await.expect("sent") {
            told.take(download.take_came(), all.len() as u64);
            all.extend_from_slice(&bytes);
        }
        assert!(all == *content);
        let whole = told.whole();
        assert!(whole.len() > 2 && is_all(&whole, content.len()), "{part_bytes}: {whole:?}");
    }
}

#[tokio::test]
async fn a_xorb_of_which_a_file_uses_a_part_is_not_whole() {
    let mut case = case().await;
    // Without the end of the first xorb and the beginning of the second.
    let content = [&case.content[..3_000_000], &case.content[5_000_000..]].concat();
    case.commit = case.hub.push(MODEL, &[(WEIGHTS, &content)]);
    let path = FilePath::parse(WEIGHTS).expect("a path");
    let listed = case.upstream.paths(&case.repo, case.commit, &[path]).await;
    case.entry = listed.expect("listed").remove(0);
    let (got, is_xet, told) = case.fetch_telling(0).await.expect("sent");
    assert!(got == content && is_xet);
    // What is new between the two is a xorb of its own, and the third one is used as before.
    let whole = told.whole();
    let [seam, last] = &whole[..] else { panic!("{whole:?}") };
    assert!(seam.contains(&3_000_000) && seam.end - seam.start < 300_000, "{whole:?}");
    assert!(last.start > 6_000_000 && last.end == content.len() as u64, "{whole:?}");
}

#[tokio::test]
async fn where_xorbs_fail_it_is_told_that_they_end() {
    let case = case().await;
    case.hub.set_troubles(Troubles { no_ranges: true, ..Troubles::default() });
    let (got, is_xet, told) = case.fetch_telling(0).await.expect("as it is");
    assert!(got == case.content && !is_xet && told.has_ended && !told.is_open);
    assert!(told.whole().is_empty());
}
