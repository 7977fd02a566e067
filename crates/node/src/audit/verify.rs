//! Walking the logs: that no entry was taken away, changed or put in another's place.
//!
//! Each entry holds the hash of the one before it, so that only the last one of a log can be
//! changed, and only the end be cut off, without a break. The end is held against what this process
//! has read, against what the audit log noted each hour, and against what somebody kept outside:
//! who can write to the store can make all three anew but the last.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ballast_format::ErrorKind;
use ballast_format::hash::EntryHash;
use ballast_format::id::RepoId;
use ballast_format::log::{
    AccountChange, AuditChange, CatalogueChange, Change, Entry, Head, RepoChange,
};
use ballast_store::keyspace::{Key, LogId, Prefix};
use ballast_store::reflog::{Course, Log, Tail};
use futures_util::TryStreamExt as _;
use tokio::sync::mpsc;

use super::check_reader;
use crate::access::Caller;
use crate::error::Result;
use crate::hub::Hub;
use crate::state::catalogue::CatalogueState;

/// How far a log was, as somebody kept it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownHead {
    /// Which log, as reports name it.
    pub log: String,
    /// The number of its last entry.
    pub number: u64,
    /// The hash of that entry.
    pub hash: EntryHash,
}

/// What walking the logs brings up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditReport {
    /// A log whose every entry follows the one before it, and how far it is.
    Head(KnownHead),
    /// Something is not as it was.
    Finding {
        /// Where.
        object: String,
        /// What.
        problem: String,
    },
}

/// What must be so in one log.
#[derive(Default)]
struct Expected {
    /// The hashes of some of its entries, by number and by who says so.
    hashes: BTreeMap<(u64, &'static str), EntryHash>,
    /// The newest number that a listing has.
    listed: u64,
}

impl Expected {
    fn add(&mut self, number: u64, hash: EntryHash, by: &'static str) {
        if number > 0 {
            self.hashes.insert((number, by), hash);
        }
    }

    /// Who knows another entry of this number.
    fn contradicts(&self, number: u64, hash: EntryHash) -> Option<&'static str> {
        let mut known = self.hashes.range((number, "")..(number + 1, ""));
        known.find(|(_, known)| **known != hash).map(|((_, by), _)| *by)
    }

    /// The newest entry that anybody knows, and who.
    fn newest(&self) -> (u64, &'static str) {
        self.hashes.last_key_value().map_or((0, ""), |(newest, _)| *newest)
    }
}

/// One walk.
struct Walk<'a> {
    hub: &'a Hub,
    to: mpsc::Sender<AuditReport>,
    expected: HashMap<String, Expected>,
    repos: BTreeSet<RepoId>,
    findings: u64,
}

impl Hub {
    /// Walks every log, and tells how far each is and what is not as it was; how many findings
    /// there are. `kept` is what an earlier walk told.
    pub async fn verify_audit(
        &self,
        caller: &Caller,
        kept: &[KnownHead],
        to: mpsc::Sender<AuditReport>,
    ) -> Result<u64> {
        check_reader(caller)?;
        let (expected, repos) = (HashMap::new(), BTreeSet::new());
        let mut walk = Walk { hub: self, to, expected, repos, findings: 0 };
        for head in kept {
            walk.expect(&head.log, head.number, head.hash, "what was kept of it");
        }
        walk.list().await?;
        let known = self.audit.tail();
        walk.expect_tail(LogId::Audit, known);
        let mut heads: Vec<(Head, Head)> = Vec::new();
        walk.log::<AuditChange>(LogId::Audit, |entry| {
            for change in &entry.changes {
                if let AuditChange::Heads { catalogue, accounts } = change {
                    heads.push((*catalogue, *accounts));
                }
            }
        })
        .await?;
        for (catalogue, accounts) in heads {
            for (log, head) in [(LogId::Catalogue, catalogue), (LogId::Accounts, accounts)] {
                walk.expect(&log.to_string(), head.number, head.hash, "the audit log");
            }
        }
        walk.expect_tail(LogId::Catalogue, self.catalogue.tail());
        walk.log::<CatalogueChange>(LogId::Catalogue, |_| {}).await?;
        walk.expect_tail(LogId::Accounts, self.accounts.tail());
        walk.log::<AccountChange>(LogId::Accounts, |_| {}).await?;
        // Those of deleted repos stay, too.
        walk.repos.extend(self.catalogue.read(CatalogueState::repo_ids));
        for id in std::mem::take(&mut walk.repos) {
            walk.log::<RepoChange>(LogId::Repo(id), |_| {}).await?;
        }
        walk.miss_the_rest().await;
        Ok(walk.findings)
    }
}

