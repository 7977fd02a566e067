//! Any HTTP service, served on a thread of its own until it is dropped.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::thread::JoinHandle;

use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

/// A service, and the thread that serves it.
#[derive(Debug)]
pub struct Served {
    endpoint: String,
    reachable: watch::Sender<bool>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Serves at a free port of an address of this machine.
    pub fn start<S, B>(address: IpAddr, service: S) -> io::Result<Self>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Whoever starts it may be asynchronous, so nothing is awaited here.
        let listener = std::net::TcpListener::bind((address, 0))?;
        listener.set_nonblocking(true)?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let (stop, stopped) = oneshot::channel();
        let (reachable, reached) = watch::channel(true);
        let thread = std::thread::Builder::new().name("served".into()).spawn(move || {
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("it is bound");
                accept(&listener, &service, stopped, reached).await;
            });
        })?;
        Ok(Self { endpoint, reachable, stop: Some(stop), thread: Some(thread) })
    }

    /// Cuts all connections and lets none stand, until it is told that it can be reached again.
    pub fn set_reachable(&self, reachable: bool) {
        self.reachable.send_replace(reachable);
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
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

async fn accept<S, B>(
    listener: &TcpListener,
    service: &S,
    mut stopped: oneshot::Receiver<()>,
    mut reachable: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            Ok(()) = reachable.changed() => connections.abort_all(),
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                if !*reachable.borrow() {
                    continue;
                }
                let serve = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service.clone());
                connections.spawn(async move { drop(serve.await) });
            }
        }
    }
}
