//! Where a scan reads from: a file of a repo by ranges, or bytes that are at hand; and the bound on
//! how much it reads.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};

use crate::access::Repo;
use crate::download::{ByteStream, TreeItem};
use crate::error::Result;
use crate::hub::Hub;

/// Bytes of one file that are read, or unpacked, at most. Content that a pickle only carries is
/// passed over and does not count.
pub(super) const MAX_READ_BYTES: u64 = 512 << 20;

/// What is read.
pub(super) enum Source {
    /// A file of a repo.
    Item { hub: Arc<Hub>, repo: Repo, item: TreeItem },
    /// Bytes in memory.
    Bytes { hub: Arc<Hub>, bytes: Bytes },
}

impl Source {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Item { item, .. } => item.size,
            Self::Bytes { bytes, .. } => bytes.len() as u64,
        }
    }

    pub(super) fn hub(&self) -> &Arc<Hub> {
        match self {
            Self::Item { hub, .. } | Self::Bytes { hub, .. } => hub,
        }
    }

    /// A stream of these bytes, as far as there are any.
    pub(super) async fn open(&self, range: Range<u64>) -> Result<ByteStream> {
        let range = range.start.min(self.size())..range.end.min(self.size());
        match self {
            Self::Item { hub, repo, item } => hub.open_item(repo, item, range).await,
            Self::Bytes { bytes, .. } => {
                let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let slice = bytes.slice(index(range.start)..index(range.end.max(range.start)));
                Ok(Box::pin(stream::once(async move { Ok(slice) })))
            }
        }
    }

    /// These bytes at once, as far as there are any; few enough to hold.
    pub(super) async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let mut stream = self.open(range).await?;
        let mut all = BytesMut::new();
        while let Some(piece) = stream.next().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all.freeze())
    }
}

/// How much may be read still.
pub(super) struct Budget(u64);

impl Budget {
    pub(super) fn new() -> Self {
        Self(MAX_READ_BYTES)
    }

    /// Whether so much more may be read.
    pub(super) fn spend(&mut self, bytes: u64) -> bool {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }

    pub(super) fn is_spent(&self) -> bool {
        self.0 == 0
    }
}
