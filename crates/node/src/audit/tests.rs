use std::net::Ipv4Addr;
use std::sync::Arc;

use ballast_format::log::TokenRole;
use ballast_store::env::Env as _;
use ballast_store::keyspace::{Key, LogId};
use object_store::ObjectStoreExt as _;

use super::*;
use crate::account::NewToken;
use crate::rig::Rig;

const HOUR: Duration = Duration::from_hours(1);

async fn listed(hub: &Arc<Hub>, rig: &Rig) -> Vec<Listed> {
    let (to, mut from) = tokio::sync::mpsc::channel(1);
    let hear = async {
        let mut all = Vec::new();
        while let Some(listed) = from.recv().await {
            all.push(listed);
        }
        all
    };
    let (done, all) = tokio::join!(hub.list_audit(&rig.admin, None, to), hear);
    done.expect("the logs are sound");
    all
}

async fn audited(hub: &Arc<Hub>, rig: &Rig) -> Vec<AuditChange> {
    let of_audit = |listed: Listed| match listed.what {
        What::Audit(change) => Some(change),
        _ => None,
    };
    listed(hub, rig).await.into_iter().filter_map(of_audit).collect()
}

/// The heads that a walk tells, and where it finds something.
async fn walked(hub: &Arc<Hub>, rig: &Rig, kept: &[KnownHead]) -> (Vec<KnownHead>, Vec<String>) {
    let (to, mut from) = tokio::sync::mpsc::channel(1);
    let hear = async {
        let (mut heads, mut findings) = (Vec::new(), Vec::new());
        while let Some(report) = from.recv().await {
            match report {
                AuditReport::Head(head) => heads.push(head),
                AuditReport::Finding { object, .. } => findings.push(object),
            }
        }
        (heads, findings)
    };
    let (count, heard) = tokio::join!(hub.verify_audit(&rig.admin, kept, to), hear);
    assert_eq!(count.expect("the store answers"), heard.1.len() as u64);
    heard
}

