//! What an import asks of the store.

use ballast_format::name::{RepoKind, RepoName};
use ballast_testkit::fault::FaultStore;

use super::*;
use crate::bundle::{NewBundle, SigningKey, Wish, create};
use crate::swarm::rig::{REPO, Rig, empty_hub, memory};

/// Three records of some 16 MiB: of what comes, nothing is read back but the lists of chunks.
#[tokio::test]
async fn files_are_hashed_from_what_comes_and_not_from_the_store() {
    let (outside, place) = (Rig::start(40 << 20).await, tempfile::tempdir().expect("a folder"));
    let key = SigningKey::new(&**outside.hub.env());
    let name = RepoName::parse(REPO).expect("a name");
    let wishes = [Wish { kind: RepoKind::Model, name, revision: None, is_partial: false }];
    let new = NewBundle { wishes: &wishes, since: None, split: 16 << 20, key: &key };
    let made = create(&outside.hub, place.path(), &new, &|_, _| ()).await.expect("a bundle");
    assert_eq!(made.statement.volumes.len(), 3);

    let objects = FaultStore::new(memory(), 1);
    let (inside, token) = empty_hub(Arc::<FaultStore>::clone(&objects)).await;
    let admin = inside.authenticate(&token).expect("the first token is good");
    let before = objects.counts().gets;
    let done = import(&inside, &admin, place.path(), &[key.public()], &|_| ()).await;
    let done = done.expect("an import");
    assert!(matches!(done.repos[0].outcome, Outcome::Here { .. }), "{done:?}");
    let gets = objects.counts().gets - before;
    // Of what is read back, each MiB is a read: there would be 75.
    assert!(gets < 40, "{gets} reads");
}
