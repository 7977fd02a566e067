//! A log: numbered slots that are put if absent, and what follows from the entries in them.

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Change {
    /// A commit that needs the content. Whether it names it anew is for its writer to decide: it
    /// need not if the log names it already.
    Commit { names: bool },
    /// The link to the content is removed, and with it every older commit's need of it.
    Forget,
    /// Nothing, but for the epoch that the entry carries.
    Fence,
    /// In the catalogue: this log's repo lives from now on.
    Create(usize),
    /// In the catalogue: this log's repo is no more.
    Delete(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Entry {
    /// The task that it carries out; none for fences and for what was there at the start.
    pub(crate) operation: Option<usize>,
    pub(crate) epoch: usize,
    pub(crate) change: Change,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Log {
    /// Slots 1, 2, … as a reader knows them, from a snapshot if there is one.
    pub(crate) entries: Vec<Entry>,
    /// Slots up to this one are empty again; a mutant's doing.
    freed: usize,
    /// What landed in such slots.
    strays: Vec<(usize, Entry)>,
}

impl Log {
    pub(crate) fn holding(entries: Vec<Entry>) -> Self {
        Self { entries, ..Self::default() }
    }

    /// The slot behind the tail.
    pub(crate) fn next(&self) -> usize {
        self.entries.len() + 1
    }

    /// What is in the store under this number.
    pub(crate) fn read(&self, slot: usize) -> Option<&Entry> {
        if slot <= self.freed {
            return self.strays.iter().find(|(at, _)| *at == slot).map(|(_, entry)| entry);
        }
        self.entries.get(slot.checked_sub(1)?)
    }

    /// Put-if-absent.
    pub(crate) fn put(&mut self, slot: usize, entry: Entry) {
        if self.read(slot).is_some() {
            return;
        }
        if slot <= self.freed {
            self.strays.push((slot, entry));
            self.strays.sort();
        } else if slot == self.next() {
            self.entries.push(entry);
        }
    }

    pub(crate) fn can_be_cut(&self) -> bool {
        self.freed < self.entries.len()
    }

    /// A snapshot remembers the entries, and the slots are deleted.
    pub(crate) fn cut(&mut self) {
        self.freed = self.entries.len();
    }

    /// The highest epoch in it.
    pub(crate) fn epoch(&self) -> usize {
        self.entries.iter().map(|entry| entry.epoch).max().unwrap_or(0)
    }

    pub(crate) fn epochs_never_fall(&self) -> bool {
        self.entries.is_sorted_by_key(|entry| entry.epoch)
    }

    pub(crate) fn count(&self, operation: usize) -> usize {
        self.entries.iter().filter(|entry| entry.operation == Some(operation)).count()
    }

    /// Whether the log's fold has a link to the content: what a collector goes by.
    pub(crate) fn names(&self) -> bool {
        self.entries.iter().fold(false, |named, entry| match entry.change {
            Change::Commit { names } => named || names,
            Change::Forget => false,
            _ => named,
        })
    }

    /// Whether a committed entry needs the content: what a client goes by.
    pub(crate) fn needs(&self) -> bool {
        let strays = self.strays.iter().map(|(_, entry)| entry);
        self.entries.iter().chain(strays).fold(false, |needed, entry| match entry.change {
            Change::Commit { .. } => true,
            Change::Forget => false,
            _ => needed,
        })
    }

    /// In the catalogue: the epoch of the entry that made this log's repo, while it lives.
    pub(crate) fn birth(&self, of: usize) -> Option<usize> {
        self.entries.iter().fold(None, |birth, entry| match entry.change {
            Change::Create(log) if log == of => Some(entry.epoch),
            Change::Delete(log) if log == of => None,
            _ => birth,
        })
    }
}
