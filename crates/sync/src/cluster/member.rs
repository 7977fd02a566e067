//! A node's side: joining a hub, and staying known to it.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ballast_format::member::Member as Kept;
use ballast_node::worker::Runner;
use ballast_proto::v1::nodes_client::NodesClient;
use ballast_proto::v1::{
    BeatRequest, Certificate, HelloAnswer, HelloRequest, JoinAnswer, JoinRequest, RenewRequest,
};
use ballast_store::env::SharedEnv;
use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::client::{Sighting, explain, hub_channel, stranger_channel, timed};
use super::files::Folder;
use super::identity::Roots;
use super::{
    Error, Identity, Issued, JoinToken, PeerKey, PeerName, PeerRole, Result, SecretKey, is_address,
    join_message, renew_message,
};

/// How often joining is tried where nobody answers.
const TRIES: u32 = 5;
/// How long to wait before the second try; twice as long before each next one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// How soon a node whose hub does not answer tries again.
const UNANSWERED_PAUSE: Duration = Duration::from_secs(5);
/// The longest that a hub may make a node wait.
const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// A process that joined a hub.
pub struct Member {
    identity: Arc<Identity>,
    folder: Folder,
    env: SharedEnv,
    kept: Mutex<Kept>,
    /// Its certificate is renewed by one at a time.
    renewing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Member {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Member({:?})", self.identity)
    }
}

/// Joins the hub that made this token, and keeps what comes of it in `folder`, the data folder. The
/// hub is where the token says, or at `address`. Who has joined with this token already is that.
pub async fn join(
    address: Option<&str>,
    token: &str,
    folder: &Path,
    env: &SharedEnv,
) -> Result<Member> {
    let joined_by = *blake3::hash(token.trim().as_bytes()).as_bytes();
    let files = Folder::of(folder);
    if let Some(kept) = files.member().await?.filter(|kept| kept.joined_by == joined_by) {
        return Member::of(kept, files, env);
    }
    let token = JoinToken::parse(token)?;
    let address = address.unwrap_or(&token.address);
    if !is_address(address) {
        let reason = format!("`{address}` is no address\nhint: `host:8081`");
        return Err(Error::Invalid(reason));
    }
    // The key is kept before anything is asked: who was cut off asks again with the same.
    let key = files.joining_key(&joined_by, env).await?;
    let answer = ask_to_join(address, &token, &key, env).await?;
    let kept = kept_of(answer, address, &token, joined_by, &key)?;
    let member = Member::of(kept.clone(), files, env)?;
    member.folder.keep(&kept).await?;
    Ok(member)
}

/// Who this process is that joined before; nothing: it never did.
pub async fn open(folder: &Path, env: &SharedEnv) -> Result<Option<Member>> {
    let files = Folder::of(folder);
    let kept = files.member().await?;
    kept.map(|kept| Member::of(kept, files, env)).transpose()
}

async fn ask_to_join(
    address: &str,
    token: &JoinToken,
    key: &SecretKey,
    env: &SharedEnv,
) -> Result<JoinAnswer> {
    let mut hub = NodesClient::new(stranger_channel(token.authority, address, env)?);
    let cluster = super::ClusterId::of(&token.authority);
    let signature = key.sign(&join_message(&cluster, &token.secret));
    let mut pause = FIRST_PAUSE;
    for tried in 1.. {
        let request = JoinRequest {
            secret: Bytes::copy_from_slice(&token.secret),
            key: Bytes::copy_from_slice(key.public().as_bytes()),
            signature: Bytes::copy_from_slice(&signature),
        };
        let status = match hub.join(timed(request)).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => status,
        };
        let error = explain(address, &status);
        if tried == TRIES || !may_pass(&status, &error) {
            return Err(error);
        }
        tracing::info!(%error, "joining is tried again");
        env.sleep(pause).await;
        pause *= 2;
    }
    Err(Error::Invalid("joining was never tried".to_owned()))
}

