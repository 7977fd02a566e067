//! Who speaks to other regions, for the gateway: what is asked, done, and told as lines of JSON.

use std::fmt;
use std::sync::{Arc, PoisonError};

use anyhow::Context as _;
use async_trait::async_trait;
use ballast_format::log::Replication;
use ballast_format::name::{RegionName, RepoKind, RepoName};
use ballast_gateway::{AskedRegions, AskedReplication, AskedRepo, RegionRunner};
use ballast_node::access::{Access, Caller, Repo};
use ballast_node::hub::Hub;
use ballast_node::state::homing::Away;
use ballast_node::{Error, Result};
use ballast_sync::replicate::{ComparedRepo, Progress, Remotes, Told, check_rules};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::wire;

/// Reports that wait for whoever passes them on.
const QUEUE: usize = 16;

/// Speaks to other regions.
struct Regions {
    remotes: Arc<Remotes>,
    /// What others told of their progress.
    told: Told,
}

/// Follows the regions that were added, if this hub is one among several.
pub(crate) async fn open(
    hub: &Arc<Hub>,
    config: &Config,
    told: &Told,
) -> anyhow::Result<Option<Arc<dyn RegionRunner>>> {
    if hub.settings().region.is_none() || config.offline {
        return Ok(None);
    }
    let (shared, choice) = wire::shared(hub, &config.cluster)?;
    let remotes = Remotes::open(hub, &config.data, shared, choice).await;
    let remotes = remotes.context("following other regions")?;
    Ok(Some(Arc::new(Regions { remotes, told: Arc::clone(told) })))
}

impl fmt::Debug for Regions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Regions")
    }
}

type Lines = mpsc::Sender<Value>;

#[async_trait]
impl RegionRunner for Regions {
    async fn answer(
        &self,
        hub: &Arc<Hub>,
        caller: &Caller,
        asked: AskedRegions,
        lines: &Lines,
    ) -> std::result::Result<Value, String> {
        let done = match asked {
            AskedRegions::Status => self.status(hub, lines).await,
            AskedRegions::Verify { remote } => self.verify(&remote, lines).await,
            other => self.change(hub, caller, other).await,
        };
        done.map_err(|error| error.to_string())
    }
}

fn region(text: &str) -> Result<RegionName> {
    Ok(RegionName::parse(text)?)
}

fn repo_of(hub: &Hub, caller: &Caller, asked: &AskedRepo) -> Result<Repo> {
    let kind = RepoKind::from_singular(&asked.kind)
        .ok_or_else(|| Error::invalid(format!("`{}` is no kind of repo", asked.kind)))?;
    hub.repo(caller, kind, &RepoName::parse(&asked.name)?, Access::Read)
}

fn rules_of(asked: &AskedReplication) -> Result<Replication> {
    let residency = asked.residency.iter().map(|name| region(name));
    let rules = Replication {
        patterns: asked.patterns.clone(),
        to: region(&asked.to)?,
        residency: residency.collect::<Result<_>>()?,
        limit: asked.limit,
        window: asked.window,
        is_paused: false,
    };
    check_rules(&rules)?;
    Ok(rules)
}

