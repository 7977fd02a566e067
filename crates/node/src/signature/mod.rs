//! Signatures that a repo carries, in the form of `OpenSSF` Model Signing: a Sigstore bundle
//! whose envelope holds a statement that lists files with their SHA-256.
//!
//! A signature is good if a key that the operator named made it. Nothing is fetched and no
//! certificate is followed, so it works where there is no network. That a file is signed says who
//! vouches for it, and not that it is safe.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use ballast_format::hash::Sha256;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use sha2::Digest as _;

mod carried;
#[cfg(test)]
mod tests;

pub(crate) use carried::SignedCache;
pub use carried::{Carried, Vouched};

use crate::error::{Error, Result};

/// The longest bundle that is read.
pub const MAX_BUNDLE_BYTES: u64 = 16 << 20;
/// The most files that a statement lists.
const MAX_RESOURCES: usize = 200_000;

const PAYLOAD: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://model_signing/signature/v1.0";

/// What stands in front of a key's own bytes, for the kinds of keys that are known. There is one
/// way to write each.
const KINDS: &[(&[u8], &dyn VerificationAlgorithm)] = &[
    (
        b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\
          \x07\x03\x42\x00",
        &signature::ECDSA_P256_SHA256_ASN1,
    ),
    (
        b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\
          \x00",
        &signature::ECDSA_P384_SHA384_ASN1,
    ),
    (b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", &signature::ED25519),
];

/// A public key that the operator trusts, by a name.
#[derive(Clone)]
pub struct Key {
    name: String,
    key: Vec<u8>,
    algorithm: &'static dyn VerificationAlgorithm,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.name)
    }
}

impl Key {
    /// Reads a public key in PEM: ECDSA on P-256 or P-384, or Ed25519.
    pub fn from_pem(name: impl Into<String>, pem: &[u8]) -> Result<Self> {
        let name = name.into();
        let bad = |what: &str| Error::invalid(format!("the key `{name}`: {what}"));
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem);
        let der = der.map_err(|_| bad("this is no public key in PEM"))?;
        let known = KINDS
            .iter()
            .find_map(|(head, algorithm)| Some((der.strip_prefix(*head)?.to_vec(), *algorithm)));
        let (key, algorithm) =
            known.ok_or_else(|| bad("only ECDSA on P-256 or P-384, and Ed25519, are known"))?;
        Ok(Self { name, key, algorithm })
    }

    /// By which rules and people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn made(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm, &self.key).verify(message, signature).is_ok()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signed>,
}

#[derive(Deserialize)]
struct Signed {
    sig: String,
}

#[derive(Deserialize)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Deserialize)]
struct Subject {
    digest: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: String,
}

/// Files that a key vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The key's name.
    pub by: String,
    /// Each file with its SHA-256.
    pub files: HashMap<String, Sha256>,
}

/// Reads a bundle, and finds the key that made it. The error is a sentence for people.
pub fn verify(bundle: &[u8], keys: &[Key]) -> std::result::Result<Signature, String> {
    let bundle: Bundle = serde_json::from_slice(bundle)
        .map_err(|_| "it is no Sigstore bundle with an envelope".to_owned())?;
    let envelope = bundle.dsse_envelope;
    if envelope.payload_type != PAYLOAD {
        return Err("its envelope holds no statement".to_owned());
    }
    let base64 =
        |text: &str| BASE64_STANDARD.decode(text).map_err(|_| "it is no base64".to_owned());
    let payload = base64(&envelope.payload)?;
    let message = encoded(&envelope.payload_type, &payload);
    let mut key = None;
    for signed in envelope.signatures.iter().take(8) {
        let signature = base64(&signed.sig)?;
        key = key.or_else(|| keys.iter().find(|key| key.made(&message, &signature)));
    }
    let key = key.ok_or_else(|| "no key that is configured made it".to_owned())?;
    let statement: Statement = serde_json::from_slice(&payload)
        .map_err(|_| "its statement is of an unknown form".to_owned())?;
    Ok(Signature { by: key.name.clone(), files: files(statement)? })
}

/// What is signed: the payload with its type, each with its length.
fn encoded(kind: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// The files that a statement lists.
fn files(statement: Statement) -> std::result::Result<HashMap<String, Sha256>, String> {
    let Predicate { serialization, resources } = statement.predicate;
    if statement.kind != STATEMENT
        || statement.predicate_type != PREDICATE
        || serialization.method != "files"
        || serialization.hash_type != "sha256"
        || resources.len() > MAX_RESOURCES
    {
        return Err("its statement is not a list of files with their SHA-256".to_owned());
    }
    let mut files = HashMap::with_capacity(resources.len());
    let mut all = sha2::Sha256::new();
    for resource in resources {
        let digest = resource.digest.parse::<Sha256>().ok();
        let digest = digest.filter(|_| resource.algorithm == "sha256");
        let digest = digest.ok_or_else(|| format!("`{}` has no SHA-256", resource.name))?;
        all.update(digest.as_bytes());
        if files.insert(resource.name, digest).is_some() {
            return Err("its statement lists a file twice".to_owned());
        }
    }
    // The statement names the whole by the hash over all.
    let whole = Sha256::from_bytes(all.finalize().into()).to_string();
    let said = statement.subject.first().and_then(|subject| subject.digest.get("sha256"));
    if statement.subject.len() != 1 || said != Some(&whole) {
        return Err("its statement names another whole than its files make".to_owned());
    }
    Ok(files)
}
