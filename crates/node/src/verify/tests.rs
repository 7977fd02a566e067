use std::collections::BTreeSet;
use std::time::Duration;

use ballast_store::index::Table;
use ballast_store::keyspace::{CopyKind, Key};
use ballast_testkit::content::{bf16_weights, splitmix};
use object_store::ObjectStoreExt as _;
use object_store::path::Path;

use super::*;
use crate::rig::{Rig, path, sha256};

/// A repo with a history, small and large files, and another that shares a large one.
struct Scene {
    rig: Rig,
    repo: Repo,
    other: Repo,
}

impl Scene {
    async fn new() -> Self {
        let rig = Rig::start().await;
        let anna = rig.user("anna").await;
        let repo = rig.repo(&anna, "anna/model").await;
        // At the same moment both would begin with the same commit.
        rig.env.advance(Duration::from_secs(1));
        let other = rig.repo(&anna, "anna/other").await;
        rig.put(&anna, &repo, "docs/a.txt", "the first words").await.expect("a commit");
        let weights = bf16_weights(1, 300_000);
        rig.put_large(&anna, &repo, "weights/model.bin", &weights).await;
        rig.put_large(&anna, &repo, "weights/own.bin", &splitmix(2, 150_000)).await;
        rig.put(&anna, &repo, "docs/a.txt", "other words").await.expect("a commit");
        rig.put(&anna, &repo, "docs/deep/b.txt", "b").await.expect("a commit");
        let mut draft = rig.draft(&anna, &other).await;
        draft.add_large(path("copy.bin"), sha256(&weights), None).await.expect("she sent it");
        draft.finish().await.expect("a commit");
        Self { rig, repo, other }
    }

    async fn verify(&self, scope: Option<&Repo>) -> (Vec<Finding>, Summary) {
        verify(&self.rig.hub, scope).await
    }

    async fn bytes(&self, location: &Path) -> Vec<u8> {
        let object = self.rig.objects.get(location).await.expect("it is there");
        object.bytes().await.expect("it is read").to_vec()
    }

    async fn put(&self, location: &Path, bytes: Vec<u8>) {
        self.rig.objects.put(location, bytes.into()).await.expect("it is written");
    }

