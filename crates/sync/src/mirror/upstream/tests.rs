use ballast_format::hash::ObjectHash;
use ballast_format::name::{FilePath, Namespace, RepoKind, RepoName};
use ballast_store::env::RealEnv;
use ballast_testkit::clock::SimEnv;
use ballast_testkit::content::splitmix;
use ballast_testkit::hub::{Lie, PublicHub, Redirect, TOKEN, Troubles};

use super::*;

const MODEL: &str = "org/model";
const WEIGHTS: &str = "model.safetensors";

/// An upstream that is asked quickly again, and whose waits are real.
fn settings(hub: &PublicHub) -> Settings {
    Settings {
        private_networks: vec!["127.0.0.2/32".to_owned()],
        headers_timeout: Duration::from_secs(20),
        patience: Patience {
            tries: 4,
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(50),
        },
        ..Settings::of(hub.endpoint())
    }
}

fn upstream(hub: &PublicHub) -> Upstream {
    Upstream::new(&settings(hub), RealEnv::shared()).expect("right settings")
}

fn repo(name: &str) -> Repo {
    Repo { kind: RepoKind::Model, name: RepoName::parse(name).expect("a name") }
}

fn path(text: &str) -> FilePath {
    FilePath::parse(text).expect("a path")
}

/// A hub with one model, its commit, and the content of its large file.
fn hub() -> (PublicHub, ObjectHash, Vec<u8>) {
    let hub = PublicHub::start(7).expect("a free port");
    let weights = splitmix(1, 300_000);
    let commit = hub.push(
        MODEL,
        &[("config.json", b"{}"), (WEIGHTS, &weights), ("sub/folder/note.txt", b"hello")],
    );
    (hub, commit, weights)
}

async fn entries(upstream: &Upstream, commit: ObjectHash) -> Result<Vec<Entry>, Error> {
    let mut pages = upstream.tree(&repo(MODEL), commit);
    let mut all = Vec::new();
    while let Some(page) = pages.next().await? {
        all.extend(page);
    }
    Ok(all)
}

async fn weights_entry(upstream: &Upstream, commit: ObjectHash) -> Entry {
    let found = upstream.paths(&repo(MODEL), commit, &[path(WEIGHTS)]).await.expect("listed");
    found.into_iter().next().expect("it is there")
}

