//! The tracker: part of a hub, tells nodes what files are made of and whom to ask for them.
//!
//! It never touches a file's bytes, and nothing of what it knows outlives the process: transfers go
//! on while it is away, and nodes tell it all again when it is back. Who may hear about a file is
//! decided by the hub, as for everybody else. Several gateways on one bucket each plan for the
//! nodes that attend them: a node stays with one as long as that answers.

mod crowd;
mod describe;
mod holders;
mod overview;
mod read;
mod roster;
mod service;
#[cfg(test)]
mod tests;
mod ticket;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_format::hash::XorbHash;
use ballast_node::access::Caller;
use ballast_node::hub::Hub;
use ballast_node::origin::Figure;
use ballast_proto::v1;
use bytes::Bytes;
use tokio::sync::Notify;

use self::roster::Roster;
use self::ticket::Tickets;
use crate::cluster::PeerName;

/// How long plans of what happened are put together before they are made: a burst of joins is one
/// change of the plan.
const PLANNED_EVERY: Duration = Duration::from_millis(50);
/// How often it is looked who is silent or slow, while anybody fetches.
const WATCHED_EVERY: Duration = Duration::from_secs(1);

/// What a tracker asks of whoever knows the members of the cluster.
pub trait Members: Send + Sync + 'static {
    /// With whose rights a node reads; nobody's: it does not belong here any more.
    fn caller(&self, node: &PeerName) -> Option<Caller>;

    /// What shows others that a node may have these xorbs until then, in unix milliseconds.
    fn permit(&self, node: &PeerName, xorbs: &[XorbHash], until_ms: u64) -> Bytes;
}

/// The tracker of a hub.
pub struct Tracker {
    hub: Arc<Hub>,
    members: Arc<dyn Members>,
    roster: Mutex<Roster>,
    /// Something happened that plans may change by.
    happened: Notify,
    described: AtomicU64,
}

impl Tracker {
    /// The tracker of a hub that stands at this site.
    pub fn start(hub: Arc<Hub>, members: Arc<dyn Members>, site: &str) -> Arc<Self> {
        let tickets = Tickets::new(hub.secrets().key("swarm tickets"));
        let roster = Mutex::new(Roster::new(tickets, site));
        let (happened, described) = (Notify::new(), AtomicU64::new(0));
        let this = Arc::new(Self { hub, members, roster, happened, described });
        let counting = Arc::downgrade(&this);
        let figures = move || counting.upgrade().map(|this| this.figures()).unwrap_or_default();
        this.hub.show_figures(figures);
        let (runner, planner) = (this.hub.runner().clone(), Arc::clone(&this));
        runner.spawn("swarm plans", async move { planner.plan().await });
        this
    }

    /// Plans as long as the hub runs.
    async fn plan(&self) {
        let (env, stop) = (self.hub.env(), self.hub.runner().stopping());
        let mut is_busy = false;
        loop {
            let watch = async {
                match is_busy {
                    true => env.sleep(WATCHED_EVERY).await,
                    // Nobody fetches: there is nothing to look at, and nothing is done.
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.happened.notified() => {}
                () = watch => {}
            }
            is_busy = self.roster().settle(env.monotonic());
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = env.sleep(PLANNED_EVERY) => {}
            }
        }
    }

    /// What goes on now: all nodes, and the largest swarms.
    pub fn overview(&self) -> v1::Overview {
        self.roster().overview()
    }

    /// What it counts.
    fn figures(&self) -> Vec<Figure> {
        let roster = self.roster();
        let gauge = |name: &'static str, value| Figure::gauge(name, value);
        let counter = |name: &'static str, value| Figure::counter(name, value);
        let fetching = roster.swarms.values().map(|swarm| swarm.fetching() as u64).sum();
        let (slowest, speed_up) = (roster.slowest(), roster.speed_up_percent());
        let (counts, described) = (&roster.counts, self.described.load(Ordering::Relaxed));
        vec![
            gauge("swarm_nodes", roster.nodes.len() as u64),
            gauge("swarm_swarms", roster.swarms.len() as u64),
            gauge("swarm_fetching_nodes", fetching),
            counter("swarm_descriptions_total", described),
            counter("swarm_plans_total", counts.plans),
            counter("swarm_complaints_total", counts.complaints),
            counter("swarm_lies_total", counts.lies),
            counter("swarm_nodes_received_bytes_total{from=\"disk\"}", counts.ledger.disk),
            counter("swarm_nodes_received_bytes_total{from=\"site\"}", counts.ledger.site),
            counter("swarm_nodes_received_bytes_total{from=\"peer\"}", counts.ledger.peer),
            counter("swarm_nodes_received_bytes_total{from=\"hub\"}", counts.ledger.hub),
            counter("swarm_nodes_received_bytes_total{from=\"upstream\"}", counts.ledger.upstream),
            counter("swarm_nodes_sent_bytes_total", counts.ledger.sent),
            counter("swarm_nodes_wasted_bytes_total", counts.ledger.wasted),
            gauge("swarm_speed_up_percent", speed_up),
            gauge("swarm_slowest_node_held_percent", slowest.percent),
            gauge("swarm_slowest_node_bytes_per_second", slowest.rate),
            gauge("swarm_last_node_eta_seconds", slowest.eta_ms.div_ceil(1000)),
        ]
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