    /// What a check finds while this object is otherwise.
    async fn with(&self, location: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Vec<Finding> {
        let sound = self.bytes(location).await;
        let mut changed = sound.clone();
        change(&mut changed);
        self.put(location, changed).await;
        let (findings, summary) = self.verify(None).await;
        assert_eq!(summary.damaged == 0, findings.is_empty(), "{location}");
        self.put(location, sound).await;
        findings
    }

    /// Where the object of this path in `main` lies, and at which byte.
    async fn place(&self, repo: &Repo, name: &str) -> (Path, usize) {
        let main = self.rig.main(repo).await;
        let item = self.rig.hub.item(repo, main, &path(name)).await.expect("it is there");
        let row = self.rig.hub.object_row(repo.id(), &item.id).await.expect("the index answers");
        let row = row.expect("it is there");
        (Key::Copy(row.pack).path(), usize::try_from(row.offset).expect("small"))
    }
}

async fn verify(hub: &Arc<Hub>, scope: Option<&Repo>) -> (Vec<Finding>, Summary) {
    let (reports, mut heard) = mpsc::channel(4);
    let listen = async {
        let mut findings = Vec::new();
        while let Some(report) = heard.recv().await {
            if let Report::Finding(finding) = report {
                findings.push(finding);
            }
        }
        findings
    };
    let (checked, findings) = tokio::join!(hub.verify(scope, reports), listen);
    (findings, checked.expect("damage does not stop it"))
}

/// The files that findings name, by repo.
fn files(findings: &[Finding]) -> BTreeSet<String> {
    let name = |finding: &Finding| Some(format!("{}:{}", finding.repo, finding.path.as_ref()?));
    findings.iter().filter_map(name).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_sound_hub_has_no_findings_and_is_not_changed() {
    let scene = Scene::new().await;
    let before = scene.rig.stored().await;
    let (findings, all) = scene.verify(None).await;
    assert_eq!(findings, []);
    assert_eq!((all.repos, all.damaged, all.files_affected), (2, 0, 0));
    assert!(all.objects > 30 && all.bytes > 400_000, "{all:?}");
    let (findings, one) = scene.verify(Some(&scene.other)).await;
    assert_eq!((findings.len(), one.repos), (0, 1));
    assert!(one.objects < all.objects && one.bytes > 200_000, "{one:?}");
    assert_eq!(scene.rig.stored().await, before);
    // Nobody had to have read it before.
    assert_eq!(verify(&scene.rig.another().await, None).await, (Vec::new(), all));
}

#[tokio::test]
async fn a_flipped_bit_is_found_wherever_it_is() {
    let scene = Scene::new().await;
    let mut kinds = BTreeSet::new();
    for meta in scene.rig.stored().await {
        let Some(key) = Key::parse(&meta.location) else {
            continue;
        };
        if !matches!(key, Key::Copy(_) | Key::LogEntry(..)) {
            continue;
        }
        kinds.insert(meta.location.as_ref().split('/').nth(1).map(ToOwned::to_owned));
        let length = usize::try_from(meta.size).expect("small");
        // Every byte near both ends, and some between.
        let step = (length / 40).max(1);
        let places = (0..length).filter(|at| at % step == 0 || *at < 12 || length - at < 24);
        for at in places {
            let is_xorb = matches!(key, Key::Copy(copy) if copy.kind == CopyKind::Xorb);
            if is_xorb && (17..=20).contains(&(length - at)) {
                // The nonce of a footer means nothing.
                continue;
            }
            let findings = scene.with(&meta.location, |bytes| bytes[at] ^= 1 << (at % 8)).await;
            let named = findings.iter().any(|finding| finding.object.contains(&key.to_string()));
            assert!(named, "byte {at} of {length} of `{key}`: {findings:?}");
        }
    }
    assert_eq!(kinds.len(), 4, "logs, packs, shards and xorbs: {kinds:?}");
    assert_eq!(scene.verify(None).await.0, []);
}

#[tokio::test]
async fn an_object_that_is_gone_or_cut_is_named() {
    let scene = Scene::new().await;
    for meta in scene.rig.stored().await {
        let Some(key @ (Key::Copy(_) | Key::LogEntry(..))) = Key::parse(&meta.location) else {
            continue;
        };
        let half = usize::try_from(meta.size / 2).expect("small");
        for length in [0, half] {
            let findings = scene.with(&meta.location, |bytes| bytes.truncate(length)).await;
            assert!(!findings.is_empty(), "`{key}` was cut at {length}");
        }
        let sound = scene.bytes(&meta.location).await;
        scene.rig.objects.delete(&meta.location).await.expect("it is deleted");
        let (findings, _) = scene.verify(None).await;
        let hash = match key {
            Key::Copy(copy) => ballast_format::hash::PackHash::from_bytes(copy.hash).to_string(),
            _ => key.to_string(),
        };
        let names = |finding: &Finding| {
            finding.object.contains(&hash) || finding.object.contains(&key.to_string())
        };
        assert!(findings.iter().any(names), "`{key}` is gone: {findings:?}");
        scene.put(&meta.location, sound).await;
    }
    assert_eq!(scene.verify(None).await.0, []);
}

#[tokio::test]
async fn damage_names_the_files_that_depend_on_it() {
    let scene = Scene::new().await;
    let main = scene.rig.main(&scene.repo).await.to_string();
    let flip = |at: usize| move |bytes: &mut Vec<u8>| bytes[at] ^= 1;

    let (location, at) = scene.place(&scene.repo, "docs/a.txt").await;
    let findings = scene.with(&location, flip(at)).await;
    assert_eq!(files(&findings), set(&["anna/model:docs/a.txt"]));
    assert_eq!(findings[0].revision.as_ref(), Some(&main), "the newest commit names it");
    assert!(findings[0].problem.contains("blob"));

    let (location, at) = scene.place(&scene.repo, "docs").await;
    let findings = scene.with(&location, flip(at)).await;
    assert_eq!(files(&findings), set(&["anna/model:docs/*"]));

    let (location, at) = scene.place(&scene.other, "copy.bin").await;
    let findings = scene.with(&location, flip(at)).await;
    assert_eq!(files(&findings), set(&["anna/other:copy.bin"]), "a pointer is the repo's own");

    for (copies, expected) in [
        (xorbs_of(&scene, "weights/own.bin").await, &["anna/model:weights/own.bin"][..]),
        (
            xorbs_of(&scene, "weights/model.bin").await,
            &["anna/model:weights/model.bin", "anna/other:copy.bin"],
        ),
    ] {
        for location in copies {
            let findings = scene.with(&location, flip(5000)).await;
            assert_eq!(files(&findings), set(expected), "{findings:?}");
        }
    }
}

async fn xorbs_of(scene: &Scene, name: &str) -> BTreeSet<Path> {
    let main = scene.rig.main(&scene.repo).await;
    let item = scene.rig.hub.item(&scene.repo, main, &path(name)).await.expect("it is there");
    let id = item.large.expect("it is large").manifest().expect("it is here");
    let manifest = scene.rig.hub.needed_manifest(&id).await.expect("it is sound");
    let mut copies = BTreeSet::new();
    for term in &manifest.terms {
        let (copy, _) = scene.rig.hub.needed_xorb(&term.xorb).await.expect("it is there");
        copies.insert(Key::Copy(copy).path());
    }
    copies
}

#[tokio::test]
async fn a_file_of_an_old_commit_is_named_by_it() {
    let scene = Scene::new().await;
    let (repo, hub) = (&scene.repo, &scene.rig.hub);
    let history = hub.history(repo, scene.rig.main(repo).await, 0, 10).await.expect("it is sound");
    let old = history.0[3].id;
    let item = hub.item(repo, old, &path("docs/a.txt")).await.expect("it is there");
    let row = hub.object_row(repo.id(), &item.id).await.expect("the index").expect("a row");
    let location = Key::Copy(row.pack).path();
    let at = usize::try_from(row.offset).expect("small");
    let findings = scene.with(&location, |bytes| bytes[at] ^= 1).await;
    let named: Vec<_> = findings.iter().map(|finding| finding.path.as_deref()).collect();
    assert_eq!(named, [Some("docs/a.txt")]);
    // Two commits after the one that brought it have it, too; the newest of them names it.
    assert_eq!(findings[0].revision, Some(history.0[2].id.to_string()));
}

#[tokio::test]
async fn damage_in_several_places_is_found_in_one_go() {
    let scene = Scene::new().await;
    let (blob, at) = scene.place(&scene.repo, "docs/deep/b.txt").await;
    let mut bytes = scene.bytes(&blob).await;
    bytes[at] ^= 1;
    scene.put(&blob, bytes).await;
    let xorb = xorbs_of(&scene, "weights/own.bin").await.into_iter().next().expect("one");
    scene.rig.objects.delete(&xorb).await.expect("it is deleted");
    let (findings, summary) = scene.verify(None).await;
    let expected = ["anna/model:docs/deep/b.txt", "anna/model:weights/own.bin"];
    assert_eq!(files(&findings), set(&expected));
    assert_eq!((summary.damaged, summary.files_affected, summary.repos), (2, 2, 2));
    let (findings, _) = scene.verify(Some(&scene.other)).await;
    assert_eq!(findings, [], "the other repo has nothing to do with it");
}

#[tokio::test]
async fn a_damaged_copy_beside_a_sound_one_affects_no_file() {
    let scene = Scene::new().await;
    let (location, at) = scene.place(&scene.repo, "docs/a.txt").await;
    let Some(Key::Copy(copy)) = Key::parse(&location) else { panic!("it is a copy") };
    let another = Key::Copy(scene.rig.hub.store().new_copy(copy.kind, copy.hash, copy.epoch));
    let mut bytes = scene.bytes(&location).await;
    bytes[at] ^= 1;
    scene.put(&another.path(), bytes).await;
    let (findings, summary) = scene.verify(None).await;
    assert_eq!((findings.len(), summary.damaged, summary.files_affected), (1, 1, 0));
    assert_eq!((&findings[0].object, &findings[0].path), (&another.to_string(), &None));
}

#[tokio::test]
async fn an_entry_that_was_replaced_is_found_even_at_the_end() {
    let scene = Scene::new().await;
    let state = scene.rig.hub.repo_state(&scene.repo).await.expect("it is sound");
    let log = LogId::Repo(scene.repo.id());
    for number in [1, 3, state.entries] {
        let key = Key::LogEntry(log, number);
        // The time means nothing, and no checksum covers it.
        let findings = scene.with(&key.path(), |bytes| bytes[75] ^= 1).await;
        let named: Vec<_> = findings.iter().map(|finding| finding.object.clone()).collect();
        assert_eq!(named, [key.to_string()], "{findings:?}");
    }
}

#[tokio::test]
async fn a_check_that_nobody_listens_to_ends() {
    let scene = Scene::new().await;
    let (location, at) = scene.place(&scene.repo, "docs/a.txt").await;
    let mut bytes = scene.bytes(&location).await;
    bytes[at] ^= 1;
    scene.put(&location, bytes).await;
    let (reports, heard) = mpsc::channel(1);
    drop(heard);
    assert!(matches!(scene.rig.hub.verify(None, reports).await, Err(Error::Busy { .. })));
}

#[tokio::test]
async fn what_the_index_forgot_is_looked_up_in_the_store() {
    let scene = Scene::new().await;
    let main = scene.rig.main(&scene.repo).await;
    let item = scene.rig.hub.item(&scene.repo, main, &path("weights/own.bin")).await;
    let id = item.expect("it is there").large.expect("it is large").manifest().expect("it is here");
    let mut batch = ballast_store::index::Batch::new();
    batch.delete(Table::Manifest, ballast_store::index::schema::manifest_key(&id));
    scene.rig.hub.index().apply(batch).await.expect("the index takes it");
    let (findings, _) = scene.verify(None).await;
    assert_eq!(files(&findings), set(&[]));
}