impl Walk<'_> {
    fn expect(&mut self, log: &str, number: u64, hash: EntryHash, by: &'static str) {
        self.expected.entry(log.to_owned()).or_default().add(number, hash, by);
    }

    fn expect_tail(&mut self, log: LogId, tail: Tail) {
        self.expect(&log.to_string(), tail.number, tail.hash, "what this server has read");
    }

    /// Learns from a listing which entries there are: what is behind a hole is found so.
    async fn list(&mut self) -> Result<()> {
        let mut listed = self.hub.store().list(&Prefix::Logs);
        while let Some(listed) = listed.try_next().await? {
            if let Key::LogEntry(log, number) = listed.key {
                // Of repos that another region is the home of, what has not come does not count,
                // nor what lost its place.
                if self.is_on_a_course(log) {
                    continue;
                }
                let expected = self.expected.entry(log.to_string()).or_default();
                expected.listed = expected.listed.max(number);
                if let LogId::Repo(id) = log {
                    self.repos.insert(id);
                }
            }
        }
        Ok(())
    }

    fn is_on_a_course(&self, log: LogId) -> bool {
        let LogId::Repo(id) = log else { return false };
        *self.hub.log_of(log).course() != Course::default()
            || self.hub.catalogue.read(|state| state.is_line(&id))
    }

    /// Logs that somebody knows and that are not there at all.
    async fn miss_the_rest(&mut self) {
        for (log, expected) in std::mem::take(&mut self.expected) {
            let (newest, by) = expected.newest();
            if newest > 0 {
                self.findings += 1;
                let problem = format!("it is missing, and {by} knows entry {newest}");
                let _ = self.to.send(AuditReport::Finding { object: log, problem }).await;
            }
        }
    }

    async fn log<C: Change>(&mut self, id: LogId, mut hear: impl FnMut(&Entry<C>)) -> Result<()> {
        let log = self.hub.log_of(id);
        let expected = self.expected.remove(&id.to_string()).unwrap_or_default();
        let (mut tail, before) = (Tail::EMPTY, self.findings);
        loop {
            let page = match log.read_after::<C>(&tail).await {
                Ok(page) => page,
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    self.find_break::<C>(&log, tail, error).await?;
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            let Some(last) = page.last() else { break };
            tail = last.tail;
            for stored in &page {
                hear(&stored.entry);
                let Tail { number, hash, .. } = stored.tail;
                if let Some(by) = expected.contradicts(number, hash) {
                    let problem = format!("it is not the entry that {by} knows");
                    self.find(&Key::LogEntry(id, number), problem).await;
                }
            }
        }
        let (newest, by) = expected.newest();
        let next = Key::LogEntry(id, tail.number + 1);
        if before == self.findings && newest > tail.number {
            self.find(&next, format!("it is missing, and {by} knows entry {newest}")).await;
        } else if before == self.findings && expected.listed > tail.number {
            // Unless it was written just now.
            if log.read::<C>(tail.number + 1).await?.is_none() {
                let problem = format!("it is missing, and entry {} is there", expected.listed);
                self.find(&next, problem).await;
            }
        }
        if before == self.findings && tail.number > 0 {
            let (log, number, hash) = (id.to_string(), tail.number, tail.hash);
            let head = KnownHead { log, number, hash };
            // Nobody may be listening any more.
            let _ = self.to.send(AuditReport::Head(head)).await;
        }
        Ok(())
    }

    /// Names the first entry behind this tail at which a log is broken: pages say only that it is.
    async fn find_break<C: Change>(
        &mut self,
        log: &Log,
        mut tail: Tail,
        error: ballast_store::Error,
    ) -> Result<()> {
        loop {
            let key = Key::LogEntry(log.id(), tail.number + 1);
            let problem = match log.read::<C>(tail.number + 1).await {
                Ok(Some(next)) if next.entry.previous == tail.hash => {
                    if tail.refuses(&next.entry).is_none() {
                        tail = next.tail;
                        continue;
                    }
                    error.to_string()
                }
                Ok(Some(_)) => "it and the entry before it do not belong together".to_owned(),
                Ok(None) => "it is missing, and a later entry is there".to_owned(),
                Err(error) if error.kind() == ErrorKind::Corrupt => error.to_string(),
                Err(error) => return Err(error.into()),
            };
            self.find(&key, problem).await;
            return Ok(());
        }
    }

    async fn find(&mut self, key: &Key, problem: String) {
        self.findings += 1;
        let object = key.to_string();
        let _ = self.to.send(AuditReport::Finding { object, problem }).await;
    }
}
