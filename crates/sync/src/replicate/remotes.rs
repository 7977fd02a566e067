//! The other regions that this hub follows: who they are is kept in the data folder, and each is
//! followed for as long as the hub runs.

use std::collections::BTreeMap;
use std::fmt;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ballast_format::name::RegionName;
use ballast_node::access::Repo;
use ballast_node::hub::Hub;
use ballast_node::origin::{Figure, Origin};
use ballast_node::verify::Report;
use ballast_node::{Error, Result};
use tokio::fs;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::client::RemoteHome;
use super::follower::Follower;
use super::home::HomeLog as _;
use super::status::{Status, lag_figures};
use super::through::Through;
use crate::carrier::{self, Carriers, Choice, QuicSettings, Shared};
use crate::cluster::{self, Member, PeerRole};

/// The folder below the data folder.
const FOLDER: &str = "regions";
/// Regions that one hub follows.
const MOST_REMOTES: usize = 64;
/// Reports of a check that wait for whoever counts them.
const QUEUE: usize = 64;

/// A region that is followed.
struct Remote {
    home: Arc<RemoteHome>,
    follower: Arc<Follower>,
    carriers: Arc<Carriers>,
    stop: CancellationToken,
}

/// The regions that a hub follows.
pub struct Remotes {
    hub: Arc<Hub>,
    folder: PathBuf,
    /// What all carriers share: their caps are for all regions together.
    shared: Shared,
    choice: Choice,
    all: Mutex<BTreeMap<RegionName, Arc<Remote>>>,
    through: Arc<Through>,
}

impl fmt::Debug for Remotes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Remotes({})", self.folder.display())
    }
}

/// What came of comparing a repo with its home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparedRepo {
    /// Its name.
    pub repo: String,
    /// The last entry that is here.
    pub entry: u64,
    /// Entries that the home has beyond it.
    pub behind: u64,
    /// What is wrong; nothing: the logs are the same up to it, and every byte that they lead to is
    /// here and right.
    pub faults: Vec<String>,
}