#[tokio::test]
async fn failed_logins_are_added_up_and_told_to_administrators_only() -> Result<()> {
    let rig = Rig::start().await;
    let ann = rig.user("ann").await;
    let short = NewToken {
        name: "short",
        role: TokenRole::Read,
        expires_ms: Some(rig.env.now_ms() + 1000),
    };
    let (ended, secret) = rig.hub.create_token(&rig.admin, "ann", &short).await?;
    rig.env.advance(Duration::from_secs(2));
    let place = |number: u32| IpAddr::V4(Ipv4Addr::from(number));
    for _ in 0..3 {
        rig.hub.note_failed_login(place(1), &secret);
        rig.hub.note_failed_login(place(1), "hf_made_up");
    }
    rig.hub.flush_audit().await?;
    let all = audited(&rig.another().await, &rig).await;
    let tokens: Vec<(Option<TokenId>, u32)> = all
        .iter()
        .map(|change| match change {
            AuditChange::LoginsFailed { token, count, address, .. } => {
                assert_eq!(address[12..], [0, 0, 0, 1]);
                (*token, *count)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(tokens, [(None, 3), (Some(ended), 3)]);
    // Nothing new is nothing to write.
    let before = rig.stored().await.len();
    rig.hub.flush_audit().await?;
    assert_eq!(rig.stored().await.len(), before);
    // From everywhere at once: bounded, and still all counted.
    for number in 0..1000 {
        rig.hub.note_failed_login(place(number), "hf_made_up");
    }
    rig.hub.close().await?;
    let all = audited(&rig.another().await, &rig).await;
    assert_eq!(all.len(), 2 + MOST_PLACES + 1);
    assert_eq!(all.last(), Some(&AuditChange::MoreLoginsFailed { count: 744 }));
    for object in rig.stored().await {
        let stored = rig.objects.get(&object.location).await.expect("there");
        let stored = stored.bytes().await.expect("bytes");
        let secret = secret.as_bytes();
        assert!(!stored.windows(secret.len()).any(|window| window == secret));
    }
    let (to, _from) = tokio::sync::mpsc::channel(1);
    let refused = rig.hub.list_audit(&ann, None, to).await;
    assert!(matches!(refused, Err(Error::Denied { .. })), "{refused:?}");
    let refused = rig.hub.note_act(&ann, Act::CollectedGarbage).await;
    assert!(matches!(refused, Err(Error::Denied { .. })), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn what_the_logs_hold_is_one_list_in_the_order_of_time() -> Result<()> {
    let rig = Rig::start().await;
    let another = rig.another().await;
    let mut acts = Vec::new();
    for number in 0..3 {
        rig.env.advance(HOUR);
        acts.push(rig.hub.note_act(&rig.admin, Act::ExportedMetadata));
        rig.user(&format!("user{number}")).await;
        rig.env.advance(HOUR);
        rig.repo(&rig.admin, &format!("admin/m{number}")).await;
    }
    // Two processes write at once, and both do.
    let (one, two) = tokio::join!(
        futures_util::future::try_join_all(acts),
        another.note_act(&rig.admin, Act::CollectedGarbage),
    );
    one?;
    two?;
    let all = listed(&rig.hub, &rig).await;
    assert!(all.is_sorted_by_key(|listed| listed.time_ms));
    let count = |is: fn(&What) -> bool| all.iter().filter(|listed| is(&listed.what)).count();
    assert_eq!(count(|what| matches!(what, What::Audit(AuditChange::Acted { .. }))), 4);
    assert_eq!(count(|what| matches!(what, What::Catalogue(_))), 3);
    assert!(count(|what| matches!(what, What::Account(_))) >= 6);
    let by_admin = |listed: &&Listed| listed.author == rig.admin.user_id();
    assert!(all.iter().filter(by_admin).count() >= 10);
    Ok(())
}

/// A hub with some entries, whose heads were noted, and then some more.
async fn scene() -> Result<(Rig, Vec<KnownHead>)> {
    let rig = Rig::start().await;
    for name in ["ann", "bert", "cleo"] {
        rig.user(name).await;
    }
    rig.repo(&rig.admin, "admin/m").await;
    rig.env.advance(HOUR);
    rig.hub.note_heads().await?;
    let (kept, findings) = walked(&rig.hub, &rig, &[]).await;
    assert_eq!((findings, kept.len()), (Vec::new(), 4), "three logs and the repo's");
    rig.user("dora").await;
    Ok((rig, kept))
}

fn key(number: u64) -> Key {
    Key::LogEntry(LogId::Accounts, number)
}

async fn take(rig: &Rig, number: u64) -> bytes::Bytes {
    let path = key(number).path();
    let taken = rig.objects.get(&path).await.expect("it is there").bytes().await.expect("bytes");
    rig.objects.delete(&path).await.expect("it is there");
    taken
}

async fn put(rig: &Rig, number: u64, bytes: bytes::Bytes) {
    rig.objects.put(&key(number).path(), bytes.into()).await.expect("it is put");
}

#[tokio::test]
async fn an_entry_that_is_taken_away_changed_or_moved_is_named() -> Result<()> {
    let (rig, _) = scene().await?;
    let (kept, findings) = walked(&rig.hub, &rig, &[]).await;
    assert!(findings.is_empty(), "{findings:?}");
    let last = kept.iter().find(|head| head.log == "log/accounts").expect("its head").number;
    for number in 2..last {
        let taken = take(&rig, number).await;
        let (_, findings) = walked(&rig.hub, &rig, &[]).await;
        assert_eq!(findings, [key(number).to_string()], "one taken away");
        // The name of a user is in it; a letter of it is another.
        let mut changed = taken.to_vec();
        let end = changed.len() - 1;
        changed[end] ^= 1;
        put(&rig, number, changed.into()).await;
        assert_eq!(walked(&rig.hub, &rig, &[]).await.1.len(), 1, "one changed");
        // Two in each other's place.
        let next = take(&rig, number + 1).await;
        put(&rig, number, next.clone()).await;
        put(&rig, number + 1, taken.clone()).await;
        assert_eq!(walked(&rig.hub, &rig, &[]).await.1.len(), 1, "two moved");
        put(&rig, number, taken).await;
        put(&rig, number + 1, next).await;
    }
    assert_eq!(walked(&rig.hub, &rig, &kept).await, (kept.clone(), Vec::new()));
    Ok(())
}

#[tokio::test]
async fn an_end_that_is_cut_off_is_missed_by_whoever_knew_it() -> Result<()> {
    let (rig, kept) = scene().await?;
    let number = |heads: &[KnownHead]| {
        heads.iter().find(|head| head.log == "log/accounts").expect("its head").number
    };
    let (all, _) = walked(&rig.hub, &rig, &[]).await;
    let (noted, last) = (number(&kept), number(&all));
    assert!(noted < last);
    for gone in noted + 1..=last {
        take(&rig, gone).await;
    }
    // Who has read it knows; who has not, and was told of no more than the audit log, does not.
    let missing = vec![key(noted + 1).to_string()];
    assert_eq!(walked(&rig.hub, &rig, &[]).await.1, missing);
    let another = rig.another().await;
    assert_eq!(walked(&another, &rig, &[]).await.1, Vec::<String>::new());
    assert_eq!(walked(&another, &rig, &all).await.1, missing, "whoever kept the head does");
    // What the audit log noted is missed by everybody.
    take(&rig, noted).await;
    let another = rig.another().await;
    assert_eq!(walked(&another, &rig, &[]).await.1, [key(noted).to_string()]);
    Ok(())
}

#[tokio::test]
async fn heads_are_noted_once_an_hour_and_only_if_something_happened() -> Result<()> {
    let rig = Rig::start().await;
    rig.hub.note_heads().await?;
    rig.user("ann").await;
    rig.hub.note_heads().await?;
    assert_eq!(audited(&rig.hub, &rig).await.len(), 1, "within the hour");
    rig.env.advance(HOUR);
    rig.hub.note_heads().await?;
    rig.another().await.note_heads().await?;
    rig.env.advance(HOUR * 5);
    rig.hub.note_heads().await?;
    assert_eq!(audited(&rig.hub, &rig).await.len(), 2);
    Ok(())
}
