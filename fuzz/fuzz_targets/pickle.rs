//! Pickles: one byte after the other, and in the pieces that the first byte says, give the same.
#![no_main]

use ballast_format::pickle::{Progress, Report, Walker};
use libfuzzer_sys::fuzz_target;

fn walk(bytes: &[u8], piece: usize) -> (Report, Progress, u64) {
    let mut walker = Walker::new();
    for piece in bytes.chunks(piece) {
        if walker.feed(piece) < piece.len() {
            break;
        }
    }
    let (progress, taken) = (walker.progress(), walker.taken());
    (walker.finish(), progress, taken)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    let whole = walk(bytes, bytes.len().max(1));
    assert_eq!(whole, walk(bytes, usize::from(*piece).max(1)));
    // What does not come to its end is never taken for good.
    assert!(whole.1 == Progress::Stopped || !whole.0.problems.is_empty());
});
