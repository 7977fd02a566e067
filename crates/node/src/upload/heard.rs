//! Whoever makes files of xorbs that come in hears their chunks as soon as these are checked, and
//! need not read them back from the store.
//!
//! Memory is bounded by a few steps of a body. A teller waits for its listener, but only while that
//! one listens: who has much to read elsewhere holds nobody up, and misses something.

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

/// Steps that wait to be heard.
const AHEAD: usize = 4;

/// Chunks of a xorb, one after another.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The number of the first one.
    pub(super) first: u32,
    /// What they hold.
    pub(super) chunks: Vec<Bytes>,
}

/// Which xorb, as the listener calls it, and what is told of it.
type Told = (u32, Heard);

/// Tells of one xorb after another.
#[derive(Clone, Debug)]
pub struct Teller {
    xorb: u32,
    to: mpsc::Sender<Told>,
    is_heard: watch::Receiver<bool>,
}

impl Teller {
    /// Tells of the xorb that the listener calls so.
    #[must_use]
    pub fn of(&self, xorb: u32) -> Self {
        Self { xorb, ..self.clone() }
    }

    /// Whether anybody listens now.
    pub(super) fn is_heard(&self) -> bool {
        *self.is_heard.borrow() && !self.to.is_closed()
    }

    /// Tells of chunks; waits while the listener has many and listens.
    pub(super) async fn tell(&mut self, heard: Heard) {
        if heard.chunks.is_empty() {
            return;
        }
        tokio::select! {
            biased;
            _ = self.to.send((self.xorb, heard)) => {}
            _ = self.is_heard.wait_for(|is_heard| !is_heard) => {}
        }
    }
}

/// Hears of xorbs, one after another, in the order of what they are called.
#[derive(Debug)]
pub struct Listener {
    from: mpsc::Receiver<Told>,
    is_heard: watch::Sender<bool>,
    /// What was heard and is not used yet.
    front: Option<Told>,
}

/// Both ends.
pub fn hearing() -> (Teller, Listener) {
    let (to, from) = mpsc::channel(AHEAD);
    let (sender, is_heard) = watch::channel(true);
    let teller = Teller { xorb: 0, to, is_heard };
    (teller, Listener { from, is_heard: sender, front: None })
}

impl Listener {
    /// One that hears nothing.
    pub fn deaf() -> Self {
        hearing().1
    }

    /// Whether tellers are to wait from now on.
    pub fn listen(&self, is_heard: bool) {
        self.is_heard.send_replace(is_heard);
    }

    /// The first of these chunks, as many as were heard together; none if they were not. What comes
    /// before them is forgotten.
    pub fn take(&mut self, xorb: u32, chunks: Range<u32>) -> Vec<Bytes> {
        loop {
            let Some((of, mut heard)) = self.front.take().or_else(|| self.from.try_recv().ok())
            else {
                return Vec::new();
            };
            let count = u32::try_from(heard.chunks.len()).unwrap_or(u32::MAX);
            let end = heard.first.saturating_add(count);
            if (of, end) <= (xorb, chunks.start) {
                continue;
            }
            if of != xorb || heard.first > chunks.start {
                self.front = Some((of, heard));
                return Vec::new();
            }
            heard.chunks.drain(..(chunks.start - heard.first) as usize);
            if end > chunks.end {
                let rest = heard.chunks.split_off((chunks.end - chunks.start) as usize);
                self.front = Some((xorb, Heard { first: chunks.end, chunks: rest }));
            }
            return heard.chunks;
        }
    }

    /// Whether what is at hand is of a xorb that comes after this one.
    pub fn is_past(&self, xorb: u32) -> bool {
        self.front.as_ref().is_some_and(|(of, _)| *of > xorb)
    }

    /// Forgets what is at hand, and waits for what comes next. Does not end if nothing does.
    pub async fn go_on(&mut self) {
        self.front = None;
        match self.from.recv().await {
            told @ Some(_) => self.front = told,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn chunks(numbers: Range<u8>) -> Vec<Bytes> {
        numbers.map(|number| Bytes::from(vec![number])).collect()
    }

    fn told(teller: &mut Teller, first: u32, numbers: Range<u8>) -> bool {
        teller.tell(Heard { first, chunks: chunks(numbers) }).now_or_never().is_some()
    }

    #[test]
    fn chunks_are_heard_in_order_and_what_nobody_wants_is_forgotten() {
        let (teller, mut listener) = hearing();
        let (mut first, mut second) = (teller.of(1), teller.of(2));
        assert!(told(&mut first, 0, 0..4) && told(&mut first, 4, 4..8));
        assert!(told(&mut second, 0, 0..4));
        assert_eq!(listener.take(1, 1..3), chunks(1..3));
        assert_eq!(listener.take(1, 3..9), chunks(3..4));
        assert_eq!(listener.take(1, 6..9), chunks(6..8));
        assert!(!listener.is_past(1));
        assert!(listener.take(1, 8..9).is_empty(), "the next xorb has begun");
        assert!(listener.is_past(1) && !listener.is_past(2));
        assert_eq!(listener.take(2, 0..4), chunks(0..4));
        assert!(listener.take(2, 4..5).is_empty());
        assert!(told(&mut second, 5, 5..6));
        assert!(listener.take(2, 4..6).is_empty(), "chunk 4 was missed");
        assert_eq!(listener.take(2, 5..6), chunks(5..6));
    }

    #[test]
    fn a_teller_waits_for_who_listens_and_for_nobody_else() {
        let (teller, mut listener) = hearing();
        let mut teller = teller.of(1);
        for first in 0..4 {
            assert!(told(&mut teller, first, 0..1));
        }
        assert!(!told(&mut teller, 4, 0..1), "there is no room");
        listener.listen(false);
        assert!(!teller.is_heard() && told(&mut teller, 4, 0..1), "it is lost");
        listener.listen(true);
        assert!(teller.is_heard());
        assert_eq!(listener.take(1, 3..4), chunks(0..1));
        assert!(listener.go_on().now_or_never().is_none());
        assert!(told(&mut teller, 9, 0..1));
        assert!(listener.go_on().now_or_never().is_some());
        drop(listener);
        assert!(!teller.is_heard() && told(&mut teller, 10, 0..1));
    }
}