fn may_pass(status: &Status, error: &Error) -> bool {
    matches!(error, Error::Unreachable { .. }) || status.code() == Code::ResourceExhausted
}

fn kept_of(
    answer: JoinAnswer,
    address: &str,
    token: &JoinToken,
    joined_by: [u8; 32],
    key: &SecretKey,
) -> Result<Kept> {
    let issued = issued_of(answer.certificate)?;
    let permits = answer.permits.as_ref().try_into();
    let permits = permits.map_err(|_| Error::unusable("the key of permits", "it is not whole"))?;
    Ok(Kept {
        key: key.to_bytes(),
        joined_by,
        role: answer.role,
        name: answer.name,
        hub: address.to_owned(),
        token: answer.token,
        authority_key: *token.authority.as_bytes(),
        authority: answer.authority.to_vec(),
        permits,
        certificate: issued.certificate.to_vec(),
        issued_ms: issued.issued_ms,
        expires_ms: issued.expires_ms,
    })
}

fn issued_of(certificate: Option<Certificate>) -> Result<Issued> {
    let missing = || Error::unusable("the hub's answer", "it holds no certificate");
    let Certificate { der, issued_ms, expires_ms } = certificate.ok_or_else(missing)?;
    let certificate = CertificateDer::from(der.to_vec());
    Ok(Issued { certificate, issued_ms, expires_ms })
}

impl Member {
    fn of(kept: Kept, folder: Folder, env: &SharedEnv) -> Result<Self> {
        let name = PeerRole::parse(&kept.role).and_then(|role| PeerName::new(role, &kept.name));
        let name = name.ok_or_else(|| Error::unusable("the identity", "it has no name"))?;
        let roots = Roots {
            authority: PeerKey::from_bytes(kept.authority_key),
            certificate: CertificateDer::from(kept.authority.clone()),
            permits: PeerKey::from_bytes(kept.permits),
        };
        let issued = Issued {
            certificate: CertificateDer::from(kept.certificate.clone()),
            issued_ms: kept.issued_ms,
            expires_ms: kept.expires_ms,
        };
        let key = SecretKey::from_bytes(&kept.key);
        let identity = Arc::new(Identity::new(name, key, roots, issued, Arc::clone(env))?);
        let (env, kept) = (Arc::clone(env), Mutex::new(kept));
        let renewing = tokio::sync::Mutex::default();
        Ok(Self { identity, folder, env, kept, renewing })
    }

