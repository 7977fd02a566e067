//! Who a process is to its peers: its name, its key and its certificate; and how it speaks TLS.
//!
//! TLS 1.3 only, both sides with a certificate, nothing sent before the handshake is done, and no
//! session taken up again: a connection is always checked anew.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ballast_store::env::SharedEnv;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};

use super::client::Sightings;
use super::verify::{OfClients, OfServers, Trust};
use super::{
    Authority, ClusterId, Error, Issued, PeerKey, PeerName, Result, Revocations, SecretKey,
};

/// Whether a server speaks to those who show no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strangers {
    /// It does: they may want to join.
    Welcome,
    /// It does not.
    Refused,
}

/// What others know of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Roots {
    /// The key of its authority.
    pub(super) authority: PeerKey,
    /// The certificate of its authority.
    pub(super) certificate: CertificateDer<'static>,
    /// The key that signs its permits.
    pub(super) permits: PeerKey,
}

/// Who a process is. What it hands out follows a certificate that is renewed.
pub struct Identity {
    name: PeerName,
    key: SecretKey,
    roots: Roots,
    cluster: ClusterId,
    trust: Arc<Trust>,
    shown: Arc<Shown>,
    revocations: Revocations,
    sightings: Arc<Sightings>,
    env: SharedEnv,
}

impl fmt::Debug for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Identity({} of {})", self.name, self.cluster)
    }
}

impl Identity {
    /// One with a key of its own and the certificate that says so.
    pub(super) fn new(
        name: PeerName,
        key: SecretKey,
        roots: Roots,
        issued: Issued,
        env: SharedEnv,
    ) -> Result<Self> {
        let revocations = Revocations::default();
        let trust = Trust::new(&roots.authority, &roots.certificate, revocations.clone());
        let trust = trust.map_err(|error| Error::unusable("the authority's certificate", error))?;
        let current = Current::new(&key, &roots, issued)?;
        Ok(Self {
            name,
            cluster: ClusterId::of(&roots.authority),
            trust: Arc::new(trust),
            shown: Arc::new(Shown(RwLock::new(current))),
            key,
            roots,
            revocations,
            sightings: Sightings::new(Arc::clone(&env)),
            env,
        })
    }

    /// The identity of a process that has the authority itself: its key lives as long as it.
    pub fn of_authority(authority: &Authority, name: PeerName, env: &SharedEnv) -> Result<Self> {
        let key = SecretKey::draw(env.as_ref());
        let issued = authority.issue(&name, &key.public(), env.now_ms())?;
        let roots = Roots {
            authority: authority.key(),
            certificate: authority.certificate().clone(),
            permits: authority.permits().public(),
        };
        Self::new(name, key, roots, issued, Arc::clone(env))
    }

    /// Its name.
    pub fn name(&self) -> &PeerName {
        &self.name
    }

    /// Its cluster.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// Its key.
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// What is known of its cluster.
    pub(super) fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The key that permits of its cluster are signed with.
    pub fn permits(&self) -> PeerKey {
        self.roots.permits
    }

    /// Which of its peers are not believed any more.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Where connections with it found the hub.
    pub(super) fn sightings(&self) -> &Arc<Sightings> {
        &self.sightings
    }

    /// The certificate that it has now.
    pub fn issued(&self) -> Issued {
        self.shown.read().issued.clone()
    }

    /// How long until its certificate should be renewed, which is at half of its life.
    pub fn renew_in(&self) -> Duration {
        let Issued { issued_ms, expires_ms, .. } = self.shown.read().issued;
        let half_ms = issued_ms.midpoint(expires_ms.max(issued_ms));
        Duration::from_millis(half_ms.saturating_sub(self.env.now_ms()))
    }

    /// Whether its certificate has ended: nobody but the hub speaks to it until it is renewed.
    pub fn has_ended(&self) -> bool {
        self.shown.read().issued.expires_ms <= self.env.now_ms()
    }

    /// New connections show this certificate.
    pub fn renew(&self, issued: Issued) -> Result<()> {
        let current = Current::new(&self.key, &self.roots, issued)?;
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(())
    }

    /// How to be a server to peers, for these protocols.
    pub fn server_config(
        &self,
        protocols: &[&[u8]],
        strangers: Strangers,
    ) -> Result<Arc<ServerConfig>> {
        let is_mandatory = strangers == Strangers::Refused;
        let verifier = OfClients { trust: Arc::clone(&self.trust), is_mandatory };
        let builder = ServerConfig::builder_with_details(provider(), clock(&self.env));
        let builder = builder.with_protocol_versions(&[&TLS13]).map_err(unusable)?;
        let shown = Arc::clone(&self.shown);
        let mut config =
            builder.with_client_cert_verifier(Arc::new(verifier)).with_cert_resolver(shown);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// How to be a client of peers, for this protocol. Any peer of the cluster is believed: whoever
    /// connects looks at [`peer_of`](super::peer_of) before it says anything.
    pub fn client_config(&self, protocol: &[u8]) -> Result<Arc<ClientConfig>> {
        let verifier = OfServers::Member(Arc::clone(&self.trust));
        let builder = ClientConfig::builder_with_details(provider(), clock(&self.env));
        let builder = builder.with_protocol_versions(&[&TLS13]).map_err(unusable)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let shown = Arc::clone(&self.shown);
        Ok(finish_client(builder.with_client_cert_resolver(shown), protocol))
    }
}

/// How to be a client of a hub of which only the authority's key is known, without a certificate.
pub(super) fn stranger_config(
    authority: PeerKey,
    protocol: &[u8],
    env: &SharedEnv,
) -> Result<Arc<ClientConfig>> {
    let verifier = OfServers::Stranger(authority);
    let builder = ClientConfig::builder_with_details(provider(), clock(env));
    let builder = builder.with_protocol_versions(&[&TLS13]).map_err(unusable)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(finish_client(builder.with_no_client_auth(), protocol))
}

fn finish_client(mut config: ClientConfig, protocol: &[u8]) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    // Whom one connects to is nobody's business on the way.
    config.enable_sni = false;
    Arc::new(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn unusable(error: rustls::Error) -> Error {
    Error::unusable("TLS", error)
}

fn clock(env: &SharedEnv) -> Arc<dyn TimeProvider> {
    Arc::new(Clock(Arc::clone(env)))
}

/// What certificates are held against.
#[derive(Debug)]
struct Clock(SharedEnv);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.now_ms())))
    }
}

/// A certificate with the key that it is for, as it is shown.
#[derive(Debug)]
struct Current {
    issued: Issued,
    certified: Arc<CertifiedKey>,
}

impl Current {
    fn new(key: &SecretKey, roots: &Roots, issued: Issued) -> Result<Self> {
        // With that of the authority: who joins knows no more than its key.
        let chain = vec![issued.certificate.clone(), roots.certificate.clone()];
        let signing = aws_lc_rs::sign::any_eddsa_type(&key.to_pkcs8());
        let signing = signing.map_err(|error| Error::unusable("this process's key", error))?;
        let certified = CertifiedKey::new(chain, signing);
        let fits = certified.keys_match();
        fits.map_err(|error| Error::unusable("the certificate of this process", error))?;
        Ok(Self { issued, certified: Arc::new(certified) })
    }
}

/// What is shown in handshakes.
#[derive(Debug)]
struct Shown(RwLock<Current>);

impl Shown {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Current> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.read().certified))
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.read().certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
