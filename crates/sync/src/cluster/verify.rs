//! Whom a process believes: whoever shows a certificate of its cluster's authority that has not
//! ended, for a key that is not revoked.
//!
//! Which of its peers somebody must be is for the caller to say: see [`peer_of`].

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerMisbehaved,
    SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, aws_lc_rs};

use super::{ClusterId, Peer, PeerKey, PeerName, PeerRole, Revocations};

/// The signatures that there are between us.
pub(super) static SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[aws_lc_rs::ED25519],
    mapping: &[(SignatureScheme::ED25519, &[aws_lc_rs::ED25519])],
};

/// Who is at the other end of a connection whose handshake is done, by the certificates that it
/// showed there; `None`: nobody whom a handshake of ours lets through.
pub fn peer_of(certificates: &[CertificateDer<'_>]) -> Option<Peer> {
    read(certificates.first()?).map(|(_, peer)| peer)
}

/// The cluster and the peer that a certificate names.
fn read<'a>(certificate: &'a CertificateDer<'_>) -> Option<(&'a str, Peer)> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let mut names = certificate.valid_uri_names();
    let (name, None) = (names.next()?, names.next()) else { return None };
    let mut parts = name.strip_prefix("spiffe://")?.split('/');
    let (cluster, role, name) = (parts.next()?, parts.next()?, parts.next()?);
    let name = PeerName::new(PeerRole::parse(role)?, name).filter(|_| parts.next().is_none())?;
    let key = PeerKey::from_spki(&certificate.subject_public_key_info())?;
    Some((cluster, Peer { name, key }))
}

/// What a process believes.
#[derive(Debug)]
pub(super) struct Trust {
    anchor: TrustAnchor<'static>,
    cluster: ClusterId,
    revocations: Revocations,
}

impl Trust {
    /// Believes whom this authority names. `Err`: this is not the certificate of that authority.
    pub(super) fn new(
        authority: &PeerKey,
        certificate: &CertificateDer<'_>,
        revocations: Revocations,
    ) -> Result<Self, Error> {
        if key_of(certificate) != Some(*authority) {
            return Err(CertificateError::UnknownIssuer.into());
        }
        let anchor = anchor_from_trusted_cert(certificate).map_err(explain)?.to_owned();
        Ok(Self { anchor, cluster: ClusterId::of(authority), revocations })
    }

    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<Peer, Error> {
        let parsed = EndEntityCert::try_from(certificate).map_err(explain)?;
        let anchors = std::slice::from_ref(&self.anchor);
        parsed
            .verify_for_usage(SIGNATURES.all, anchors, &[], now, usage, None, None)
            .map_err(explain)?;
        let (cluster, peer) = read(certificate).ok_or(CertificateError::BadEncoding)?;
        if cluster != self.cluster.as_str() {
            return Err(CertificateError::NotValidForName.into());
        }
        if self.revocations.has(&peer.key) {
            return Err(CertificateError::Revoked.into());
        }
        Ok(peer)
    }
}

/// The key that a certificate is about.
fn key_of(certificate: &CertificateDer<'_>) -> Option<PeerKey> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    PeerKey::from_spki(&certificate.subject_public_key_info())
}

fn explain(error: webpki::Error) -> Error {
    let kind = match error {
        webpki::Error::BadDer | webpki::Error::BadDerTime => CertificateError::BadEncoding,
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    Error::InvalidCertificate(kind)
}

fn no_older_tls() -> Error {
    PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into()
}

/// What a server asks of clients.
#[derive(Debug)]
pub(super) struct OfClients {
    pub(super) trust: Arc<Trust>,
    pub(super) is_mandatory: bool,
}

impl ClientCertVerifier for OfClients {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.trust.check(end_entity, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_older_tls())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}

/// What a client knows of the cluster whose servers it believes.
#[derive(Debug)]
pub(super) enum OfServers {
    /// The whole certificate of its authority.
    Member(Arc<Trust>),
    /// The key of its authority: who wants to join has a token with that. Servers show the rest.
    Stranger(PeerKey),
}

impl ServerCertVerifier for OfServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self {
            Self::Member(trust) => {
                trust.check(end_entity, now, KeyUsage::server_auth())?;
            }
            Self::Stranger(authority) => {
                let shown = intermediates.last().ok_or(CertificateError::UnknownIssuer)?;
                let trust = Trust::new(authority, shown, Revocations::default())?;
                let peer = trust.check(end_entity, now, KeyUsage::server_auth())?;
                // A node that could pass for the hub would be given other nodes' tokens.
                if peer.name.role() != PeerRole::Hub {
                    return Err(CertificateError::NotValidForName.into());
                }
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_older_tls())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}