impl Regions {
    async fn change(&self, hub: &Arc<Hub>, caller: &Caller, asked: AskedRegions) -> Result<Value> {
        match asked {
            AskedRegions::AddRemote { name, token } => {
                self.remotes.add(&region(&name)?, &token).await?;
            }
            AskedRegions::RemoveRemote { name } => self.remotes.remove(&region(&name)?).await?,
            AskedRegions::Create(asked) => {
                let (name, rules) = (region(&asked.name)?, rules_of(&asked)?);
                hub.set_replication(caller, &name, &rules, true).await?;
            }
            AskedRegions::Pause { name, paused } => {
                let name = region(&name)?;
                let found = hub.replications().into_iter().find(|(known, _)| *known == name);
                let missing = || Error::NotFound { what: format!("the replication `{name}`") };
                let (_, rules) = found.ok_or_else(missing)?;
                let rules = Replication { is_paused: paused, ..rules };
                hub.set_replication(caller, &name, &rules, false).await?;
            }
            AskedRegions::Remove { name } => {
                hub.remove_replication(caller, &region(&name)?).await?;
            }
            AskedRegions::Move { repo, to, address } => {
                let (repo, to) = (repo_of(hub, caller, &repo)?, region(&to)?);
                let term = hub.move_home(caller, &repo, &Away { region: to, address }).await?;
                return Ok(json!({"type": "summary", "term": term}));
            }
            AskedRegions::Promote { repo } => {
                let repo = repo_of(hub, caller, &repo)?;
                let promoted = hub.promote(caller, &repo).await?;
                let behind = promoted.behind.number;
                return Ok(json!({"type": "summary", "term": promoted.term, "behind": behind}));
            }
            AskedRegions::Status | AskedRegions::Verify { .. } => {}
        }
        Ok(json!({"type": "summary"}))
    }

    async fn status(&self, hub: &Arc<Hub>, lines: &Lines) -> Result<Value> {
        let now_ms = hub.env().now_ms();
        let name_of = |id| hub.record_of(id).map(|record| record.name.to_string());
        for (name, rules) in hub.replications() {
            let to = rules.to.as_str();
            let line = json!({
                "type": "replication", "name": name.as_str(), "to": to, "match": rules.patterns,
                "paused": rules.is_paused, "limit": rules.limit, "window": rules.window,
            });
            let _ = lines.send(line).await;
        }
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (region, repos) in told {
            for (id, progress) in repos {
                let mut line = progress_view(&progress);
                line["type"] = json!("sent");
                (line["region"], line["repo"]) = (json!(region.as_str()), json!(name_of(id)));
                let _ = lines.send(line).await;
            }
        }
        for (name, status) in self.remotes.status() {
            let compared = hub.compared_with(&name);
            let line = json!({
                "type": "remote", "name": name.as_str(), "problem": status.problem,
                "heardSeconds": status.heard_ms.map(|ms| now_ms.saturating_sub(ms) / 1000),
                "verifiedMs": compared.map(|compared| compared.time_ms),
                "findings": compared.map(|compared| compared.findings),
            });
            let _ = lines.send(line).await;
            for (id, repo) in status.repos {
                let mut line = progress_view(&repo.progress(now_ms));
                line["type"] = json!("received");
                (line["region"], line["repo"]) = (json!(name.as_str()), json!(name_of(id)));
                (line["entry"], line["problem"]) = (json!(repo.known), json!(repo.problem));
                let _ = lines.send(line).await;
            }
        }
        Ok(json!({"type": "summary"}))
    }

    async fn verify(&self, remote: &str, lines: &Lines) -> Result<Value> {
        let remote = region(remote)?;
        let (told, mut compared) = mpsc::channel::<ComparedRepo>(QUEUE);
        let pass_on = async {
            let mut repos = 0_u64;
            while let Some(ComparedRepo { repo, entry, behind, faults }) = compared.recv().await {
                repos += 1;
                let line = json!({
                    "type": "compared", "repo": repo, "entry": entry, "behind": behind,
                    "faults": faults,
                });
                let _ = lines.send(line).await;
            }
            repos
        };
        let compare = async {
            let done = self.remotes.verify(&remote, &told).await;
            drop(told);
            done
        };
        let (done, repos) = tokio::join!(compare, pass_on);
        Ok(json!({"type": "summary", "repos": repos, "findings": done?}))
    }
}

fn progress_view(progress: &Progress) -> Value {
    json!({
        "lagEntries": progress.lag_entries, "lagBytes": progress.lag_bytes,
        "lagSeconds": progress.lag_seconds, "fetched": progress.fetched, "saved": progress.saved,
        "etaSeconds": progress.eta_seconds,
    })
}
