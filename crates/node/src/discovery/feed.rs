//! The beginning of a file, read piece by piece and no further than a limit.
//!
//! Headers of weight files may be tens of megabytes long, and say themselves how long. A feed
//! holds one piece of the file at a time; what a header claims costs nothing until it has arrived.

use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;

use crate::download::ByteStream;
use crate::error::Error;

/// Why reading a header ended before the header did.
#[derive(Debug)]
pub enum Halt {
    /// The file is not what its name says, or its header is longer than we read.
    Malformed(&'static str),
    /// The file could not be read.
    Failed(Error),
}

/// A stream of bytes from which exact amounts are taken.
pub struct Feed {
    stream: ByteStream,
    piece: Bytes,
    /// How many more bytes may be taken.
    left: u64,
}

impl Feed {
    /// Reads at most `limit` bytes of `stream`.
    pub fn new(stream: ByteStream, limit: u64) -> Self {
        Self { stream, piece: Bytes::new(), left: limit }
    }

    /// How many more bytes may be taken.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Makes the current piece non-empty.
    async fn fill(&mut self) -> Result<(), Halt> {
        while self.piece.is_empty() {
            match self.stream.next().await {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => return Err(Halt::Failed(error)),
                None => return Err(Halt::Malformed("the file ends within its header")),
            }
        }
        Ok(())
    }

    fn spend(&mut self, count: u64) -> Result<(), Halt> {
        let left = self.left.checked_sub(count);
        self.left = left.ok_or(Halt::Malformed("the header is longer than is read"))?;
        Ok(())
    }

    /// Exactly `N` bytes.
    pub async fn array<const N: usize>(&mut self) -> Result<[u8; N], Halt> {
        let mut bytes = [0; N];
        // Nearly always the piece has them all: headers are read in millions of such steps.
        if let Some(ready) = self.piece.get(..N) {
            bytes.copy_from_slice(ready);
            self.spend(N as u64)?;
            self.piece.advance(N);
            return Ok(bytes);
        }
        self.spend(N as u64)?;
        let mut have = 0;
        while have < N {
            self.fill().await?;
            let count = self.piece.len().min(N - have);
            self.piece.copy_to_slice(&mut bytes[have..have + count]);
            have += count;
        }
        Ok(bytes)
    }

    /// Exactly `count` bytes, which the caller has found to be few enough to hold.
    pub async fn bytes(&mut self, count: u64) -> Result<Vec<u8>, Halt> {
        self.spend(count)?;
        let mut bytes = Vec::new();
        let mut missing = count;
        while missing > 0 {
            self.fill().await?;
            let step = usize::try_from(missing).unwrap_or(usize::MAX).min(self.piece.len());
            bytes.extend_from_slice(&self.piece.split_to(step));
            missing -= step as u64;
        }
        Ok(bytes)
    }

    /// Passes over `count` bytes.
    pub async fn skip(&mut self, count: u64) -> Result<(), Halt> {
        self.spend(count)?;
        let mut missing = count;
        while missing > 0 {
            self.fill().await?;
            let step = usize::try_from(missing).unwrap_or(usize::MAX).min(self.piece.len());
            self.piece.advance(step);
            missing -= step as u64;
        }
        Ok(())
    }

    /// Four bytes as a number, little end first.
    pub async fn u32(&mut self) -> Result<u32, Halt> {
        Ok(u32::from_le_bytes(self.array().await?))
    }

    /// Eight bytes as a number, little end first.
    pub async fn u64(&mut self) -> Result<u64, Halt> {
        Ok(u64::from_le_bytes(self.array().await?))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use futures_util::stream;

    use super::*;

    /// A stream of `content` in pieces of `size` bytes.
    pub(in super::super) fn streamed(content: &[u8], size: usize) -> ByteStream {
        let pieces: Vec<_> =
            content.chunks(size.max(1)).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Box::pin(stream::iter(pieces))
    }

    #[tokio::test]
    async fn amounts_do_not_depend_on_the_pieces() {
        let content: Vec<u8> = (0..=255).collect();
        for size in [1, 2, 3, 7, 64, 256] {
            let mut feed = Feed::new(streamed(&content, size), 256);
            assert_eq!(feed.u32().await.ok(), Some(0x0302_0100));
            assert!(feed.skip(100).await.is_ok());
            assert_eq!(feed.bytes(3).await.ok(), Some(vec![104, 105, 106]));
            assert_eq!(feed.u64().await.ok().map(u64::to_le_bytes).map(|b| b[0]), Some(107));
            assert_eq!(feed.left(), 256 - 4 - 100 - 3 - 8);
        }
    }

    #[tokio::test]
    async fn a_feed_ends_at_its_limit_and_at_the_end_of_the_file() {
        let mut feed = Feed::new(streamed(&[0; 100], 10), 50);
        assert!(feed.bytes(51).await.is_err());
        assert!(feed.skip(u64::MAX).await.is_err());
        assert!(feed.skip(50).await.is_ok());
        assert!(feed.u32().await.is_err());
        let mut feed = Feed::new(streamed(&[0; 3], 10), 1 << 60);
        assert!(matches!(feed.u32().await, Err(Halt::Malformed(_))));
        let mut feed = Feed::new(streamed(&[0; 3], 10), 1 << 60);
        assert!(matches!(feed.bytes(1 << 59).await, Err(Halt::Malformed(_))));
    }
}
