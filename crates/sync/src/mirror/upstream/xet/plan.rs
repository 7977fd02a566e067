//! What a part of a file is made of, as the upstream's store of xorbs says, and which of their
//! bytes to fetch for it.

use std::collections::HashMap;
use std::ops::Range;

use ballast_format::hash::{FileHash, XorbHash};
use ballast_format::limits::{MAX_XORB_BYTES, MAX_XORB_CHUNKS, MAX_XORB_SERIALIZED_BYTES};
use serde::Deserialize;

use super::here::Spans;
use crate::mirror::upstream::error::Error;

/// Terms that one answer may have.
const MAX_TERMS: usize = 200_000;
/// How many more bytes than the file has may be fetched for it, in percent; beyond, its bytes are
/// better had as they are.
const MOST_PERCENT: u64 = 125;

#[derive(Deserialize)]
struct Pair {
    start: u64,
    end: u64,
}

#[derive(Deserialize)]
struct WireTerm {
    hash: String,
    unpacked_length: u64,
    range: Pair,
}

#[derive(Deserialize)]
struct WireFetch {
    range: Pair,
    url: String,
    url_range: Pair,
}

#[derive(Deserialize)]
struct WireRange {
    chunks: Pair,
    bytes: Pair,
}

#[derive(Deserialize)]
struct WireXorb {
    url: String,
    ranges: Vec<WireRange>,
}

/// A reconstruction, of either version.
#[derive(Deserialize)]
pub(super) struct Wire {
    offset_into_first_range: u64,
    terms: Vec<WireTerm>,
    #[serde(default)]
    fetch_info: HashMap<String, Vec<WireFetch>>,
    #[serde(default)]
    xorbs: HashMap<String, Vec<WireXorb>>,
}

/// Of a reconstruction, what the file is made of.
#[derive(Deserialize)]
pub(super) struct WireTerms {
    terms: Vec<WireTerm>,
}

impl WireTerms {
    /// The ranges of xorbs; nothing if they can't be.
    pub(super) fn ranges(&self) -> Option<Vec<(XorbHash, Range<u32>)>> {
        let range = |term: &WireTerm| Some((term.hash.parse().ok()?, chunk_range(&term.range)?));
        (self.terms.len() <= MAX_TERMS).then(|| self.terms.iter().map(range).collect())?
    }
}

/// Serialized chunks that are fetched with one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) xorb: XorbHash,
    pub(super) url: String,
    /// Which chunks of the xorb they are.
    pub(super) chunks: Range<u32>,
    /// Which of its bytes.
    pub(super) bytes: Range<u64>,
}

/// Chunks that come one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// Terms of the file that lie behind each other in one source.
    There {
        source: Source,
        /// Chunks to take from it, in order, each with their uncompressed length together.
        terms: Vec<(Range<u32>, u64)>,
    },
    /// Chunks of a file that is here, counted from its first, and their length together.
    Here { file: FileHash, chunks: Range<u64>, length: u64 },
}

/// What to fetch for a part of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Bytes of the first chunk that come before the part.
    pub(super) skip: u64,
    pub(super) runs: Vec<Run>,
    /// Bytes of all terms together.
    pub(super) length: u64,
}

impl Plan {
    /// Checks an answer, and plans; what is here is not fetched.
    pub(super) fn of(wire: Wire, here: &Spans) -> Result<Self, Error> {
        let fault = |what: &str| Error::lied(format!("its reconstruction {what}"));
        if wire.terms.len() > MAX_TERMS {
            return Err(fault("has too many terms"));
        }
        let sources = sources(&wire)?;
        let (mut runs, mut length): (Vec<Run>, u64) = (Vec::new(), 0);
        for term in &wire.terms {
            let chunks =
                chunk_range(&term.range).ok_or_else(|| fault("has a term of no chunks"))?;
            if term.unpacked_length == 0 || term.unpacked_length > MAX_XORB_BYTES as u64 {
                return Err(fault("has a term of an impossible length"));
            }
            length += term.unpacked_length;
            if let Some((file, chunks)) = find_here(here, &term.hash, &chunks) {
                push_here(&mut runs, file, chunks, term.unpacked_length);
                continue;
            }
            let source = sources.get(term.hash.as_str()).and_then(|all| {
                all.iter().find(|s| s.chunks.start <= chunks.start && chunks.end <= s.chunks.end)
            });
            let source = source.ok_or_else(|| fault("has a term that cannot be fetched"))?;
            push_there(&mut runs, source, (chunks, term.unpacked_length));
        }
        if wire.offset_into_first_range >= length.max(1) {
            return Err(fault("begins behind its end"));
        }
        let plan = Self { skip: wire.offset_into_first_range, runs, length };
        plan.is_worth_it().then_some(plan).ok_or_else(|| Error::Unfit {
            what: "a file in so many pieces that more would be fetched than it has".to_owned(),
        })
    }

