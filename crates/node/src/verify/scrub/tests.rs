use ballast_store::keyspace::CopyKind;
use ballast_testkit::content::splitmix;
use object_store::ObjectStoreExt as _;

use super::*;
use crate::access::Repo;
use crate::rig::{Rig, path};

const DAY: Duration = Duration::from_hours(24);
const FORTNIGHT: Duration = Duration::from_hours(14 * 24);

async fn scene() -> (Rig, Repo) {
    let rig = Rig::start().await;
    let repo = rig.repo(&rig.admin, "admin/model").await;
    for (seed, name) in [(1, "a.bin"), (2, "b.bin")] {
        rig.put_large(&rig.admin, &repo, name, &splitmix(seed, 300_000)).await;
    }
    rig.put(&rig.admin, &repo, "docs/c.txt", "some words").await.expect("a commit");
    (rig, repo)
}

async fn scrub(hub: &Hub) -> u64 {
    let before = hub.scrub_counts().objects;
    hub.scrub_due(FORTNIGHT, &Pace::unlimited()).await.expect("it ends");
    hub.scrub_counts().objects - before
}

/// The xorb that only this file is made of.
async fn xorb_of(rig: &Rig, repo: &Repo, name: &str) -> CopyName {
    let item = rig.hub.item(repo, rig.main(repo).await, &path(name)).await.expect("it is there");
    let id = item.large.expect("it is large").manifest().expect("it is here");
    let manifest = rig.hub.needed_manifest(&id).await.expect("it reads");
    let copy = rig.hub.xorb_copy(&manifest.terms[0].xorb).await.expect("it looks");
    copy.expect("it is there")
}

async fn flip(rig: &Rig, key: &Key, at: usize) {
    let stored = rig.objects.get(&key.path()).await.expect("it is there");
    let mut bytes = stored.bytes().await.expect("it reads").to_vec();
    bytes[at] ^= 2;
    rig.objects.put(&key.path(), bytes.into()).await.expect("it writes");
}

async fn affected(hub: &Arc<Hub>) -> Vec<String> {
    let (reports, mut heard) = mpsc::channel(4);
    let listen = async {
        let mut named = Vec::new();
        while let Some(report) = heard.recv().await {
            if let Report::Finding(finding) = report {
                named.extend(finding.path);
            }
        }
        named
    };
    let (named, files) = tokio::join!(hub.name_damage(reports), listen);
    named.expect("it ends");
    files
}

#[tokio::test]
async fn everything_is_read_once_in_each_interval_by_whichever_process() -> Result<()> {
    let (rig, _) = scene().await;
    let status = rig.hub.scrub_status().await?;
    assert_eq!((status.objects, status.oldest_ms), (0, None));
    let all = scrub(&rig.hub).await;
    // Two xorbs, two shards, the packs of four commits, and the logs.
    assert!(all >= 12, "{all}");
    assert_eq!(scrub(&rig.hub).await, 0, "nothing is due");
    let another = rig.another().await;
    assert_eq!(scrub(&another).await, 0, "another process, or this one after a restart, knows");
    rig.env.advance(15 * DAY);
    assert_eq!(scrub(&another).await, all);
    assert_eq!(scrub(&rig.hub).await, 0);
    let status = rig.hub.scrub_status().await?;
    assert_eq!((status.objects, status.damaged.len()), (all, 0));
    let notes = rig.hub.store().list(&Prefix::Scrubbed);
    let notes = notes.try_collect::<Vec<_>>().await?;
    assert!(notes.len() as u64 <= all, "old notes go away: {}", notes.len());
    Ok(())
}

#[tokio::test]
async fn what_two_processes_begin_at_once_is_shared() -> Result<()> {
    let (rig, _) = scene().await;
    let another = rig.another().await;
    let all = {
        let third = rig.another().await;
        let notes = HashMap::new();
        third.due_shares(&notes, FORTNIGHT).len()
    };
    assert_eq!(all, ScrubShare::all().count());
    let pace = Pace::unlimited();
    let (one, two) =
        tokio::join!(rig.hub.scrub_due(FORTNIGHT, &pace), another.scrub_due(FORTNIGHT, &pace));
    one?;
    two?;
    let both = rig.hub.scrub_counts().objects + another.scrub_counts().objects;
    let status = rig.hub.scrub_status().await?;
    assert!(both < 2 * status.objects, "{both} read, and there are {}", status.objects);
    Ok(())
}

