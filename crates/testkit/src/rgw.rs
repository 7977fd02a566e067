//! Ceph's S3 gateway, as the server that is not ours: what our own server and our client agree on
//! by mistake, this one does not.
//!
//! Needs Debian's packages `radosgw`, `ceph-mon`, `ceph-osd` and `ceph-common`. Where they are
//! missing, starting fails.

use std::io::{self, BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ballast_store::backend::{self, Access};
use object_store::path::Path;
use object_store::signer::Method;

use crate::s3::{ACCESS_KEY, BUCKET, SECRET, access};

/// The gateway, with the bucket [`BUCKET`]. It ends when this is dropped or the process ends.
#[derive(Debug)]
pub struct Rgw {
    endpoint: String,
    script: Child,
}

impl Rgw {
    /// Starts it, which takes some fifteen seconds.
    pub fn start() -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("rgw-{}-{}", std::process::id(), port()?));
        std::fs::create_dir(&folder)?;
        let (monitor, gateway) = (port()?, port()?);
        let mut command = Command::new("bash");
        command.args(["-c", include_str!("rgw.sh"), "rgw.sh"]).arg(&folder);
        command.args([monitor.to_string(), gateway.to_string()]).args([ACCESS_KEY, SECRET]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut script = command.spawn()?;
        let mut said = String::new();
        if let Some(output) = script.stdout.take() {
            BufReader::new(output).read_line(&mut said)?;
        }
        if said.trim() != "ready" {
            let mut why = String::new();
            if let Some(mut errors) = script.stderr.take() {
                errors.read_to_string(&mut why)?;
            }
            script.wait()?;
            return Err(io::Error::other(format!("Ceph's gateway did not start: {why}")));
        }
        let gateway = Self { endpoint: format!("http://127.0.0.1:{gateway}"), script };
        gateway.make_bucket_on_thread()?;
        Ok(gateway)
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// How a client reaches it.
    pub fn access(&self) -> Access {
        access(&self.endpoint)
    }

    /// On a thread of its own, as whoever starts this may be asynchronous.
    fn make_bucket_on_thread(&self) -> io::Result<()> {
        let make = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(self.make_bucket()).map_err(io::Error::other)
        };
        let made = std::thread::scope(|scope| scope.spawn(make).join());
        made.map_err(|_| io::Error::other("making the bucket panicked"))?
    }

    /// Our client makes no buckets, but it signs whatever it is given.
    async fn make_bucket(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let place = format!("s3://{BUCKET}").parse()?;
        let signer = backend::open(&place, &self.access(), 0)?.signer;
        let signer = signer.ok_or("a bucket has a signer")?;
        let lifetime = Duration::from_mins(1);
        let url = signer.signed_url(Method::PUT, &Path::default(), lifetime).await?;
        let answer = reqwest::Client::new().put(url).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if status.is_success() { Ok(()) } else { Err(format!("{status}: {text}").into()) }
    }
}

impl Drop for Rgw {
    fn drop(&mut self) {
        // Its input ends, so it ends.
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

/// A port that nobody uses at this moment.
fn port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
