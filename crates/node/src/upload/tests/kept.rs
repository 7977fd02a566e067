//! Xorbs of an upstream's that a mirror keeps as they come, and those that it does not.

use std::ops::Range;
use std::sync::Arc;

use ballast_format::chunk::split;
use ballast_format::hash::{ChunkHash, Sha256, XorbHash};
use ballast_format::manifest::ManifestId;
use ballast_format::xorb::{ChunkHeader, Compression, XorbValidator, XorbWriter};
use ballast_store::keyspace::{CopyKind, Prefix};
use ballast_testkit::content::{bf16_weights, splitmix};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{FutureExt as _, TryStreamExt as _};

use super::client::{Xorb, all_of, body};
use crate::access::Repo;
use crate::error::{Error, Result};
use crate::rig::{Rig, sha256};
use crate::upload::kept::body as coming;
use crate::upload::mirrored::bringer;
use crate::upload::{Came, Growing, Keeping};

/// Half of it compresses.
fn content() -> Vec<u8> {
    [splitmix(1, 2_000_000), bf16_weights(2, 2_000_000)].concat()
}

/// Some chunks of a file as a xorb, none of them compressed: we would pack them in another way.
fn plain_xorb(content: &[u8], chunks: Range<usize>) -> (u64, Xorb) {
    let (at, mut bytes, mut writer) =
        (start(content, chunks.start), BytesMut::new(), XorbWriter::new());
    for chunk in split(content).skip(chunks.start).take(chunks.len()) {
        let length = u32::try_from(chunk.len()).expect("a chunk is small");
        let header = ChunkHeader {
            compressed_length: length,
            compression: Compression::None,
            uncompressed_length: length,
        };
        bytes.put_slice(&header.encode());
        bytes.put_slice(chunk);
        writer.push(chunk, ChunkHash::of(chunk));
    }
    let mut validator = XorbValidator::new();
    validator.feed(&bytes).expect("they are right");
    let footer = validator.finish(writer.finish().1.hash()).expect("its name is right");
    (at, Xorb { body: bytes.freeze(), footer })
}

/// Where a chunk begins.
fn start(content: &[u8], chunk: usize) -> u64 {
    split(content).take(chunk).map(|chunk| chunk.len() as u64).sum()
}

/// What is told of a xorb that comes in two pieces.
fn told(at: u64, xorb: XorbHash, body: &Bytes) -> Vec<Came> {
    let (first, second) = (body.slice(..body.len() / 3), body.slice(body.len() / 3..));
    let begins = Came::Begins { xorb, at };
    vec![begins, Came::Chunks(first), Came::Chunks(second), Came::Ends]
}

/// A file comes to a mirror, and this is told of it; which xorbs it is made of then, and how many
/// of its bytes are in those that were kept.
async fn put(
    rig: &Rig,
    repo: &Repo,
    (content, said): (&[u8], Sha256),
    told: Vec<Came>,
) -> Result<(Vec<(XorbHash, Range<u32>)>, u64)> {
    let growing = Arc::new(Growing::default());
    let mut keeping = Keeping::new(&rig.hub, repo, &growing, 0);
    let tell = async move {
        for came in told {
            keeping.take(came).await;
        }
    };
    let bytes = body(&Bytes::copy_from_slice(content));
    let what = (said, content.len() as u64);
    let put = rig.hub.put_mirrored(repo, what, bytes, Arc::clone(&growing));
    let (put, ()) = tokio::join!(put, tell);
    put?;
    let link = rig.hub.link_of(repo.id(), &said).await?.expect("the repo has it");
    let read = rig.hub.read_file(&link, 0..link.size).await?;
    assert!(all_of(read).await? == content, "it is another file");
    let id = ManifestId { file: link.file, shard: link.shard };
    let manifest = rig.hub.manifest(&id).await?.expect("it is there");
    let terms = manifest.terms.iter().map(|term| (term.xorb, term.chunks.clone()));
    Ok((terms.collect(), growing.kept_bytes()))
}

async fn copies(rig: &Rig) -> usize {
    let listed = rig.hub.store().list(&Prefix::Copies(CopyKind::Xorb));
    listed.try_collect::<Vec<_>>().await.expect("it lists").len()
}

#[tokio::test]
async fn a_xorb_is_kept_under_its_name_with_its_own_bytes() -> Result<()> {
    let (rig, content) = (Rig::start().await, content());
    let repo = rig.mirror("acme/one").await;
    let count = split(&content).count();
    // Between the two, and behind them, is something that lies in no xorb of theirs.
    let (first_at, first) = plain_xorb(&content, 0..12);
    let (second_at, second) = plain_xorb(&content, 15..count - 1);
    let all =
        [told(first_at, first.hash(), &first.body), told(second_at, second.hash(), &second.body)];
    let said = sha256(&content);
    let told = all.into_iter().flatten().collect();
    let (terms, kept) = put(&rig, &repo, (&content, said), told).await?;
    let [(one, a), (own, b), (two, c), (last, d)] = &terms[..] else { panic!("{terms:?}") };
    assert_eq!((*one, a.clone()), (first.hash(), 0..12));
    assert_eq!((*two, c.clone()), (second.hash(), 0..second.footer.chunk_count()));
    assert_eq!((own, b.clone(), d.clone()), (last, 0..3, 3..4));
    assert_eq!(kept, u64::from(first.footer.total_length() + second.footer.total_length()));
    for xorb in [&first, &second] {
        let (_, footer) = rig.hub.open_xorb(&xorb.hash()).await?.expect("it is there");
        assert_eq!(footer.serialized_length(), xorb.footer.serialized_length(), "not as it came");
    }
    // What protects them until others see the repo's log is the mirror's own.
    let caller = bringer(&repo);
    assert!(rig.hub.xorb_known(&caller, first.hash()).await?, "it has no pin");
    assert!(rig.hub.xorb_known(&caller, second.hash()).await?, "it has no pin");
    Ok(())
}

