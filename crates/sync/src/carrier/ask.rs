//! The side that wants chunks: sends calls, and believes nothing of the answers.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ballast_format::hash::XorbHash;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::claim::{Claim, Claims};
use super::frame::{
    ANSWER_HEAD, AnswerHead, AnswerKind, CallKind, clean_words, decode_held, encode_request,
    encode_xorbs,
};
use super::pipe::Pipe;
use super::shared::{SILENCE, Shared};
use super::{Arrivals, Arrived, Error, MOST_ASKED_XORBS, MOST_PERMIT_BYTES, Result};
use crate::buffers::Buffer;
use crate::cluster::PeerName;

/// Runs that are hashed or wait for it, so that neither the network nor a core waits for the other.
const READ_AHEAD: usize = 2;

/// A pipe to a peer, as whoever holds a link lends it for one call. If it is dropped, answers may
/// still be on their way: the peer is told to stop.
pub(super) trait Line: Send + 'static {
    type Pipe: Pipe;

    fn pipe(&mut self) -> &mut Self::Pipe;

    /// The call is answered, whole: the pipe may be used again.
    fn done(self);

    /// Ends the connection to this peer: it is broken, or must not be believed.
    fn closer(&self) -> impl Fn() + Send + 'static;
}

/// Whether a permit is one that a peer takes.
pub(super) fn check_permit(permit: &[u8]) -> Result<()> {
    let (length, most) = (permit.len(), MOST_PERMIT_BYTES);
    if length <= most {
        return Ok(());
    }
    Err(Error::Invalid(format!("a permit of {length} bytes; at most {most} are allowed")))
}

/// Whether a peer may be asked about so many xorbs at once.
pub(super) fn check_xorbs(xorbs: &[XorbHash]) -> Result<()> {
    let (count, most) = (xorbs.len(), MOST_ASKED_XORBS);
    if count <= most {
        return Ok(());
    }
    Err(Error::Invalid(format!("a question about {count} xorbs; at most {most} are allowed")))
}

/// Asks a peer something, once.
pub(super) struct Asker<L> {
    pub(super) shared: Shared,
    pub(super) peer: PeerName,
    pub(super) line: L,
}

impl<L: Line> Asker<L> {
    /// Shows a permit, which was checked.
    pub(super) async fn show(mut self, permit: &[u8]) -> Result<()> {
        let outcome = self.exchange(CallKind::Show, permit, AnswerKind::Kept).await;
        self.settle(outcome).map(drop)
    }

    /// Asks what the peer has of these xorbs, whose number was checked.
    pub(super) async fn holdings(mut self, xorbs: &[XorbHash]) -> Result<Vec<Vec<Range<u32>>>> {
        let body = encode_xorbs(xorbs);
        let answer = self.exchange(CallKind::Holdings, &body, AnswerKind::Held).await;
        let outcome = answer.and_then(|answer| {
            decode_held(answer.as_ref(), xorbs.len()).map_err(|fault| self.lied(fault))
        });
        self.settle(outcome)
    }

    /// Calls for chunks; what comes is verified on the way.
    pub(super) async fn request(mut self, claims: Claims) -> Result<Arrivals> {
        if let Err(error) = self.call(CallKind::Request, &encode_request(claims.request())).await {
            return self.settle(Err(error));
        }
        let verifier = Arc::new(Verifier { shared: self.shared.clone(), peer: self.peer.clone() });
        let close = self.line.closer();
        let runs = stream::unfold(Some((self, claims)), |state| async {
            let (mut asker, mut claims) = state?;
            let run = asker.next_run(&mut claims).await;
            if run.is_ok() && !claims.is_done() {
                return Some((run, Some((asker, claims))));
            }
            Some((asker.settle(run), None))
        });
        let verified = runs.map(move |run| {
            let verifier = Arc::clone(&verifier);
            async move {
                let (claim, written) = run?;
                verifier.verify(claim, written).await
            }
        });
        let verified = verified.buffered(READ_AHEAD).inspect_err(move |error| {
            if matches!(error, Error::Lied { .. }) {
                close();
            }
        });
        Ok(until_error(Box::pin(verified)))
    }

