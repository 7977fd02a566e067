//! TLS towards clients: versions 1.2 and 1.3, one certificate, replaced while connections go on.
//!
//! Where the certificate lies and when it is read again is for those who own the files. A
//! connection keeps the certificate that it began with.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// What is spoken inside: clients that offer more choose this.
const PROTOCOL: &[u8] = b"http/1.1";

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of certificates is not PEM, or has none.
    #[error("the certificate can't be read: {0}\nhint: PEM, from `-----BEGIN CERTIFICATE-----` on")]
    Certificate(String),
    /// The file of the key is not PEM, or has none.
    #[error("the key can't be read: {0}\nhint: PEM, from `-----BEGIN PRIVATE KEY-----` on")]
    Key(String),
    /// They don't fit each other, or are of a kind that we don't have.
    #[error("this certificate and this key can't be used together")]
    Pair(#[from] rustls::Error),
}

/// The certificate that new connections get.
pub struct Tls(RwLock<Arc<ServerConfig>>);

impl fmt::Debug for Tls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Tls(***)")
    }
}

impl Tls {
    /// From a chain of certificates, ours first, and the key of ours; both as PEM.
    pub fn new(certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(Arc::new(config(certificates, key)?))))
    }

    /// Gives these to new connections from now on. What can't be used changes nothing.
    pub fn replace(&self, certificates: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let config = Arc::new(config(certificates, key)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let config = self.0.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&config))
    }
}

fn config(certificates: &[u8], key: &[u8]) -> Result<ServerConfig, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates).collect();
    let chain = chain.map_err(|error| TlsError::Certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(TlsError::Certificate("no certificate is in it".to_owned()));
    }
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Key(error.to_string()))?;
    // The same provider as towards stores: one for the process, chosen here and not by who is
    // first.
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}
