//! What has not arrived is read through.

use ballast_format::ErrorKind;
use ballast_node::account::NewUser;
use ballast_node::gc::Collection;
use ballast_testkit::content::splitmix;
use tokio_util::sync::CancellationToken;

use super::scenes::{Scene, run};
use super::*;

const WEIGHTS: &str = "weights.bin";

/// A private repo of which the first commit has arrived, and of whose second, with a large file,
/// nothing goes.
async fn half_arrived(scene: &Scene) -> Result<(Repo, ObjectHash, Vec<u8>)> {
    scene.us.replicate("admin/**", "eu").await?;
    let repo = scene.us.repo("admin/model").await?;
    let settings = ballast_node::repo::Settings {
        visibility: Some(Visibility::Private),
        ..Default::default()
    };
    scene.us.hub().change_settings(&scene.us.admin, &repo, &settings).await?;
    settle(&scene.follower()).await?;
    rest(scene, true).await?;
    let content = splitmix(11, 3_000_000);
    let files = [
        (WEIGHTS.to_owned(), File::Large(content.clone())),
        ("README.md".to_owned(), File::Small(b"read me".to_vec())),
    ];
    let commit = commit(&scene.us.hub(), &scene.us.admin, repo.id(), "put", &files).await?.commit;
    let pass = scene.follower().pass().await?;
    assert_eq!((pass.moved, pass.failed), (0, 1));
    let copy = scene.eu.hub().repo_by_id(&scene.eu.admin, repo.id(), Access::Read)?;
    Ok((copy, commit, content))
}

/// Lets the replication rest, or go on.
async fn rest(scene: &Scene, is_paused: bool) -> Result<()> {
    let rules = Replication { is_paused, ..replication("admin/**", "eu") };
    let (hub, admin) = (scene.us.hub(), &scene.us.admin);
    hub.set_replication(admin, &region_name("all"), &rules, false).await
}

async fn item(hub: &Hub, repo: &Repo, commit: ObjectHash, place: &str) -> Result<Arc<TreeItem>> {
    hub.item(repo, commit, &path(place)).await
}

#[test]
fn a_commit_that_has_not_arrived_is_read_through_and_its_chunks_stay() -> Result<()> {
    run(async |scene| {
        let (copy, commit, content) = half_arrived(&scene).await?;
        let hub = scene.eu.hub();
        let (before, main) = (log(&hub, copy.id()).await?, hub.resolve(&copy, "main").await?);
        assert_ne!(main.commit, commit);
        let found = hub.resolve(&copy, &commit.to_string()).await?;
        assert_eq!((found.commit, found.reference), (commit, None));
        let weights = item(&hub, &copy, commit, WEIGHTS).await?;
        assert!(!weights.is_here() && scene.wire.sent().0 == 0);
        // The home begins anew, and remembers nothing of what it told.
        scene.wire.lead_to(&scene.us.node(0).process, &scene.us.hub());
        let part = bytes(&hub, &copy, &weights, 1_000_000..1_000_100).await?;
        assert!(part == content[1_000_000..1_000_100]);
        let all = files_at(&hub, &copy, commit).await?;
        assert!(all.contains(&(WEIGHTS.to_owned(), content.clone())));
        assert!(all.contains(&("README.md".to_owned(), b"read me".to_vec())));
        // What is shown under names is what has arrived, and no log grew.
        assert_eq!(hub.resolve(&copy, "main").await?, main);
        assert_eq!(log(&hub, copy.id()).await?, before);
        let nothing = "0".repeat(40);
        let missing = hub.resolve(&copy, &nothing).await.expect_err("there is none");
        assert!(matches!(missing, Error::RevisionNotFound { .. }), "{missing}");
        assert!(hub.resolve(&copy, "v1").await.is_err());
        // Cut off, it has what came; whether there is more, nobody knows.
        scene.wire.cut(true);
        scene.world.pass(Duration::from_mins(1)).await;
        assert_eq!(files_at(&hub, &copy, commit).await?, all);
        let unknown = hub.resolve(&copy, &nothing).await.expect_err("it can't be asked");
        assert_eq!(unknown.kind(), ErrorKind::Unavailable, "{unknown}");
        scene.wire.cut(false);
        rest(&scene, false).await?;
        settle(&scene.follower()).await?;
        assert_eq!(hub.resolve(&copy, "main").await?.commit, commit);
        assert_eq!(scene.wire.sent(), (3_000_000, 0));
        let status = scene.follower().status().repos[&copy.id()].clone();
        assert_eq!((status.missing, status.fetched, status.saved), (0, 3_000_000, 0));
        scene.check_equal(&copy).await
    })
}

#[test]
fn what_came_for_a_reader_may_be_collected_and_comes_again() -> Result<()> {
    run(async |scene| {
        let (copy, commit, content) = half_arrived(&scene).await?;
        let hub = scene.eu.hub();
        hub.resolve(&copy, &commit.to_string()).await?;
        let all = files_at(&hub, &copy, commit).await?;
        for _ in 0..6 {
            scene.world.pass(Duration::from_hours(24 * 8)).await;
            while !matches!(hub.collect().await?, Collection::Nothing | Collection::Done { .. }) {
                scene.world.pass(Duration::from_hours(100)).await;
            }
        }
        hub.resolve(&copy, &commit.to_string()).await?;
        assert_eq!(files_at(&hub, &copy, commit).await?, all);
        assert_eq!(scene.wire.sent().0, 2 * content.len() as u64, "none of it was kept");
        rest(&scene, false).await?;
        settle(&scene.follower()).await?;
        scene.check_equal(&copy).await
    })
}

