//! Checking a log: that each entry follows the one before it, and is what this node once read.
//!
//! The index keeps a copy of every entry. Where an entry is damaged, its copy tells what to look at
//! next; and a last entry, which no other proves, is held against its copy.

use ballast_format::hash::EntryHash;
use ballast_format::limits::MAX_TALLY_BYTES;
use ballast_format::log::{Change, Entry};
use ballast_format::tally::Tally;
use ballast_store::index::{Table, schema};
use ballast_store::keyspace::{CopyName, Key, LogId, Prefix};
use ballast_store::reflog::Stored;
use futures_util::TryStreamExt as _;
use futures_util::future::join_all;

use super::{Check, is_stored_damage};
use crate::error::Result;

/// Entries that are read at once; each has at most 5 MB.
const AT_ONCE: u64 = 8;

/// Where the check is.
struct Place {
    number: u64,
    /// The hash of the entry before; nothing: nobody knows.
    previous: Option<EntryHash>,
    term: u64,
    epoch: u64,
}

type Read<C> = std::result::Result<Option<Stored<C>>, ballast_store::Error>;

impl Check {
    /// Reads a log from its beginning and hands out what its entries say.
    pub(super) async fn log<C: Change + Send + Sync>(
        &mut self,
        id: LogId,
        mut hear: impl FnMut(&Entry<C>),
    ) -> Result<()> {
        let log = self.hub.log_of(id);
        let mut place = Place { number: 1, previous: Some(EntryHash::ZERO), term: 0, epoch: 0 };
        loop {
            let numbers = place.number..place.number + AT_ONCE;
            let answers: Vec<Read<C>> = join_all(numbers.map(|number| log.read(number))).await;
            let last = answers.iter().rposition(|answer| !matches!(answer, Ok(None)));
            for (index, answer) in answers.into_iter().enumerate() {
                let key = schema::log_key(&id, place.number);
                let kept = self.hub.index().get(Table::Log, &key).await?;
                let is_behind_all = last.is_none_or(|last| index > last);
                if is_behind_all && kept.is_none() {
                    return Ok(());
                }
                if let Some(entry) = self.entry(id, &mut place, answer, kept).await? {
                    hear(&entry);
                }
            }
        }
    }

    /// Reads the small objects of the whole hub: every list of what was condemned, and the counts
    /// of downloads.
    pub(super) async fn lists(&mut self) -> Result<()> {
        let mut tallies = self.hub.store().list(&Prefix::Tallies);
        while let Some(listed) = tallies.try_next().await? {
            let key = listed.key;
            match self.hub.store().get(&key, MAX_TALLY_BYTES as u64).await {
                Ok(None) => {}
                Ok(Some(bytes)) => {
                    if let Err(error) = Tally::decode(&bytes) {
                        self.damaged(&key, &error);
                    }
                    self.count(bytes.len() as u64).await?;
                }
                Err(error) => drop(self.fault(&key, error.into())?),
            }
        }
        let newest = self.hub.store().epoch().await?;
        for epoch in 1..=newest {
            let key = Key::Gc(epoch);
            match self.hub.condemned_list(epoch).await {
                Ok(Some((_, copies))) => {
                    self.count((copies.len() * CopyName::LENGTH) as u64).await?;
                }
                Ok(None) => drop(self.damaged(&key, &"it is missing")),
                Err(error) => drop(self.fault(&key, error)?),
            }
            if let Err(error) = self.hub.collected(epoch).await {
                self.fault(&Key::GcDone(epoch), error)?;
            }
        }
        Ok(())
    }

    /// Checks one entry; what it says, or said when this node read it.
    async fn entry<C: Change>(
        &mut self,
        id: LogId,
        place: &mut Place,
        answer: Read<C>,
        kept: Option<Vec<u8>>,
    ) -> Result<Option<Entry<C>>> {
        let key = Key::LogEntry(id, place.number);
        let kept = kept.and_then(|bytes| Some((Entry::<C>::decode(&bytes).ok()?, bytes)));
        let problem = match &answer {
            Err(error) if !is_stored_damage(error) => return Err(error.clone().into()),
            Err(error) => Some(error.to_string()),
            Ok(None) => Some("it is missing".to_owned()),
            Ok(Some(stored)) => {
                self.count(stored.bytes.len() as u64).await?;
                let (previous, epoch) = (stored.entry.previous, stored.entry.epoch);
                let term = stored.entry.term;
                let differs = kept.as_ref().is_some_and(|(_, bytes)| *bytes != stored.bytes);
                if differs {
                    Some("it is not what it was when it was written or first read".to_owned())
                } else if place.previous.is_some_and(|expected| expected != previous) {
                    Some("it and the entry before it do not belong together".to_owned())
                } else if term < place.term {
                    Some(format!("its term {term} is below {}", place.term))
                } else if term == place.term && epoch < place.epoch {
                    Some(format!("its epoch {epoch} is below {}", place.epoch))
                } else {
                    None
                }
            }
        };
        let is_sound = problem.is_none();
        if let Some(problem) = problem {
            self.damaged(&key, &problem);
        }
        place.number += 1;
        let stored = answer.ok().flatten().map(|stored| (stored.entry, stored.bytes.to_vec()));
        let entry = if is_sound { stored } else { kept.or(stored) };
        let Some((entry, bytes)) = entry else {
            place.previous = None;
            return Ok(None);
        };
        place.previous = Some(EntryHash::of(&bytes));
        if entry.term > place.term {
            (place.term, place.epoch) = (entry.term, entry.epoch);
        }
        place.epoch = place.epoch.max(entry.epoch);
        Ok(Some(entry))
    }
}
