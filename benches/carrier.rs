//! One process that has a file, and one that fetches it into a file of its own: what `carrier.py`
//! measures.
//!
//!     carrier keys FOLDER                                 identities of both
//!     carrier hashes FILE FOLDER                          what each chunk of the file must be
//!     carrier serve CARRIER ADDRESS FILE FOLDER           until its input ends
//!     carrier fetch CARRIER ADDRESS FILE FOLDER [REQUESTS]
//!
//! CARRIER is `tcp`, or `quic:` and the largest payload of a packet, or `auto`. Both sides print a
//! line of JSON with the CPU seconds that they took.

#![expect(clippy::disallowed_methods, reason = "it measures, and is not a hub")]
#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![expect(clippy::cast_possible_truncation, reason = "what it counts is small")]

use std::fs::{self, File};
use std::hint;
use std::io::{self, Read as _};
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use ballast_format::hash::{ChunkHash, XorbHash};
use ballast_node::pool::Pool;
use ballast_node::worker::Runner;
use ballast_store::env::RealEnv;
use ballast_sync::carrier::{
    self, Carrier as _, Carriers, Choice, Content, Credentials, Distance, Encoding, Expected,
    QuicCarrier, QuicSettings, Request, Run, Runs, Shared, Source, Span, TcpCarrier, TcpServer,
    Urgency,
};
use ballast_sync::cluster::{
    CARRIER_PROTOCOL, PeerName, Revocations, SERVER_NAME, TakeStreams as _, peer_of,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rcgen::{BasicConstraints, CertificateParams, Issuer, KeyPair, SanType};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;

const CHUNK: usize = 65_536;
const XORB_CHUNKS: usize = 1024;
/// Chunks of a request, and of a run.
const REQUEST_CHUNKS: usize = 256;
const RUN_CHUNKS: u32 = 16;

fn main() -> Result<()> {
    // Until it has freed a large block once, as every hub has, glibc gives each few 100 KiB that
    // are free back to the kernel, and asks for them anew.
    drop(hint::black_box(vec![0_u8; 2 << 20]));
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["keys", folder] => keys(Path::new(folder)),
        ["hashes", file, folder] => hashes(Path::new(file), Path::new(folder)),
        ["serve", carrier, address, file, folder] => {
            runtime()?.block_on(serve(carrier, address.parse()?, file, Path::new(folder)))
        }
        ["fetch", carrier, address, file, folder, rest @ ..] => {
            let requests = rest.first().map_or(Ok(4), |count| count.parse())?;
            let fetch = fetch(carrier, address.parse()?, file, Path::new(folder), requests);
            runtime()?.block_on(fetch)
        }
        [] => Ok(()),
        _ => bail!("see the first lines of benches/carrier.rs"),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

fn keys(folder: &Path) -> Result<()> {
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    fs::write(folder.join("root"), params.self_signed(&key)?.der())?;
    let issuer = Issuer::new(params, key);
    for name in ["server", "client"] {
        let mut params = CertificateParams::default();
        let uri = format!("spiffe://bench/node/{name}").try_into()?;
        // A cluster's identities are not held against the name of a host; these are, by rustls.
        let host = SanType::DnsName(SERVER_NAME.try_into()?);
        params.subject_alt_names = vec![SanType::URI(uri), host];
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        fs::write(folder.join(format!("{name}.key")), key.serialize_der())?;
        fs::write(folder.join(format!("{name}.crt")), params.signed_by(&key, &issuer)?.der())?;
    }
    Ok(())
}

fn credentials(folder: &Path, name: &str) -> Result<Credentials> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(fs::read(folder.join("root"))?))?;
    let roots = Arc::new(roots);
    let chain = || -> Result<_> {
        Ok(vec![CertificateDer::from(fs::read(folder.join(format!("{name}.crt")))?)])
    };
    let key = || -> Result<_> {
        let key = fs::read(folder.join(format!("{name}.key")))?;
        PrivateKeyDer::try_from(key).map_err(anyhow::Error::msg)
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients.build()?)
        .with_single_cert(chain()?, key()?)?;
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain()?, key()?)?;
    Ok(Credentials {
        server: Arc::new(server),
        client: Arc::new(client),
        revocations: Revocations::default(),
    })
}

