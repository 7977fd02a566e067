//! Ed25519 keys: of the authority, of each process, and of permits.
//!
//! One kind for all: a key is 32 bytes that can be drawn, derived from a secret and stored, without
//! a format of its own.

use std::fmt;

use ballast_store::env::{Env, random_bytes};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use rustls::pki_types::PrivatePkcs8KeyDer;

/// What stands in front of the 32 bytes of a secret key to make it PKCS #8 (RFC 8410).
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// What stands in front of the 32 bytes of a public key in a certificate (RFC 8410).
const PUBLIC: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// A public key, which is who a process is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey([u8; 32]);

impl PeerKey {
    /// Takes the raw bytes. Whether they are a key is seen when something is verified with them.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether this key signed this.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = VerifyingKey::from_bytes(&self.0);
        let signature = Signature::from_slice(signature);
        matches!((key, signature), (Ok(key), Ok(signature))
            if key.verify_strict(message, &signature).is_ok())
    }

    /// The key of a certificate, from its `SubjectPublicKeyInfo`.
    pub(super) fn from_spki(der: &[u8]) -> Option<Self> {
        der.strip_prefix(&PUBLIC)?.try_into().ok().map(Self)
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(out, "PeerKey({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

/// A key that signs.
#[derive(Clone)]
pub struct SecretKey(ed25519_dalek::SigningKey);

impl SecretKey {
    /// A new one.
    pub fn draw(env: &dyn Env) -> Self {
        Self::from_bytes(&random_bytes(env))
    }

    /// The key of these bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(bytes))
    }

    /// What [`from_bytes`](Self::from_bytes) takes.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// What others know of it.
    pub fn public(&self) -> PeerKey {
        PeerKey(self.0.verifying_key().to_bytes())
    }

    /// Signs.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// As PKCS #8.
    pub(super) fn to_pkcs8(&self) -> PrivatePkcs8KeyDer<'static> {
        PrivatePkcs8KeyDer::from([PKCS8.as_slice(), &self.to_bytes()].concat())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SecretKey(***)")
    }
}
