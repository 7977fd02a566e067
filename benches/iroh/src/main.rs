//! A file from one `iroh-blobs` store to another, on one machine: what `carrier.py` compares with.
//!
//!     iroh-peer serve FILE STORE            prints ID, port and hash; goes on until its input ends
//!     iroh-peer fetch ID PORT HASH STORE
//!
//! Both print a line of JSON with the CPU seconds of the transfer.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use iroh::endpoint::presets;
use iroh::protocol::Router;
use iroh::{Endpoint, EndpointAddr};
use iroh_blobs::store::fs::FsStore;
use iroh_blobs::{BlobsProtocol, Hash};

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", file, store] => serve(file, store).await,
        ["fetch", id, port, hash, store] => fetch(id, port.parse()?, hash, store).await,
        _ => bail!("see the first lines of src/main.rs"),
    }
}

async fn serve(file: &str, store: &str) -> Result<()> {
    let endpoint = Endpoint::builder(presets::Minimal).bind().await?;
    let store = FsStore::load(store).await?;
    let tag = store.blobs().add_path(std::path::absolute(file)?).await?;
    let sockets = endpoint.bound_sockets();
    let port = sockets.iter().find(|socket| socket.is_ipv4()).context("a socket")?.port();
    println!("{} {port} {}", endpoint.id(), tag.hash);
    let blobs = BlobsProtocol::new(&store, None);
    let router = Router::builder(endpoint).accept(iroh_blobs::ALPN, blobs).spawn();
    let before = cpu()?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    println!("{{\"cpu\": {}}}", cpu()? - before);
    router.shutdown().await?;
    Ok(())
}

async fn fetch(id: &str, port: u16, hash: &str, store: &str) -> Result<()> {
    let endpoint = Endpoint::builder(presets::Minimal).bind().await?;
    let store = FsStore::load(store).await?;
    let hash: Hash = hash.parse()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let address = EndpointAddr::new(id.parse()?).with_ip_addr(address);
    let (before, began) = (cpu()?, Instant::now());
    let connection = endpoint.connect(address, iroh_blobs::ALPN).await?;
    store.remote().fetch(connection, hash).await?;
    let seconds = began.elapsed().as_secs_f64();
    println!("{{\"cpu\": {}, \"seconds\": {seconds}}}", cpu()? - before);
    store.shutdown().await?;
    endpoint.close().await;
    Ok(())
}

/// CPU seconds of this process so far, at a hundred ticks a second.
fn cpu() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("a name")?.split_whitespace().collect();
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}
