//! An S3 server in this process, on a thread of its own.
//!
//! Signatures are checked, put-if-absent is honest, listings come in small pages, parts that are
//! too small are refused. It answers slowly, refuses, loses answers, does things late or can't be
//! reached when it is told to. Other processes reach it by its address, as they would any other.

mod bucket;
mod faults;
mod service;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ballast_store::backend::{Access, Secret};
use s3s::auth::SimpleAuth;
use s3s::config::{HotReloadConfigProvider, S3Config};
use s3s::service::{S3Service, S3ServiceBuilder};

use self::bucket::Bucket;
use self::faults::Faults;
use self::service::{Clock, Landing, Service};

pub use self::faults::S3Faults;

/// The bucket that there is.
pub const BUCKET: &str = "models";
/// The key that opens it.
pub const ACCESS_KEY: &str = "ballast-test";
/// Its secret.
pub const SECRET: &str = "ballast-test-secret";

/// Any service of the protocol, served until it is dropped.
#[derive(Debug)]
pub struct Served(crate::served::Served);

impl Served {
    /// Serves on a free port.
    pub fn start(service: S3Service) -> io::Result<Self> {
        crate::served::Served::start(Ipv4Addr::LOCALHOST.into(), service).map(Self)
    }

    /// Cuts all connections and lets none stand, until it is told that it can be reached again.
    pub fn set_reachable(&self, reachable: bool) {
        self.0.set_reachable(reachable);
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        self.0.endpoint()
    }

    /// How a client reaches it.
    pub fn access(&self) -> Access {
        access(self.endpoint())
    }
}

/// How a client reaches a test server with our key.
pub fn access(endpoint: &str) -> Access {
    Access {
        endpoint: endpoint.to_owned(),
        region: "us-east-1".to_owned(),
        access_key: ACCESS_KEY.to_owned(),
        secret: Secret::new(SECRET),
        allow_http: true,
        virtual_hosted: false,
    }
}

/// The check of signatures, with our key.
pub fn auth() -> SimpleAuth {
    SimpleAuth::from_single(ACCESS_KEY, SECRET)
}

/// The server, with its bucket in sight.
#[derive(Debug)]
pub struct S3Server {
    served: Served,
    bucket: Arc<Bucket>,
    faults: Arc<Faults>,
    clock: Arc<Clock>,
    config: Arc<HotReloadConfigProvider>,
    landing: Arc<Landing>,
}

impl S3Server {
    /// Starts it with an empty bucket; what goes wrong later follows from the seed.
    pub fn start(seed: u64) -> io::Result<Self> {
        let (bucket, faults) = (Arc::<Bucket>::default(), Arc::new(Faults::new(seed)));
        let (clock, landing) = (Arc::<Clock>::default(), Arc::<Landing>::default());
        let config = Arc::<HotReloadConfigProvider>::default();
        let mut builder = S3ServiceBuilder::new(Service {
            name: BUCKET.to_owned(),
            bucket: Arc::clone(&bucket),
            faults: Arc::clone(&faults),
            clock: Arc::clone(&clock),
            landing: Arc::clone(&landing),
        });
        builder.set_auth(auth());
        builder.set_config(Arc::<HotReloadConfigProvider>::clone(&config));
        let served = Served::start(builder.build())?;
        Ok(Self { served, bucket, faults, clock, config, landing })
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        self.served.endpoint()
    }

    /// How a client reaches it.
    pub fn access(&self) -> Access {
        self.served.access()
    }

    /// Fails like this from now on.
    pub fn set_faults(&self, faults: S3Faults) {
        self.faults.set(faults);
    }

    /// Cuts all connections and lets none stand, until it is told that it can be reached again.
    pub fn set_reachable(&self, reachable: bool) {
        self.served.set_reachable(reachable);
    }

    /// From now on its clock is so far ahead.
    pub fn set_ahead(&self, ahead: Duration) {
        self.clock.set_ahead(ahead);
    }

    /// Takes signatures of any time: for clients whose clocks are wrong on purpose.
    pub fn ignore_clocks(&self) {
        let mut config = S3Config::default();
        config.presigned_url_max_skew_time_secs = u32::MAX;
        self.config.update(Arc::new(config));
    }

    /// How many late writes are still to happen.
    pub fn landing(&self) -> usize {
        self.landing.count()
    }

    /// The names of all objects.
    pub fn keys(&self) -> Vec<String> {
        self.bucket.keys()
    }

    /// How many writes in parts were begun and not ended.
    pub fn open_uploads(&self) -> usize {
        self.bucket.open_uploads()
    }
}
