//! Buffers that are used again and again: a fresh MiB costs 256 page faults.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// How much a buffer holds.
pub(crate) const BUFFER_BYTES: usize = 1 << 20;
/// So many buffers are kept that nobody uses; what an idle process holds on to.
const MOST_KEPT: usize = 8;

/// Buffers that were used before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers {
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Buffers {
    /// A buffer of so many bytes, with anything in it. It comes back when the last who reads it is
    /// done, unless it is longer than [`BUFFER_BYTES`].
    pub(crate) fn take(&self, length: usize) -> Buffer {
        // Few bytes are allocated quicker than they are found.
        if length <= BUFFER_BYTES / 16 || length > BUFFER_BYTES {
            return Buffer::new(length);
        }
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = kept.unwrap_or_else(|| vec![0; BUFFER_BYTES]);
        Buffer { bytes, length, home: Some(self.clone()) }
    }

    /// Gives up what is kept.
    pub(crate) fn clear(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A buffer that is in use.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    length: usize,
    home: Option<Buffers>,
}

impl Buffer {
    /// A buffer that is used once.
    pub(crate) fn new(length: usize) -> Self {
        Self { bytes: vec![0; length], length, home: None }
    }

    /// What may be written.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }

    /// Its content, which nobody writes any more.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(home) = &self.home else { return };
        let mut kept = home.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MOST_KEPT {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_reader_is_done() {
        let buffers = Buffers::default();
        let kept = || buffers.kept.lock().expect("no panic").len();
        let mut buffer = buffers.take(BUFFER_BYTES - 1);
        buffer.bytes_mut().fill(7);
        let bytes = buffer.freeze();
        let part = bytes.slice(10..20);
        drop(bytes);
        assert_eq!((kept(), &part[..]), (0, &[7; 10][..]));
        drop(part);
        assert_eq!(kept(), 1);
        assert_eq!(buffers.take(BUFFER_BYTES / 2).as_ref().len(), BUFFER_BYTES / 2);
        drop((0..2 * MOST_KEPT).map(|_| buffers.take(BUFFER_BYTES)).collect::<Vec<_>>());
        assert_eq!(kept(), MOST_KEPT);
        drop(buffers.take(BUFFER_BYTES + 1));
        assert_eq!(kept(), MOST_KEPT);
        buffers.clear();
        assert_eq!(kept(), 0);
    }
}
