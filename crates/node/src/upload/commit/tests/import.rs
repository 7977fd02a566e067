//! Revisions of an upstream: under its ids, with large files that are not here yet.

use std::collections::BTreeSet;

use ballast_format::hash::ObjectHash;
use ballast_format::object::{ObjectKind, hash_object};
use ballast_format::range::RangeRequest;
use bytes::Bytes;
use futures_util::stream;

use super::*;
use crate::download::Content;
use crate::hub::Hub;
use crate::origin::Wanted;
use crate::upload::Growing;
use crate::upload::kept::body as coming;
use crate::verify::Summary;

const CLAIMED: &str = "0123456789abcdef0123456789abcdef01234567";

fn facts(id: &str) -> UpstreamFacts {
    UpstreamFacts {
        id: id.parse().expect("an id"),
        authors: vec!["ada".to_owned()],
        time_seconds: 1_700_000_000,
        title: "Upload".to_owned(),
        message: "all of it".to_owned(),
    }
}

fn blob(content: &[u8]) -> ObjectHash {
    hash_object(ObjectKind::Blob, content).expect("no collision")
}

/// A mirror with a text, a text that looks like a pointer, and a large file that is not here.
async fn mirror(rig: &Rig, large: &[u8]) -> Result<Repo> {
    let repo = rig.mirror("acme/m").await;
    let mut import = rig.hub.begin_import(&repo)?;
    let pointer = Pointer { sha256: sha256(large), size: large.len() as u64 }.encode();
    let text_like_one = Pointer { sha256: sha256(b"other"), size: 5 }.encode();
    for (place, content, is_large) in [
        ("README.md", "# hello\n", false),
        ("sub/pointer.txt", &*text_like_one, false),
        ("sub/weights.bin", &*pointer, true),
    ] {
        let (id, bytes) = (blob(content.as_bytes()), Bytes::copy_from_slice(content.as_bytes()));
        if is_large {
            import.add_pointer(id, bytes).await?;
        } else {
            import.add_blob(id, bytes).await?;
        }
        import.put(&path(place), id).await?;
    }
    import.finish(facts(CLAIMED), &BTreeSet::from([RefName::main()])).await?;
    Ok(repo)
}

async fn verify(hub: &Arc<Hub>, repo: &Repo) -> Summary {
    let (reports, mut heard) = tokio::sync::mpsc::channel(4);
    let listen = async { while heard.recv().await.is_some() {} };
    let (checked, ()) = tokio::join!(hub.verify(Some(repo), reports), listen);
    checked.expect("it goes to the end")
}

#[tokio::test]
async fn a_revision_has_the_upstreams_id_and_large_files_come_later() -> Result<()> {
    let (rig, large) = (Rig::start().await, splitmix(3, 400_000));
    let repo = mirror(&rig, &large).await?;
    let claimed: ObjectHash = CLAIMED.parse()?;
    assert_eq!(rig.hub.resolve(&repo, "main").await?.commit, claimed);
    assert_eq!(rig.hub.resolve(&repo, CLAIMED).await?.commit, claimed);
    let view = rig.hub.commit_view(&repo, claimed).await?;
    assert_eq!((&*view.title, &*view.message, &*view.author), ("Upload", "all of it", "ada"));
    assert!(rig.text(&repo, "sub/pointer.txt").await.starts_with("version "));

    let item = rig.hub.item(&repo, claimed, &path("sub/weights.bin")).await?;
    let wanted = Wanted::of(&item).expect("it is not here");
    assert_eq!((wanted.sha256, wanted.size, wanted.commit), (sha256(&large), 400_000, claimed));
    let read = rig.read(&repo, "sub/weights.bin").await;
    assert!(matches!(read, Err(Error::Upstream { .. })), "{read:?}");
    // What was never asked for is no damage: not to a check, a collection, or a new index.
    assert_eq!(verify(&rig.hub, &repo).await.damaged, 0);
    rig.hub.collect().await?;
    let another = rig.another().await;
    assert_eq!(another.resolve(&repo, "main").await?.commit, claimed);
    assert!(Wanted::of(&*another.item(&repo, claimed, &path("sub/weights.bin")).await?).is_some());

    let pieces = |bytes: &[u8]| {
        let pieces: Vec<_> = bytes.chunks(70_000).map(|p| Ok(Bytes::copy_from_slice(p))).collect();
        Box::pin(stream::iter(pieces))
    };
    let mut wrong = large.clone();
    wrong[200_000] ^= 1;
    let put = |bytes| {
        let what = (wanted.sha256, wanted.size);
        rig.hub.put_mirrored(&repo, what, pieces(bytes), Arc::default())
    };
    let taken = put(&wrong).await;
    assert!(taken.is_err() && !rig.hub.has_mirrored(&repo, &wanted.sha256).await?);
    put(&large).await?;
    assert_eq!(rig.read(&repo, "sub/weights.bin").await?, large);
    assert!(another.has_mirrored(&repo, &wanted.sha256).await?, "it asks the log");
    let item = another.item(&repo, claimed, &path("sub/weights.bin")).await?;
    assert!(item.large.is_some_and(|large| matches!(large.content, Content::Stored(_))));
    assert_eq!(verify(&rig.hub, &repo).await.damaged, 0);
    Ok(())
}

