//! The documents are JSON of the right shape, whatever their size.

use ballast_format::hash::XorbHash;
use ballast_node::download::CopyName;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn copy(number: u8) -> CopyName {
    let mut bytes = [number; CopyName::LENGTH];
    bytes[0] = 1;
    CopyName::from_bytes(&bytes).expect("kind 1 is a kind")
}

fn fetch(xorb: u8, copy_number: u8, chunks: Range<u32>) -> Fetch {
    let bytes = u64::from(chunks.start) * 100..u64::from(chunks.end) * 100;
    Fetch { xorb: XorbHash::from_bytes([xorb; 32]), copy: copy(copy_number), chunks, bytes }
}

fn term(xorb: u8, chunks: Range<u32>) -> Term {
    let length = (chunks.end - chunks.start) * 90;
    Term { xorb: XorbHash::from_bytes([xorb; 32]), chunks, length }
}

fn document(shape: Shape, files: Vec<(FileHash, Vec<Term>)>, fetches: Vec<Fetch>) -> Document {
    let linker: Linker = Box::new(|copy, ranges| format!("http://h/{}/{ranges:?}", copy.nonce));
    Document { shape, linker, offset: 17, files, fetches, place: Place::Start }
}

fn read(document: Document) -> Value {
    let bytes: Vec<u8> = document.flatten().collect();
    serde_json::from_slice(&bytes).expect("JSON")
}

fn file(number: u8) -> FileHash {
    FileHash::from_bytes([number; 32])
}

#[test]
fn version_1_has_a_link_for_each_range() {
    let terms = vec![term(1, 0..3), term(2, 5..6), term(1, 7..8)];
    let fetches = vec![fetch(1, 1, 0..3), fetch(1, 1, 7..8), fetch(2, 2, 5..6)];
    let value = read(document(Shape::V1, vec![(file(9), terms)], fetches));
    let (one, two) = ("01".repeat(32), "02".repeat(32));
    assert_eq!(value["offset_into_first_range"], 17);
    assert_eq!(
        value["terms"][1],
        json!({"hash": two, "unpacked_length": 90, "range": {"start": 5, "end": 6}})
    );
    assert_eq!(value["fetch_info"].as_object().map(serde_json::Map::len), Some(2));
    assert_eq!(value["fetch_info"][&one].as_array().map(Vec::len), Some(2));
    let info = &value["fetch_info"][&one][1];
    assert_eq!(info["range"], json!({"start": 7, "end": 8}));
    assert_eq!(info["url_range"], json!({"start": 700, "end": 799}));
    assert!(info["url"].as_str().is_some_and(|url| url.ends_with("[700..800]")));
}

#[test]
fn version_2_puts_the_ranges_of_a_copy_behind_few_links() {
    let fetches: Vec<Fetch> = (0..40).map(|i| fetch(1, 1, i * 2..i * 2 + 1)).collect();
    let value = read(document(Shape::V2, vec![(file(9), vec![term(1, 0..1)])], fetches));
    let links = value["xorbs"]["01".repeat(32)].as_array().expect("links");
    let counts: Vec<usize> =
        links.iter().map(|link| link["ranges"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!(counts, [MAX_RANGES, MAX_RANGES, 40 - 2 * MAX_RANGES]);
    assert_eq!(
        links[1]["ranges"][0],
        json!({"chunks": {"start": 32, "end": 33}, "bytes": {"start": 3200, "end": 3299}})
    );
}

#[test]
fn an_empty_file_has_empty_lists() {
    let value = read(document(Shape::V2, vec![(file(0), vec![])], vec![]));
    assert_eq!(value, json!({"offset_into_first_range": 17, "terms": [], "xorbs": {}}));
    let value = read(document(Shape::V1, vec![(file(0), vec![])], vec![]));
    assert_eq!(value, json!({"offset_into_first_range": 17, "terms": [], "fetch_info": {}}));
    let value = read(document(Shape::Batch, vec![], vec![]));
    assert_eq!(value, json!({"files": {}, "fetch_info": {}}));
}

#[test]
fn a_batch_names_each_file() {
    let files = vec![(file(1), vec![term(1, 0..2)]), (file(2), vec![term(1, 1..3), term(2, 0..1)])];
    let fetches = vec![fetch(1, 1, 0..3), fetch(2, 1, 0..1)];
    let value = read(document(Shape::Batch, files, fetches));
    assert_eq!(value["files"]["01".repeat(32)].as_array().map(Vec::len), Some(1));
    assert_eq!(value["files"]["02".repeat(32)].as_array().map(Vec::len), Some(2));
    assert_eq!(value["fetch_info"].as_object().map(serde_json::Map::len), Some(2));
}

#[test]
fn a_large_document_comes_in_small_pieces() {
    let count = 100_000;
    let terms = (0..count).map(|i| term(1, i * 2..i * 2 + 1)).collect();
    let fetches = (0..count).map(|i| fetch(1, 1, i * 2..i * 2 + 1)).collect();
    let mut whole = Vec::new();
    for piece in document(Shape::V2, vec![(file(9), terms)], fetches) {
        assert!(piece.len() < 2 * PIECE_BYTES);
        whole.extend_from_slice(&piece);
    }
    let value: Value = serde_json::from_slice(&whole).expect("JSON");
    assert_eq!(value["terms"].as_array().map(Vec::len), Some(100_000));
}

#[test]
fn ranges_that_overlap_or_touch_are_joined() {
    let fetches = vec![fetch(1, 1, 4..6), fetch(2, 1, 0..9), fetch(1, 1, 0..2), fetch(1, 1, 2..5)];
    let joined = joined(fetches).expect("one copy each");
    let chunks: Vec<(u8, Range<u32>)> =
        joined.iter().map(|fetch| (fetch.xorb.as_bytes()[0], fetch.chunks.clone())).collect();
    assert_eq!(chunks, [(1, 0..6), (2, 0..9)]);
    assert_eq!(joined[0].bytes, 0..600);
}

#[test]
fn overlapping_ranges_of_two_copies_are_not_joined() {
    assert!(joined(vec![fetch(1, 1, 0..4), fetch(1, 2, 3..5)]).is_none());
    let apart = joined(vec![fetch(1, 1, 0..4), fetch(1, 2, 4..5)]).expect("they only touch");
    assert_eq!(apart.len(), 2);
}

proptest! {
    /// What is fetched covers each term, and no two ranges of a xorb overlap or share a start.
    #[test]
    fn joined_ranges_cover_and_do_not_overlap(
        asked in proptest::collection::vec((0..3_u8, 0..50_u32, 1..10_u32), 0..60)
    ) {
        let fetches: Vec<Fetch> =
            asked.iter().map(|(xorb, start, n)| fetch(*xorb, 1, *start..start + n)).collect();
        let joined = joined(fetches.clone()).expect("one copy");
        for fetch in &fetches {
            let covers = |other: &&Fetch| {
                other.xorb == fetch.xorb
                    && other.chunks.start <= fetch.chunks.start
                    && fetch.chunks.end <= other.chunks.end
            };
            prop_assert_eq!(joined.iter().filter(covers).count(), 1);
        }
        for pair in joined.windows(2) {
            prop_assert!(pair[0].xorb != pair[1].xorb || pair[0].chunks.end < pair[1].chunks.start);
        }
    }
}