    /// Who it is.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Where its hub is, as `host:port`.
    pub fn hub_address(&self) -> String {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).hub.clone()
    }

    /// The token with which it reads from its hub's HTTP API.
    pub fn token(&self) -> String {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).token.clone()
    }

    /// A channel to its hub, over which it is known.
    pub fn channel(&self) -> Result<Channel> {
        hub_channel(&self.identity, &self.hub_address())
    }

    /// Where the last connection of its channels found the hub.
    pub fn sighting(&self) -> Option<Sighting> {
        self.identity.sightings().last()
    }

    /// What the hub says that answers where this one's should: its cluster, and its name.
    pub async fn hello(&self) -> Result<HelloAnswer> {
        let answer = NodesClient::new(self.channel()?).hello(timed(HelloRequest {})).await;
        let answer = answer.map_err(|status| explain(&self.hub_address(), &status))?;
        Ok(answer.into_inner())
    }

    /// What the hub is called among its peers that answers at one of its addresses: where several
    /// gateways share a host name, each has a name of its own. Who was off for so long that its
    /// certificate has ended gets a new one first, since nobody would speak to it.
    pub async fn hub_at(&self, address: SocketAddr) -> Result<PeerName> {
        self.renew_if(Identity::has_ended).await?;
        let address = address.to_string();
        let channel = hub_channel(&self.identity, &address)?;
        let answer = NodesClient::new(channel).hello(timed(HelloRequest {})).await;
        let said = answer.map_err(|status| explain(&address, &status))?.into_inner().name;
        let unusable = || Error::unusable("the hub's name", format!("it says `{said}`"));
        PeerName::new(PeerRole::Hub, &said).ok_or_else(unusable)
    }

    /// Gets the next certificate, and keeps it.
    pub async fn renew(&self) -> Result<()> {
        self.renew_if(|_| true).await
    }

    /// The same, unless somebody else has done it meanwhile.
    async fn renew_if(&self, is_due: impl FnOnce(&Identity) -> bool) -> Result<()> {
        let _turn = self.renewing.lock().await;
        match is_due(&self.identity) {
            true => self.get_certificate().await,
            false => Ok(()),
        }
    }

    async fn get_certificate(&self) -> Result<()> {
        let identity = &self.identity;
        let address = self.hub_address();
        let authority = identity.roots().authority;
        let signature = identity.key().sign(&renew_message(identity.cluster()));
        let request = RenewRequest {
            key: Bytes::copy_from_slice(identity.key().public().as_bytes()),
            signature: Bytes::copy_from_slice(&signature),
        };
        // As nobody: the certificate that it has may have ended.
        let channel = stranger_channel(authority, &address, &self.env)?;
        let answer = NodesClient::new(channel).renew(timed(request)).await;
        let answer = answer.map_err(|status| explain(&address, &status))?;
        let issued = issued_of(answer.into_inner().certificate)?;
        identity.renew(issued.clone())?;
        let kept = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.certificate = issued.certificate.to_vec();
            (kept.issued_ms, kept.expires_ms) = (issued.issued_ms, issued.expires_ms);
            kept.clone()
        };
        self.folder.keep(&kept).await
    }

    /// Says that it is there, at `address`, and hears who is revoked. When to come again.
    pub async fn beat(&self, hub: &mut NodesClient<Channel>, address: &str) -> Result<Duration> {
        let revocations = self.identity.revocations();
        let request = BeatRequest {
            address: address.to_owned(),
            revoked_digest: Bytes::copy_from_slice(&revocations.digest()),
        };
        let answer = hub.beat(timed(request)).await;
        let answer = answer.map_err(|status| explain(&self.hub_address(), &status))?.into_inner();
        if let Some(revoked) = answer.revoked {
            let keys = revoked.keys.chunks_exact(32).filter_map(|key| key.try_into().ok());
            revocations.replace(keys.map(PeerKey::from_bytes));
        }
        Ok(Duration::from_millis(answer.again_ms).min(LONGEST_PAUSE))
    }

    /// Keeps its certificate good and its hub informed, until the runner stops. `address` is where
    /// its peers reach it.
    pub fn stay(self: &Arc<Self>, runner: &Runner, address: String) -> Result<()> {
        let mut hub = NodesClient::new(self.channel()?);
        let (member, stop) = (Arc::clone(self), runner.stopping());
        runner.spawn("membership", async move {
            let mut is_heard = true;
            loop {
                let done = member.keep_up(&mut hub, &address).await;
                // Once, and again only after it was well in between.
                if let Err(error) = &done
                    && is_heard
                {
                    tracing::warn!(%error, "the hub does not know that this node is here");
                }
                is_heard = done.is_ok();
                let pause = done.unwrap_or(UNANSWERED_PAUSE).max(Duration::from_secs(1));
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = member.env.sleep(pause) => {}
                }
            }
        });
        Ok(())
    }

    async fn keep_up(&self, hub: &mut NodesClient<Channel>, address: &str) -> Result<Duration> {
        self.renew_if(|identity| identity.renew_in().is_zero()).await?;
        self.beat(hub, address).await
    }
}

/// Where a member keeps its files, for a person.
pub fn member_file(folder: &Path) -> PathBuf {
    Folder::of(folder).member_path()
}
