//! Xorbs: what is taken, what is refused, and what nobody may learn from the answer.

use ballast_format::hash::XorbHash;
use ballast_format::limits::MAX_XORB_BYTES;
use ballast_format::xorb::XorbFooter;
use ballast_store::keyspace::{CopyKind, Key, Leased, Prefix};
use ballast_testkit::content::{bf16_weights, splitmix};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};
use object_store::ObjectStoreExt as _;

use super::client::{Xorb, all_of, body, put_xorb};
use crate::access::Caller;
use crate::download::CopyName;
use crate::error::{Error, Result};
use crate::rig::Rig;

/// All copies of xorbs and all pins.
async fn kept(rig: &Rig) -> Vec<Key> {
    let copies = rig.hub.store().list(&Prefix::Copies(CopyKind::Xorb));
    let pins = rig.hub.store().list(&Prefix::Pins);
    let keys = copies.chain(pins).map_ok(|listed| listed.key);
    keys.try_collect().await.expect("it lists")
}

async fn copies(rig: &Rig) -> Vec<CopyName> {
    let copy = |key| match key {
        Key::Copy(copy) => Some(copy),
        _ => None,
    };
    kept(rig).await.into_iter().filter_map(copy).collect()
}

async fn put(rig: &Rig, caller: &Caller, hash: XorbHash, sent: Vec<u8>) -> Result<bool> {
    let sent = Bytes::from(sent);
    rig.hub.put_xorb(caller, hash, None, body(&sent)).await
}

#[tokio::test]
async fn a_xorb_is_stored_with_a_footer_of_ours_and_a_pin() -> Result<()> {
    let rig = Rig::start().await;
    let alice = rig.user("alice").await;
    let xorb = Xorb::of(&[&splitmix(1, 700_000), &bf16_weights(2, 700_000)]);
    assert!(put_xorb(&rig.hub, &alice, &xorb).await?);
    let [Key::Copy(copy), Key::Pin(pin)] = kept(&rig).await[..] else {
        panic!("one copy and one pin")
    };
    assert_eq!(Some(pin.owner), alice.user_id());
    assert_eq!(pin.leased, Leased::Sent(xorb.hash()));
    let stored = rig.objects.get(&Key::Copy(copy).path()).await.expect("it is there");
    let stored = stored.bytes().await.expect("it reads");
    assert_eq!(stored[..xorb.body.len()], xorb.body);
    let footer = XorbFooter::decode(&stored[xorb.body.len()..])?;
    assert_eq!(footer, xorb.footer);
    let length = xorb.body.len() as u64;
    let fetched = all_of(rig.hub.fetch(copy, 0..length).await?).await?;
    assert_eq!(fetched, xorb.body);
    Ok(())
}

#[tokio::test]
async fn an_old_clients_footer_is_checked_and_not_stored() -> Result<()> {
    let rig = Rig::start().await;
    let xorb = Xorb::of(&[&splitmix(1, 300_000)]);
    let mut sent = xorb.body.to_vec();
    sent.extend(xorb.footer.encode(77));
    let mut lying = sent.clone();
    let place = lying.len() - 300;
    lying[place] ^= 1;
    assert!(put(&rig, &rig.admin, xorb.hash(), lying).await.is_err());
    assert!(kept(&rig).await.is_empty());
    let length = sent.len();
    assert!(put(&rig, &rig.admin, xorb.hash(), sent).await?);
    let copy = copies(&rig).await[0];
    let size = rig.hub.store().size(&Key::Copy(copy)).await?;
    assert_eq!(size, Some(length as u64));
    Ok(())
}