#[tokio::test]
async fn how_a_part_is_made_is_known_before_the_repo_has_the_file() -> Result<()> {
    let (rig, large) = (Rig::start().await, splitmix(3, 3_000_000));
    let repo = mirror(&rig, &large).await?;
    // Others leave no room for large xorbs.
    let taken = || {
        let mut room = rig.hub.uploads.packing.room();
        room.holds(4 << 20).then_some(room)
    };
    let _others: Vec<_> = std::iter::from_fn(taken).collect();
    let (what, growing) = ((sha256(&large), 3_000_000), Arc::new(Growing::default()));
    let (send, body) = tokio::sync::mpsc::channel(1);
    let put = rig.hub.put_mirrored(&repo, what, coming(body), Arc::clone(&growing));
    let read = async {
        let (front, rest) = large.split_at(2_500_000);
        send.send(Bytes::copy_from_slice(front)).await.expect("it is read");
        let part = rig.hub.reconstruct_growing(&growing, 100_000..1_500_000).await?;
        assert!(!rig.hub.has_mirrored(&repo, &what.0).await?, "the rest is not here");
        send.send(Bytes::copy_from_slice(rest)).await.expect("it is read");
        drop(send);
        Ok::<_, Error>(part)
    };
    let (put, part) = tokio::join!(put, read);
    put?;
    let part = part?;
    assert!(part.terms.len() > 1 && part.offset_into_first_range > 0, "{part:?}");
    let item = rig.hub.item(&repo, CLAIMED.parse()?, &path("sub/weights.bin")).await?;
    let file = item.large.and_then(|large| large.file()).expect("it is here");
    let range = RangeRequest::parse("bytes=100000-1499999")?;
    assert_eq!(rig.hub.reconstruct(&repo, file, Some(&range)).await?, part);
    Ok(())
}

#[tokio::test]
async fn what_an_upstream_sends_is_what_it_said_or_is_refused() -> Result<()> {
    let rig = Rig::start().await;
    let repo = rig.mirror("acme/m").await;
    let mut import = rig.hub.begin_import(&repo)?;
    let (id, other) = (blob(b"what was said"), Bytes::from_static(b"what came"));
    assert!(matches!(import.add_blob(id, other).await, Err(Error::Invalid { .. })));
    let text = Bytes::from_static(b"no pointer");
    assert!(matches!(import.add_pointer(blob(&text), text).await, Err(Error::Invalid { .. })));
    // Nothing became visible.
    assert!(matches!(rig.hub.resolve(&repo, "main").await, Err(Error::RevisionNotFound { .. })));
    Ok(())
}

#[tokio::test]
async fn a_mirror_changes_with_its_upstream_and_with_nothing_else() -> Result<()> {
    let (rig, large) = (Rig::start().await, splitmix(4, 100_000));
    let repo = mirror(&rig, &large).await?;
    let claimed: ObjectHash = CLAIMED.parse()?;
    let denied = |refused: Result<()>| assert!(matches!(refused, Err(Error::Denied { .. })));
    let begun = rig.hub.begin_commit(&rig.admin, repo.clone(), header()).await;
    denied(begun.map(|_| ()));
    let branch = RefName::branch("mine").expect("a name");
    denied(rig.hub.create_ref(&rig.admin, &repo, &branch, claimed, false).await);
    denied(rig.hub.delete_ref(&rig.admin, &repo, &branch).await);
    // And what is ours takes nothing from an upstream.
    let ours = rig.repo(&rig.admin, "admin/m").await;
    assert!(matches!(rig.hub.begin_import(&ours), Err(Error::Denied { .. })));
    let body = Box::pin(stream::iter(Vec::new()));
    let what = (sha256(&large), 100_000);
    denied(rig.hub.put_mirrored(&ours, what, body, Arc::default()).await);
    Ok(())
}

#[tokio::test]
async fn what_is_here_under_an_id_is_not_replaced_by_what_is_said_later() -> Result<()> {
    let (rig, large) = (Rig::start().await, splitmix(5, 100_000));
    let repo = mirror(&rig, &large).await?;
    let tag = RefName::tag("v1").expect("a name");
    let mut import = rig.hub.begin_import(&repo)?;
    let evil = Bytes::from_static(b"evil");
    import.add_blob(blob(&evil), evil.clone()).await?;
    import.put(&path("README.md"), blob(&evil)).await?;
    import.finish(facts(CLAIMED), &BTreeSet::from([tag.clone()])).await?;
    assert_eq!(rig.text(&repo, "README.md").await, "# hello\n");
    assert_eq!(rig.hub.resolve(&repo, "v1").await?.commit, CLAIMED.parse()?);
    // A branch that moved is at the other commit, and the first one stays.
    let next = "f".repeat(40);
    let mut import = rig.hub.begin_import(&repo)?;
    import.add_blob(blob(&evil), evil.clone()).await?;
    import.put(&path("README.md"), blob(&evil)).await?;
    import.finish(facts(&next), &BTreeSet::from([RefName::main()])).await?;
    assert_eq!(rig.text(&repo, "README.md").await, "evil");
    assert_eq!(rig.read_at(&repo, CLAIMED.parse()?, "README.md").await?, b"# hello\n");
    Ok(())
}
