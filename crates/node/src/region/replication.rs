//! What goes to other regions, as administrators say.

use std::sync::Arc;

use ballast_format::hash::XorbHash;
use ballast_format::log::{CatalogueChange, Replication};
use ballast_format::name::RegionName;
use ballast_store::index::Table;
use ballast_store::index::schema::{self, Scope};

use crate::access::Caller;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::catalogue::{Compared, RepoRecord};
use crate::state::ledger::New;

/// Replications of a hub.
const MOST_REPLICATIONS: usize = 1000;
/// Rows that are read at once.
const ROWS: usize = 1000;

impl Hub {
    /// What goes to other regions, by name.
    pub fn replications(&self) -> Vec<(RegionName, Replication)> {
        self.catalogue.read(|state| {
            let all = state.replications().iter();
            all.map(|(name, rules)| (name.clone(), rules.clone())).collect()
        })
    }

    /// Lets repos go to another region by these rules, which take the place of those that had the
    /// name before; `is_new`: none may have had it.
    pub async fn set_replication(
        &self,
        caller: &Caller,
        name: &RegionName,
        rules: &Replication,
        is_new: bool,
    ) -> Result<()> {
        only_admins(caller)?;
        self.catalogue
            .append(self, New::by(caller.user_id()), |state| {
                only_admins(&self.again(caller)?)?;
                let all = state.replications();
                if all.get(name) == Some(rules) {
                    return Ok(Vec::new());
                }
                if is_new && all.contains_key(name) {
                    return Err(Error::Exists { what: format!("the replication `{name}`") });
                }
                if all.len() >= MOST_REPLICATIONS && !all.contains_key(name) {
                    let reason = format!("a hub has at most {MOST_REPLICATIONS} replications");
                    return Err(Error::invalid(reason));
                }
                let (name, rules) = (name.clone(), rules.clone());
                Ok(vec![CatalogueChange::ReplicationSet { name, rules }])
            })
            .await
    }

    /// Ends a replication. What went stays where it is, and follows no more.
    pub async fn remove_replication(&self, caller: &Caller, name: &RegionName) -> Result<()> {
        only_admins(caller)?;
        self.catalogue
            .append(self, New::by(caller.user_id()), |state| {
                only_admins(&self.again(caller)?)?;
                if !state.replications().contains_key(name) {
                    return Err(Error::NotFound { what: format!("the replication `{name}`") });
                }
                Ok(vec![CatalogueChange::ReplicationRemoved { name: name.clone() }])
            })
            .await
    }

    /// Writes down what came of comparing with another region.
    pub async fn note_compared(
        &self,
        region: &RegionName,
        repos: u64,
        findings: u64,
    ) -> Result<()> {
        let region = region.clone();
        let compared = CatalogueChange::RegionCompared { region, repos, findings };
        self.catalogue.append(self, New::by(None), |_| Ok(vec![compared.clone()])).await
    }

    /// What came of comparing with another region last.
    pub fn compared_with(&self, region: &RegionName) -> Option<Compared> {
        self.catalogue.read(|state| state.compared(region))
    }

    /// The repos that have files in a xorb.
    pub async fn repos_with(&self, xorb: &XorbHash) -> Result<Vec<Arc<RepoRecord>>> {
        let prefix = schema::xorb_repos_prefix(xorb);
        let (mut found, mut after): (Vec<Arc<RepoRecord>>, Option<Vec<u8>>) = (Vec::new(), None);
        loop {
            let rows = self.index().scan(Table::XorbScope, &prefix, after.as_deref(), ROWS);
            let rows = rows.await?;
            let Some((last, _)) = rows.last() else { return Ok(found) };
            after = Some(last.clone());
            for (key, _) in &rows {
                let Scope::Repo(repo) = schema::scope_of(key)? else { continue };
                let is_known = found.last().is_some_and(|record| record.id == repo);
                if let Some(record) = self.record_of(repo).filter(|_| !is_known) {
                    found.push(record);
                }
            }
        }
    }
}

fn only_admins(caller: &Caller) -> Result<()> {
    if caller.is_admin() {
        return Ok(());
    }
    Err(Error::denied("only an administrator of the hub may say what goes to other regions"))
}