#[tokio::test]
async fn whatever_is_wrong_with_a_body_nothing_of_it_stays() -> Result<()> {
    let rig = Rig::start().await;
    let xorb = Xorb::of(&[&bf16_weights(1, 200_000), &splitmix(2, 200_000)]);
    let hash = xorb.hash();
    let good = xorb.body.to_vec();
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    let second = xorb.footer.byte_range(1..2)?.start as usize;
    let mut bad = vec![
        Vec::new(),
        good[..good.len() - 1].to_vec(),
        good[..second].to_vec(),
        [&good[..], &[0]].concat(),
        [&good[..], b"XETBLOB"].concat(),
        changed(0, 1),
        changed(second + 4, 99),
        changed(second + 4, 3),
        changed(second + 5, good[second + 5] ^ 1),
        changed(second + 1, good[second + 1] ^ 1),
        changed(good.len() - 1, good[good.len() - 1] ^ 0x10),
        splitmix(9, 100_000),
    ];
    // The chunks of another xorb.
    bad.push(Xorb::of(&[&splitmix(3, 100_000)]).body.to_vec());
    for (number, body) in bad.into_iter().enumerate() {
        let error = put(&rig, &rig.admin, hash, body).await;
        let error = error.expect_err(&format!("body {number} is wrong"));
        assert_eq!(error.kind(), ballast_format::ErrorKind::Invalid, "{number}: {error}");
        assert!(kept(&rig).await.is_empty(), "body {number} left something");
        assert!(!rig.hub.xorb_known(&rig.admin, hash).await?);
    }
    assert!(put(&rig, &rig.admin, hash, good).await?);
    Ok(())
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_nothing() -> Result<()> {
    let rig = Rig::start().await;
    let xorb = Xorb::of(&[&splitmix(1, 12_000_000)]);
    let cut = body(&xorb.body).take(150);
    let lost = stream::once(future::ready(Err(Error::invalid("the connection was lost"))));
    let sent = Box::pin(cut.chain(lost));
    assert!(rig.hub.put_xorb(&rig.admin, xorb.hash(), None, sent).await.is_err());
    // And one whose caller gives up in the middle.
    let never = Box::pin(body(&xorb.body).take(150).chain(stream::pending()));
    let putting = rig.hub.put_xorb(&rig.admin, xorb.hash(), None, never);
    let gave_up = future::select(Box::pin(putting), Box::pin(pause())).await;
    drop(gave_up);
    assert!(kept(&rig).await.is_empty());
    assert!(put_xorb(&rig.hub, &rig.admin, &xorb).await?);
    Ok(())
}

/// Long enough for others to get as far as they can.
async fn pause() {
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_full_xorb_of_random_bytes_is_longer_than_64_mib_and_is_taken() -> Result<()> {
    let rig = Rig::start().await;
    let mut content = splitmix(4, MAX_XORB_BYTES);
    // Cut by hand: chunks may be cut anywhere.
    let mut writer = ballast_format::xorb::XorbWriter::new();
    for chunk in content.chunks(65_536) {
        writer.push(chunk, ballast_format::hash::ChunkHash::of(chunk));
    }
    let (sent, footer) = writer.finish();
    assert!(sent.len() > MAX_XORB_BYTES);
    let xorb = Xorb { body: sent, footer };
    assert!(put_xorb(&rig.hub, &rig.admin, &xorb).await?);
    // One byte more is one too many.
    content.push(0);
    let announced = ballast_format::limits::MAX_XORB_UPLOAD_BYTES as u64 + 1;
    let nothing = Box::pin(stream::pending());
    let refused = rig.hub.put_xorb(&rig.admin, xorb.hash(), Some(announced), nothing);
    assert!(matches!(refused.await, Err(Error::TooLarge { .. })));
    Ok(())
}

#[tokio::test]
async fn only_who_sent_it_hears_that_a_xorb_is_there() -> Result<()> {
    let rig = Rig::start().await;
    let (alice, bob) = (rig.user("alice").await, rig.user("bob").await);
    let xorb = Xorb::of(&[&splitmix(1, 500_000)]);
    assert!(!rig.hub.xorb_known(&alice, xorb.hash()).await?);
    assert!(put_xorb(&rig.hub, &alice, &xorb).await?);
    assert!(!put_xorb(&rig.hub, &alice, &xorb).await?);
    assert!(rig.hub.xorb_known(&alice, xorb.hash()).await?);

    assert!(!rig.hub.xorb_known(&bob, xorb.hash()).await?);
    assert!(put_xorb(&rig.hub, &bob, &xorb).await?, "it is new as far as he may know");
    assert!(!put_xorb(&rig.hub, &bob, &xorb).await?);
    assert_eq!(copies(&rig).await.len(), 1, "and still stored once");
    assert!(rig.hub.xorb_known(&Caller::Anonymous, xorb.hash()).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_lie_is_refused_also_where_the_truth_is_known() -> Result<()> {
    let rig = Rig::start().await;
    let (xorb, other) = (Xorb::of(&[&splitmix(1, 90_000)]), Xorb::of(&[&splitmix(2, 90_000)]));
    put_xorb(&rig.hub, &rig.admin, &xorb).await?;
    assert!(put(&rig, &rig.admin, xorb.hash(), other.body.to_vec()).await.is_err());
    let bob = rig.user("bob").await;
    assert!(put(&rig, &bob, xorb.hash(), other.body.to_vec()).await.is_err());
    assert!(!rig.hub.xorb_known(&bob, xorb.hash()).await?);
    Ok(())
}

#[tokio::test]
async fn several_may_send_the_same_at_once() -> Result<()> {
    let rig = Rig::start().await;
    let xorb = Xorb::of(&[&splitmix(1, 3_000_000)]);
    let mut callers = Vec::new();
    for number in 0..6 {
        callers.push(rig.user(&format!("user-{number}")).await);
    }
    let all = callers.iter().map(|caller| put_xorb(&rig.hub, caller, &xorb));
    for answer in future::join_all(all).await {
        assert!(answer?);
    }
    for caller in &callers {
        assert!(rig.hub.xorb_known(caller, xorb.hash()).await?);
    }
    Ok(())
}

#[tokio::test]
async fn what_is_gone_from_the_store_is_asked_for_again() -> Result<()> {
    let rig = Rig::start().await;
    let xorb = Xorb::of(&[&splitmix(1, 300_000)]);
    put_xorb(&rig.hub, &rig.admin, &xorb).await?;
    let copy = copies(&rig).await[0];
    rig.objects.delete(&Key::Copy(copy).path()).await.expect("it was there");
    assert!(!rig.hub.xorb_known(&rig.admin, xorb.hash()).await?);
    put_xorb(&rig.hub, &rig.admin, &xorb).await?;
    assert_eq!(copies(&rig).await.len(), 1);
    assert!(rig.hub.xorb_known(&rig.admin, xorb.hash()).await?);
    Ok(())
}

#[tokio::test]
async fn too_many_uploads_wait_and_are_told_to_come_again() -> Result<()> {
    let rig = Rig::start().await;
    let slots = rig.hub.settings().upload_slots;
    let xorb = Xorb::of(&[&splitmix(1, 100_000)]);
    let never = || -> crate::download::ByteStream { Box::pin(stream::pending()) };
    let (bob, carol) = (rig.user("bob").await, rig.user("carol").await);
    let mut slow = stream::FuturesUnordered::new();
    for _ in 0..slots / 2 {
        slow.push(rig.hub.put_xorb(&rig.admin, xorb.hash(), None, never()));
    }
    drop(future::select(slow.next(), Box::pin(pause())).await);
    // A user's own have a limit, so that there is room for others.
    let mut late = Box::pin(put_xorb(&rig.hub, &rig.admin, &xorb));
    drop(future::select(&mut late, Box::pin(pause())).await);
    assert!(put_xorb(&rig.hub, &carol, &xorb).await?);
    rig.env.advance(super::super::PATIENCE);
    assert!(matches!(late.await, Err(Error::Busy { .. })));
    for _ in 0..slots / 2 {
        slow.push(rig.hub.put_xorb(&bob, xorb.hash(), None, never()));
    }
    drop(future::select(slow.next(), Box::pin(pause())).await);
    let mut late = Box::pin(put_xorb(&rig.hub, &carol, &xorb));
    drop(future::select(&mut late, Box::pin(pause())).await);
    rig.env.advance(super::super::PATIENCE);
    assert!(matches!(late.await, Err(Error::Busy { .. })));
    drop(slow);
    assert!(put_xorb(&rig.hub, &rig.admin, &xorb).await?);
    Ok(())
}
