//! Sealed texts open only for what, whom and when they were sealed.

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_767_225_600;

fn signer() -> Signer {
    Signer::with_keys(|purpose| blake3::derive_key(purpose, b"a hub's secret"))
}

fn lfs_link() -> LfsLink {
    LfsLink {
        act: LfsAct::Part { upload: UploadId::from_bytes([7; 16]), number: 3, length: 1 << 26 },
        repo: RepoId::from_bytes([1; 16]),
        holder: Holder(Some((UserId::from_bytes([2; 16]), TokenId::from_bytes([3; 16])))),
        proposes: false,
        sha256: Sha256::from_bytes([4; 32]),
        size: 5 << 30,
        expires: NOW + 900,
    }
}

#[test]
fn what_was_sealed_opens() {
    let signer = signer();
    let text = signer.seal(Purpose::Fetch, NOW, b"claims");
    assert_eq!(signer.open(Purpose::Fetch, NOW, &text).as_deref(), Some(b"claims".as_slice()));
}

#[test]
fn a_text_is_good_for_its_own_purpose_only() {
    let signer = signer();
    let all = [Purpose::Xet, Purpose::Fetch, Purpose::Lfs];
    for sealed in all {
        let text = signer.seal(sealed, NOW, b"claims");
        for opened in all {
            assert_eq!(signer.open(opened, NOW, &text).is_some(), sealed == opened);
        }
    }
}

#[test]
fn the_key_of_yesterday_is_taken_and_older_ones_are_not() {
    let signer = signer();
    let text = signer.seal(Purpose::Lfs, NOW, b"claims");
    for (days, opens) in [(0, true), (1, true), (2, false), (30, false)] {
        let later = NOW + days * SECONDS_PER_DAY;
        assert_eq!(signer.open(Purpose::Lfs, later, &text).is_some(), opens, "{days} days later");
    }
    // A node whose clock is a little behind must not refuse.
    assert!(signer.open(Purpose::Lfs, NOW - SECONDS_PER_DAY, &text).is_some());
}

#[test]
fn another_hub_opens_nothing() {
    let other = Signer::with_keys(|purpose| blake3::derive_key(purpose, b"another secret"));
    let text = signer().seal(Purpose::Xet, NOW, b"claims");
    assert_eq!(other.open(Purpose::Xet, NOW, &text), None);
}

#[test]
fn no_single_bit_can_be_changed() {
    let signer = signer();
    let text = signer.seal(Purpose::Lfs, NOW, &lfs_link().encode());
    let sealed = URL_SAFE_NO_PAD.decode(&text).expect("our own text");
    for bit in 0..sealed.len() * 8 {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let changed = URL_SAFE_NO_PAD.encode(changed);
        assert_eq!(signer.open(Purpose::Lfs, NOW, &changed), None, "bit {bit}");
    }
}

#[test]
fn no_character_can_be_changed_dropped_or_doubled() {
    let signer = signer();
    let text = signer.seal(Purpose::Lfs, NOW, &lfs_link().encode());
    for at in 0..text.len() {
        let (before, after) = text.split_at(at);
        let doubled = format!("{before}{}{after}", &after[..1]);
        let dropped = format!("{before}{}", &after[1..]);
        let other = if after.starts_with('A') { "B" } else { "A" };
        let changed = format!("{before}{other}{}", &after[1..]);
        for text in [doubled, dropped, changed, before.to_owned()] {
            assert_eq!(signer.open(Purpose::Lfs, NOW, &text), None, "at {at}: {text}");
        }
    }
    for text in [format!("{text}="), format!("{text}A"), format!("{text} "), String::new()] {
        assert_eq!(signer.open(Purpose::Lfs, NOW, &text), None, "{text}");
    }
}

#[test]
fn each_field_is_in_the_claims() {
    let link = lfs_link();
    let id = [9; 16];
    let changed = [
        LfsLink { act: LfsAct::Put, ..link },
        LfsLink { act: LfsAct::Get, ..link },
        LfsLink { act: LfsAct::Verify, ..link },
        LfsLink { act: LfsAct::Complete { upload: UploadId::from_bytes([7; 16]) }, ..link },
        LfsLink {
            act: LfsAct::Part { upload: UploadId::from_bytes(id), number: 3, length: 1 << 26 },
            ..link
        },
        LfsLink {
            act: LfsAct::Part { upload: UploadId::from_bytes([7; 16]), number: 4, length: 1 << 26 },
            ..link
        },
        LfsLink {
            act: LfsAct::Part { upload: UploadId::from_bytes([7; 16]), number: 3, length: 1 },
            ..link
        },
        LfsLink { repo: RepoId::from_bytes(id), ..link },
        LfsLink { holder: Holder(None), ..link },
        LfsLink { proposes: true, ..link },
        LfsLink { sha256: Sha256::from_bytes([9; 32]), ..link },
        LfsLink { size: 1, ..link },
        LfsLink { expires: NOW, ..link },
    ];
    for other in changed {
        assert_ne!(other.encode(), link.encode());
        assert_eq!(LfsLink::decode(&other.encode()).expect("round trip"), other);
    }
}

#[test]
fn the_claims_of_a_xet_token_come_back() {
    let (repo, expires) = (RepoId::from_bytes([1; 16]), NOW);
    for scope in [XetScope::Read, XetScope::Write, XetScope::Propose] {
        for holder in [Holder(None), lfs_link().holder] {
            for commit in [None, Some(ObjectHash::from_bytes([7; 20]))] {
                let token = XetToken { scope, repo, holder, expires, commit };
                assert_eq!(XetToken::decode(&token.encode()).expect("round trip"), token);
            }
        }
    }
}

proptest! {
    #[test]
    fn noise_opens_nothing_and_never_panics(text in ".{0,400}", bytes: Vec<u8>) {
        let signer = signer();
        prop_assert_eq!(signer.open(Purpose::Xet, NOW, &text), None);
        let encoded = URL_SAFE_NO_PAD.encode(&bytes);
        prop_assert_eq!(signer.open(Purpose::Fetch, NOW, &encoded), None);
        let _ = LfsLink::decode(&bytes);
        let _ = XetToken::decode(&bytes);
    }

    #[test]
    fn any_claims_come_back(claims: Vec<u8>, now in 0..4_000_000_000_u64) {
        prop_assume!(claims.len() < 1000);
        let signer = signer();
        let text = signer.seal(Purpose::Fetch, now, &claims);
        prop_assert_eq!(signer.open(Purpose::Fetch, now, &text), Some(claims));
    }
}