    fn is_worth_it(&self) -> bool {
        let bytes = |run: &Run| match run {
            Run::There { source, .. } => source.bytes.end - source.bytes.start,
            Run::Here { .. } => 0,
        };
        let fetched: u64 = self.runs.iter().map(bytes).sum();
        fetched <= (self.length / 100).saturating_mul(MOST_PERCENT) + MAX_XORB_BYTES as u64
    }
}

fn find_here(here: &Spans, xorb: &str, chunks: &Range<u32>) -> Option<(FileHash, Range<u64>)> {
    if here.is_empty() {
        return None;
    }
    here.find(&xorb.parse().ok()?, chunks)
}

fn push_here(runs: &mut Vec<Run>, file: FileHash, chunks: Range<u64>, length: u64) {
    match runs.last_mut() {
        Some(Run::Here { file: last, chunks: before, length: sum })
            if *last == file && before.end == chunks.start =>
        {
            before.end = chunks.end;
            *sum += length;
        }
        _ => runs.push(Run::Here { file, chunks, length }),
    }
}

fn push_there(runs: &mut Vec<Run>, from: &Source, term: (Range<u32>, u64)) {
    match runs.last_mut() {
        Some(Run::There { source, terms })
            if source == from && terms.last().is_some_and(|(last, _)| last.end <= term.0.start) =>
        {
            terms.push(term);
        }
        _ => runs.push(Run::There { source: from.clone(), terms: vec![term] }),
    }
}

fn chunk_range(pair: &Pair) -> Option<Range<u32>> {
    let (start, end) = (u32::try_from(pair.start).ok()?, u32::try_from(pair.end).ok()?);
    (start < end && end as usize <= MAX_XORB_CHUNKS).then_some(start..end)
}

