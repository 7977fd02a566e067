//! Who gives the processes of a cluster their certificates.
//!
//! Its key is derived from the secret in the hub's store, so that every gateway on a store is the
//! same authority, and a backup has it too. Nothing of it is kept anywhere else.

use std::fmt;
use std::time::Duration;

use ballast_node::hub::Secrets;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::CertificateDer;

use super::{Error, PeerKey, PeerName, Result, SecretKey};

/// How long a certificate is good for.
pub(super) const CERTIFICATE_LIFE: Duration = Duration::from_hours(24);
/// How far the clocks of a cluster may be apart: a certificate is good this long before it is made.
const CLOCKS_DIFFER: Duration = Duration::from_mins(5);
/// Hexadecimal digits of a cluster's name.
const ID_DIGITS: usize = 20;

/// What names a cluster in certificates: it follows from its authority's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(String);

impl ClusterId {
    /// The cluster of this authority.
    pub fn of(authority: &PeerKey) -> Self {
        let hash = blake3::derive_key("ballast 2026-11 name of a cluster", authority.as_bytes());
        let mut text = blake3::Hash::from_bytes(hash).to_hex().to_string();
        text.truncate(ID_DIGITS);
        Self(text)
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a certificate says of a process of this cluster.
    pub(super) fn uri(&self, peer: &PeerName) -> String {
        format!("spiffe://{}/{}/{}", self.0, peer.role().as_str(), peer.as_str())
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A certificate, and how long it is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// When it was made, in unix milliseconds.
    pub issued_ms: u64,
    /// When it ends, in unix milliseconds.
    pub expires_ms: u64,
}

/// The authority of a cluster.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    key: PeerKey,
    cluster: ClusterId,
    permits: SecretKey,
}

impl fmt::Debug for Authority {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Authority({})", self.cluster)
    }
}

impl Authority {
    /// The authority of the hub that has these secrets.
    pub fn of(secrets: &Secrets) -> Result<Self> {
        Self::with(&secrets.key("cluster authority"), &secrets.key("cluster permits"))
    }

    /// The authority with these keys, its own and that for permits.
    pub(super) fn with(secret: &[u8; 32], permits: &[u8; 32]) -> Result<Self> {
        let (secret, permits) = (SecretKey::from_bytes(secret), SecretKey::from_bytes(permits));
        let unusable = |error| Error::unusable("the authority's key", error);
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&secret.to_pkcs8(), &PKCS_ED25519);
        let (pair, key) = (pair.map_err(unusable)?, secret.public());
        let cluster = ClusterId::of(&key);
        let params = authority_params(&cluster);
        let certificate = params.self_signed(&pair).map_err(unusable)?.into();
        let issuer = Issuer::new(params, pair);
        Ok(Self { issuer, certificate, key, cluster, permits })
    }

    /// The name of the cluster.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// The key by which the authority is known: what a join token has of it.
    pub fn key(&self) -> PeerKey {
        self.key
    }

    /// The certificate that all others lead to.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The key that signs permits.
    pub fn permits(&self) -> &SecretKey {
        &self.permits
    }

    /// A certificate that says that whoever has this key is `peer`, for a day from now on.
    pub fn issue(&self, peer: &PeerName, key: &PeerKey, now_ms: u64) -> Result<Issued> {
        let unusable = |error| Error::unusable("a certificate", error);
        let uri = self.cluster.uri(peer).as_str().try_into().map_err(unusable)?;
        let mut params = CertificateParams::default();
        let (now, epoch) = (Duration::from_millis(now_ms), date_time_ymd(1970, 1, 1));
        params.not_before = epoch + now.saturating_sub(CLOCKS_DIFFER);
        params.not_after = epoch + now + CERTIFICATE_LIFE;
        params.serial_number = Some(serial(&[peer.as_str().as_bytes(), key.as_bytes()], now_ms));
        params.distinguished_name = named(&peer.to_string());
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&Subject(*key), &self.issuer).map_err(unusable)?.into();
        let life = u64::try_from(CERTIFICATE_LIFE.as_millis()).unwrap_or(u64::MAX);
        Ok(Issued { certificate, issued_ms: now_ms, expires_ms: now_ms.saturating_add(life) })
    }
}

/// Always the same for one cluster: so its certificate has the same bytes whoever makes it.
fn authority_params(cluster: &ClusterId) -> CertificateParams {
    let mut params = CertificateParams::default();
    // It is as good as its key, which lives as long as the hub.
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(4096, 1, 1);
    params.serial_number = Some(serial(&[cluster.as_str().as_bytes()], 0));
    params.distinguished_name = named(&format!("Ballast cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// A serial number that no other certificate has: a hash of all that it is about.
fn serial(about: &[&[u8]], now_ms: u64) -> SerialNumber {
    let mut hasher = blake3::Hasher::new();
    for part in about {
        hasher.update(part);
    }
    hasher.update(&now_ms.to_le_bytes());
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    // Positive, and not shorter than it looks.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// The public key of whoever gets a certificate.
struct Subject(PeerKey);

impl PublicKeyData for Subject {
    fn der_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}
