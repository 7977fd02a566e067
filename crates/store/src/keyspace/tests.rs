//! Tests of the spelling of keys.

use proptest::prelude::*;

use super::*;

fn any_kind() -> impl Strategy<Value = CopyKind> {
    prop::sample::select(CopyKind::ALL.to_vec())
}

fn any_copy() -> impl Strategy<Value = CopyName> {
    (any_kind(), any::<[u8; 32]>(), any::<u64>(), any::<u64>())
        .prop_map(|(kind, hash, epoch, nonce)| CopyName { kind, hash, epoch, nonce })
}

fn any_log() -> impl Strategy<Value = LogId> {
    prop_oneof![
        Just(LogId::Catalogue),
        Just(LogId::Accounts),
        any::<[u8; 16]>().prop_map(|id| LogId::Repo(RepoId::from_bytes(id))),
    ]
}

fn any_pin() -> impl Strategy<Value = PinName> {
    let leased = (0..3_u8, any::<[u8; 32]>()).prop_map(|(kind, hash)| match kind {
        0 => Leased::Registered(ShardHash::from_bytes(hash)),
        1 => Leased::Sent(XorbHash::from_bytes(hash)),
        _ => Leased::Told(XorbHash::from_bytes(hash)),
    });
    (any::<[u8; 16]>(), leased, any::<u64>(), any::<u64>()).prop_map(
        |(owner, leased, until_ms, nonce)| {
            let owner = UserId::from_bytes(owner);
            PinName { owner, leased, until_ms, nonce }
        },
    )
}

fn any_scrub() -> impl Strategy<Value = ScrubName> {
    let share = prop_oneof![
        (any_kind(), any::<u8>()).prop_map(|(kind, number)| ScrubShare::Copies(kind, number)),
        any::<u8>().prop_map(ScrubShare::RepoLogs),
        Just(ScrubShare::Hub),
    ];
    (share, any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
        |(share, ended_ms, objects, bytes, nonce)| ScrubName {
            share,
            ended_ms,
            objects,
            bytes,
            nonce,
        },
    )
}

fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        any_copy().prop_map(Key::Copy),
        any_copy().prop_map(Key::Damaged),
        any_scrub().prop_map(Key::Scrubbed),
        (any_log(), any::<u64>()).prop_map(|(log, number)| Key::LogEntry(log, number)),
        any::<u64>().prop_map(Key::Gc),
        any::<u64>().prop_map(Key::GcDone),
        any_pin().prop_map(Key::Pin),
        (any::<[u8; 16]>(), any::<u32>(), any::<u64>()).prop_map(|(upload, number, nonce)| {
            Key::Part { upload: UploadId::from_bytes(upload), number, nonce }
        }),
        (any::<u32>(), any::<u64>()).prop_map(|(day, nonce)| Key::Tally { day, nonce }),
        (any::<[u8; 16]>(), any::<u64>())
            .prop_map(|(job, number)| Key::MirrorJob { job: JobId::from_bytes(job), number }),
        (any::<[u8; 32]>(), any::<u64>(), any::<u64>())
            .prop_map(|(creator, sequence, nonce)| Key::Receipt { creator, sequence, nonce }),
        Just(Key::Secret),
        Just(Key::Layout),
        (any::<u64>(), any::<u32>()).prop_map(|(nonce, number)| Key::Probe { nonce, number }),
    ]
}

/// The spelling is stored for ever: a change here strands every store there is.
#[test]
fn keys_are_spelled_as_they_always_were() {
    let hash: [u8; 32] = std::array::from_fn(|i| u8::try_from(i).expect("under 32"));
    let copy = |kind| Key::Copy(CopyName { kind, hash, epoch: 258, nonce: 0xabcd });
    let repo = RepoId::from_bytes([0x11; 16]);
    let spelled = [
        (
            copy(CopyKind::Xorb),
            "hub/xorb/07/07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918/\
             0000000000000102-000000000000abcd",
        ),
        (
            copy(CopyKind::Pack),
            "hub/pack/00/000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f/\
             0000000000000102-000000000000abcd",
        ),
        (
            copy(CopyKind::Shard),
            "hub/shard/00/000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f/\
             0000000000000102-000000000000abcd",
        ),
        (
            Key::Damaged(CopyName { kind: CopyKind::Pack, hash, epoch: 258, nonce: 0xabcd }),
            "hub/damaged/pack/000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f/\
             0000000000000102-000000000000abcd",
        ),
        (
            Key::Scrubbed(ScrubName {
                share: ScrubShare::Copies(CopyKind::Xorb, 0xa7),
                ended_ms: 1_700_000_000_000,
                objects: 3,
                bytes: 0x1234,
                nonce: 9,
            }),
            "hub/scrub/xorb-a7/0000018bcfe56800-0000000000000003-0000000000001234-\
             0000000000000009",
        ),
        (Key::LogEntry(LogId::Catalogue, 7), "hub/log/catalogue/00000000000000000007"),
        (Key::LogEntry(LogId::Accounts, 1), "hub/log/accounts/00000000000000000001"),
        (Key::LogEntry(LogId::Audit, 1), "hub/log/audit/00000000000000000001"),
        (
            Key::LogEntry(LogId::Repo(repo), u64::MAX),
            "hub/log/repo/11111111111111111111111111111111/18446744073709551615",
        ),
        (Key::Gc(3), "hub/gc/00000000000000000003"),
        (Key::GcDone(3), "hub/gc/00000000000000000003.done"),
        (
            Key::Pin(PinName {
                owner: UserId::from_bytes([0x22; 16]),
                leased: Leased::Sent(XorbHash::from_bytes(hash)),
                until_ms: 1_700_000_000_000,
                nonce: 5,
            }),
            "hub/pin/22222222222222222222222222222222/sent-\
             07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918-\
             0000018bcfe56800-0000000000000005",
        ),
        (
            Key::Part { upload: UploadId::from_bytes([0x33; 16]), number: 12, nonce: 1 },
            "hub/part/33333333333333333333333333333333/00012-0000000000000001",
        ),
        (Key::Tally { day: 19675, nonce: 2 }, "hub/tally/0000019675/0000000000000002"),
        (
            Key::MirrorJob { job: JobId::from_bytes([0x44; 16]), number: 2 },
            "hub/mirror/44444444444444444444444444444444/00000000000000000002",
        ),
        (
            Key::Receipt { creator: [0x55; 32], sequence: 9, nonce: 2 },
            "hub/receipt/5555555555555555555555555555555555555555555555555555555555555555/\
             00000000000000000009-0000000000000002",
        ),
        (Key::Secret, "hub/secret"),
        (Key::Layout, "hub/layout"),
        (Key::Probe { nonce: 1, number: 2 }, "hub/probe/0000000000000001/2"),
    ];
    for (key, text) in spelled {
        assert_eq!(key.path().as_ref(), text);
        assert_eq!(Key::parse(&Path::from(text)), Some(key));
    }
}