#[tokio::test]
async fn damage_is_set_aside_and_named_with_its_files() -> Result<()> {
    let (rig, repo) = scene().await;
    let xorb = xorb_of(&rig, &repo, "a.bin").await;
    flip(&rig, &Key::Copy(xorb), 1000).await;
    scrub(&rig.hub).await;
    let damaged = rig.hub.scrub_status().await?.damaged;
    let [found] = &damaged[..] else { panic!("{damaged:?}") };
    assert_eq!((&found.object, found.is_healed), (&Key::Copy(xorb).to_string(), false));
    assert_eq!(affected(&rig.hub).await, ["a.bin"]);
    assert_eq!(affected(&rig.another().await).await, ["a.bin"], "a restart remembers");
    // Sent again, it is there beside the damaged copy.
    rig.upload(&rig.admin, &repo, &splitmix(1, 300_000)).await;
    assert!(rig.read(&repo, "a.bin").await? == splitmix(1, 300_000));
    let damaged = rig.hub.scrub_status().await?.damaged;
    assert!(damaged[0].is_healed, "{damaged:?}");
    assert!(affected(&rig.hub).await.is_empty());
    Ok(())
}

#[tokio::test]
async fn small_files_logs_and_lost_objects_are_found_too() -> Result<()> {
    let (rig, repo) = scene().await;
    let main = rig.main(&repo).await;
    let item = rig.hub.item(&repo, main, &path("docs/c.txt")).await?;
    let row = rig.hub.object_row(repo.id(), &item.id).await?.expect("a row");
    flip(&rig, &Key::Copy(row.pack), usize::try_from(row.offset).expect("small")).await;
    let lost = xorb_of(&rig, &repo, "b.bin").await;
    rig.objects.delete(&Key::Copy(lost).path()).await.expect("it was there");
    let entry = Key::LogEntry(LogId::Catalogue, 1);
    flip(&rig, &entry, 75).await;
    scrub(&rig.hub).await;
    let damaged = rig.hub.scrub_status().await?.damaged;
    let named: HashSet<String> = damaged.into_iter().map(|damaged| damaged.object).collect();
    let expected = [Key::Copy(row.pack), Key::Copy(lost), entry];
    assert_eq!(named, expected.iter().map(ToString::to_string).collect());
    let mut files = affected(&rig.hub).await;
    files.sort_unstable();
    assert_eq!(files, ["b.bin", "docs/c.txt"]);
    Ok(())
}

#[tokio::test]
async fn the_pace_is_kept() {
    let env = ballast_testkit::clock::SimEnv::hasty(1);
    let pace = Pace::of(1_000_000);
    let before = ballast_store::env::Env::monotonic(env.as_ref());
    for _ in 0..10 {
        pace.wait(env.as_ref(), 500_000).await;
    }
    let took = ballast_store::env::Env::monotonic(env.as_ref()) - before;
    assert!((4..=6).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test]
async fn copies_of_all_kinds_are_in_one_share_each() {
    let (rig, _) = scene().await;
    for kind in CopyKind::ALL {
        let listed = rig.hub.store().list(&Prefix::Copies(kind));
        for listed in listed.try_collect::<Vec<_>>().await.expect("it lists") {
            let Key::Copy(copy) = listed.key else { panic!("it is no copy") };
            let shares = ScrubShare::all().filter(|share| share.holds(&copy));
            let Some(ScrubShare::Copies(_, at)) = { shares }.next() else { panic!("in none") };
            let in_share = rig.hub.store().list(&Prefix::CopiesShare(kind, at));
            let in_share = in_share.try_collect::<Vec<_>>().await.expect("it lists");
            assert!(in_share.iter().any(|found| found.key == listed.key));
        }
    }
}
