//! What must be so, one scene for each.

use std::collections::BTreeMap;
use std::time::Duration;

use ballast_format::ErrorKind;
use ballast_testkit::content::splitmix;

use super::*;
use crate::replicate::home::HomeLog as _;
use crate::replicate::home::LocalHome;

/// Two regions, and the wire from the first to the second.
pub(super) struct Scene {
    pub(super) world: Arc<World>,
    pub(super) us: Region,
    pub(super) eu: Region,
    pub(super) wire: Arc<Wire>,
}

impl Scene {
    async fn begin(world: &Arc<World>) -> Result<Self> {
        let (wire, back) = (Wire::new(world, "eu"), Wire::new(world, "us"));
        let gc = GcSettings { rewrite_below: 0, ..GcSettings::default() };
        let us = Region::begin(world, "us", &back, gc).await?;
        let eu = Region::begin(world, "eu", &wire, gc).await?;
        wire.lead_to(&us.node(0).process, &us.hub());
        back.lead_to(&eu.node(0).process, &eu.hub());
        Ok(Self { world: Arc::clone(world), us, eu, wire })
    }

    pub(super) fn follower(&self) -> Arc<Follower> {
        self.eu.node(0).follower
    }

    pub(super) async fn put(&self, repo: &Repo, place: &str, content: &[u8]) -> Result<()> {
        let file = (place.to_owned(), File::Large(content.to_vec()));
        commit(&self.us.hub(), &self.us.admin, repo.id(), "put", &[file]).await.map(drop)
    }

    pub(super) async fn check_equal(&self, repo: &Repo) -> Result<()> {
        let (here, there) = (self.us.hub(), self.eu.hub());
        assert_eq!(log(&here, repo.id()).await?, log(&there, repo.id()).await?);
        let ours = files(&here, &self.us.admin, repo.id()).await?;
        assert_eq!(ours, files(&there, &self.eu.admin, repo.id()).await?);
        assert!(!ours.is_empty());
        Ok(())
    }
}

pub(super) fn run<T>(scene: impl AsyncFnOnce(Scene) -> Result<T>) -> Result<T> {
    let world = World::new(1);
    world.run(async { scene(Scene::begin(&world).await?).await })
}

#[test]
fn a_region_follows_and_a_new_version_moves_only_its_new_chunks() -> Result<()> {
    run(async |scene| {
        scene.us.replicate("admin/**", "eu").await?;
        let repo = scene.us.repo("admin/model").await?;
        let mut content = splitmix(1, 6_000_000);
        scene.put(&repo, "weights.bin", &content).await?;
        settle(&scene.follower()).await?;
        scene.check_equal(&repo).await?;
        let (first, _) = scene.wire.sent();
        assert_eq!(first, 6_000_000);
        // Five of a hundred bytes change, in one place.
        content[2_000_000..2_300_000].copy_from_slice(&splitmix(2, 300_000));
        scene.put(&repo, "weights.bin", &content).await?;
        settle(&scene.follower()).await?;
        scene.check_equal(&repo).await?;
        let (second, again) = scene.wire.sent();
        assert!(second - first < 550_000, "{} bytes moved", second - first);
        assert_eq!(again, 0);
        let status = scene.follower().status();
        let repo = &status.repos[&repo.id()];
        assert_eq!((repo.known, repo.tail, repo.missing), (repo.tail, repo.tail, 0));
        assert_eq!((repo.fetched, repo.behind_since_ms), (second, None));
        assert!(repo.saved > 5_400_000, "{repo:?}");
        Ok(())
    })
}

#[test]
fn answers_are_read_side_by_side() -> Result<()> {
    run(async |scene| {
        scene.us.replicate("**", "eu").await?;
        let repo = scene.us.repo("admin/model").await?;
        // One xorb: on a long path one answer after another leaves most of it idle.
        scene.put(&repo, "weights.bin", &splitmix(4, 40_000_000)).await?;
        settle(&scene.follower()).await?;
        assert_eq!(scene.wire.most_reading(), 3);
        scene.check_equal(&repo).await
    })
}

