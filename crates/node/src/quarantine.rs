//! Copies in which damage was found, or that are lost.
//!
//! They are read only where there is no other copy, and then every chunk is hashed each time. They
//! are never offered, nobody is told that they need not send what only such a copy holds, and no
//! commit relies on one. So whoever sends the same content again makes another copy, which heals
//! all files that are made of it (R4).
//!
//! A first finding is a suspicion, since bytes may also be changed on their way here. The copy is
//! read once more, whole; what is still wrong is noted in the store, so that other processes and
//! later starts know. A note deletes nothing: whether a copy may go is for `gc` alone to say.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::hash::XorbHash;
use ballast_store::keyspace::{CopyKind, CopyName, Key, Prefix};
use ballast_store::objects::Listed;
use bytes::Bytes;
use futures_util::TryStreamExt as _;

use crate::error::Result;
use crate::hub::Hub;
use crate::pace::Pace;
use crate::verify::Verdict;
use crate::worker::Worker;

/// Copies that are kept in mind: more than that, and the disk itself is what is damaged. What is
/// not kept is found again when it is read.
const MOST: usize = 100_000;
/// How often suspicions are settled and notes of other processes read.
const PAUSE: Duration = Duration::from_mins(1);

/// How sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// Damage was found once.
    Suspect,
    /// It was found again, and the store has a note of it.
    Noted,
}

/// What is known of damage.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    known: RwLock<HashMap<CopyName, Mark>>,
}

