//! The `Range` header: which bytes of a file a request asks for.
//!
//! What is answered is one range. Of several, those that overlap or touch the first one are merged
//! with it and the others are not served, as the standard allows a server to choose. A header that
//! does not parse is an error here; whether it is then ignored, as the standard asks, or refused
//! is for the dialect to say.

use std::ops::Range;

use crate::limits::MAX_RANGES;
use crate::{Error, Result};

const WHAT: &str = "range";

/// A request for some bytes of something whose size is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// One at least.
    ranges: Vec<ByteRange>,
}

/// One range as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ByteRange {
    /// From `first` to `last`, this one included.
    Between { first: u64, last: u64 },
    /// The last so many bytes.
    Last(u64),
}

/// No byte of what is there was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the range lies behind the end at {size}")]
pub struct Unsatisfiable {
    /// The size of what is there, for the answer's `Content-Range`.
    pub size: u64,
}

impl RangeRequest {
    /// Reads the header's value, such as `bytes=0-499`, `bytes=500-` or `bytes=-500`.
    ///
    /// Numbers of any length are taken: beyond 64 bits they mean the largest there is.
    pub fn parse(value: &str) -> Result<Self> {
        let (unit, list) = value
            .trim_matches(is_blank)
            .split_once('=')
            .ok_or_else(|| malformed("there is no unit"))?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return Err(malformed("the unit is not bytes"));
        }
        let mut ranges = Vec::new();
        for text in list.split(',') {
            let text = text.trim_matches(is_blank);
            // The standard allows lists to have empty elements.
            if text.is_empty() {
                continue;
            }
            if ranges.len() == MAX_RANGES {
                return Err(malformed("there are too many ranges"));
            }
            ranges.push(ByteRange::parse(text)?);
        }
        if ranges.is_empty() {
            return Err(malformed("there are no ranges"));
        }
        Ok(Self { ranges })
    }

    /// The bytes to answer with, of something of `size` bytes; never an empty range.
    pub fn resolve(&self, size: u64) -> std::result::Result<Range<u64>, Unsatisfiable> {
        let mut others: Vec<_> =
            self.ranges.iter().filter_map(|range| range.resolve(size)).collect();
        if others.is_empty() {
            return Err(Unsatisfiable { size });
        }
        let mut merged = others.remove(0);
        // Each that joins may bring others into reach.
        while let Some(next) =
            others.iter().position(|other| other.start <= merged.end && merged.start <= other.end)
        {
            let next = others.swap_remove(next);
            merged = merged.start.min(next.start)..merged.end.max(next.end);
        }
        Ok(merged)
    }
}

impl ByteRange {
    fn parse(text: &str) -> Result<Self> {
        let (first, last) = text.split_once('-').ok_or_else(|| malformed("there is no dash"))?;
        match (first, last) {
            ("", last) => Ok(Self::Last(number(last)?)),
            (first, "") => Ok(Self::Between { first: number(first)?, last: u64::MAX }),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(malformed("it ends before it starts"));
                }
                Ok(Self::Between { first, last })
            }
        }
    }

    /// The part of it that exists.
    fn resolve(self, size: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::Between { first, last } => first..last.saturating_add(1).min(size),
            Self::Last(length) => size.saturating_sub(length)..size,
        };
        (!range.is_empty()).then_some(range)
    }
}

fn number(text: &str) -> Result<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed("there is something else than digits"));
    }
    // Digits only, so nothing but their number can be wrong.
    Ok(text.parse().unwrap_or(u64::MAX))
}

fn is_blank(letter: char) -> bool {
    matches!(letter, ' ' | '\t')
}

