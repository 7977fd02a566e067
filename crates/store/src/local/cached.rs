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
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{ReadWriteFlags, preadv2};

/// More than this takes too long for a thread that others wait for.
const MOST_BYTES: u64 = 1024 * 1024;
/// Buffers that are kept for the next reads.
const KEPT: usize = 16;
/// To get less than this costs nothing.
const WORTH_KEEPING: usize = 32 * 1024;

/// These ranges of a file, if all of them are in memory.
pub(super) fn read_cached(
    file: &Path,
    ranges: &[Range<u64>],
    buffers: &Arc<Buffers>,
) -> Option<Vec<Bytes>> {
    let total: u64 = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
    if total > MOST_BYTES {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat2(CWD, file, flags, Mode::empty(), ResolveFlags::CACHED).ok()?;
    ranges.iter().map(|range| read_range(&file, range, buffers)).collect()
}

fn read_range(file: &OwnedFd, range: &Range<u64>, buffers: &Arc<Buffers>) -> Option<Bytes> {
    let length = usize::try_from(range.end.saturating_sub(range.start)).ok()?;
    let mut buffer = buffers.take(length);
    let mut filled = 0;
    while filled < length {
        let mut rest = [IoSliceMut::new(&mut buffer.bytes[filled..length])];
        let at = range.start + filled as u64;
        match preadv2(file, &mut rest, at, ReadWriteFlags::NOWAIT) {
            Ok(read) if read > 0 => filled += read,
            _ => return None,
        }
    }
    Some(Bytes::from_owner(buffer))
}

/// Memory for reads that is used again. New memory has to be cleared, and the kernel be asked for
/// it page by page, for each piece that is read.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

/// What one read fills, and others fill after it.
struct Buffer {
    bytes: Vec<u8>,
    length: usize,
    home: Arc<Buffers>,
}

impl Buffers {
    /// Room for so many bytes, in half as many more at most: what is read may be kept for long.
    fn take(self: &Arc<Self>, length: usize) -> Buffer {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |bytes: &Vec<u8>| (length..=length + length / 2).contains(&bytes.len());
        // The one that was filled last may still be in the core's cache.
        let found = kept.iter().rposition(fits).map(|at| kept.remove(at));
        drop(kept);
        let bytes = found.unwrap_or_else(|| vec![0; length]);
        Buffer { bytes, length, home: Arc::clone(self) }
    }

    fn give_back(&self, bytes: Vec<u8>) {
        if bytes.len() < WORTH_KEEPING {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push(bytes);
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.bytes));
    }
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
        let buffers = Arc::default();
        let read = |path: &Path, range| read_cached(path, &[range], &buffers);
        // A file system that can't promise not to wait gives no answer, which is right too.
        if let Some(read) = read_cached(&path, &[10..100_000, 0..0, 199_990..200_000], &buffers) {
            assert_eq!(read[0], content[10..100_000]);
            assert!(read[1].is_empty());
            assert_eq!(read[2], content[199_990..]);
        }
        // Into memory that has held more.
        if let Some(reread) = read(&path, 20..90_000) {
            assert_eq!(reread[0], content[20..90_000]);
        }
        assert!(read(&path, 199_990..200_001).is_none());
        assert!(read(&path, 0..MOST_BYTES + 1).is_none());
        assert!(read(&folder.path().join("b"), 0..1).is_none());
    }

    #[test]
    fn memory_is_used_again_for_reads_of_about_its_size_and_little_is_kept() {
        let buffers: Arc<Buffers> = Arc::default();
        drop(buffers.take(90_000));
        assert_eq!(buffers.take(90_001).bytes.len(), 90_001);
        assert_eq!(buffers.take(59_000).bytes.len(), 59_000);
        let (larger, exact) = (buffers.take(80_000), buffers.take(80_000));
        assert_eq!((larger.bytes.len(), exact.bytes.len()), (90_001, 90_000));
        assert_eq!((larger.as_ref().len(), exact.as_ref().len()), (80_000, 80_000));
        let many: Vec<_> = (0..2 * KEPT).map(|_| buffers.take(70_000)).collect();
        drop(many);
        drop(buffers.take(WORTH_KEEPING - 1));
        let kept = buffers.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(kept.iter().map(Vec::len).collect::<Vec<_>>(), [70_000; KEPT]);
    }
}
