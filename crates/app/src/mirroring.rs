//! Who mirrors, for the gateway: what jobs do, as lines of JSON.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::id::JobId;
use ballast_gateway::{AskedMirror, AskedWish, ChosenJobs, MirrorRunner};
use ballast_node::hub::Hub;
use ballast_sync::mirror::jobs::{
    Event, Jobs, Progress, Ran, RepoPlan, StoredJob, Wish, address_of,
};
use ballast_sync::mirror::upstream::Gating;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How often a run says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Mirrors with what `ballast-sync` knows of jobs.
pub(crate) struct Mirroring(pub(crate) Arc<Jobs>);

impl fmt::Debug for Mirroring {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Mirroring")
    }
}

type Lines = mpsc::Sender<Value>;

#[async_trait]
impl MirrorRunner for Mirroring {
    async fn answer(
        &self,
        hub: &Arc<Hub>,
        asked: AskedMirror,
        lines: &Lines,
    ) -> Result<Value, String> {
        let done = match asked {
            AskedMirror::Plan { wishes } => self.plan(hub, wishes, lines).await,
            AskedMirror::Add { wishes } => self.add(hub, wishes, lines).await,
            AskedMirror::List => self.list(hub, lines).await,
            AskedMirror::Run(chosen) => self.run(hub, &chosen, lines).await,
            AskedMirror::Remove(chosen) => self.remove(hub, &chosen, lines).await,
        };
        done.map_err(|error| error.to_string())
    }
}

impl Mirroring {
    async fn plan(
        &self,
        hub: &Arc<Hub>,
        wishes: Vec<AskedWish>,
        lines: &Lines,
    ) -> ballast_node::Result<Value> {
        for wish in wishes {
            let (plans, mut planned) = mpsc::channel(1);
            let wish = wish_of(wish);
            // One plan after another, as fast as they are read.
            let tell = async {
                while let Some(plan) = planned.recv().await {
                    let _ = lines.send(plan_view(&plan)).await;
                }
            };
            let (done, ()) = tokio::join!(self.0.plan(hub, &wish, plans), tell);
            done?;
        }
        Ok(json!({"type": "summary"}))
    }

    async fn add(
        &self,
        hub: &Arc<Hub>,
        wishes: Vec<AskedWish>,
        lines: &Lines,
    ) -> ballast_node::Result<Value> {
        let mut ids = Vec::new();
        for wish in wishes {
            let stored = self.0.add(hub, &wish_of(wish)).await?;
            ids.push(stored.id.to_string());
            let _ = lines.send(self.job_view(&stored)).await;
        }
        Ok(json!({"type": "summary", "jobs": ids}))
    }

    async fn list(&self, hub: &Arc<Hub>, lines: &Lines) -> ballast_node::Result<Value> {
        let jobs = self.0.list(hub).await?;
        for stored in &jobs {
            let _ = lines.send(self.job_view(stored)).await;
        }
        Ok(json!({"type": "summary", "count": jobs.len()}))
    }

    async fn remove(
        &self,
        hub: &Arc<Hub>,
        chosen: &ChosenJobs,
        lines: &Lines,
    ) -> ballast_node::Result<Value> {
        let jobs = self.chosen(hub, chosen).await?;
        for stored in &jobs {
            self.0.remove(hub, stored.id).await?;
            let _ = lines.send(self.job_view(stored)).await;
        }
        Ok(json!({"type": "summary", "count": jobs.len()}))
    }

    async fn run(
        &self,
        hub: &Arc<Hub>,
        chosen: &ChosenJobs,
        lines: &Lines,
    ) -> ballast_node::Result<Value> {
        let (mut complete, mut fetched) = (true, 0);
        for stored in self.chosen(hub, chosen).await? {
            let ran = self.run_job(hub, &stored, lines).await?;
            let job = address_of(&stored.job);
            let view = match ran {
                Ran::Ended(run) => {
                    complete &= run.is_complete;
                    fetched += run.fetched_bytes;
                    json!({
                        "type": "ended", "job": job, "id": stored.id.to_string(),
                        "complete": run.is_complete, "repos": run.repos, "files": run.files,
                        "fetchedBytes": run.fetched_bytes, "message": run.message,
                    })
                }
                Ran::Elsewhere => {
                    complete = false;
                    json!({"type": "elsewhere", "job": job, "id": stored.id.to_string()})
                }
                Ran::Stopped => {
                    complete = false;
                    json!({"type": "stopped", "job": job, "id": stored.id.to_string()})
                }
            };
            let _ = lines.send(view).await;
            if lines.is_closed() {
                break;
            }
        }
        Ok(json!({"type": "summary", "complete": complete, "fetchedBytes": fetched}))
    }