fn malformed(reason: &str) -> Error {
    Error::malformed(WHAT, reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolved(value: &str, size: u64) -> Option<Range<u64>> {
        RangeRequest::parse(value).expect("valid").resolve(size).ok()
    }

    #[test]
    fn one_range_is_what_it_says() {
        assert_eq!(resolved("bytes=0-499", 1000), Some(0..500));
        assert_eq!(resolved("bytes=500-999", 1000), Some(500..1000));
        assert_eq!(resolved("bytes=500-", 1000), Some(500..1000));
        assert_eq!(resolved("bytes=-500", 1000), Some(500..1000));
        assert_eq!(resolved("bytes=0-0", 1000), Some(0..1));
        assert_eq!(resolved(" Bytes= 7-7 ", 1000), Some(7..8));
    }

    #[test]
    fn an_end_beyond_the_file_is_the_end_of_the_file() {
        assert_eq!(resolved("bytes=0-18446744073709551614", 10), Some(0..10));
        assert_eq!(resolved("bytes=5-18446744073709551615", 10), Some(5..10));
        assert_eq!(resolved("bytes=5-99999999999999999999999999", 10), Some(5..10));
        assert_eq!(resolved("bytes=-99999999999999999999999999", 10), Some(0..10));
        assert_eq!(resolved("bytes=-11", 10), Some(0..10));
        let all = "bytes=0-18446744073709551615";
        assert_eq!(resolved(all, u64::MAX), Some(0..u64::MAX));
    }

    #[test]
    fn a_start_at_or_past_the_end_cannot_be_satisfied() {
        for (value, size) in [
            ("bytes=10-", 10),
            ("bytes=10-20", 10),
            ("bytes=99999999999999999999-", 10),
            ("bytes=-0", 10),
            ("bytes=0-", 0),
            ("bytes=0-0", 0),
            ("bytes=-5", 0),
            ("bytes=10-,20-", 10),
        ] {
            let result = RangeRequest::parse(value).expect("valid").resolve(size);
            assert_eq!(result, Err(Unsatisfiable { size }), "{value} of {size}");
        }
    }

    #[test]
    fn of_several_ranges_the_first_is_answered_with_what_touches_it() {
        assert_eq!(resolved("bytes=0-1,5-6", 10), Some(0..2));
        assert_eq!(resolved("bytes=5-6,0-1", 10), Some(5..7));
        assert_eq!(resolved("bytes=0-1,2-3", 10), Some(0..4));
        assert_eq!(resolved("bytes=2-3, 0-1 ,,8-", 10), Some(0..4));
        assert_eq!(resolved("bytes=0-1,6-7,4-5,2-3", 10), Some(0..8));
        assert_eq!(resolved("bytes=20-30,3-4", 10), Some(3..5));
        assert_eq!(resolved("bytes=-2,0-7", 10), Some(0..10));
    }

    #[test]
    fn what_is_not_a_range_is_refused() {
        for wrong in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=1-b",
            "bytes=5-4",
            "bytes=1",
            "bytes 0-1",
            "items=0-1",
            "bytes=0x1-2",
            "bytes=+1-2",
            "bytes=1--2",
            "bytes=1 -2",
            "bytes=1-2-3",
            "bytes=0-1;2-3",
            "bytes=０-1",
            "bytes=0-1,x",
        ] {
            assert!(RangeRequest::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn too_many_ranges_are_refused() {
        let list = |count| format!("bytes={}", vec!["0-1"; count].join(","));
        assert!(RangeRequest::parse(&list(MAX_RANGES)).is_ok());
        assert!(RangeRequest::parse(&list(MAX_RANGES + 1)).is_err());
    }

    proptest! {
        #[test]
        fn noise_is_parsed_or_refused(value: String, list in "bytes=[-,0-9 ]{0,40}", size: u64) {
            for value in [value, list] {
                let Ok(request) = RangeRequest::parse(&value) else { continue };
                if let Ok(range) = request.resolve(size) {
                    prop_assert!(range.start < range.end && range.end <= size);
                }
            }
        }

        #[test]
        fn the_answer_is_the_span_of_all_that_is_connected_to_the_first(
            ranges in prop::collection::vec((0_u64..60, 0_u64..12), 1..8),
            size in 1_u64..64,
        ) {
            let list: Vec<_> =
                ranges.iter().map(|(first, more)| format!("{first}-{}", first + more)).collect();
            let answer = resolved(&format!("bytes={}", list.join(",")), size);
            // Bytes one by one: those asked for, then those that the first can be walked from to.
            let is_asked = |byte: u64| {
                let holds = |(first, more): &(u64, u64)| (*first..=first + more).contains(&byte);
                byte < size && ranges.iter().any(holds)
            };
            let start = ranges.iter().map(|(first, _)| *first).find(|first| *first < size);
            let expected = start.map(|start| {
                let low = (0..=start).rev().take_while(|byte| is_asked(*byte)).last();
                let high = (start..size).take_while(|byte| is_asked(*byte)).last();
                low.expect("asked for")..high.expect("asked for") + 1
            });
            prop_assert_eq!(answer, expected);
        }
    }
}