#[test]
fn a_cut_in_the_middle_sends_no_chunk_twice_and_nothing_appears_before_it_is_whole() -> Result<()> {
    run(async |scene| {
        scene.us.replicate("**", "eu").await?;
        let repo = scene.us.repo("admin/model").await?;
        settle(&scene.follower()).await?;
        let before = log(&scene.eu.hub(), repo.id()).await?;
        scene.put(&repo, "weights.bin", &splitmix(3, 5_000_000)).await?;
        let mut lag = Vec::new();
        for _ in 0..3 {
            scene.wire.cut_after(1_300_000);
            let pass = scene.follower().pass().await?;
            assert_eq!((pass.moved, pass.failed), (0, 1));
            assert_eq!(log(&scene.eu.hub(), repo.id()).await?, before);
            scene.world.pass(Duration::from_mins(1)).await;
            let now_ms = scene.eu.hub().env().now_ms();
            let status = scene.follower().status().repos[&repo.id()].clone();
            assert!(status.problem.is_some());
            let progress = status.progress(now_ms);
            assert_eq!(progress.lag_entries, 1);
            lag.push((progress.lag_seconds, progress.lag_bytes));
            // It can't be asked, and says so.
            let error = scene.follower().pass().await.expect_err("it is cut");
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            scene.wire.cut(false);
        }
        settle(&scene.follower()).await?;
        scene.check_equal(&repo).await?;
        let (sent, again) = scene.wire.sent();
        assert_eq!((sent, again), (5_000_000, 0));
        let status = scene.follower().status().repos[&repo.id()].clone();
        assert_eq!((status.fetched, status.saved), (5_000_000, 0), "what came was not saved");
        assert!(lag.is_sorted_by(|a, b| a.0 + 60 <= b.0), "{lag:?}");
        assert!(lag.iter().all(|(_, bytes)| (1..=5_000_000).contains(bytes)), "{lag:?}");
        Ok(())
    })
}

#[test]
fn chunks_that_another_repo_has_here_do_not_come() -> Result<()> {
    run(async |scene| {
        scene.us.replicate("**", "eu").await?;
        let content = splitmix(4, 4_000_000);
        // The other region has most of it, packed in its own way.
        let own = scene.eu.repo("admin/own").await?;
        let mut like = content.clone();
        like.extend(splitmix(5, 500_000));
        let file = ("like.bin".to_owned(), File::Large(like));
        commit(&scene.eu.hub(), &scene.eu.admin, own.id(), "own", &[file]).await?;
        let repo = scene.us.repo("admin/model").await?;
        scene.put(&repo, "weights.bin", &content).await?;
        settle(&scene.follower()).await?;
        scene.check_equal(&repo).await?;
        let (sent, _) = scene.wire.sent();
        assert!(sent < 300_000, "{sent} bytes moved");
        Ok(())
    })
}

#[test]
fn only_what_a_replication_names_is_told() -> Result<()> {
    run(async |scene| {
        let mut rules = replication("admin/**", "eu");
        let name = region_name("models");
        let (hub, admin) = (scene.us.hub(), scene.us.admin.clone());
        hub.set_replication(&admin, &name, &rules, true).await?;
        let twice = hub.set_replication(&admin, &name, &replication("x/**", "eu"), true).await;
        assert!(matches!(twice, Err(Error::Exists { .. })));
        let repo = scene.us.repo("admin/model").await?;
        scene.put(&repo, "weights.bin", &splitmix(6, 200_000)).await?;
        settle(&scene.follower()).await?;
        scene.check_equal(&repo).await?;
        // Another region hears nothing, whatever it asks for.
        let other = LocalHome::new(Arc::clone(&hub), region_name("asia"), Arc::default(), None);
        assert!(other.offers(&BTreeMap::default()).await?.repos.is_empty());
        let refused = other.entries(repo.id(), 0).await;
        assert!(matches!(refused, Err(Error::RepoNotFound)));
        // A pack of which nobody was told is none.
        let fresh = LocalHome::new(Arc::clone(&hub), region_name("eu"), Arc::default(), None);
        let pack = ballast_format::hash::PackHash::from_bytes([1; 32]);
        let refused = fresh.pack_end(repo.id(), pack).await;
        assert!(matches!(refused, Err(Error::NotFound { .. })));
        // Residency keeps it from going on.
        rules.residency = vec![region_name("us")];
        rules.to = region_name("us");
        hub.set_replication(&admin, &region_name("stay"), &rules, true).await?;
        assert!(fresh.offers(&BTreeMap::default()).await?.repos.is_empty());
        hub.remove_replication(&admin, &region_name("stay")).await?;
        assert_eq!(fresh.offers(&BTreeMap::default()).await?.repos.len(), 1);
        Ok(())
    })
}