fn hashes(file: &Path, folder: &Path) -> Result<()> {
    let (mut file, mut hashes) = (File::open(file)?, Vec::new());
    let mut chunk = vec![0; CHUNK];
    while file.read_exact(&mut chunk).is_ok() {
        hashes.extend_from_slice(ChunkHash::of(&chunk).as_bytes());
    }
    Ok(fs::write(folder.join("hashes"), hashes)?)
}

/// The xorb that this chunk of the file is in, by number.
fn xorb(number: usize) -> XorbHash {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
    XorbHash::from_bytes(bytes)
}

/// By which carriers, and the settings of QUIC.
fn choice(carrier: &str) -> Result<(Choice, QuicSettings)> {
    let (name, size) = carrier.split_once(':').unwrap_or((carrier, "1452"));
    let choice = name.parse().map_err(anyhow::Error::msg)?;
    Ok((choice, QuicSettings { largest_packet: Some(size.parse()?) }))
}

fn shared() -> Shared {
    Shared::new(RealEnv::shared(), Pool::new(2), Runner::new(), None, None)
}

/// The file, as a source of chunks.
struct Shelf {
    file: Arc<File>,
    pool: Pool,
    kept: Kept,
}

/// Memory that is used again, as a hub's store has it.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Vec<u8>>>>);

impl Kept {
    fn take(&self) -> Lent {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Lent(kept.unwrap_or_else(|| vec![0; RUN_CHUNKS as usize * CHUNK]), self.clone())
    }
}

struct Lent(Vec<u8>, Kept);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let kept = &self.1.0;
        kept.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.0));
    }
}

#[async_trait]
impl Source for Shelf {
    async fn admit(&self, _: &PeerName, _: &[u8]) -> carrier::Result<()> {
        Ok(())
    }

    async fn open(&self, _: &PeerName, request: Request) -> carrier::Result<Runs> {
        let mut runs = Vec::new();
        for (at, span) in (0..).zip(request.spans) {
            let [a, b, c, d, ..] = *span.xorb.as_bytes();
            let first = u64::from(u32::from_le_bytes([a, b, c, d])) * XORB_CHUNKS as u64;
            for start in span.chunks.clone().step_by(RUN_CHUNKS as usize) {
                runs.push((at, first, start..span.chunks.end.min(start + RUN_CHUNKS)));
            }
        }
        let (file, pool, kept) = (Arc::clone(&self.file), self.pool.clone(), self.kept.clone());
        let runs = stream::iter(runs).map(move |(span, first, chunks): (u32, u64, Range<u32>)| {
            let (file, pool, mut lent) = (Arc::clone(&file), pool.clone(), kept.take());
            async move {
                let from = (first + u64::from(chunks.start)) * CHUNK as u64;
                let length = chunks.len() * CHUNK;
                let read = pool.run(move || {
                    file.read_exact_at(&mut lent.0[..length], from)?;
                    io::Result::Ok(Bytes::from_owner(lent).slice(..length))
                });
                let fault = |error: String| carrier::Error::Source(error);
                let bytes = read.await.map_err(|error| fault(error.to_string()))?;
                let bytes = bytes.map_err(|error| fault(error.to_string()))?;
                let lengths = vec![CHUNK as u32; chunks.len()];
                let content = Content::Here { encoding: Encoding::Plain, lengths, bytes };
                Ok(Run { span, chunks, content })
            }
        });
        Ok(Box::pin(runs.buffered(2)))
    }

    async fn holdings(
        &self,
        _: &PeerName,
        _: &[XorbHash],
    ) -> carrier::Result<Vec<Vec<Range<u32>>>> {
        Ok(Vec::new())
    }

    fn sent(&self, _: &PeerName, _: u64) {}
}