impl Remotes {
    /// Follows all regions that were added before, and reads through from them. `shared` and
    /// `choice` say how chunks come.
    pub async fn open(
        hub: &Arc<Hub>,
        data: &Path,
        shared: Shared,
        choice: Choice,
    ) -> Result<Arc<Self>> {
        let (folder, through) = (data.join(FOLDER), Arc::<Through>::default());
        let remotes = Arc::new(Self {
            hub: Arc::clone(hub),
            folder,
            shared,
            choice,
            all: Mutex::default(),
            through: Arc::clone(&through),
        });
        hub.set_homes(&(through as Arc<dyn Origin>));
        let shown = Arc::downgrade(&remotes);
        hub.show_figures(move || shown.upgrade().map(|shown| shown.figures()).unwrap_or_default());
        let mut listed = match fs::read_dir(&remotes.folder).await {
            Ok(listed) => listed,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(remotes),
            Err(error) => return Err(remotes.failed(error)),
        };
        while let Some(entry) = listed.next_entry().await.map_err(|e| remotes.failed(e))? {
            let name = entry.file_name();
            let Ok(name) = RegionName::parse(&name.to_string_lossy()) else { continue };
            let member = cluster::open(&entry.path(), hub.env()).await;
            if let Some(member) = member.map_err(of_cluster)? {
                remotes.start(&name, member)?;
            }
        }
        Ok(remotes)
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::Busy { reason: format!("`{}`: {error}", self.folder.display()) }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<RegionName, Arc<Remote>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins another region's hub by a token of it, and follows what that offers.
    pub async fn add(&self, name: &RegionName, token: &str) -> Result<()> {
        let here = self.hub.settings().region.as_ref();
        let here = here.ok_or_else(|| {
            Error::invalid("this hub does not know which region it is\nhint: set `region.name`")
        })?;
        if here.region == *name {
            return Err(Error::invalid(format!("`{name}` is this region")));
        }
        if self.all().contains_key(name) {
            return Err(Error::Exists { what: format!("the remote `{name}`") });
        }
        if self.all().len() >= MOST_REMOTES {
            let reason = format!("a hub follows at most {MOST_REMOTES} regions");
            return Err(Error::invalid(reason));
        }
        let folder = self.folder.join(name.as_str());
        fs::create_dir_all(&folder).await.map_err(|error| self.failed(error))?;
        let member = cluster::join(None, token, &folder, self.hub.env()).await;
        let member = member.map_err(of_cluster)?;
        let known = member.identity().name();
        if known.role() != PeerRole::Region || known.as_str() != here.region.as_str() {
            fs::remove_dir_all(&folder).await.map_err(|error| self.failed(error))?;
            return Err(Error::invalid(format!(
                "the token is for {} `{}`, and this hub is the region `{}`\nhint: make one by \
                 `ballast node join-token {} --role region`",
                known.role().as_str(),
                known.as_str(),
                here.region,
                here.region
            )));
        }
        self.start(name, member)
    }

    /// Follows a region no more; what came stays.
    pub async fn remove(&self, name: &RegionName) -> Result<()> {
        let removed = self.all().remove(name);
        let removed = removed.ok_or_else(|| unknown(name))?;
        removed.stop.cancel();
        self.through.remove(name);
        let folder = self.folder.join(name.as_str());
        fs::remove_dir_all(&folder).await.map_err(|error| self.failed(error))
    }

    fn start(&self, name: &RegionName, member: Member) -> Result<()> {
        let (hub, runner) = (&self.hub, self.hub.runner());
        let home = Arc::new(RemoteHome::new(member.channel().map_err(of_cluster)?));
        let socket = UdpSocket::bind("0.0.0.0:0").map_err(super::unreachable)?;
        let (shared, identity) = (&self.shared, member.identity());
        let settings = QuicSettings::default();
        let started = carrier::start(shared, identity, socket, None, self.choice, settings);
        let carriers = started.map_err(super::unreachable)?.carriers;
        let links = Arc::new(home.links(Arc::clone(&carriers), member.hub_address()));
        let follower = Arc::new(Follower::new(Arc::clone(hub), Arc::clone(&home) as _, links));
        self.through.add(name.clone(), Arc::clone(&follower));
        let stop = runner.stopping().child_token();
        Arc::new(member).stay(runner, String::new()).map_err(of_cluster)?;
        let (following, stopped, region) = (Arc::clone(&follower), stop.clone(), name.clone());
        runner.spawn("follow", async move { following.run(&region, &stopped).await });
        self.all().insert(name.clone(), Arc::new(Remote { home, follower, carriers, stop }));
        Ok(())
    }

    /// What is shown of all regions among the hub's metrics.
    fn figures(&self) -> Vec<Figure> {
        let now_ms = self.hub.env().now_ms();
        let all: Vec<(RegionName, Arc<Remote>)> =
            self.all().iter().map(|(name, remote)| (name.clone(), Arc::clone(remote))).collect();
        let (mut lags, mut bytes, mut silent) = (Vec::new(), Vec::new(), Vec::new());
        let mut links = Vec::new();
        for (name, remote) in all {
            let status = remote.follower.status();
            if let Some(heard_ms) = status.heard_ms {
                let seconds = now_ms.saturating_sub(heard_ms) / 1000;
                let name = format!("replicate_silent_seconds{{from=\"{name}\"}}");
                silent.push(Figure::gauge(name, seconds));
            }
            for (carrier, count) in remote.carriers.called() {
                let labels = format!("from=\"{name}\",carrier=\"{carrier}\"");
                links.push(Figure::gauge(format!("replicate_links{{{labels}}}"), count));
            }
            let labels = |by: &RegionName| format!("from=\"{name}\",replication=\"{by}\"");
            lags.extend(status.lags(now_ms).into_iter().map(|(by, lag)| (labels(&by), lag)));
            for (by, moved, deduplicated) in remote.follower.bytes() {
                for (kind, value) in [("moved", moved), ("deduplicated", deduplicated)] {
                    let labels = format!("{},kind=\"{kind}\"", labels(&by));
                    let name = format!("replicate_bytes_total{{{labels}}}");
                    bytes.push(Figure::counter(name, value));
                }
            }
        }
        [lag_figures(&lags), bytes, silent, links].concat()
    }

    /// How far everything is, by the names under which regions were added.
    pub fn status(&self) -> BTreeMap<RegionName, Status> {
        let all = self.all();
        all.iter().map(|(name, remote)| (name.clone(), remote.follower.status())).collect()
    }

    /// Compares what is here with what a region has: the last entry of each log by its hash, which
    /// proves those before it, and each byte that the log leads to by its own.
    pub async fn verify(
        &self,
        name: &RegionName,
        told: &mpsc::Sender<ComparedRepo>,
    ) -> Result<u64> {
        let remote = self.all().get(name).map(Arc::clone).ok_or_else(|| unknown(name))?;
        let status = remote.follower.status();
        let (mut repos, mut findings) = (0, 0);
        for (id, repo) in &status.repos {
            let Some(record) = self.hub.record_of(*id) else { continue };
            let tail = self.hub.tail_of(*id).await?;
            let there = remote.home.entry(*id, tail.number).await?;
            let mut faults = Vec::new();
            if there.is_none_or(|there| there.hash != tail.hash) {
                faults.push(format!("entry {} is another one than at its home", tail.number));
            }
            faults.extend(self.read_all(&Repo { record: Arc::clone(&record) }).await?);
            repos += 1;
            findings += faults.len() as u64;
            let (name, entry) = (record.name.to_string(), tail.number);
            let behind = repo.tail.saturating_sub(entry);
            // Whoever asked may be gone; the comparison is noted all the same.
            let _ = told.send(ComparedRepo { repo: name, entry, behind, faults }).await;
        }
        self.hub.note_compared(name, repos, findings).await?;
        Ok(findings)
    }

    /// Reads everything that a repo's log leads to; what is wrong with it.
    async fn read_all(&self, repo: &Repo) -> Result<Vec<String>> {
        let (reports, mut told) = mpsc::channel(QUEUE);
        let faults = async {
            let mut faults = Vec::new();
            while let Some(report) = told.recv().await {
                if let Report::Finding(finding) = report {
                    faults.push(format!("`{}`: {}", finding.object, finding.problem));
                }
            }
            faults
        };
        let (done, faults) = tokio::join!(self.hub.verify(Some(repo), reports), faults);
        done.map(|_| faults)
    }
}

fn unknown(name: &RegionName) -> Error {
    Error::NotFound { what: format!("the remote `{name}`") }
}

fn of_cluster(error: cluster::Error) -> Error {
    match error {
        cluster::Error::Unreachable { .. } => super::unreachable(error),
        error => Error::invalid(error.to_string()),
    }
}
