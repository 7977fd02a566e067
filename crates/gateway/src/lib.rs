//! The dialects that clients speak over HTTP: the hub API, Xet, LFS and operations.
//!
//! One folder for each dialect; no rule of the domain lives here. [`serve`](serve::serve) takes a
//! listener and answers until it is told to stop; everything a request may do goes through the
//! verbs of `ballast-node`.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ballast_node::hub::Hub;

use crate::intake::Buffers;
use crate::links::Signer;
use crate::operate::bundle::ImportBundles;
use crate::operate::keep::KeepFiles;
use crate::operate::metrics::Metrics;
use crate::operate::mirror::RunMirrors;
use crate::operate::nodes::MeetNodes;
use crate::operate::regions::RunRegions;
use crate::rate::{AtOnce, Rates};
use crate::tls::Tls;

mod auth;
mod body;
mod call;
mod count;
mod error;
mod gzip;
mod hub;
mod intake;
mod json;
mod lfs;
mod links;
mod operate;
mod rate;
mod reply;
mod router;
pub mod serve;
pub mod tls;
mod wire;
mod xet;

#[cfg(test)]
mod tests;

pub use operate::bundle::{Asked as AskedImport, ImportBundles as BundleImporter};
pub use operate::keep::{Asked as AskedKeep, KeepFiles as FileKeeper, Which as KeptRevision};
pub use operate::mirror::{
    Asked as AskedMirror, AskedWish, Chosen as ChosenJobs, RunMirrors as MirrorRunner,
};

pub use operate::nodes::{MeetNodes as NodeMeeter, SeenNode};
pub use operate::regions::{
    Asked as AskedRegions, AskedReplication, AskedRepo, RunRegions as RegionRunner,
};

/// What the gateway may be told.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// `scheme://host[:port]` that clients use, where it is not the one they connect to.
    pub public_url: Option<String>,
    /// Believe `X-Forwarded-Proto`, `-Host` and `-For`; only behind a proxy that sets them.
    pub trust_forwarded: bool,
    /// Offer Xet: without it, clients use LFS and plain HTTP.
    pub xet: bool,
    /// Speak TLS; plain HTTP without it.
    pub tls: Option<Arc<Tls>>,
    /// Send clients to the store itself for what they may read there.
    pub redirect_downloads: bool,
    /// Who takes bundles in; without, there is no such route.
    pub bundles: Option<Arc<dyn ImportBundles>>,
    /// Who mirrors; without, nothing is mirrored as a job.
    pub mirrors: Option<Arc<dyn RunMirrors>>,
    /// Who keeps files of another hub here; without, this is no node.
    pub keeper: Option<Arc<dyn KeepFiles>>,
    /// Who speaks to nodes; without, none can join.
    pub nodes: Option<Arc<dyn MeetNodes>>,
    /// Who speaks to other regions; without, there are none.
    pub regions: Option<Arc<dyn RunRegions>>,
    /// Connections at once, in all.
    pub connections: usize,
    /// Connections at once from one address; a trusted proxy has all of them.
    pub connections_per_address: usize,
    /// Requests a second for each address and for each token; 0 for no limit.
    pub requests_per_second: u32,
    /// Requests at once for each address and for each token.
    pub requests_at_once: u32,
    /// Of these, uploads of files' content.
    pub uploads_at_once: u32,
    /// Of these, downloads of files' content.
    pub downloads_at_once: u32,
    /// Memory that the bodies of requests may take in all.
    pub buffer_bytes: u64,
    /// The time in which a request's head must arrive.
    pub head_timeout: Duration,
    /// How long a connection may be idle between two requests.
    pub idle_timeout: Duration,
    /// How long a client may take next to nothing of an answer that is being sent.
    pub stall_timeout: Duration,
    /// How long requests may go on after the order to stop.
    pub grace: Duration,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            public_url: None,
            trust_forwarded: false,
            xet: true,
            tls: None,
            redirect_downloads: false,
            bundles: None,
            mirrors: None,
            keeper: None,
            nodes: None,
            regions: None,
            connections: 4096,
            connections_per_address: 256,
            requests_per_second: 1000,
            requests_at_once: 1024,
            uploads_at_once: 256,
            // Who loads as much as they may can still ask.
            downloads_at_once: 768,
            buffer_bytes: 160 << 20,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(1),
            // Half of what waits in the system (`serve.rs`) must leave it before that shows: this
            // is the time for it at 1 KiB a second.
            stall_timeout: Duration::from_mins(2),
            grace: Duration::from_secs(30),
        }
    }
}

impl GatewaySettings {
    fn at_once(&self) -> AtOnce {
        AtOnce {
            requests: self.requests_at_once,
            uploads: self.uploads_at_once,
            downloads: self.downloads_at_once,
        }
    }
}

/// Everything that answering a request needs.
pub struct Gateway {
    pub(crate) hub: Arc<Hub>,
    pub(crate) settings: GatewaySettings,
    pub(crate) signer: Signer,
    pub(crate) buffers: Buffers,
    pub(crate) rates: Rates,
    pub(crate) metrics: Metrics,
    /// Whether `/health` may still say that we are ready.
    pub(crate) ready: AtomicBool,
    pub(crate) request_ids: router::RequestIds,
}

impl Gateway {
    /// A gateway before `hub`; it does nothing until it is served.
    pub fn new(hub: Arc<Hub>, settings: GatewaySettings) -> Arc<Self> {
        let mut start = [0; 8];
        hub.env().fill_random(&mut start);
        Arc::new(Self {
            signer: Signer::new(hub.secrets()),
            buffers: Buffers::new(settings.buffer_bytes, Arc::clone(&hub)),
            rates: Rates::new(settings.requests_per_second, settings.at_once()),
            metrics: Metrics::default(),
            ready: AtomicBool::new(true),
            request_ids: router::RequestIds::starting_at(u64::from_be_bytes(start)),
            hub,
            settings,
        })
    }

    /// Unix seconds now.
    pub(crate) fn now_seconds(&self) -> u64 {
        self.hub.env().now_ms() / 1000
    }

    /// The address that counts as the client's.
    pub(crate) fn client_of(&self, headers: &http::HeaderMap, socket: IpAddr) -> IpAddr {
        if !self.settings.trust_forwarded {
            return socket;
        }
        // The last entry is the one that our own proxy wrote; those before it may be invented.
        let value = headers.get_all("x-forwarded-for").iter().next_back();
        let last = value.and_then(|value| value.to_str().ok()?.rsplit(',').next());
        last.and_then(|address| address.trim().parse().ok()).unwrap_or(socket)
    }
}
