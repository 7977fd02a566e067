//! The audit log: who changed what, and who could not get in (R21).
//!
//! Most of it is in the logs that are the truth anyhow: the accounts tell of users, tokens and
//! quotas, the catalogue of repos, their settings and gates, each with who did it, each entry
//! holding the hash of the one before it. A log of its own holds what they lack: failed logins,
//! added up, and what administrators had the hub do. Once an hour it also notes how far the other
//! two are, so that their ends can't be cut off unseen (ADR 40).

mod list;
#[cfg(test)]
mod tests;
mod verify;

pub use list::{Listed, What};
pub use verify::{AuditReport, KnownHead};

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::id::TokenId;
use ballast_format::log::{Act, AuditChange, Entry, Head};
use ballast_store::reflog::Tail;

use crate::access::Caller;
use crate::account::check_admin;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::ledger::{New, State};
use crate::worker::Worker;

/// How often it is noted how far the other logs are, if they went on.
const HEADS_MS: u64 = 60 * 60 * 1000;
/// Places from which logins failed that are told one by one at each time.
const MOST_PLACES: usize = 256;

/// What is known of the audit log: how far the other logs were when it was last noted.
#[derive(Debug, Default)]
pub(crate) struct AuditState {
    heads: Option<(Head, Head)>,
    noted_ms: u64,
}

impl State for AuditState {
    type Change = AuditChange;

    fn apply(&mut self, entry: &Entry<AuditChange>) {
        for change in &entry.changes {
            if let AuditChange::Heads { catalogue, accounts } = change {
                self.heads = Some((*catalogue, *accounts));
                self.noted_ms = entry.time_ms;
            }
        }
    }
}

/// Logins that failed and are not written down yet.
#[derive(Debug, Default)]
pub(crate) struct FailedLogins {
    failed: Mutex<Failed>,
}

#[derive(Debug, Default)]
struct Failed {
    places: HashMap<(IpAddr, Option<TokenId>), Place>,
    /// From other places than these.
    more: u64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    count: u32,
    since_ms: u64,
}

impl FailedLogins {
    fn failed(&self) -> MutexGuard<'_, Failed> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failed {
    fn add(&mut self, key: (IpAddr, Option<TokenId>), new: Place) {
        if let Some(known) = self.places.get_mut(&key) {
            known.count = known.count.saturating_add(new.count);
            known.since_ms = known.since_ms.min(new.since_ms);
        } else if self.places.len() < MOST_PLACES {
            self.places.insert(key, new);
        } else {
            self.more = self.more.saturating_add(u64::from(new.count));
        }
    }

    fn changes(&self) -> Vec<AuditChange> {
        let told = |(key, place): (&(IpAddr, Option<TokenId>), &Place)| {
            let address = match key.0 {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            let Place { count, since_ms } = *place;
            AuditChange::LoginsFailed { address, token: key.1, count, since_ms }
        };
        let mut changes: Vec<AuditChange> = self.places.iter().map(told).collect();
        changes.sort_by_key(|change| match change {
            AuditChange::LoginsFailed { address, token, .. } => (*address, *token),
            _ => ([0; 16], None),
        });
        if self.more > 0 {
            changes.push(AuditChange::MoreLoginsFailed { count: self.more });
        }
        changes
    }
}

impl Hub {
    /// Notes that somebody at this address could not log in with this secret. It is written down
    /// in a while, added up with others.
    pub(crate) fn note_failed_login(&self, address: IpAddr, secret: &str) {
        let token = self.token_by_secret(secret);
        let place = Place { count: 1, since_ms: self.env().now_ms() };
        self.failed_logins.failed().add((address, token), place);
    }

    /// Writes down that an administrator has the hub do something, before it is done.
    pub async fn note_act(&self, caller: &Caller, act: Act) -> Result<()> {
        check_admin(caller)?;
        let by = caller.user()?;
        if self.store().is_read_only() {
            tracing::info!(user = %by.user, ?act, "the store is read only: it is not written down");
            return Ok(());
        }
        let change = AuditChange::Acted { act, token: by.token };
        self.audit.refresh(self).await?;
        self.audit.append(self, New::by(Some(by.user)), |_| Ok(vec![change.clone()])).await
    }

    /// Writes down what has come up since the last time.
    pub(crate) async fn flush_audit(&self) -> Result<()> {
        let failed = std::mem::take(&mut *self.failed_logins.failed());
        let told = failed.changes();
        if told.is_empty() {
            return Ok(());
        }
        let done = async {
            self.audit.refresh(self).await?;
            self.audit.append(self, New::by(None), |_| Ok(told.clone())).await
        };
        let done = done.await;
        if done.is_err() {
            // Another time.
            let mut now = self.failed_logins.failed();
            for (key, place) in failed.places {
                now.add(key, place);
            }
            now.more = now.more.saturating_add(failed.more);
        }
        done
    }

    /// Notes how far the other logs are, if that was not done lately and they went on.
    pub(crate) async fn note_heads(&self) -> Result<()> {
        let head = |tail: Tail| Head { number: tail.number, hash: tail.hash };
        let heads = (head(self.catalogue.tail()), head(self.accounts.tail()));
        let now = self.env().now_ms();
        self.audit.refresh(self).await?;
        self.audit
            .append(self, New::by(None), |state| {
                let is_old = now.saturating_sub(state.noted_ms) >= HEADS_MS;
                let is_new = state.heads.is_none_or(|noted| {
                    // What another process knows may be more.
                    noted.0.number < heads.0.number || noted.1.number < heads.1.number
                });
                let (catalogue, accounts) = heads;
                let change = AuditChange::Heads { catalogue, accounts };
                Ok((is_old && is_new).then_some(change).into_iter().collect())
            })
            .await
    }
}

/// Writes down failed logins, and how far the other logs are.
#[derive(Debug)]
pub(crate) struct KeepAudit {
    interval: Duration,
}

impl KeepAudit {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval }
    }
}

#[async_trait]
impl Worker for KeepAudit {
    fn name(&self) -> &'static str {
        "audit"
    }

    fn pause(&self) -> Duration {
        self.interval
    }

    async fn work(&self, hub: &Hub) {
        let work = async {
            hub.flush_audit().await?;
            hub.note_heads().await
        };
        if let Err(error) = work.await {
            tracing::warn!(%error, "the audit log goes on at the next time");
        }
    }
}

/// Only administrators of the hub read the audit log.
fn check_reader(caller: &Caller) -> Result<()> {
    caller.user()?;
    check_admin(caller)
        .map_err(|_| Error::denied("only an administrator of the hub may read the audit log"))
}