#[test]
fn a_new_repo_is_there_at_once_for_those_who_may_see_it() -> Result<()> {
    run(async |scene| {
        let (copy, commit, content) = half_arrived(&scene).await?;
        let new = NewRepo {
            kind: RepoKind::Model,
            name: RepoName::parse("admin/new")?,
            visibility: Some(Visibility::Private),
            sdk: None,
        };
        let (us, eu) = (scene.us.hub(), scene.eu.hub());
        let made = us.create_repo(&scene.us.admin, &new).await?;
        scene.put(&made, WEIGHTS, &content).await?;
        scene.world.pass(Duration::from_mins(1)).await;
        let user = NewUser { name: "bob", fullname: "", email: None, admin: false };
        eu.create_user(&scene.eu.admin, &user).await?;
        let token = ballast_node::account::NewToken {
            name: "t",
            role: ballast_format::log::TokenRole::Write,
            expires_ms: None,
        };
        let (_, secret) = eu.create_token(&scene.eu.admin, "bob", &token).await?;
        for stranger in [Caller::Anonymous, eu.authenticate(&secret)?] {
            for name in ["admin/new", "admin/none", "admin/model"] {
                let found = eu.repo_or_bring(&stranger, RepoKind::Model, &name.parse()?).await;
                assert!(matches!(found, Err(Error::RepoNotFound)), "{name}: {found:?}");
            }
        }
        let found = eu.repo_or_bring(&scene.eu.admin, RepoKind::Model, &new.name).await?;
        assert_eq!((found.id(), found.record.visibility), (made.id(), Visibility::Private));
        // Nothing of it has arrived, so its names mean what they mean at home.
        assert!(log(&eu, made.id()).await?.is_empty());
        let main = eu.resolve(&found, "main").await?.commit;
        assert_eq!(Some(main), us.repo_state(&made).await?.main());
        assert_eq!(eu.main_of(&found).await?, Some(main));
        assert!(files_at(&eu, &found, main).await?.contains(&(WEIGHTS.to_owned(), content)));
        // What does not go to this region is not there, whoever asks.
        us.remove_replication(&scene.us.admin, &region_name("all")).await?;
        scene.put(&made, "more.bin", &splitmix(12, 200_000)).await?;
        let later = us.repo_state(&made).await?.main().expect("a commit");
        scene.world.pass(Duration::from_mins(1)).await;
        let refused = eu.resolve(&found, &later.to_string()).await.expect_err("it does not go");
        assert!(matches!(refused, Error::RevisionNotFound { .. }), "{refused}");
        assert!(eu.resolve(&copy, &commit.to_string()).await.is_err());
        Ok(())
    })
}

#[test]
fn what_is_ahead_counts_for_nothing_when_this_region_takes_over() -> Result<()> {
    run(async |scene| {
        let (copy, commit, content) = half_arrived(&scene).await?;
        let (hub, admin) = (scene.eu.hub(), scene.eu.admin.clone());
        hub.resolve(&copy, &commit.to_string()).await?;
        files_at(&hub, &copy, commit).await?;
        hub.promote(&admin, &copy).await?;
        let lost = hub.resolve(&copy, &commit.to_string()).await.expect_err("it never arrived");
        assert!(matches!(lost, Error::RevisionNotFound { .. }), "{lost}");
        // The same content again: nothing of it was here before.
        let files = [
            (WEIGHTS.to_owned(), File::Large(content.clone())),
            ("README.md".to_owned(), File::Small(b"read me".to_vec())),
        ];
        super::commit(&hub, &admin, copy.id(), "again", &files).await?;
        for _ in 0..4 {
            scene.world.pass(Duration::from_hours(24 * 8)).await;
            hub.collect().await?;
        }
        let process = scene.eu.node(0).process;
        let another = open(&process, "eu", GcSettings::default()).await?;
        let all = super::files(&another, &admin, copy.id()).await?;
        assert!(all.contains(&(WEIGHTS.to_owned(), content)));
        assert!(all.contains(&("README.md".to_owned(), b"read me".to_vec())));
        Ok(())
    })
}

#[test]
fn what_is_new_is_seen_while_much_is_on_its_way() -> Result<()> {
    run(async |scene| {
        let slow = Replication { limit: Some(10_000), ..replication("**", "eu") };
        let (us, admin) = (scene.us.hub(), scene.us.admin.clone());
        us.set_replication(&admin, &region_name("all"), &slow, true).await?;
        let large = scene.us.repo("admin/large").await?;
        scene.put(&large, WEIGHTS, &splitmix(13, 3_000_000)).await?;
        let (follower, stop, name) =
            (scene.follower(), CancellationToken::new(), region_name("us"));
        let watched = async {
            let eu = scene.eu.hub();
            let wait = Duration::from_mins(2);
            scene.world.pass(wait).await;
            let before = follower.status().repos[&large.id()].clone();
            assert_eq!((before.known, before.tail, before.missing), (1, 2, 3_000_000));
            let small = scene.us.repo("admin/small").await?;
            scene.put(&large, "more.bin", &splitmix(14, 1000)).await?;
            scene.world.pass(wait).await;
            assert_eq!(log(&eu, small.id()).await?, log(&us, small.id()).await?);
            let after = follower.status().repos[&large.id()].clone();
            assert_eq!((after.known, after.tail), (before.known, before.tail + 1));
            assert_eq!(after.behind_since_ms, before.behind_since_ms);
            scene.world.pass(Duration::from_mins(10)).await;
            scene.check_equal(&large).await?;
            stop.cancel();
            Ok(())
        };
        let ((), watched) = tokio::join!(follower.run(&name, &stop), watched);
        watched
    })
}
