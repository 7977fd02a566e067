//! Reading a spool while it grows.

use std::ops::Range;
use std::sync::Arc;

use ballast_node::access::Repo;
use ballast_node::download::ByteStream;
use ballast_node::error::Result;
use ballast_node::hub::Hub;
use ballast_node::origin::Wanted;
use bytes::Bytes;
use futures_util::{StreamExt as _, future, stream};
use tokio::sync::watch;

use super::fetch::{Flight, entry_of};
use super::spool::{Progress, Spool};
use super::{Counts, Mirror, fault};
use crate::mirror::upstream;

/// How much of a spool somebody may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// All that is there: for whoever verifies it.
    All,
    /// What was released: for clients that read to the end.
    Released,
    /// All, as soon as it is verified: for clients that stop before the end.
    Verified,
}

impl Share {
    /// A client that reads to the end can't have all of a wrong file. One that wants a part could
    /// have all of a wrong part, and waits; but a single byte is how clients ask for the size.
    fn of(range: &Range<u64>, size: u64) -> Self {
        let is_question = range.end - range.start <= 1;
        if range.end >= size || is_question { Self::Released } else { Self::Verified }
    }
}

struct Reader {
    hub: Arc<Hub>,
    spool: Arc<Spool>,
    progress: watch::Receiver<Progress>,
    share: Share,
    at: u64,
    end: u64,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.at >= self.end {
                return Ok(None);
            }
            let Progress { written, released, failed } = self.progress.borrow_and_update().clone();
            let there = match self.share {
                Share::All => written,
                Share::Released => released,
                Share::Verified if released == self.spool.size() => released,
                Share::Verified => 0,
            };
            let there = there.min(self.end);
            if there > self.at {
                let piece = self.spool.read(&self.hub, self.at, there).await?;
                self.at += piece.len() as u64;
                return Ok(Some(piece));
            }
            if let Some(error) = failed {
                return Err(error);
            }
            self.progress.changed().await.map_err(|_| fault::closing())?;
        }
    }
}

/// These bytes of a spool, as they come; nothing follows an error.
pub(super) fn pieces(
    hub: &Arc<Hub>,
    spool: &Arc<Spool>,
    range: Range<u64>,
    share: Share,
) -> ByteStream {
    let reader = Reader {
        hub: Arc::clone(hub),
        spool: Arc::clone(spool),
        progress: spool.watch(),
        share,
        at: range.start,
        end: range.end.min(spool.size()),
    };
    Box::pin(stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|piece| (piece, reader)))
    }))
}

impl Mirror {
    /// A part that ends before the file does, while all of it is on its way: of an upstream that
    /// has xorbs, what these prove. Nothing if that can't be done, or takes as long.
    pub(super) async fn part_ahead(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
        (flight, range): (&Arc<Flight>, &Range<u64>),
    ) -> Option<ByteStream> {
        if Share::of(range, wanted.size) != Share::Verified || flight.is_verified() {
            return None;
        }
        let entry = entry_of(wanted).ok()?;
        if !self.upstream.may_prove(&self.proofs, &entry, range) {
            return None;
        }
        let there = upstream::Repo { kind: repo.kind(), name: repo.name().clone() };
        let at = (there, wanted.commit);
        let part = self.upstream.part(hub.pool(), &self.proofs, at, &entry, range);
        let part = tokio::select! {
            biased;
            part = part => part?,
            _ = flight.stored() => return None,
            () = hub.env().sleep(self.settings.patience) => {
                self.proofs.refuse(&entry);
                return None;
            }
        };
        Counts::add(&self.counts.upstream_bytes, part.fetched);
        let pieces = part.into_pieces().map(|piece| piece.map_err(fault::of_file));
        self.counted(Box::pin(stream::iter(pieces))).ok()
    }

    /// What a client gets of a file on its way. Its first bytes are waited for, so that a failure
    /// before them can still be told; those far ahead are not.
    pub(super) async fn follow(
        &self,
        hub: &Arc<Hub>,
        flight: Arc<Flight>,
        range: Range<u64>,
    ) -> Result<ByteStream> {
        let patience = self.settings.patience;
        let spool = tokio::select! {
            biased;
            spool = flight.spool() => spool?,
            () = hub.env().sleep(patience) => return Err(fault::on_its_way("this file")),
        };
        let written = || spool.watch().borrow().written;
        let before = written();
        let share = Share::of(&range, spool.size());
        let mut followed = pieces(hub, &spool, range, share);
        let first = tokio::select! {
            biased;
            first = followed.next() => first,
            () = hub.env().sleep(patience) => {
                // What is far ahead is on its way; what stands still may never come.
                if written() == before {
                    return Err(fault::on_its_way("this file"));
                }
                return self.counted(followed);
            }
        };
        match first {
            None => Ok(followed),
            Some(first) => {
                let first = stream::once(future::ready(Ok(first?)));
                self.counted(Box::pin(first.chain(followed)))
            }
        }
    }

    fn counted(&self, followed: ByteStream) -> Result<ByteStream> {
        let this = self.this.upgrade().ok_or_else(fault::closing)?;
        Ok(Box::pin(followed.inspect(move |piece| {
            if let Ok(piece) = piece {
                Counts::add(&this.counts.followed_bytes, piece.len() as u64);
            }
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stops_before_the_end_waits_for_all_of_it_but_not_for_one_byte() {
        for (range, share) in [
            (0..100, Share::Released),
            (50..100, Share::Released),
            (0..1, Share::Released),
            (0..2, Share::Verified),
            (50..99, Share::Verified),
        ] {
            assert_eq!(Share::of(&range, 100), share, "{range:?}");
        }
    }
}
