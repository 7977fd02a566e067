//! A host of the simulation.

use super::super::plan::{Cut, HostId, Parent, Place};

/// Bytes of a chunk.
const CHUNK: f64 = 65_536.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has not come yet.
    Away,
    Running,
    Paused,
    Dead,
}

/// What a host does about a stripe.
#[derive(Clone, Debug, Default)]
pub(super) struct Stripe {
    pub(super) parent: Option<Parent>,
    /// The parent, if it is a host.
    pub(super) from: usize,
    /// When the last byte came, or another parent was given.
    pub(super) moved: f64,
    /// Without a tracker: whom it asks for what.
    pub(super) chosen: Option<(usize, u64)>,
    /// The piece that is on its way, and how much of it came.
    piece: Option<u64>,
    came: f64,
    /// Up to here, in pieces of the stripe, it has all.
    front: usize,
}

impl Stripe {
    /// Bytes of the chunks that came of the piece that is on its way.
    fn whole_chunks(&self) -> f64 {
        (self.came / CHUNK).floor() * CHUNK
    }
}

pub(super) struct Node {
    pub(super) place: Place,
    pub(super) state: State,
    pub(super) id: Option<HostId>,
    pub(super) joined: f64,
    pub(super) heard: f64,
    pub(super) done: Option<f64>,
    /// By piece: since when it has it.
    pub(super) has: Vec<f64>,
    pub(super) lacks: u64,
    pub(super) stripes: Vec<Stripe>,
    pub(super) known: Vec<usize>,
    /// Pieces that it asks others for, beside its parents.
    pub(super) asking: u32,
    pub(super) complaints: Vec<(u32, Parent)>,
}

impl Node {
    pub(super) fn new(place: Place, cut: &Cut) -> Self {
        Self {
            place,
            state: State::Away,
            id: None,
            joined: 0.0,
            heard: 0.0,
            done: None,
            has: vec![f64::INFINITY; cut.pieces() as usize],
            lacks: cut.pieces(),
            stripes: vec![Stripe::default(); cut.stripes() as usize],
            known: Vec::new(),
            asking: 0,
            complaints: Vec::new(),
        }
    }

    /// It has these pieces from the start.
    pub(super) fn bring(&mut self, pieces: impl Iterator<Item = u64>) {
        for piece in pieces {
            self.has[piece as usize] = 0.0;
        }
        self.lacks = self.has.iter().filter(|since| since.is_infinite()).count() as u64;
        if self.lacks == 0 {
            self.done = Some(0.0);
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.state, State::Dead | State::Paused | State::Away)
    }

    /// How many pieces of each stripe it has.
    pub(super) fn held(&self, cut: &Cut) -> Vec<u32> {
        let has = |piece: &u64| self.has[*piece as usize].is_finite();
        (0..cut.stripes()).map(|stripe| cut.stripe(stripe).filter(has).count() as u32).collect()
    }

    /// How much of a piece has come.
    pub(super) fn came_of(&self, stripe: u32, piece: u64) -> f64 {
        let stripe = &self.stripes[stripe as usize];
        if stripe.piece.is_none_or(|coming| coming == piece) { stripe.came } else { 0.0 }
    }

    /// How much of a piece it can pass on: the chunks that came.
    pub(super) fn offers(&self, stripe: u32, piece: u64, now: f64) -> f64 {
        if self.has[piece as usize] <= now {
            return f64::INFINITY;
        }
        let stripe = &self.stripes[stripe as usize];
        if stripe.piece == Some(piece) { stripe.whole_chunks() } else { 0.0 }
    }

    /// The first piece of a stripe that it lacks.
    pub(super) fn first_lacking(&mut self, stripe: u32, cut: &Cut) -> Option<u64> {
        let front = &mut self.stripes[stripe as usize].front;
        let mut pieces = cut.stripe(stripe).skip(*front);
        let mut next = pieces.next();
        while let Some(piece) = next.filter(|piece| self.has[*piece as usize].is_finite()) {
            debug_assert!(piece < cut.pieces(), "it is one of the file's");
            *front += 1;
            next = pieces.next();
        }
        next
    }

    /// It is told whom to ask.
    pub(super) fn follow(
        &mut self,
        parents: &[Option<Parent>],
        index_of: impl Fn(HostId) -> Option<usize>,
        now: f64,
    ) {
        for (stripe, parent) in self.stripes.iter_mut().zip(parents) {
            if stripe.parent != *parent {
                // They are not asked for again.
                let came = stripe.whole_chunks();
                (stripe.parent, stripe.moved, stripe.came) = (*parent, now, came);
                if let Some(Parent::Host(id)) = parent {
                    stripe.from = index_of(*id).expect("a parent is one of the hosts");
                }
            }
        }
    }

    /// Bytes of a piece come; whether it is whole with them.
    pub(super) fn receive(
        &mut self,
        stripe: u32,
        piece: u64,
        bytes: f64,
        length: f64,
        now: f64,
    ) -> bool {
        let stripe = &mut self.stripes[stripe as usize];
        if bytes > 0.0 {
            stripe.moved = now;
        }
        // What came of the one before and was too much was this one's beginning.
        if stripe.piece.replace(piece).is_some_and(|before| before != piece) {
            stripe.came = 0.0;
        }
        stripe.came += bytes;
        let is_whole = stripe.came >= length;
        if is_whole {
            (stripe.piece, stripe.came) = (None, stripe.came - length);
        }
        is_whole
    }
}