/// The whole of the large file from an offset on, checked against what the tree says.
async fn fetch(upstream: &Upstream, commit: ObjectHash, from: u64) -> Result<Vec<u8>, Error> {
    let entry = weights_entry(upstream, commit).await;
    let mut download =
        upstream.open(&repo(MODEL), commit, &path(WEIGHTS), from, Some(&entry)).await?;
    let mut all = Vec::new();
    while let Some(bytes) = download.chunk().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

fn tell(hub: &PublicHub, lie: Lie) {
    hub.set_troubles(Troubles { lie: Some(lie), ..Troubles::default() });
}

#[tokio::test]
async fn a_revision_is_its_commit_and_what_its_card_says() {
    let (hub, commit, _) = hub();
    hub.tag(MODEL, "v1", commit);
    hub.change(MODEL, |repo| {
        repo.licence = Some("apache-2.0");
        repo.gated = Some("auto");
    });
    let upstream = upstream(&hub);
    for revision in ["main", "v1", &commit.to_string(), "refs/heads/main"] {
        let facts = upstream.revision(&repo(MODEL), revision).await.expect("there");
        assert_eq!((facts.commit, facts.gating), (commit, Gating::Automatic));
        assert_eq!(facts.licence.as_deref(), Some("apache-2.0"));
        assert_eq!(facts.last_modified_ms, Some(1_767_225_600_000));
    }
    let refs = upstream.refs(&repo(MODEL)).await.expect("there");
    let named = |target: &Target| (target.name.to_string(), target.commit);
    assert_eq!(
        refs.branches.iter().map(named).collect::<Vec<_>>(),
        [("refs/heads/main".to_owned(), commit)]
    );
    assert_eq!(
        refs.tags.iter().map(named).collect::<Vec<_>>(),
        [("refs/tags/v1".to_owned(), commit)]
    );
    let said = upstream.commit(&repo(MODEL), commit).await.expect("there");
    assert_eq!((said.title.as_str(), said.date_ms), ("change 0 of main", 1_767_225_600_000));
    assert_eq!(said.authors, [Author { user: "ada".to_owned() }]);
}

#[tokio::test]
async fn a_tree_of_many_pages_is_listed_whole() {
    let (hub, _, weights) = hub();
    let many: Vec<(String, Vec<u8>)> =
        (0..2500).map(|i| (format!("many/{i}.txt"), i.to_string().into_bytes())).collect();
    let many: Vec<(&str, &[u8])> =
        many.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
    let commit = hub.push(MODEL, &many);
    let all = entries(&upstream(&hub), commit).await.expect("listed");
    assert_eq!(all.len(), 2500 + 3 + 3, "files, those from before, and folders");
    let large = all.iter().find(|entry| entry.path == path(WEIGHTS)).expect("listed");
    assert_eq!(large.size, weights.len() as u64);
    assert_eq!(large.large.map(|l| l.sha256), Some(ballast_testkit::xet::sha256(&weights)));
    assert!(hub.asked("/tree/") >= 3, "a page has a thousand");
}

#[tokio::test]
async fn repos_of_a_namespace_are_listed() {
    let (hub, ..) = hub();
    hub.push("org/second", &[("a", b"a")]);
    hub.push("other/third", &[("a", b"a")]);
    let author = Namespace::parse("org").expect("a name");
    let mut pages = upstream(&hub).list(RepoKind::Model, &author);
    let page = pages.next().await.expect("listed").expect("one page");
    assert_eq!(page, [repo(MODEL).name, repo("org/second").name]);
    assert!(pages.next().await.expect("listed").is_none());
}

#[tokio::test]
async fn what_is_missing_is_told_apart_from_what_fails() {
    let (hub, commit, _) = hub();
    let upstream = upstream(&hub);
    let missing = |error: Error| match error {
        Error::NotThere { missing, .. } => missing,
        other => panic!("{other}"),
    };
    // Without a token the hub says 401 of what is not there.
    let error = upstream.revision(&repo("org/none"), "main").await.expect_err("none");
    assert_eq!(missing(error), Missing::Repo);
    let error = upstream.revision(&repo(MODEL), "none").await.expect_err("none");
    assert_eq!(missing(error), Missing::Revision);
    let error = upstream.open(&repo(MODEL), commit, &path("none"), 0, None).await;
    assert_eq!(missing(error.expect_err("none")), Missing::File);
    // The page of a proxy is no word of the hub.
    tell(&hub, Lie::NotFound);
    let error = upstream.revision(&repo("org/none"), "main").await.expect_err("a page");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    hub.set_troubles(Troubles { html: 1000, ..Troubles::default() });
    let error = upstream.revision(&repo(MODEL), "main").await.expect_err("a page");
    assert!(matches!(error, Error::Lied { .. }) && error.may_pass(), "{error}");
    hub.set_troubles(Troubles { unavailable: 1000, ..Troubles::default() });
    let error = upstream.revision(&repo(MODEL), "main").await.expect_err("an outage");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    hub.set_reachable(false);
    let error = upstream.revision(&repo(MODEL), "main").await.expect_err("an outage");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn refusals_say_why() {
    let (hub, commit, _) = hub();
    let why = |error: Error| match error {
        Error::Denied { why, .. } => why,
        other => panic!("{other}"),
    };
    hub.change(MODEL, |repo| repo.gated = Some("manual"));
    let open = async |upstream: &Upstream| {
        upstream.open(&repo(MODEL), commit, &path("config.json"), 0, None).await.map(drop)
    };
    assert_eq!(why(open(&upstream(&hub)).await.expect_err("gated")), Denial::Gated);
    let with = |token: &str| {
        let token = Some(Token::new(token).expect("plain"));
        Upstream::new(&Settings { token, ..settings(&hub) }, RealEnv::shared()).expect("right")
    };
    let known = with(&format!("{TOKEN}\n"));
    assert_eq!(why(open(&known).await.expect_err("not granted")), Denial::Gated);
    assert_eq!(why(open(&with("hf_wrong")).await.expect_err("wrong")), Denial::Token);
    hub.change(MODEL, |repo| repo.granted = true);
    open(&known).await.expect("granted");
    hub.change(MODEL, |repo| repo.disabled = true);
    assert_eq!(why(open(&known).await.expect_err("closed")), Denial::Disabled);
}

#[tokio::test]
async fn a_private_repo_needs_the_token_and_the_token_is_never_shown() {
    let (hub, commit, _) = hub();
    hub.change(MODEL, |repo| repo.private = true);
    let anonymous = upstream(&hub).revision(&repo(MODEL), "main").await;
    assert!(matches!(anonymous, Err(Error::NotThere { missing: Missing::Repo, .. })));
    let token = Some(Token::new(TOKEN).expect("plain"));
    let settings = Settings { token, ..settings(&hub) };
    assert!(!format!("{settings:?}").contains(TOKEN));
    let known = Upstream::new(&settings, RealEnv::shared()).expect("right");
    assert!(!format!("{known:?}").contains(TOKEN));
    assert_eq!(known.revision(&repo(MODEL), "main").await.expect("ours").commit, commit);
}

#[tokio::test]
async fn a_renamed_repo_is_found_under_its_new_name() {
    let (hub, ..) = hub();
    let commit = hub.push("org/renamed", &[("a.txt", b"a")]);
    hub.change(MODEL, |repo| repo.moved_to = RepoName::parse("org/renamed").ok());
    let facts = upstream(&hub).revision(&repo(MODEL), "main").await.expect("led on");
    assert_eq!((facts.commit, facts.name.as_str()), (commit, "org/renamed"));
}

#[tokio::test]
async fn a_file_comes_whole_and_from_any_byte() {
    let (hub, commit, weights) = hub();
    let upstream = upstream(&hub);
    let size = weights.len() as u64;
    for no_ranges in [false, true] {
        hub.set_troubles(Troubles { no_ranges, ..Troubles::default() });
        for from in [0, 1, 65_536, size - 1, size] {
            let got = fetch(&upstream, commit, from).await.expect("sent");
            assert_eq!(got, weights[usize::try_from(from).expect("small")..], "from {from}");
        }
    }
    let opened = upstream.open(&repo(MODEL), commit, &path(WEIGHTS), 0, None).await.expect("sent");
    let sha256 = ballast_testkit::xet::sha256(&weights).to_string();
    assert_eq!((opened.total(), opened.etag()), (Some(size), Some(sha256.as_str())));
    let raw = upstream.raw(&repo(MODEL), commit, &path(WEIGHTS), 1024).await.expect("a pointer");
    assert!(raw.starts_with(b"version https://git-lfs"));
    let past = upstream.open(&repo(MODEL), commit, &path(WEIGHTS), size, None).await;
    assert!(past.expect("at the end").chunk().await.expect("nothing").is_none());
}

#[tokio::test]
async fn bytes_from_another_host_come_without_our_token() {
    let (hub, commit, weights) = hub();
    let token = Some(Token::new(TOKEN).expect("plain"));
    let settings = Settings { token, ..settings(&hub) };
    let upstream = Upstream::new(&settings, RealEnv::shared()).expect("right");
    hub.set_troubles(Troubles { redirect: Redirect::Elsewhere, ..Troubles::default() });
    // The other host refuses whoever shows a token.
    assert_eq!(fetch(&upstream, commit, 5).await.expect("sent"), weights[5..]);
}

#[tokio::test]
async fn an_upstream_cannot_lead_us_into_our_own_network() {
    let (hub, commit, _) = hub();
    let canary = std::net::TcpListener::bind(("127.0.0.3", 0)).expect("a free port");
    canary.set_nonblocking(true).expect("it can");
    let address = canary.local_addr().expect("it has one");
    let upstream = upstream(&hub);
    for to in [
        format!("http://{address}/x"),
        format!("http://[::ffff:127.0.0.3]:{}/x", address.port()),
        "file:///etc/passwd".to_owned(),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "nonsense://".to_owned(),
    ] {
        let redirect = Redirect::To(to.clone());
        hub.set_troubles(Troubles { redirect, ..Troubles::default() });
        let error = fetch(&upstream, commit, 0).await.expect_err("refused");
        assert!(matches!(error, Error::Lied { .. }), "{to}: {error}");
    }
    assert!(canary.accept().is_err(), "nobody came");
    hub.set_troubles(Troubles { redirect: Redirect::Loop, ..Troubles::default() });
    let error = fetch(&upstream, commit, 0).await.expect_err("for ever");
    assert!(error.to_string().contains("more than 5"), "{error}");
}

#[tokio::test]
async fn whatever_goes_wrong_on_the_way_the_bytes_are_those_of_the_file() {
    let (hub, commit, weights) = hub();
    let patience = Patience {
        tries: 40,
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(5),
    };
    let upstream = upstream(&hub).with_patience(patience);
    for redirect in [Redirect::Here, Redirect::Elsewhere] {
        hub.set_troubles(Troubles {
            unavailable: 200,
            reset: 150,
            html: 150,
            truncated: 500,
            longer: 100,
            redirect,
            ..Troubles::default()
        });
        for from in [0, 100_000] {
            let got = fetch(&upstream, commit, from as u64).await.expect("patience");
            assert!(got == weights[from..], "from {from}");
        }
    }
}

#[tokio::test]
async fn a_file_that_contradicts_the_tree_is_refused() {
    let (hub, commit, _) = hub();
    let upstream = upstream(&hub);
    for (lie, from) in [(Lie::Commit, 0), (Lie::Etag, 0), (Lie::Size, 0), (Lie::Range, 9)] {
        tell(&hub, lie);
        let error = fetch(&upstream, commit, from).await.expect_err("a lie");
        assert!(matches!(error, Error::Lied { .. }), "{lie:?}: {error}");
    }
    hub.set_troubles(Troubles { longer: 1000, ..Troubles::default() });
    let error = fetch(&upstream, commit, 0).await.expect_err("too long");
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[tokio::test]
async fn a_tree_that_contradicts_itself_is_refused() {
    let (hub, commit, _) = hub();
    let upstream = upstream(&hub);
    for lie in [Lie::Twice, Lie::TwoSizes, Lie::NextPage, Lie::Endless, Lie::NoHashes, Lie::Huge] {
        tell(&hub, lie);
        let error = entries(&upstream, commit).await.expect_err("a lie");
        assert!(matches!(error, Error::Lied { .. }), "{lie:?}: {error}");
    }
    tell(&hub, Lie::Path);
    let error = entries(&upstream, commit).await.expect_err("a path that leads out");
    assert!(matches!(error, Error::Unfit { .. }), "{error}");
    tell(&hub, Lie::Revision);
    let error = upstream.revision(&repo(MODEL), &commit.to_string()).await.expect_err("a lie");
    assert!(matches!(error, Error::Lied { .. }), "{error}");
}

#[tokio::test]
async fn nothing_is_asked_while_nothing_is_left() {
    let (hub, commit, _) = hub();
    let env = SimEnv::new(3);
    let settings = Settings { headers_timeout: Duration::from_secs(1000), ..settings(&hub) };
    let upstream = Upstream::new(&settings, Arc::<SimEnv>::clone(&env)).expect("right");
    let limit = Some((2, Duration::from_mins(1)));
    hub.set_troubles(Troubles { limit, ..Troubles::default() });
    for left in [1, 0] {
        upstream.revision(&repo(MODEL), "main").await.expect("allowed");
        let (class, budget) = upstream.budget().into_iter().next().expect("it was said");
        assert_eq!((class, budget.remaining, budget.name.as_str()), (Class::Api, left, "api"));
    }
    hub.clear_counts();
    let error = upstream.revision(&repo(MODEL), "main").await.expect_err("nothing is left");
    let Error::RateLimited { retry_after } = error else { panic!("{error}") };
    assert!(retry_after > Duration::from_secs(30) && retry_after <= Duration::from_mins(1));
    assert_eq!(hub.asked("/"), 0, "it was not even asked");
    // Files are counted apart.
    upstream.open(&repo(MODEL), commit, &path("config.json"), 0, None).await.expect("allowed");
    env.advance(Duration::from_secs(61));
    hub.set_troubles(Troubles::default());
    upstream.revision(&repo(MODEL), "main").await.expect("the window is over");
}

#[tokio::test]
async fn whoever_has_patience_waits_as_long_as_it_is_told() {
    let (hub, commit, _) = hub();
    let env = SimEnv::hasty(3);
    // Waiting costs no time here, so that answers must be there at once: no time limit for them.
    let patience = Patience { tries: 100_000, ..Patience::JOB };
    let settings = Settings { patience, ..settings(&hub) };
    let limit = Some((1, Duration::from_millis(1)));
    hub.set_troubles(Troubles { limit, ..Troubles::default() });
    let upstream = Upstream::new(&settings, Waiting::shared(env)).expect("right");
    for _ in 0..20 {
        assert_eq!(upstream.revision(&repo(MODEL), "main").await.expect("waits").commit, commit);
    }
}

/// Waits for what is named patience at once, and for time limits for ever.
#[derive(Debug)]
struct Waiting(Arc<SimEnv>);

impl Waiting {
    fn shared(env: Arc<SimEnv>) -> SharedEnv {
        Arc::new(Self(env))
    }
}

#[async_trait::async_trait]
impl ballast_store::env::Env for Waiting {
    fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn fill_random(&self, into: &mut [u8]) {
        self.0.fill_random(into);
    }

    async fn sleep(&self, duration: Duration) {
        // The limits of the settings above are whole seconds; patience adds a random part.
        if duration >= Duration::from_secs(20) {
            std::future::pending::<()>().await;
        }
        self.0.sleep(duration).await;
    }
}

#[tokio::test]
async fn a_body_that_falls_silent_is_given_up() {
    let (hub, commit, _) = hub();
    hub.set_troubles(Troubles { pause: Some(Duration::from_mins(10)), ..Troubles::default() });
    let patience = Patience { tries: 1, ..settings(&hub).patience };
    let idle_timeout = Duration::from_millis(20);
    let settings = Settings { idle_timeout, patience, ..settings(&hub) };
    let upstream = Upstream::new(&settings, RealEnv::shared()).expect("right");
    let error = fetch(&upstream, commit, 0).await.expect_err("silence");
    assert!(error.to_string().contains("the next byte"), "{error}");
    hub.set_troubles(Troubles { latency: Some(Duration::from_mins(10)), ..Troubles::default() });
    let headers_timeout = Duration::from_millis(20);
    let settings = Settings { headers_timeout, ..settings };
    let upstream = Upstream::new(&settings, RealEnv::shared()).expect("right");
    let error = upstream.revision(&repo(MODEL), "main").await.expect_err("silence");
    assert!(error.to_string().contains("an answer"), "{error}");
}

#[test]
fn what_is_no_address_of_a_hub_is_refused() {
    for wrong in ["", "hub.example", "ftp://hub.example", "https://u:p@hub.example", "https://h/?x"]
    {
        let made = Upstream::new(&Settings::of(wrong), RealEnv::shared());
        assert!(matches!(made, Err(Error::Settings { .. })), "{wrong}");
    }
    let below = Upstream::new(&Settings::of("https://hub.example/hf/"), RealEnv::shared());
    let below = below.expect("a path is fine");
    assert_eq!(below.endpoint(), "https://hub.example/hf");
    let url = below.api(&repo(MODEL), "tree", Some("refs/pr/1"));
    assert_eq!(url.as_str(), "https://hub.example/hf/api/models/org/model/tree/refs%2Fpr%2F1");
    assert!(Token::new("two\nlines").is_err());
}
