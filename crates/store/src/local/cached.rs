//! Reads that the page cache answers at once.
//!
//! What was stored or read lately is in memory already: to fetch it needs no thread that may wait
//! for a disk, and who sends it next finds it in the same core's cache. The kernel is asked not to
//! wait, for the path's lookup and for each read; where it would have to, or can't promise not to,
//! there is no answer and the caller reads on a thread.

use std::io::IoSliceMut;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{ReadWriteFlags, preadv2};

/// More than this takes too long for a thread that others wait for.
const MOST_BYTES: u64 = 1024 * 1024;

/// These ranges of a file, if all of them are in memory.
pub(super) fn read_cached(file: &Path, ranges: &[Range<u64>]) -> Option<Vec<Bytes>> {
    let total: u64 = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
    if total > MOST_BYTES {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat2(CWD, file, flags, Mode::empty(), ResolveFlags::CACHED).ok()?;
    ranges.iter().map(|range| read_range(&file, range)).collect()
}

fn read_range(file: &OwnedFd, range: &Range<u64>) -> Option<Bytes> {
    let length = usize::try_from(range.end.saturating_sub(range.start)).ok()?;
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let mut rest = [IoSliceMut::new(&mut bytes[filled..])];
        let at = range.start + filled as u64;
        match preadv2(file, &mut rest, at, ReadWriteFlags::NOWAIT) {
            Ok(read) if read > 0 => filled += read,
            _ => return None,
        }
    }
    Some(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_just_written_is_read_and_what_is_not_there_is_no_answer() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        let content: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&path, &content).expect("it writes");
        // A file system that can't promise not to wait gives no answer, which is right too.
        if let Some(read) = read_cached(&path, &[10..100_000, 0..0, 199_990..200_000]) {
            assert_eq!(read[0], content[10..100_000]);
            assert!(read[1].is_empty());
            assert_eq!(read[2], content[199_990..]);
        }
        assert!(read_cached(&path, std::slice::from_ref(&(199_990..200_001))).is_none());
        assert!(read_cached(&path, std::slice::from_ref(&(0..MOST_BYTES + 1))).is_none());
        assert!(read_cached(&folder.path().join("b"), std::slice::from_ref(&(0..1))).is_none());
    }
}
