//! Signatures of the reference tool, the same with something changed, and those of a hub's repo.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::*;
use crate::policy::{Action, Policy};
use crate::rig::Rig;

/// Made by `model_signing sign key`, version 1.1.1, of `a.txt` and `sub/b.bin`.
const BUNDLE: &str = include_str!("../../../../tests/fixtures/model-signing-1.1.sig");
const PUBLIC: &str = include_str!("../../../../tests/fixtures/model-signing-1.1.pub");

const BUNDLE_384: &str = include_str!("../../../../tests/fixtures/model-signing-1.1-p384.sig");
const PUBLIC_384: &str = include_str!("../../../../tests/fixtures/model-signing-1.1-p384.pub");

fn reference() -> Vec<Key> {
    vec![Key::from_pem("release", PUBLIC.as_bytes()).expect("a key")]
}

fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}

/// A key of ours that can sign.
fn pair() -> (Ed25519KeyPair, Key) {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("it is one");
    let der = [KINDS[2].0, pair.public_key().as_ref()].concat();
    let key = Key::from_pem("ours", pem(&der).as_bytes()).expect("a public key");
    (pair, key)
}

fn statement(files: &[(&str, Sha256)]) -> Value {
    let mut all = sha2::Sha256::new();
    let mut resources = Vec::new();
    for (name, digest) in files {
        all.update(digest.as_bytes());
        let digest = digest.to_string();
        resources.push(json!({"name": name, "algorithm": "sha256", "digest": digest}));
    }
    let whole = Sha256::from_bytes(all.finalize().into()).to_string();
    json!({
        "_type": STATEMENT,
        "subject": [{"name": "model", "digest": {"sha256": whole}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256"},
            "resources": resources,
        },
    })
}

fn bundle(pair: &Ed25519KeyPair, statement: &Value) -> Vec<u8> {
    let payload = statement.to_string().into_bytes();
    let signature = pair.sign(&encoded(PAYLOAD, &payload));
    let envelope = json!({
        "payload": BASE64_STANDARD.encode(&payload),
        "payloadType": PAYLOAD,
        "signatures": [{"sig": BASE64_STANDARD.encode(signature.as_ref()), "keyid": ""}],
    });
    json!({"mediaType": "any", "dsseEnvelope": envelope}).to_string().into_bytes()
}

fn digest(content: &[u8]) -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(content).into())
}

#[test]
fn a_signature_of_the_reference_tool_is_verified() {
    let signature = verify(BUNDLE.as_bytes(), &reference()).expect("it is good");
    assert_eq!(signature.by, "release");
    assert_eq!(signature.files.get("a.txt"), Some(&digest(b"hi\n")));
    assert_eq!(signature.files.get("sub/b.bin"), Some(&digest(b"yo\n")));
    assert_eq!(signature.files.len(), 2);
    let larger = Key::from_pem("larger", PUBLIC_384.as_bytes()).expect("a key");
    let mut keys = reference();
    keys.push(larger);
    let other = verify(BUNDLE_384.as_bytes(), &keys).expect("it is good");
    assert_eq!((other.by.as_str(), other.files), ("larger", signature.files));
}

#[test]
fn what_was_changed_or_made_by_another_counts_for_nothing() {
    let (pair, ours) = pair();
    let unknown = verify(BUNDLE.as_bytes(), std::slice::from_ref(&ours));
    assert_eq!(unknown, Err("no key that is configured made it".to_owned()));
    let mut changed: Value = serde_json::from_str(BUNDLE).expect("JSON");
    let payload = changed["dsseEnvelope"]["payload"].as_str().expect("text").to_owned();
    let text = String::from_utf8(BASE64_STANDARD.decode(payload).expect("base64")).expect("text");
    let other = BASE64_STANDARD.encode(text.replace("a.txt", "b.txt"));
    changed["dsseEnvelope"]["payload"] = json!(other);
    assert!(verify(changed.to_string().as_bytes(), &reference()).is_err());

    let good = statement(&[("a", digest(b"a"))]);
    let keys = [ours];
    assert!(verify(&bundle(&pair, &good), &keys).is_ok());
    for (pointer, value) in [
        ("/_type", json!("other")),
        ("/predicateType", json!("https://slsa.dev/provenance/v1")),
        ("/predicate/serialization/method", json!("shards")),
        ("/predicate/serialization/hash_type", json!("blake2")),
        ("/predicate/resources/0/algorithm", json!("sha1")),
        ("/predicate/resources/0/digest", json!("11")),
        ("/predicate/resources/0/digest", json!(digest(b"b").to_string())),
        ("/subject/0/digest/sha256", json!("00")),
        ("/subject", json!([])),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).expect("it is there") = value;
        assert!(verify(&bundle(&pair, &bad), &keys).is_err(), "{pointer}");
    }
    let twice = statement(&[("a", digest(b"a")), ("a", digest(b"b"))]);
    assert!(verify(&bundle(&pair, &twice), &keys).is_err());
    for noise in [&b""[..], b"{}", b"[]", b"{\"dsseEnvelope\": {}}"] {
        assert!(verify(noise, &keys).is_err());
    }
}

#[test]
fn keys_of_other_kinds_are_refused() {
    for bad in ["", "hello", &pem(b"\x30\x03\x02\x01\x05"), "-----BEGIN PUBLIC KEY-----\n"] {
        assert!(Key::from_pem("k", bad.as_bytes()).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_file_is_signed_as_long_as_it_is_what_was_signed() -> Result<()> {
    let (pair, ours) = pair();
    let policy = Policy::new(Vec::new(), Action::Allow).with_keys(vec![ours]);
    let rig = Rig::with_policy(policy).await;
    let anna = rig.user("anna").await;
    let repo = rig.repo(&anna, "anna/model").await;
    let large = [7; 3000];
    rig.put_large(&anna, &repo, "w.bin", &large).await;
    rig.put(&anna, &repo, "a.txt", "hi").await?;
    rig.put(&anna, &repo, "b.txt", "other").await?;
    let signed = [("a.txt", digest(b"hi")), ("gone.txt", digest(b"")), ("w.bin", digest(&large))];
    rig.put(&anna, &repo, "model.sig", bundle(&pair, &statement(&signed))).await?;
    rig.put(&anna, &repo, "bad.sig", "{}").await?;

    let main = rig.main(&repo).await;
    let items = rig.listing(&repo).await;
    for (path, by) in [("w.bin", &["ours"][..]), ("a.txt", &["ours"]), ("b.txt", &[])] {
        let item = items.iter().find(|item| item.path == path).expect("it is there");
        assert_eq!(rig.hub.signed_by(&repo, main, item).await?, by, "{path}");
    }
    let carried = rig.hub.signatures(&repo, main).await?;
    assert_eq!(carried.bad.keys().collect::<Vec<_>>(), ["bad.sig"]);
    let vouched = rig.hub.vouched(&repo, main, &items).await?;
    let expected = Vouched { by: "ours".into(), files: 2, differ: vec!["gone.txt".into()] };
    assert_eq!(vouched, [expected]);

    rig.put(&anna, &repo, "a.txt", "changed").await?;
    let main = rig.main(&repo).await;
    let items = rig.listing(&repo).await;
    let item = items.iter().find(|item| item.path == "a.txt").expect("it is there");
    assert_eq!(rig.hub.signed_by(&repo, main, item).await?, Vec::<String>::new());
    Ok(())
}