    /// Gives the line back, if this outcome leaves it fit for another call.
    fn settle<T>(self, outcome: Result<T>) -> Result<T> {
        match &outcome {
            Ok(_) | Err(Error::Refused { .. }) => self.line.done(),
            Err(_) => (self.line.closer())(),
        }
        outcome
    }

    /// Calls, and takes an answer of one piece that is of the kind it should be.
    async fn exchange(&mut self, call: CallKind, body: &[u8], kind: AnswerKind) -> Result<Buffer> {
        self.call(call, body).await?;
        let head = self.head(SILENCE).await?;
        if head.kind != kind {
            return Err(self.lied(format!("it answers {:?} where {kind:?} may come", head.kind)));
        }
        self.read(Buffer::new(head.length as usize)).await
    }

    async fn call(&mut self, call: CallKind, body: &[u8]) -> Result<()> {
        let (call, pipe) = (Bytes::from(call.encode(body)), self.line.pipe());
        let sent = self.shared.within(SILENCE, pipe.write(call, Bytes::new())).await;
        pipe.last();
        sent.map_err(|error| unreachable(&self.peer, &error))
    }

    async fn next_run(&mut self, claims: &mut Claims) -> Result<(Claim, Buffer)> {
        let (patience, urgency) = (claims.request().patience, claims.request().urgency);
        let head = self.head(patience + SILENCE).await?;
        let claim = claims.accept(&head).map_err(|fault| self.lied(fault))?;
        let length = head.length as usize;
        self.shared.download.take(length, urgency).await;
        let written = self.read(self.shared.buffers.take(length)).await?;
        Ok((claim, written))
    }

    /// The head of the next answer. A refusal is an error.
    async fn head(&mut self, limit: Duration) -> Result<AnswerHead> {
        let head = self.read_within(limit, Buffer::new(ANSWER_HEAD)).await?;
        let head = AnswerHead::decode(head.as_ref()).map_err(|fault| self.lied(fault))?;
        if head.kind != AnswerKind::Refused {
            return Ok(head);
        }
        let words = self.read(Buffer::new(head.length as usize)).await?;
        Err(Error::Refused { peer: self.peer.to_string(), reason: clean_words(words.as_ref()) })
    }

    async fn read(&mut self, into: Buffer) -> Result<Buffer> {
        self.read_within(SILENCE, into).await
    }

    async fn read_within(&mut self, limit: Duration, into: Buffer) -> Result<Buffer> {
        let read = self.shared.within(limit, self.line.pipe().read(into)).await;
        read.map_err(|error| unreachable(&self.peer, &error))
    }

    fn lied(&self, reason: String) -> Error {
        Error::Lied { peer: self.peer.to_string(), reason }
    }
}

/// What an error of the network means.
pub(super) fn unreachable(peer: &PeerName, error: &io::Error) -> Error {
    Error::Unreachable { peer: peer.to_string(), reason: error.to_string() }
}

struct Verifier {
    shared: Shared,
    peer: PeerName,
}

impl Verifier {
    async fn verify(&self, claim: Claim, written: Buffer) -> Result<Arrived> {
        let buffers = self.shared.buffers.clone();
        let verified = if claim.is_long() {
            let verified = self.shared.pool.run(move || claim.verify(written, &buffers)).await;
            verified.map_err(|error| Error::Source(error.to_string()))?
        } else {
            claim.verify(written, &buffers)
        };
        verified.map_err(|reason| Error::Lied { peer: self.peer.to_string(), reason })
    }
}

/// The same, which ends at the first error: what a peer sends after a lie is not looked at, and the
/// pipe is given up at once.
fn until_error(arrivals: Arrivals) -> Arrivals {
    Box::pin(stream::unfold(Some(arrivals), |arrivals| async {
        let mut arrivals = arrivals?;
        let next = arrivals.next().await?;
        let rest = next.is_ok().then_some(arrivals);
        Some((next, rest))
    }))
}