#[tokio::test]
async fn what_is_not_what_it_is_called_is_packed_and_leaves_nothing_under_that_name() -> Result<()>
{
    let (rig, content) = (Rig::start().await, content());
    let (at, xorb) = plain_xorb(&content, 4..30);
    let mut flipped = xorb.body.to_vec();
    flipped[100_000] ^= 1;
    let header = ChunkHeader::BYTES;
    let swapped = {
        let cut = header + xorb.footer.chunk_length(0) as usize;
        let second = header + xorb.footer.chunk_length(1) as usize;
        let (first, rest) = xorb.body.split_at(cut);
        [&rest[..second], first, &rest[second..]].concat()
    };
    let other = XorbHash::from_bytes([7; 32]);
    let half = xorb.body.slice(..xorb.body.len() / 2);
    let cases = [
        ("flipped", xorb.hash(), Bytes::from(flipped)),
        ("swapped", xorb.hash(), Bytes::from(swapped)),
        ("half", xorb.hash(), half),
        ("another name", other, xorb.body.clone()),
        ("nothing", xorb.hash(), Bytes::new()),
    ];
    for (number, (what, name, bytes)) in cases.into_iter().enumerate() {
        let repo = rig.mirror(&format!("acme/m{number}")).await;
        let told = told(at, name, &bytes);
        let (terms, kept) = put(&rig, &repo, (&content, sha256(&content)), told).await?;
        assert!(terms.iter().all(|(xorb, _)| *xorb != name) && kept == 0, "{what}: {terms:?}");
        assert!(rig.hub.present_copy(&name).await?.is_none(), "{what} is there");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_kept_is_nobodys_before_the_file_is_right() -> Result<()> {
    let (rig, content) = (Rig::start().await, content());
    let repo = rig.mirror("acme/one").await;
    let (at, xorb) = plain_xorb(&content, 4..30);
    let say = || told(at, xorb.hash(), &xorb.body);
    let mut wrong = content.clone();
    *wrong.last_mut().expect("it is long") ^= 1;
    let said = sha256(&content);
    assert!(put(&rig, &repo, (&wrong, said), say()).await.is_err(), "another file");
    assert!(rig.hub.present_copy(&xorb.hash()).await?.is_some());
    assert!(!rig.hub.xorb_known(&rig.admin, xorb.hash()).await?, "somebody may build on it");
    // It comes again, and is proved again.
    let (terms, _) = put(&rig, &repo, (&content, said), say()).await?;
    assert!(terms.iter().any(|(name, _)| *name == xorb.hash()), "{terms:?}");
    assert_eq!(copies(&rig).await, 2, "it, and what was packed");
    Ok(())
}

#[tokio::test]
async fn what_is_within_reach_is_not_stored_twice() -> Result<()> {
    let (rig, content) = (Rig::start().await, content());
    let what = (&content[..], sha256(&content));
    let (at, xorb) = plain_xorb(&content, 0..30);
    let say = || told(at, xorb.hash(), &xorb.body);
    // Packed here, it is found by its chunks.
    let packed = rig.mirror("acme/packed").await;
    let (before, _) = put(&rig, &packed, what, vec![Came::Ends]).await?;
    let other = rig.mirror("acme/other").await;
    let (terms, kept) = put(&rig, &other, what, say()).await?;
    assert_eq!((terms, kept), (before, 0));
    assert_eq!(copies(&rig).await, 1);
    // Kept, it is found by its name.
    let (rig, before) = (Rig::start().await, copies(&rig).await);
    let (one, two) = (rig.mirror("acme/one").await, rig.mirror("acme/two").await);
    let (first, _) = put(&rig, &one, what, say()).await?;
    let (second, kept) = put(&rig, &two, what, say()).await?;
    assert_eq!((&first, kept), (&second, u64::from(xorb.footer.total_length())));
    assert_eq!(copies(&rig).await, before + 1, "the xorb, and what was packed");
    Ok(())
}

#[tokio::test]
async fn what_is_kept_can_be_read_while_the_rest_arrives() -> Result<()> {
    let (rig, content) = (Rig::start().await, content());
    let repo = rig.mirror("acme/one").await;
    let (at, xorb) = plain_xorb(&content, 0..20);
    let (what, growing) = ((sha256(&content), content.len() as u64), Arc::default());
    let mut keeping = Keeping::new(&rig.hub, &repo, &growing, 0);
    let (send, pieces) = tokio::sync::mpsc::channel(1);
    let put = rig.hub.put_mirrored(&repo, what, coming(pieces), Arc::clone(&growing));
    let read = async {
        let (front, rest) = content.split_at(3_000_000);
        send.send(Bytes::copy_from_slice(front)).await.expect("it is read");
        for came in told(at, xorb.hash(), &xorb.body) {
            let so_far = growing.part(&(0..1)).now_or_never();
            assert!(so_far.is_none(), "it is told before it is decided");
            keeping.take(came).await;
        }
        let part = rig.hub.reconstruct_growing(&growing, 1000..900_000).await?;
        assert!(!rig.hub.has_mirrored(&repo, &what.0).await?, "the rest is not here");
        send.send(Bytes::copy_from_slice(rest)).await.expect("it is read");
        drop(send);
        Ok::<_, Error>(part)
    };
    let (put, part) = tokio::join!(put, read);
    put?;
    let part = part?;
    assert!(part.terms.iter().all(|term| term.xorb == xorb.hash()), "{part:?}");
    assert_eq!(part.offset_into_first_range, 1000);
    Ok(())
}