/// The sources of both versions, by the text of the xorb's hash.
fn sources(wire: &Wire) -> Result<HashMap<&str, Vec<Source>>, Error> {
    let source = |xorb: &String, url: &String, chunks: &Pair, bytes: &Pair| {
        let xorb = xorb.parse().ok()?;
        let chunks = chunk_range(chunks)?;
        // Both ends of the bytes are in it.
        let bytes = bytes.start..bytes.end.checked_add(1)?;
        let fits = bytes.start < bytes.end && bytes.end <= MAX_XORB_SERIALIZED_BYTES as u64;
        fits.then(|| Source { xorb, url: url.clone(), chunks, bytes })
    };
    let mut all: HashMap<&str, Vec<Source>> = HashMap::new();
    let v1 = wire.fetch_info.iter().flat_map(|(xorb, fetches)| {
        fetches.iter().map(move |f| (xorb, source(xorb, &f.url, &f.range, &f.url_range)))
    });
    let v2 = wire.xorbs.iter().flat_map(|(xorb, parts)| {
        parts.iter().flat_map(move |part| {
            part.ranges.iter().map(move |r| (xorb, source(xorb, &part.url, &r.chunks, &r.bytes)))
        })
    });
    for (xorb, source) in v1.chain(v2) {
        let source =
            source.ok_or_else(|| Error::lied("its reconstruction has a range that is none"))?;
        all.entry(xorb).or_default().push(source);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn xorb(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    fn plan(value: serde_json::Value) -> Result<Plan, Error> {
        Plan::of(serde_json::from_value(value).expect("the shape is right"), &Spans::default())
    }

    #[test]
    fn both_versions_say_the_same() {
        let a = xorb('a');
        let terms = json!([
            { "hash": a, "unpacked_length": 100, "range": { "start": 0, "end": 2 } },
            { "hash": a, "unpacked_length": 50, "range": { "start": 3, "end": 4 } },
        ]);
        let v1 = plan(json!({
            "offset_into_first_range": 7, "terms": terms,
            "fetch_info": { a.clone(): [{
                "range": { "start": 0, "end": 4 }, "url": "https://x/",
                "url_range": { "start": 0, "end": 149 },
            }] },
        }));
        let v2 = plan(json!({
            "offset_into_first_range": 7, "terms": terms,
            "xorbs": { a: [{ "url": "https://x/", "ranges": [
                { "chunks": { "start": 0, "end": 4 }, "bytes": { "start": 0, "end": 149 } },
            ] }] },
        }));
        let v1 = v1.expect("right");
        assert_eq!(v1, v2.expect("right"));
        assert_eq!((v1.skip, v1.length, v1.runs.len()), (7, 150, 1), "one run of two terms");
        let Run::There { source, terms } = &v1.runs[0] else { panic!("nothing is here") };
        assert_eq!(*terms, [(0..2, 100), (3..4, 50)]);
        assert_eq!(source.bytes, 0..150);
    }

    #[test]
    fn what_is_here_is_not_fetched() {
        let (a, old) = (xorb('a'), FileHash::from_bytes([1; 32]));
        let term = |start: u64, end: u64, length: u64| {
            json!({
                "hash": a, "unpacked_length": length, "range": { "start": start, "end": end },
            })
        };
        let wire = json!({
            "offset_into_first_range": 3,
            "terms": [term(0, 2, 100), term(2, 4, 90), term(4, 6, 80), term(1, 3, 70)],
            "fetch_info": { a.clone(): [{
                "range": { "start": 4, "end": 6 }, "url": "https://x/",
                "url_range": { "start": 200, "end": 279 },
            }] },
        });
        let mut here = Spans::default();
        here.learn(old, [(a.parse().expect("a hash"), 0..4)].into_iter());
        let plan = Plan::of(serde_json::from_value(wire).expect("right"), &here).expect("right");
        let [Run::Here { chunks, length, .. }, Run::There { terms, .. }, Run::Here { .. }] =
            &plan.runs[..]
        else {
            panic!("{:?}", plan.runs)
        };
        assert_eq!((chunks.clone(), *length), (0..4, 190), "two terms are one run");
        assert_eq!(*terms, [(4..6, 80)]);
        assert_eq!((plan.skip, plan.length), (3, 340));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let a = xorb('a');
        let with = |range: (u64, u64), length: u64, bytes: (u64, u64), hash: &str, skip: u64| {
            plan(json!({
                "offset_into_first_range": skip,
                "terms": [{
                    "hash": hash, "unpacked_length": length,
                    "range": { "start": range.0, "end": range.1 },
                }],
                "fetch_info": { a.clone(): [{
                    "range": { "start": 0, "end": 2 }, "url": "https://x/",
                    "url_range": { "start": bytes.0, "end": bytes.1 },
                }] },
            }))
        };
        assert!(with((0, 2), 10, (0, 9), &a, 0).is_ok());
        assert!(with((0, 3), 10, (0, 9), &a, 0).is_err(), "outside of what can be fetched");
        assert!(with((1, 1), 10, (0, 9), &a, 0).is_err(), "no chunks");
        assert!(with((0, 1 << 40), 10, (0, 9), &a, 0).is_err(), "too many");
        assert!(with((0, 2), 0, (0, 9), &a, 0).is_err(), "no bytes");
        assert!(with((0, 2), 1 << 40, (0, 9), &a, 0).is_err(), "too long");
        assert!(with((0, 2), 10, (9, 3), &a, 0).is_err(), "backwards");
        assert!(with((0, 2), 10, (0, u64::MAX), &a, 0).is_err(), "past everything");
        assert!(with((0, 2), 10, (0, 1 << 30), &a, 0).is_err(), "no xorb is so long");
        assert!(with((0, 2), 10, (0, 9), &xorb('b'), 0).is_err(), "another xorb");
        assert!(with((0, 2), 10, (0, 9), &a, 10).is_err(), "behind its end");
    }

    #[test]
    fn a_file_in_too_many_pieces_is_left_to_others() {
        let (a, b) = (xorb('a'), xorb('b'));
        let fetch = |url: &str| {
            json!([{
                "range": { "start": 0, "end": 1000 }, "url": url,
                "url_range": { "start": 0, "end": 60_000_000 },
            }])
        };
        let term = |hash: &str, at: u64| {
            json!({
                "hash": hash, "unpacked_length": 65_536,
                "range": { "start": at, "end": at + 1 },
            })
        };
        let terms: Vec<_> = (0..10).flat_map(|at| [term(&a, at), term(&b, at)]).collect();
        let wide = plan(json!({
            "offset_into_first_range": 0, "terms": terms,
            "fetch_info": { a.clone(): fetch("https://x/"), b.clone(): fetch("https://y/") },
        }));
        assert!(matches!(wide, Err(Error::Unfit { .. })));
    }
}