async fn serve(carrier: &str, address: SocketAddr, file: &str, folder: &Path) -> Result<()> {
    let (shared, credentials) = (shared(), credentials(folder, "server")?);
    let shelf = Arc::new(Shelf {
        file: Arc::new(File::open(file)?),
        pool: Pool::new(2),
        kept: Kept::default(),
    });
    let (_, settings) = choice(carrier)?;
    let (socket, source) = (UdpSocket::bind(address)?, Arc::<Shelf>::clone(&shelf));
    let quic = QuicCarrier::over(&shared, &credentials, socket, Some(source), settings)?;
    tokio::spawn(listen(shared.clone(), credentials, address, shelf));
    // Until nobody listens any more.
    tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await??;
    let paths = quic.paths();
    let paths = if paths.is_empty() { String::new() } else { format!("{paths:?}") };
    println!("{}", serde_json::json!({ "cpu": cpu()?, "paths": paths }));
    Ok(())
}

async fn listen(
    shared: Shared,
    credentials: Credentials,
    address: SocketAddr,
    shelf: Arc<Shelf>,
) -> Result<()> {
    let mut config = rustls::ServerConfig::clone(&credentials.server);
    config.alpn_protocols = vec![CARRIER_PROTOCOL.to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (listener, server) = (TcpListener::bind(address).await?, TcpServer::new(&shared, shelf));
    loop {
        let (stream, _) = listener.accept().await?;
        let (server, acceptor) = (Arc::clone(&server), acceptor.clone());
        tokio::spawn(async move {
            let stream = acceptor.accept(stream).await?;
            let peer = stream.get_ref().1.peer_certificates().and_then(peer_of);
            server.serve(stream, peer.context("a stranger")?.name).await;
            anyhow::Ok(())
        });
    }
}

async fn fetch(
    carrier: &str,
    address: SocketAddr,
    to: &str,
    folder: &Path,
    requests: usize,
) -> Result<()> {
    let (shared, credentials) = (shared(), credentials(folder, "client")?);
    let hashes = fs::read(folder.join("hashes"))?;
    let hashes: Vec<[u8; 32]> = hashes.as_chunks().0.to_vec();
    let file = File::create(PathBuf::from(to))?;
    file.set_len((hashes.len() * CHUNK) as u64)?;
    // A file takes one write at a time, and whoever waits for its turn spins.
    let (file, pool) = (Arc::new(file), Pool::new(1));
    let (choice, settings) = choice(carrier)?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let quic = QuicCarrier::over(&shared, &credentials, socket, None, settings)?;
    let carrier = Carriers::new(&shared, TcpCarrier::new(&shared, &credentials), quic, choice);
    let (before, began) = (cpu()?, Instant::now());
    let server = PeerName::parse("server").context("a name")?;
    let link = carrier.connect(address, &server, Distance::Unknown).await?;
    let batches = (0..hashes.len()).step_by(REQUEST_CHUNKS);
    let fetches = stream::iter(batches).map(|start| {
        let (link, file, pool) = (Arc::clone(&link), Arc::clone(&file), pool.clone());
        let expected = hashes[start..hashes.len().min(start + REQUEST_CHUNKS)].iter();
        let expected: Vec<_> = expected
            .map(|hash| Expected { hash: ChunkHash::from_bytes(*hash), length: CHUNK as u32 })
            .collect();
        async move {
            let first = (start % XORB_CHUNKS) as u32;
            let chunks = first..first + expected.len() as u32;
            let spans = vec![Span { xorb: xorb(start / XORB_CHUNKS), chunks }];
            let (patience, urgency) = (Duration::from_secs(10), Urgency::Swarm);
            let request = Request { spans, expected, patience, urgency };
            let arrivals = link.request(request).await?;
            let writes = arrivals.map_err(anyhow::Error::from).map_ok(|run| {
                let (file, pool) = (Arc::clone(&file), pool.clone());
                async move {
                    let at = start - start % XORB_CHUNKS + run.chunks.start as usize;
                    let bytes = run.bytes.context("absent")?;
                    pool.run(move || file.write_all_at(&bytes, (at * CHUNK) as u64)).await??;
                    Ok(())
                }
            });
            writes.try_buffered(2).try_collect::<()>().await
        }
    });
    fetches.buffer_unordered(requests).try_collect::<()>().await?;
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", serde_json::json!({ "cpu": cpu()? - before, "seconds": seconds }));
    Ok(())
}

/// CPU seconds of this process, user and system.
fn cpu() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("no such process")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = fields[11].parse::<u32>()? + fields[12].parse::<u32>()?;
    Ok(f64::from(ticks) / 100.0)
}
