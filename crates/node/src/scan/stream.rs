//! Pickles that follow each other in a stream of bytes, and what may stand behind the last one.

use std::ops::Range;

use ballast_format::pickle::{Problem, Progress, Report, Walker};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::source::{Budget, Source};
use crate::error::Result;

/// Pickles of one file.
const MAX_PICKLES: usize = 1000;
/// Content is read over up to this length, and passed over beyond it.
const WORTH_SKIPPING: u64 = 256 << 10;
/// The number that a file of the old form of `torch.save` begins with, and the pickles behind it:
/// a protocol, facts about the machine, the object, and the names of the storages.
const TORCH_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const TORCH_PICKLES: usize = 5;

/// What was found in a stream.
#[derive(Default)]
pub(super) struct Found {
    /// One report for each pickle.
    pub(super) reports: Vec<Report>,
    /// Whether the first pickle came to its end.
    pub(super) is_whole: bool,
}

/// Follows the pickles in these bytes of a file, to their end.
pub(super) async fn pickles(
    source: &Source,
    range: Range<u64>,
    budget: &mut Budget,
) -> Result<Found> {
    let mut found = Found::default();
    // What is said to be longer than the file is cut short.
    let range = range.start.min(source.size())..range.end.min(source.size());
    let mut at = range.start;
    let mut is_torch = false;
    while found.reports.len() < MAX_PICKLES {
        let (mut report, progress, end) = one(source, at..range.end, budget).await?;
        let is_first = found.reports.is_empty();
        if progress == Progress::Stopped {
            found.is_whole |= is_first;
            is_torch |= is_first && report.number.as_deref() == Some(&TORCH_MAGIC);
            found.reports.push(report);
            at = end;
            if at >= range.end {
                return Ok(found);
            }
            if is_torch && found.reports.len() == TORCH_PICKLES {
                if storages_end(&found.reports, at) != Some(range.end) {
                    note_last(&mut found, Problem::Trailing);
                }
                return Ok(found);
            }
            continue;
        }
        if is_first {
            found.reports.push(report);
        } else {
            // What follows is no pickle; if it imports something all the same, that counts.
            report.problems.clear();
            report.note(Problem::Trailing);
            found.reports.push(report);
        }
        return Ok(found);
    }
    note_last(&mut found, Problem::TooLarge);
    Ok(found)
}

fn note_last(found: &mut Found, problem: Problem) {
    if let Some(last) = found.reports.last_mut() {
        last.note(problem);
    }
}

/// Where the storages of tensors end that stand behind the pickles, each with its length.
fn storages_end(reports: &[Report], start: u64) -> Option<u64> {
    let object = reports.get(TORCH_PICKLES - 2)?;
    let mut end = start;
    for bytes in object.storages.values() {
        end = end.checked_add(8)?.checked_add(*bytes)?;
    }
    object.storages_known.then_some(end)
}

/// Follows one pickle; where it ends.
async fn one(
    source: &Source,
    range: Range<u64>,
    budget: &mut Budget,
) -> Result<(Report, Progress, u64)> {
    let (mut walker, mut at) = (Walker::new(), range.start);
    while walker.progress() == Progress::Reading && at < range.end && !budget.is_spent() {
        let before = at;
        let mut stream = source.open(at..range.end).await?;
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            let taken;
            (walker, taken) = feed(source, walker, piece, budget).await?;
            at += taken;
            if walker.progress() != Progress::Reading || budget.is_spent() {
                break;
            }
            if walker.skippable() > WORTH_SKIPPING {
                at += walker.skip(range.end - at);
                break;
            }
        }
        if at == before {
            break;
        }
    }
    let progress = walker.progress();
    let mut report = walker.finish();
    if progress == Progress::Reading && budget.is_spent() {
        report.note(Problem::TooLarge);
    }
    Ok((report, progress, at))
}

/// Hands a piece to the walker; how much of it was taken.
pub(super) async fn feed(
    source: &Source,
    mut walker: Walker,
    piece: Bytes,
    budget: &mut Budget,
) -> Result<(Walker, u64)> {
    if !budget.spend(piece.len() as u64) {
        return Ok((walker, 0));
    }
    let step = move || {
        let taken = walker.feed(&piece);
        (walker, taken as u64)
    };
    source.hub().pool().run(step).await
}
