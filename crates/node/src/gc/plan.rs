//! What a collection would condemn, and why.

use ballast_format::limits::MAX_CONDEMNED;
use ballast_store::keyspace::{CopyKind, CopyName, Key, Prefix};
use futures_util::TryStreamExt as _;

use super::mark::Marked;
use super::rewrite::{MOST_REWRITTEN, REMEMBERED, Thin};
use super::{EPOCHS_BEHIND, GcSettings};
use crate::broken::{Step, is_left_out};
use crate::error::Result;
use crate::hub::Hub;

/// A copy that nothing refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condemning {
    /// The copy.
    pub copy: CopyName,
    /// Its size in bytes.
    pub bytes: u64,
    /// How old it is by the store's clock, in milliseconds.
    pub age_ms: u64,
}

/// What the next epoch would condemn.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The number of that epoch.
    pub epoch: u64,
    /// The copies, sorted by name.
    pub copies: Vec<Condemning>,
    /// Copies that nothing refers to and that a writer at work may just have written, or that are
    /// too many for one list: they are for a later epoch.
    pub later: u64,
    /// Copies that something refers to.
    pub reachable: u64,
    /// Xorbs in which little is alive, in order: as many as are rewritten at once.
    pub thin: Vec<Thin>,
    /// Whether the epoch alone would let something go later.
    pub(super) needs_epoch: bool,
}

impl Condemning {
    /// Why nothing would miss it.
    pub fn reason(&self) -> &'static str {
        match self.copy.kind {
            CopyKind::Xorb => {
                "no file of a living repo is made of it, and all leases of it ran out"
            }
            CopyKind::Shard => "no living repo reads a file by it, and all leases of it ran out",
            CopyKind::Pack => "no living repo's log names it",
        }
    }
}

impl Hub {
    /// What the epoch behind `newest` would condemn.
    pub(super) async fn plan(
        &self,
        settings: &GcSettings,
        newest: u64,
        marked: &Marked,
    ) -> Result<Plan> {
        let floor_ms = u64::try_from(settings.floor.as_millis()).unwrap_or(u64::MAX);
        let mut plan = Plan { epoch: newest + 1, ..Plan::default() };
        for kind in CopyKind::ALL {
            let mut listed = self.store().list(&Prefix::Copies(kind));
            while let Some(listed) = listed.try_next().await? {
                let Key::Copy(copy) = listed.key else { continue };
                let age_ms = self.env().now_ms().saturating_sub(listed.modified_ms);
                if marked.holds(&copy) {
                    plan.reachable += 1;
                    let thin = Thin::of(&copy, listed.size, settings.rewrite_below, marked);
                    let may_be = age_ms >= floor_ms && settings.wait >= REMEMBERED;
                    plan.thin.extend(thin.filter(|_| may_be));
                    continue;
                }
                let is_behind =
                    copy.epoch + EPOCHS_BEHIND <= plan.epoch || is_left_out(Step::Behind);
                if age_ms < floor_ms || plan.copies.len() == MAX_CONDEMNED {
                    plan.later += 1;
                } else if !is_behind {
                    plan.later += 1;
                    plan.needs_epoch = true;
                } else {
                    plan.copies.push(Condemning { copy, bytes: listed.size, age_ms });
                }
            }
        }
        plan.copies.sort_by_key(|condemning| condemning.copy.to_bytes());
        plan.thin.sort_by_key(|thin| thin.xorb);
        plan.thin.dedup_by_key(|thin| thin.xorb);
        let mut left = MOST_REWRITTEN;
        plan.thin.retain(|thin| {
            let fits = thin.live <= left;
            left -= if fits { thin.live } else { 0 };
            fits
        });
        Ok(plan)
    }
}
