//! What the carriers of a process share: its clock, its threads, its caps, and who it is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ballast_node::pool::Pool;
use ballast_node::worker::Runner;
use ballast_store::env::SharedEnv;

use super::caps::Cap;
use crate::buffers::Buffers;
use crate::cluster::{self, CARRIER_PROTOCOL, Identity, Revocations, Strangers};

/// Nothing moves for so long where something should: the other side hangs. One that is dead is
/// noticed by the kernel, or by QUIC, long before.
pub(super) const SILENCE: Duration = Duration::from_mins(2);

/// What the carriers of a process share.
#[derive(Clone, Debug)]
pub struct Shared {
    pub(super) env: SharedEnv,
    pub(super) pool: Pool,
    pub(super) runner: Runner,
    pub(super) upload: Arc<Cap>,
    pub(super) download: Arc<Cap>,
    pub(super) buffers: Buffers,
}

impl Shared {
    /// The clock, the pool that hashes, the runner that owns tasks, and how many bytes a second may
    /// go out and come in; `None`: as many as the network takes.
    pub fn new(
        env: SharedEnv,
        pool: Pool,
        runner: Runner,
        upload: Option<u64>,
        download: Option<u64>,
    ) -> Self {
        let cap = |rate| Arc::new(Cap::new(SharedEnv::clone(&env), rate));
        let (upload, download) = (cap(upload), cap(download));
        Self { env, pool, runner, upload, download, buffers: Buffers::default() }
    }

    /// The outcome, unless it takes too long.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        outcome: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        tokio::select! {
            biased;
            outcome = outcome => outcome,
            () = self.env.sleep(limit) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}")))
            }
        }
    }
}

/// Who this process is, and how it knows others.
///
/// Both configurations demand and verify a certificate of the other side. The name of a peer is in
/// its certificate and is compared here; no name of a host is.
#[derive(Clone)]
pub struct Credentials {
    /// For those who call.
    pub server: Arc<rustls::ServerConfig>,
    /// For those who are called.
    pub client: Arc<rustls::ClientConfig>,
    /// Who is not believed any more: their connections end.
    pub revocations: Revocations,
}

impl Credentials {
    /// Those of this identity.
    pub fn of(identity: &Identity) -> cluster::Result<Self> {
        Ok(Self {
            server: identity.server_config(&[CARRIER_PROTOCOL], Strangers::Refused)?,
            client: identity.client_config(CARRIER_PROTOCOL)?,
            revocations: identity.revocations().clone(),
        })
    }
}
