//! A host in a forest: where it stands, what it has, and whom it asks.

/// A host of a forest. The number of one that left goes to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub(super) u32);

impl HostId {
    /// The host in this place of a list.
    pub(super) fn at(index: usize) -> Self {
        Self(u32::try_from(index).expect("a process can't hold as many hosts as have numbers"))
    }

    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a host stands; the numbers mean what the caller wants them to mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The site. What goes from one site to another does so once for each stripe.
    pub site: u32,
    /// The rack; of two parents that are as good, the one in the same rack is taken.
    pub rack: u32,
}

/// Whom a host asks for the pieces of a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Parent {
    /// The hub.
    Hub,
    /// Another host.
    Host(HostId),
}

/// Parents that a host complained about, the latest ones.
const AVOIDED: usize = 8;
/// Hosts that must complain about another before it is nobody's parent any more.
const STRIKES: usize = 2;

/// A host in one stripe.
#[derive(Clone, Debug, Default)]
pub(super) struct Seat {
    /// Whom it asks.
    pub(super) parent: Option<Parent>,
    /// Whom it was last told to ask.
    pub(super) told: Option<Parent>,
    /// How many pieces it has.
    pub(super) held: u32,
    /// How many ask it.
    pub(super) kids: u32,
    /// Whether it is meant to pass this stripe on.
    pub(super) is_primary: bool,
    /// How many pieces it had, and whom it asked, when the rates were last looked at; nothing: it
    /// came since.
    pub(super) marked: Option<(u32, Option<Parent>)>,
}

impl Seat {
    /// How many pieces it took since the rates were last looked at.
    pub(super) fn taken(&self) -> Option<u32> {
        self.marked.map(|(before, _)| self.held.saturating_sub(before))
    }
}

/// A host.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) place: Place,
    /// Pieces a second that it may send, if that is limited.
    pub(super) upload: Option<u32>,
    /// Children that it should have at most, over all stripes.
    pub(super) slots: u32,
    /// Children that it has.
    pub(super) children: u32,
    pub(super) seats: Vec<Seat>,
    /// Pieces that it came with.
    pub(super) brought: u32,
    /// It is one of few, of which each passes all on to the next.
    pub(super) is_chained: bool,
    /// It takes pieces too slowly to pass them on.
    pub(super) is_slow: bool,
    avoided: Vec<Parent>,
    strikes: Vec<HostId>,
    has_lied: bool,
}

impl Host {
    pub(super) fn new(place: Place, upload: Option<u32>, seats: Vec<Seat>) -> Self {
        let slots = u32::try_from(seats.len()).unwrap_or(u32::MAX);
        let mut host = Self {
            place,
            upload,
            slots,
            children: 0,
            seats,
            brought: 0,
            is_chained: false,
            is_slow: false,
            avoided: Vec::new(),
            strikes: Vec::new(),
            has_lied: false,
        };
        host.brought = host.held();
        host
    }

    /// Pieces that it has.
    pub(super) fn held(&self) -> u32 {
        self.seats.iter().map(|seat| seat.held).sum()
    }

    /// How many pieces it took since the rates were last looked at; nothing: it came since.
    pub(super) fn taken(&self) -> Option<u32> {
        self.seats.iter().map(Seat::taken).sum()
    }

    /// Whether others may ask it.
    pub(super) fn may_be_asked(&self) -> bool {
        !self.is_slow && !self.is_distrusted() && self.slots > 0
    }

    /// Whether so many complained about it that it is nobody's parent any more.
    pub(super) fn is_distrusted(&self) -> bool {
        self.has_lied || self.strikes.len() >= STRIKES
    }

    pub(super) fn avoids(&self, parent: Parent) -> bool {
        self.avoided.contains(&parent)
    }

    pub(super) fn avoid(&mut self, parent: Parent) {
        if !self.avoids(parent) {
            if self.avoided.len() == AVOIDED {
                self.avoided.remove(0);
            }
            self.avoided.push(parent);
        }
    }

    /// Another one complains about it.
    pub(super) fn strike(&mut self, by: HostId, has_lied: bool) {
        self.has_lied |= has_lied;
        if self.strikes.len() < STRIKES && !self.strikes.contains(&by) {
            self.strikes.push(by);
        }
    }

    /// What was said about it, and what it said, is long ago; but a lie is not forgotten.
    pub(super) fn pardon(&mut self) {
        self.avoided.clear();
        self.strikes.clear();
    }

    /// Somebody left: what was said about and by them means nothing any more.
    pub(super) fn forget(&mut self, gone: HostId) {
        self.avoided.retain(|parent| *parent != Parent::Host(gone));
        if !self.is_distrusted() {
            self.strikes.retain(|by| *by != gone);
        }
    }
}
