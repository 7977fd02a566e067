//! Links keep their claims, and ranges are read strictly.

use proptest::prelude::*;

use super::*;

fn copy() -> CopyName {
    let mut bytes = [5; CopyName::LENGTH];
    bytes[0] = 1;
    CopyName::from_bytes(&bytes).expect("kind 1 is a kind")
}

#[test]
fn a_link_comes_back_as_it_was() {
    let repo = RepoId::from_bytes([3; 16]);
    for ranges in [vec![], vec![0..1], vec![5..9, 100..u64::MAX]] {
        let link = FetchLink { copy: copy(), repo, expires: 77, ranges };
        assert_eq!(FetchLink::decode(&link.encode()), Some(link));
    }
}

#[test]
fn a_cut_link_is_no_link() {
    let repo = RepoId::from_bytes([3; 16]);
    let whole = FetchLink { copy: copy(), repo, expires: 77, ranges: vec![0..9] }.encode();
    let cut: Vec<usize> =
        (0..whole.len()).filter(|n| FetchLink::decode(&whole[..*n]).is_some()).collect();
    // Without its range it is a link to nothing.
    assert_eq!(cut, [whole.len() - 16]);
}

#[test]
fn a_link_with_the_most_ranges_is_short_enough() {
    let repo = RepoId::from_bytes([3; 16]);
    let ranges = vec![0..u64::MAX; MAX_RANGES];
    let link = FetchLink { copy: copy(), repo, expires: u64::MAX, ranges };
    assert!(link.encode().len() < 1000);
}

#[test]
fn ranges_are_read_strictly() {
    let read = |text: &str| parse(text).ok();
    assert_eq!(read("bytes=0-0"), Some(vec![0..1]));
    assert_eq!(read("bytes=0-9, 20-29"), Some(vec![0..10, 20..30]));
    for bad in [
        "",
        "bytes",
        "bytes=",
        "bytes=-5",
        "bytes=5-",
        "bytes=5-4",
        "bytes=+1-5",
        "bytes=1-5,",
        "items=0-5",
        "bytes=0x0-5",
        "bytes=0-18446744073709551615",
        "bytes=0-99999999999999999999",
        "bytes=1 - 5",
    ] {
        assert_eq!(read(bad), None, "{bad}");
    }
    let many = (0..=MAX_RANGES).map(|i| format!("{i}-{i}")).collect::<Vec<_>>().join(",");
    assert_eq!(read(&format!("bytes={many}")), None);
}

proptest! {
    #[test]
    fn no_header_panics(text in ".{0,100}") {
        if let Ok(ranges) = parse(&text) {
            prop_assert!(ranges.iter().all(|range| range.start < range.end));
        }
    }

    #[test]
    fn noise_is_no_link_and_never_panics(bytes: Vec<u8>) {
        let _ = FetchLink::decode(&bytes);
    }
}
