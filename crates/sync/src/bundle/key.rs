//! Keys: who makes bundles signs them, and who takes them in knows whose signature counts.
//!
//! Ed25519, as PEM: PKCS #8 for the key that signs, SPKI for the public one. OpenSSL reads and
//! makes both.

use std::fmt::{self, Write as _};

use ballast_store::env::{Env, random_bytes};
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};

use super::error::{Error, Result};

/// A key that signs. Its `Debug` is blank.
pub struct SigningKey(ed25519_dalek::SigningKey);

/// The public half: it tells whose a signature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(***)")
    }
}

impl SigningKey {
    /// Draws a key.
    pub fn new(env: &dyn Env) -> Self {
        let drawn: [u8; 32] = random_bytes(env);
        Self(ed25519_dalek::SigningKey::from_bytes(&drawn))
    }

    /// Reads PEM.
    pub fn from_pem(text: &str) -> Result<Self> {
        let key = ed25519_dalek::SigningKey::from_pkcs8_pem(text);
        key.map(Self).map_err(|_| Error::refused("this is no Ed25519 private key in PEM"))
    }

    /// The key as PEM.
    pub fn to_pem(&self) -> Result<String> {
        let text = self.0.to_pkcs8_pem(LineEnding::LF);
        text.map(|text| text.to_string()).map_err(|_| Error::refused("the key can't be written"))
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs.
    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl PublicKey {
    /// Reads PEM.
    pub fn from_pem(text: &str) -> Result<Self> {
        let key = VerifyingKey::from_public_key_pem(text);
        key.map(Self).map_err(|_| Error::refused("this is no Ed25519 public key in PEM"))
    }

    /// The key as PEM.
    pub fn to_pem(&self) -> Result<String> {
        let text = self.0.to_public_key_pem(LineEnding::LF);
        text.map_err(|_| Error::refused("the key can't be written"))
    }

    /// The 32 bytes of the key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Whether this signature of the message is the key's. Strictly: no key of small order, one
    /// spelling of each signature.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(self.as_bytes()))
    }
}

/// Bytes as text.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use ballast_store::env::RealEnv;

    use super::*;

    #[test]
    fn keys_come_back_from_text_and_tell_whose_a_signature_is() {
        let key = SigningKey::new(&RealEnv::default());
        let other = SigningKey::new(&RealEnv::default());
        let read = SigningKey::from_pem(&key.to_pem().expect("PEM")).expect("own");
        let public = PublicKey::from_pem(&key.public().to_pem().expect("PEM")).expect("own");
        let signature = read.sign(b"words");
        assert!(public.has_signed(b"words", &signature));
        assert!(!public.has_signed(b"other words", &signature));
        assert!(!other.public().has_signed(b"words", &signature));
        assert!(PublicKey::from_pem(&key.to_pem().expect("PEM")).is_err());
        assert_eq!(format!("{key:?}"), "SigningKey(***)");
    }

    /// The example of RFC 8410, as `openssl genpkey -algorithm ed25519` writes keys.
    #[test]
    fn keys_that_others_made_are_read() {
        let key = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                   -----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\n\
                      MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
                      -----END PUBLIC KEY-----\n";
        let key = SigningKey::from_pem(key).expect("PKCS #8");
        assert_eq!(key.public(), PublicKey::from_pem(public).expect("SPKI"));
    }
}