#[test]
fn a_pause_and_a_window_stop_it_and_the_lag_is_told() -> Result<()> {
    run(async |scene| {
        let name = region_name("all");
        let (hub, admin) = (scene.us.hub(), scene.us.admin.clone());
        let minute = u32::try_from(hub.env().now_ms() / 60_000 % 1440).expect("small");
        let open = replication("**", "eu");
        let paused = Replication { is_paused: true, ..open.clone() };
        let window = Some(((minute + 120) % 1440, (minute + 180) % 1440));
        let later = Replication { window, ..open.clone() };
        let repo = scene.us.repo("admin/model").await?;
        scene.put(&repo, "weights.bin", &splitmix(7, 300_000)).await?;
        for rules in [paused, later] {
            hub.set_replication(&admin, &name, &rules, false).await?;
            let pass = scene.follower().pass().await?;
            assert_eq!((pass.moved, pass.failed), (0, 1));
            let status = scene.follower().status().repos[&repo.id()].clone();
            assert_eq!((status.known, status.tail), (0, 2));
            assert!(status.behind_since_ms.is_some());
            assert_eq!((status.missing, scene.wire.sent().0), (300_000, 0));
        }
        scene.world.pass(Duration::from_mins(150)).await;
        settle(&scene.follower()).await?;
        // A limit makes it slower, and no less.
        let limited = Replication { limit: Some(10_000), ..open };
        hub.set_replication(&admin, &name, &limited, false).await?;
        scene.put(&repo, "more.bin", &splitmix(8, 300_000)).await?;
        let began = scene.world.time().now();
        settle(&scene.follower()).await?;
        assert!(scene.world.time().now() - began >= Duration::from_secs(30));
        scene.check_equal(&repo).await
    })
}

#[test]
fn settings_and_deletion_follow_and_a_name_that_is_taken_is_told() -> Result<()> {
    run(async |scene| {
        scene.us.replicate("**", "eu").await?;
        let repo = scene.us.repo("admin/model").await?;
        let taken = scene.us.repo("admin/taken").await?;
        scene.eu.repo("admin/taken").await?;
        let pass = scene.follower().pass().await?;
        assert_eq!((pass.moved, pass.failed), (1, 1));
        let problem = scene.follower().status().repos[&taken.id()].problem.clone();
        assert!(problem.is_some_and(|problem| problem.contains("exists already")));
        let (hub, admin) = (scene.us.hub(), scene.us.admin.clone());
        hub.move_repo(&admin, &repo, &RepoName::parse("admin/renamed")?).await?;
        let settings = ballast_node::repo::Settings {
            visibility: Some(Visibility::Private),
            description: Some("a line".to_owned()),
            ..Default::default()
        };
        hub.change_settings(&admin, &repo, &settings).await?;
        scene.follower().pass().await?;
        let record = scene.eu.hub().record_of(repo.id()).expect("it is known");
        assert_eq!(record.name.to_string(), "admin/renamed");
        assert_eq!(record.visibility, Visibility::Private);
        assert_eq!(record.description.as_deref(), Some("a line"));
        hub.delete_repo(&admin, &repo).await?;
        scene.follower().pass().await?;
        assert!(scene.eu.hub().record_of(repo.id()).is_none());
        Ok(())
    })
}

#[test]
fn a_home_that_comes_back_before_the_loss_of_it_was_noticed_is_taken() -> Result<()> {
    run(async |scene| {
        scene.us.replicate("admin/**", "eu").await?;
        scene.eu.replicate("admin/**", "us").await?;
        let repo = scene.us.repo("admin/model").await?;
        scene.put(&repo, "first.bin", &splitmix(1, 150_000)).await?;
        settle(&scene.follower()).await?;
        // Cut off from each other, one takes the home and gives it back, while the other writes on.
        let (us, eu) = (scene.us.node(0).follower, scene.follower());
        let there = scene.eu.hub();
        let copy = there.repo_by_id(&scene.eu.admin, repo.id(), Access::Read)?;
        there.promote(&scene.eu.admin, &copy).await?;
        let file = ("second.bin".to_owned(), File::Large(splitmix(2, 150_000)));
        commit(&there, &scene.eu.admin, repo.id(), "in eu", &[file]).await?;
        there.move_home(&scene.eu.admin, &copy, &away("us")).await?;
        scene.put(&repo, "third.bin", &splitmix(3, 150_000)).await?;
        assert!(scene.us.hub().is_home_of(repo.id()).await?, "it has heard of nothing");
        let lost = scene.us.hub().repo_state(&repo).await?.main().expect("it has commits");
        // What it wrote is kept apart, and it is the home of what the other one wrote.
        for follower in [&us, &eu, &us, &eu] {
            settle(follower).await?;
        }
        scene.check_equal(&repo).await?;
        assert!(scene.us.hub().is_home_of(repo.id()).await?);
        assert!(!there.is_home_of(repo.id()).await?);
        let found = files(&scene.us.hub(), &scene.us.admin, repo.id()).await?;
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"second.bin") && !names.contains(&"third.bin"), "{names:?}");
        let kept = scene.us.hub().records(|record| record.name.name().contains("-kept-"));
        assert_eq!(kept.len(), 1);
        // Who was reading that is not told that it is damaged.
        let error = files_at(&scene.us.hub(), &repo, lost).await.expect_err("it is gone");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        Ok(())
    })
}
