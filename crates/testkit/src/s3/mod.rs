//! An S3 server in this process, on a thread of its own.
//!
//! Signatures are checked, put-if-absent is honest, listings come in small pages, parts that are
//! too small are refused. It answers slowly, refuses, or loses answers when it is told to. Other
//! processes reach it by its address, as they would any other.

mod bucket;
mod faults;
mod service;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use ballast_store::backend::{Access, Secret};
use ballast_store::env::RealEnv;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use self::bucket::Bucket;
use self::faults::Faults;
use self::service::Service;

pub use self::faults::S3Faults;

/// The bucket that there is.
pub const BUCKET: &str = "models";
/// The key that opens it.
pub const ACCESS_KEY: &str = "ballast-test";
/// Its secret.
pub const SECRET: &str = "ballast-test-secret";

/// Any service of the protocol, served until it is dropped.
#[derive(Debug)]
pub struct Served {
    endpoint: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Serves on a free port.
    pub fn start(service: S3Service) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Whoever starts it may be asynchronous, so nothing is awaited here.
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("s3".into()).spawn(move || {
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("it is bound");
                accept(&listener, &service, stopped).await;
            });
        })?;
        Ok(Self { endpoint, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// How a client reaches it.
    pub fn access(&self) -> Access {
        access(&self.endpoint)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // If it panicked, that was told on the way.
            let _ = thread.join();
        }
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

async fn accept(listener: &TcpListener, service: &S3Service, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let serve = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service.clone());
                connections.spawn(async move { drop(serve.await) });
            }
        }
    }
}

/// The server, with its bucket in sight.
#[derive(Debug)]
pub struct S3Server {
    served: Served,
    bucket: Arc<Bucket>,
    faults: Arc<Faults>,
}

impl S3Server {
    /// Starts it with an empty bucket; what goes wrong later follows from the seed.
    pub fn start(seed: u64) -> io::Result<Self> {
        let (bucket, faults) = (Arc::<Bucket>::default(), Arc::new(Faults::new(seed)));
        let mut builder = S3ServiceBuilder::new(Service {
            name: BUCKET.to_owned(),
            bucket: Arc::clone(&bucket),
            faults: Arc::clone(&faults),
            clock: Arc::new(RealEnv::new()),
        });
        builder.set_auth(auth());
        let served = Served::start(builder.build())?;
        Ok(Self { served, bucket, faults })
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

    /// The names of all objects.
    pub fn keys(&self) -> Vec<String> {
        self.bucket.keys()
    }

    /// How many writes in parts were begun and not ended.
    pub fn open_uploads(&self) -> usize {
        self.bucket.open_uploads()
    }
}
