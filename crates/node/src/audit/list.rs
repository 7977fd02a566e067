//! What the logs tell, as one list in the order of time.
//!
//! Each log is in its own order; between logs the writers' clocks decide, which nothing rests on.

use ballast_format::id::UserId;
use ballast_format::log::{AccountChange, AuditChange, CatalogueChange, Change, RepoChange};
use ballast_store::keyspace::LogId;
use ballast_store::reflog::{Log, Stored, Tail};
use tokio::sync::mpsc;

use super::check_reader;
use crate::access::{Caller, Repo};
use crate::error::Result;
use crate::hub::Hub;

/// One change, of whatever log.
#[derive(Clone, Debug)]
pub enum What {
    /// Of users, tokens and quotas.
    Account(AccountChange),
    /// Of repos, their settings and gates.
    Catalogue(CatalogueChange),
    /// Of one repo's content.
    Repo(RepoChange),
    /// What is only in the audit log.
    Audit(AuditChange),
}

/// One change, with who made it and where it is written.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Which log.
    pub log: String,
    /// The number of its entry.
    pub number: u64,
    /// When, in unix milliseconds by the writer's clock.
    pub time_ms: u64,
    /// Who; nobody for what the hub does by itself.
    pub author: Option<UserId>,
    /// What.
    pub what: What,
}

/// A log while it is read.
struct Cursor<C> {
    log: Log,
    tail: Tail,
    /// What was read and is not told yet, the next last.
    page: Vec<Stored<C>>,
    is_over: bool,
}

impl<C: Change> Cursor<C> {
    fn new(hub: &Hub, id: LogId) -> Self {
        let log = hub.log_of(id);
        Self { log, tail: Tail::EMPTY, page: Vec::new(), is_over: false }
    }

    /// When the next entry was written; nothing at the end.
    async fn next_ms(&mut self) -> Result<Option<u64>> {
        if self.page.is_empty() && !self.is_over {
            self.page = self.log.read_after(&self.tail).await?;
            self.is_over = self.page.is_empty();
            if let Some(last) = self.page.last() {
                self.tail = last.tail;
            }
            self.page.reverse();
        }
        Ok(self.page.last().map(|stored| stored.entry.time_ms))
    }

    /// Tells the next entry; whether anybody listens.
    async fn tell(&mut self, wrap: fn(C) -> What, to: &mpsc::Sender<Listed>) -> bool {
        let Some(Stored { entry, tail, .. }) = self.page.pop() else { return true };
        for change in entry.changes {
            let listed = Listed {
                log: self.log.id().to_string(),
                number: tail.number,
                time_ms: entry.time_ms,
                author: entry.author,
                what: wrap(change),
            };
            if to.send(listed).await.is_err() {
                return false;
            }
        }
        true
    }
}

impl Hub {
    /// Tells everything that the logs of the whole hub hold, or what one repo's log holds. If
    /// nobody listens any more, it stops.
    pub async fn list_audit(
        &self,
        caller: &Caller,
        repo: Option<&Repo>,
        to: mpsc::Sender<Listed>,
    ) -> Result<()> {
        check_reader(caller)?;
        if let Some(repo) = repo {
            let mut log = Cursor::<RepoChange>::new(self, LogId::Repo(repo.id()));
            while log.next_ms().await?.is_some() {
                if !log.tell(What::Repo, &to).await {
                    break;
                }
            }
            return Ok(());
        }
        let mut audit = Cursor::<AuditChange>::new(self, LogId::Audit);
        let mut accounts = Cursor::<AccountChange>::new(self, LogId::Accounts);
        let mut catalogue = Cursor::<CatalogueChange>::new(self, LogId::Catalogue);
        loop {
            let times =
                [accounts.next_ms().await?, catalogue.next_ms().await?, audit.next_ms().await?];
            let first = (0..).zip(times).filter_map(|(log, time)| Some((time?, log))).min();
            let is_heard = match first {
                None => return Ok(()),
                Some((_, 0)) => accounts.tell(What::Account, &to).await,
                Some((_, 1)) => catalogue.tell(What::Catalogue, &to).await,
                Some(_) => audit.tell(What::Audit, &to).await,
            };
            if !is_heard {
                return Ok(());
            }
        }
    }
}