    /// Runs one job, and tells how far it is until it ends or nobody listens any more.
    async fn run_job(
        &self,
        hub: &Arc<Hub>,
        stored: &StoredJob,
        lines: &Lines,
    ) -> ballast_node::Result<Ran> {
        let stop: CancellationToken = hub.runner().stopping().child_token();
        // Whoever is too slow to hear how far it is misses some of it.
        let hear = |event: Event| drop(lines.try_send(event_view(&event)));
        let mut run = Box::pin(self.0.run(hub, stored, &stop, &hear));
        loop {
            tokio::select! {
                biased;
                ran = &mut run => return ran,
                () = lines.closed(), if !stop.is_cancelled() => stop.cancel(),
                () = hub.env().sleep(TELL_EVERY) => {
                    if let Some(progress) = self.0.progress(stored.id) {
                        drop(lines.try_send(progress_view(&progress)));
                    }
                }
            }
        }
    }

    async fn chosen(
        &self,
        hub: &Arc<Hub>,
        chosen: &ChosenJobs,
    ) -> ballast_node::Result<Vec<StoredJob>> {
        let not_found = |what: String| ballast_node::Error::NotFound { what };
        let all = self.0.list(hub).await?;
        let mut found = Vec::new();
        for id in &chosen.jobs {
            let parsed: Option<JobId> = id.parse().ok();
            let job = all.iter().find(|stored| Some(stored.id) == parsed);
            found.push(job.cloned().ok_or_else(|| not_found(format!("the mirror job `{id}`")))?);
        }
        if let Some(set) = &chosen.set {
            found.extend(all.iter().filter(|stored| stored.job.set == *set).cloned());
            if found.is_empty() {
                return Err(not_found(format!("a mirror job of the set `{set}`")));
            }
        }
        if chosen.jobs.is_empty() && chosen.set.is_none() {
            found = all;
        }
        Ok(found)
    }

    fn job_view(&self, stored: &StoredJob) -> Value {
        let StoredJob { id, job, .. } = stored;
        let last = job.last.as_ref().map(|last| {
            json!({
                "endedAtMs": last.ended_ms, "complete": last.is_complete, "repos": last.repos,
                "files": last.files, "fetchedBytes": last.fetched_bytes, "message": last.message,
            })
        });
        json!({
            "type": "job", "id": id.to_string(), "address": address_of(job),
            "include": job.include, "exclude": job.exclude, "set": job.set,
            "everySeconds": job.every_seconds, "addedAtMs": job.added_ms,
            "running": job.claim.is_some(), "last": last,
            "progress": self.0.progress(*id).as_ref().map(progress_view),
        })
    }
}

fn wish_of(asked: AskedWish) -> Wish {
    let AskedWish { address, include, exclude, set, every_seconds } = asked;
    Wish { address, include, exclude, set, every_seconds }
}

fn plan_view(plan: &RepoPlan) -> Value {
    json!({
        "type": "plan", "repo": plan.repo.to_string(), "commit": plan.commit.to_string(),
        "licence": plan.licence, "gated": plan.gating != Gating::Open, "files": plan.files,
        "bytes": plan.bytes, "missingFiles": plan.missing_files, "missingBytes": plan.missing_bytes,
    })
}

fn event_view(event: &Event) -> Value {
    match event {
        Event::Planned(plan) => plan_view(plan),
        Event::File { repo, path, bytes } => {
            json!({"type": "file", "repo": repo, "path": path, "bytes": bytes})
        }
        Event::Refused { repo, path, reason } => {
            json!({"type": "refused", "repo": repo, "path": path, "reason": reason})
        }
        Event::Repo { repo } => json!({"type": "repo", "repo": repo}),
        Event::Failed { what, reason } => {
            json!({"type": "failed", "what": what, "reason": reason})
        }
    }
}

fn progress_view(progress: &Progress) -> Value {
    let coming = progress.coming.iter();
    let coming: Vec<Value> = coming
        .map(|(name, bytes, size)| json!({"file": name, "bytes": bytes, "size": size}))
        .collect();
    json!({
        "type": "progress", "files": progress.files, "bytes": progress.bytes,
        "doneFiles": progress.done_files, "doneBytes": progress.done_bytes,
        "bytesPerSecond": progress.rate, "etaSeconds": progress.eta.map(|eta| eta.as_secs()),
        "coming": coming,
    })
}
