//! A body, taken in by steps of a size that is worth a job on the pool.
//!
//! At most one step is in memory, however small the pieces are in which a client sends it.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;

use crate::download::ByteStream;
use crate::error::{Error, Result};

/// Bytes of a step: enough that handing it over costs nothing.
const STEP_BYTES: usize = 1 << 20;
/// Pieces shorter than this are put together: each would cost a record of its own.
const SMALL_BYTES: usize = 4096;
/// Bytes of small pieces that are put together.
const TOGETHER_BYTES: usize = 64 * 1024;

/// A body that is read step by step.
pub(super) struct Intake {
    body: ByteStream,
    what: &'static str,
    limit: u64,
    seen: u64,
    ended: bool,
}

impl Intake {
    /// Reads a body of at most `limit` bytes.
    pub(super) fn new(body: ByteStream, what: &'static str, limit: u64) -> Self {
        Self { body, what, limit, seen: 0, ended: false }
    }

    /// The next step; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Bytes>>> {
        let (mut step, mut length) = (Vec::new(), 0);
        let mut small = BytesMut::new();
        while length < STEP_BYTES && !self.ended {
            let Some(piece) = self.body.next().await.transpose()? else {
                self.ended = true;
                break;
            };
            length += piece.len();
            self.seen += piece.len() as u64;
            if self.seen > self.limit {
                return Err(Error::TooLarge {
                    what: self.what.to_owned(),
                    size: self.seen,
                    limit: self.limit,
                });
            }
            if piece.len() < SMALL_BYTES {
                small.extend_from_slice(&piece);
            }
            if !small.is_empty() && (piece.len() >= SMALL_BYTES || small.len() >= TOGETHER_BYTES) {
                step.push(small.split().freeze());
            }
            if piece.len() >= SMALL_BYTES {
                step.push(piece);
            }
        }
        if !small.is_empty() {
            step.push(small.freeze());
        }
        Ok((length > 0).then_some(step))
    }
}

#[cfg(test)]
mod tests {
    use ballast_testkit::clock::Dice;
    use ballast_testkit::content::splitmix;
    use futures_util::stream;

    use super::*;

    fn body(pieces: Vec<Bytes>) -> ByteStream {
        Box::pin(stream::iter(pieces.into_iter().map(Ok)))
    }

    async fn steps(pieces: Vec<Bytes>, limit: u64) -> Result<Vec<Vec<Bytes>>> {
        let mut intake = Intake::new(body(pieces), "the body", limit);
        let mut steps = Vec::new();
        while let Some(step) = intake.next().await? {
            steps.push(step);
        }
        Ok(steps)
    }

    #[tokio::test]
    async fn pieces_of_any_size_come_out_in_order_and_in_few_parts() -> Result<()> {
        let content = Bytes::from(splitmix(1, 5_000_000));
        let mut dice = Dice::new(3);
        let (mut pieces, mut rest) = (Vec::new(), content.clone());
        while !rest.is_empty() {
            let most = [3, 300, 30_000, 300_000][usize::try_from(dice.below(4)).expect("small")];
            let length = usize::try_from(dice.below(most)).expect("small");
            pieces.push(rest.split_to(length.min(rest.len())));
        }
        let steps = steps(pieces, 5_000_000).await?;
        assert_eq!(steps.concat().concat(), content);
        assert!(steps.iter().all(|step| step.len() < 600));
        Ok(())
    }

    #[tokio::test]
    async fn single_bytes_are_put_together() -> Result<()> {
        let bytes = (0..200_000_u32).map(|i| Bytes::from(vec![i.to_le_bytes()[0]]));
        let steps = steps(bytes.collect(), u64::MAX).await?;
        assert_eq!(steps.len(), 1);
        assert_eq!(steps[0].len(), 4);
        Ok(())
    }

    #[tokio::test]
    async fn one_byte_over_the_limit_is_refused_and_nothing_is_no_step() -> Result<()> {
        let pieces = || vec![Bytes::from_static(&[1; 10_000]); 3];
        assert!(matches!(steps(pieces(), 29_999).await, Err(Error::TooLarge { size: 30_000, .. })));
        assert_eq!(steps(pieces(), 30_000).await?.len(), 1);
        assert!(steps(vec![Bytes::new(); 5], 0).await?.is_empty());
        Ok(())
    }
}