#[test]
fn foreign_paths_are_no_keys() {
    let hash = "07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918";
    for foreign in [
        String::new(),
        "hub".into(),
        "layout".into(),
        "hub/layout/x".into(),
        "hub/log/catalogue/7".into(),
        "hub/log/catalogue/+0000000000000000007".into(),
        "hub/log/repo/x/00000000000000000007".into(),
        "hub/gc/00000000000000000003.undone".into(),
        format!("hub/xorb/08/{hash}/0000000000000102-000000000000abcd"),
        format!("hub/xorb/07/{hash}/0000000000000102-000000000000ABCD"),
        format!("hub/xorb/07/{}/0000000000000102-000000000000abcd", hash.to_uppercase()),
        format!("hub/xorb/07/{hash}/102-abcd"),
        format!("hub/blob/07/{hash}/0000000000000102-000000000000abcd"),
    ] {
        assert_eq!(Key::parse(&Path::from(foreign.as_str())), None, "{foreign}");
    }
}

#[test]
fn a_log_is_never_swept() {
    assert!(!Key::LogEntry(LogId::Catalogue, 1).is_sweepable());
    assert!(!Key::Gc(1).is_sweepable());
    assert!(!Key::Layout.is_sweepable());
    assert!(!Key::Secret.is_sweepable());
    assert!(!Key::Receipt { creator: [1; 32], sequence: 1, nonce: 1 }.is_sweepable());
    assert!(Key::Tally { day: 1, nonce: 1 }.is_sweepable());
    assert!(Key::MirrorJob { job: JobId::from_bytes([1; 16]), number: 1 }.is_sweepable());
}

proptest! {
    #[test]
    fn a_path_leads_back_to_its_key(key in any_key()) {
        prop_assert_eq!(Key::parse(&key.path()), Some(key));
        prop_assert!(key.path().prefix_matches(&Prefix::All.path()));
    }

    #[test]
    fn two_keys_never_share_a_path(a in any_key(), b in any_key()) {
        prop_assert_eq!(a == b, a.path() == b.path());
    }

    #[test]
    fn noise_never_panics(
        text in "\\PC{0,200}",
        words in "(hub|log|gc|pin|part|xorb|[-/0-9a-f.]){0,40}",
    ) {
        for text in [text, words] {
            if let Ok(path) = Path::parse(&text)
                && let Some(key) = Key::parse(&path)
            {
                prop_assert_eq!(key.path(), path);
            }
        }
    }

    #[test]
    fn a_copy_is_below_the_prefixes_that_should_find_it(name in any_copy()) {
        let path = Key::Copy(name).path();
        prop_assert!(path.prefix_matches(&Prefix::Copies(name.kind).path()));
        prop_assert!(path.prefix_matches(&Prefix::CopiesOf(name.kind, name.hash).path()));
        let shares = (0..=255)
            .filter(|share| path.prefix_matches(&Prefix::CopiesShare(name.kind, *share).path()));
        prop_assert_eq!(shares.count(), 1);
    }

    #[test]
    fn entries_sort_by_number(log in any_log(), a: u64, b: u64) {
        let (first, second) = (Key::LogEntry(log, a).path(), Key::LogEntry(log, b).path());
        prop_assert_eq!(a.cmp(&b), first.cmp(&second));
        prop_assert!(first.prefix_matches(&Prefix::Log(log).path()));
        prop_assert!(first.prefix_matches(&Prefix::Logs.path()));
    }

    #[test]
    fn rows_hold_a_name_whole(name in any_copy(), noise: Vec<u8>) {
        prop_assert_eq!(CopyName::from_bytes(&name.to_bytes()), Some(name));
        if let Some(name) = CopyName::from_bytes(&noise) {
            prop_assert_eq!(name.to_bytes().to_vec(), noise);
        }
    }
}
