//! Bodies that are slow, cut, wrong or too long, and counted.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;

use super::State;

/// Bytes that are sent at once.
const PIECE: usize = 64 * 1024;

/// Any body.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body that is there at once.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that comes piece by piece.
pub(super) struct Pieces {
    pub(super) state: Arc<State>,
    /// What its bytes are counted as.
    pub(super) key: String,
    pub(super) bytes: Bytes,
    /// After so many bytes the connection breaks.
    pub(super) breaks_at: Option<usize>,
    pub(super) pause: Option<Duration>,
}

impl Pieces {
    pub(super) fn into_body(self) -> Body {
        let pieces = stream::try_unfold((self, 0), |(body, at)| async move {
            if at >= body.bytes.len() {
                return Ok(None);
            }
            if body.breaks_at.is_some_and(|breaks_at| at >= breaks_at) {
                return Err(io::Error::other("cut on purpose"));
            }
            if let Some(pause) = body.pause {
                tokio::time::sleep(pause).await;
            }
            let end = (at + PIECE).min(body.bytes.len());
            let end = body.breaks_at.map_or(end, |breaks_at| end.min(breaks_at.max(at + 1)));
            let piece = body.bytes.slice(at..end);
            body.state.count(&body.key, piece.len() as u64);
            Ok(Some((Frame::data(piece), (body, end))))
        });
        StreamBody::new(pieces).boxed_unsync()
    }
}