impl Quarantine {
    /// Whether nothing is damaged, as far as is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.known().is_empty()
    }

    /// Whether damage was found in this copy.
    pub(crate) fn holds(&self, copy: &CopyName) -> bool {
        self.known().contains_key(copy)
    }

    /// Remembers a first finding; whether it is one.
    pub(crate) fn suspect(&self, copy: &CopyName) -> bool {
        let mut known = self.change();
        if known.contains_key(copy) || known.len() >= MOST {
            return false;
        }
        known.insert(*copy, Mark::Suspect).is_none()
    }

    /// What is damaged for sure, in the order of names.
    pub(crate) fn noted(&self) -> Vec<CopyName> {
        self.marked(Mark::Noted)
    }

    /// All content of which a copy is suspected or noted.
    pub(crate) fn contents(&self) -> HashSet<(CopyKind, [u8; 32])> {
        self.known().keys().map(|copy| (copy.kind, copy.hash)).collect()
    }

    /// A copy of this content that is suspected or noted.
    pub(crate) fn copy_of(&self, kind: CopyKind, hash: [u8; 32]) -> Option<CopyName> {
        self.known().keys().find(|copy| copy.kind == kind && copy.hash == hash).copied()
    }

    /// Whether a copy is damaged for sure.
    pub(crate) fn is_noted(&self, copy: &CopyName) -> bool {
        self.known().get(copy) == Some(&Mark::Noted)
    }

    fn suspects(&self) -> Vec<CopyName> {
        self.marked(Mark::Suspect)
    }

    fn marked(&self, mark: Mark) -> Vec<CopyName> {
        let known = self.known();
        let marked = known.iter().filter(|(_, found)| **found == mark).map(|(copy, _)| *copy);
        let mut marked: Vec<CopyName> = marked.collect();
        marked.sort_unstable();
        marked
    }

    fn note(&self, copy: &CopyName) {
        self.change().insert(*copy, Mark::Noted);
    }

    /// Forgets a copy that is sound, or that nobody can come across any more.
    pub(crate) fn release(&self, copy: &CopyName) {
        self.change().remove(copy);
    }

    fn known(&self) -> RwLockReadGuard<'_, HashMap<CopyName, Mark>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, HashMap<CopyName, Mark>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    /// Reads the notes that there are.
    pub(crate) async fn read_damage(&self) -> Result<()> {
        let before = self.quarantine.noted();
        let mut listed = HashSet::new();
        let mut notes = self.store().list(&Prefix::Damaged);
        while let Some(note) = notes.try_next().await? {
            if let Key::Damaged(copy) = note.key
                && listed.len() < MOST
            {
                listed.insert(copy);
            }
        }
        for copy in &listed {
            self.quarantine.note(copy);
            self.caches.places.remove(&XorbHash::from_bytes(copy.hash));
        }
        // Another process found it sound. What was noted here meanwhile stays.
        for copy in before.iter().filter(|copy| !listed.contains(copy)) {
            self.quarantine.release(copy);
        }
        Ok(())
    }

    /// Reads once more what is suspected; what is still damaged is noted in the store.
    pub(crate) async fn settle_damage(&self) -> Result<()> {
        for copy in self.quarantine.suspects() {
            match self.check_copy(&copy, &Pace::unlimited()).await? {
                Verdict::Sound { .. } => {
                    let key = Key::Copy(copy);
                    tracing::warn!(%key, "it was read wrong, and is sound: look at memory and net");
                    self.quarantine.release(&copy);
                }
                Verdict::Damaged { what } => {
                    tracing::error!(key = %Key::Copy(copy), what, "it is damaged, and set aside");
                    self.note_for_good(&copy).await?;
                }
                Verdict::Gone => self.settle_gone(&copy).await?,
            }
        }
        Ok(())
    }

    /// What a collection swept may be gone; nothing else.
    async fn settle_gone(&self, copy: &CopyName) -> Result<()> {
        match self.read_newest_condemned().await {
            // Nobody can say whether it was swept.
            Err(error) if error.is_corrupt() => return Ok(()),
            read => read?,
        };
        self.drop_copy(copy).await?;
        if self.condemned.holds(copy) {
            self.quarantine.release(copy);
            return Ok(());
        }
        tracing::error!(key = %Key::Copy(*copy), "it is gone, and no collection deleted it");
        self.note_for_good(copy).await
    }

    /// Looks again at everything that is noted; what was mended is as good as any other again.
    pub(crate) async fn settle_notes(&self) -> Result<()> {
        self.settle_damage().await?;
        for copy in self.quarantine.noted() {
            let is_over = match self.check_copy(&copy, &Pace::unlimited()).await? {
                Verdict::Sound { .. } => true,
                Verdict::Damaged { .. } => false,
                // Nobody can come across it, and nobody misses it.
                Verdict::Gone => self.condemned.holds(&copy) || self.has_sound_copy(&copy).await?,
            };
            if is_over {
                tracing::info!(key = %Key::Copy(copy), "the damage is mended");
                self.release_copy(&copy).await?;
            }
        }
        Ok(())
    }

    /// Takes away the note of a copy, and all that is known against it.
    pub(crate) async fn release_copy(&self, copy: &CopyName) -> Result<()> {
        if !self.store().is_read_only() {
            self.store().sweep(&Key::Damaged(*copy)).await?;
        }
        self.quarantine.release(copy);
        Ok(())
    }

    async fn note_for_good(&self, copy: &CopyName) -> Result<()> {
        if !self.store().is_read_only() {
            // Another process may have been first; a note says nothing but its name.
            self.store().put_absent(&Key::Damaged(*copy), Bytes::new()).await?;
        }
        self.quarantine.note(copy);
        Ok(())
    }

    /// The copies that the store has of some content: first those to rely on, and last those in
    /// which damage was found.
    pub(crate) async fn copies_by_trust(
        &self,
        kind: CopyKind,
        hash: [u8; 32],
    ) -> Result<Vec<CopyName>> {
        let listed = self.store().copies(kind, hash).await?;
        let name = |listed: Listed| match listed.key {
            Key::Copy(copy) => Some(copy),
            _ => None,
        };
        let mut copies: Vec<CopyName> = listed.into_iter().filter_map(name).collect();
        copies.sort_by_key(|copy| (self.quarantine.holds(copy), self.condemned.holds(copy)));
        Ok(copies)
    }

    /// Whether the store has a copy of the same content in which no damage was found.
    pub(crate) async fn has_sound_copy(&self, copy: &CopyName) -> Result<bool> {
        let copies = self.copies_by_trust(copy.kind, copy.hash).await?;
        Ok(copies.first().is_some_and(|copy| self.relies_on(copy)))
    }
}

/// Settles suspicions, and learns what other processes found.
#[derive(Debug)]
pub(crate) struct FollowDamage;

#[async_trait]
impl Worker for FollowDamage {
    fn name(&self) -> &'static str {
        "damage"
    }

    fn pause(&self) -> Duration {
        PAUSE
    }

    async fn work(&self, hub: &Hub) {
        let work = async {
            hub.settle_damage().await?;
            hub.read_damage().await
        };
        let stopping = hub.runner().stopping();
        tokio::select! {
            () = stopping.cancelled() => {}
            done = work => if let Err(error) = done {
                tracing::warn!(%error, "what is damaged is looked at in the next minute");
            }
        }
    }
}

#[cfg(test)]
mod tests;
