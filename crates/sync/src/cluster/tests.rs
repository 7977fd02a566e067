//! Who believes whom.

mod joining;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ballast_store::env::SharedEnv;
use ballast_testkit::clock::SimEnv;
use rustls::pki_types::ServerName;
use rustls::version::TLS12;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use super::authority::CERTIFICATE_LIFE;
use super::identity::stranger_config;
use super::rig::{authority, identity, roots};
use super::*;

/// Both sides of a connection after the handshake, each with whom it sees; or why there is none.
fn shake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<[Option<Peer>; 2], rustls::Error> {
    let name = ServerName::try_from(SERVER_NAME).expect("a name");
    let mut client = ClientConnection::new(client, name).expect("a client");
    let mut server = ServerConnection::new(server).expect("a server");
    let pass = |from: &mut dyn FnMut(&mut Vec<u8>) -> io::Result<usize>| {
        let mut bytes = Vec::new();
        while from(&mut bytes).expect("into memory") > 0 {}
        bytes
    };
    // The client hears why it was refused after it thinks that all is well.
    for _ in 0..4 {
        let bytes = pass(&mut |to| client.write_tls(to));
        server.read_tls(&mut bytes.as_slice()).expect("from memory");
        server.process_new_packets()?;
        let bytes = pass(&mut |to| server.write_tls(to));
        client.read_tls(&mut bytes.as_slice()).expect("from memory");
        client.process_new_packets()?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    let seen = |certificates: Option<&[_]>| certificates.and_then(peer_of);
    Ok([seen(client.peer_certificates()), seen(server.peer_certificates())])
}

fn meet(client: &Identity, server: &Identity) -> Result<[Option<Peer>; 2], rustls::Error> {
    let client = client.client_config(CARRIER_PROTOCOL).expect("a client");
    let server = server.server_config(&[CARRIER_PROTOCOL], Strangers::Refused).expect("a server");
    shake(client, server)
}

fn is_certificate_error(met: Result<[Option<Peer>; 2], rustls::Error>, kind: &str) {
    let error = met.expect_err("they must not meet").to_string();
    assert!(error.contains(kind), "{error}");
}

fn env() -> (Arc<SimEnv>, SharedEnv) {
    let env = SimEnv::new(5);
    (Arc::clone(&env), env)
}

#[test]
fn peers_of_a_cluster_know_each_other_by_name_and_key() {
    let (_, env) = env();
    let authority = authority(1);
    let node = identity(&authority, PeerRole::Node, "gpu-1.rack-2", &env);
    let hub = identity(&authority, PeerRole::Hub, "hub", &env);
    let [server, client] = meet(&node, &hub).expect("they meet");
    let (server, client) = (server.expect("the hub"), client.expect("the node"));
    assert_eq!((&server.name, server.key), (hub.name(), hub.key().public()));
    assert_eq!((&client.name, client.key), (node.name(), node.key().public()));
    assert_eq!(client.name.to_string(), "gpu-1.rack-2");
    assert_eq!(server.name.to_string(), "hub/hub");
}

#[test]
fn who_shows_no_certificate_is_let_in_where_strangers_are_welcome_and_is_nobody() {
    let (_, env) = env();
    let authority = authority(1);
    let hub = identity(&authority, PeerRole::Hub, "hub", &env);
    let stranger = || stranger_config(authority.key(), CONTROL_PROTOCOL, &env).expect("a client");
    let server = |strangers| hub.server_config(&[CONTROL_PROTOCOL], strangers).expect("a server");
    let [seen, nobody] = shake(stranger(), server(Strangers::Welcome)).expect("they meet");
    assert_eq!((seen.map(|peer| peer.name).as_ref(), nobody), (Some(hub.name()), None));
    is_certificate_error(shake(stranger(), server(Strangers::Refused)), "no certificates");
}

#[test]
fn another_clusters_identity_is_refused_by_both_sides() {
    let (_, env) = env();
    let ours = identity(&authority(1), PeerRole::Node, "gpu-1", &env);
    let theirs = identity(&authority(2), PeerRole::Node, "gpu-2", &env);
    is_certificate_error(meet(&theirs, &ours), "UnknownIssuer");
    is_certificate_error(meet(&ours, &theirs), "UnknownIssuer");
    // Also where strangers are welcome: a wrong certificate is worse than none.
    let server = ours.server_config(&[CARRIER_PROTOCOL], Strangers::Welcome).expect("a server");
    let mut client = ClientConfig::clone(&ours.client_config(CARRIER_PROTOCOL).expect("a client"));
    let other = theirs.client_config(CARRIER_PROTOCOL).expect("a client");
    client.client_auth_cert_resolver = Arc::clone(&other.client_auth_cert_resolver);
    is_certificate_error(shake(Arc::new(client), server), "UnknownIssuer");
}

#[test]
fn a_certificate_ends_after_a_day_and_a_renewed_one_is_shown_at_once() {
    let (clock, env) = env();
    let authority = authority(1);
    let hub = identity(&authority, PeerRole::Hub, "hub", &env);
    let node = identity(&authority, PeerRole::Node, "gpu-1", &env);
    let client = node.client_config(CARRIER_PROTOCOL).expect("a client");
    let server = hub.server_config(&[CARRIER_PROTOCOL], Strangers::Refused).expect("a server");
    let met = || shake(Arc::clone(&client), Arc::clone(&server));
    assert_eq!(node.renew_in(), CERTIFICATE_LIFE / 2);
    clock.advance(CERTIFICATE_LIFE - Duration::from_secs(1));
    met().expect("still good");
    assert_eq!(node.renew_in(), Duration::ZERO);
    let renew = |identity: &Identity| {
        let issued = authority.issue(identity.name(), &identity.key().public(), env.now_ms());
        identity.renew(issued.expect("issued")).expect("ours");
    };
    renew(&hub);
    clock.advance(Duration::from_secs(2));
    assert!(node.has_ended() && !hub.has_ended());
    is_certificate_error(met(), "Expired");
    renew(&node);
    met().expect("the same settings show the new certificate");
}

#[test]
fn a_revoked_key_is_refused_and_who_has_its_name_now_is_not() {
    let (_, env) = env();
    let authority = authority(1);
    let hub = identity(&authority, PeerRole::Hub, "hub", &env);
    let stolen = identity(&authority, PeerRole::Node, "gpu-1", &env);
    let joined_again = identity(&authority, PeerRole::Node, "gpu-1", &env);
    meet(&stolen, &hub).expect("they meet");
    let nothing = hub.revocations().digest();
    hub.revocations().replace([stolen.key().public()]);
    assert_ne!(hub.revocations().digest(), nothing);
    is_certificate_error(meet(&stolen, &hub), "Revoked");
    is_certificate_error(meet(&hub, &stolen), "Revoked");
    meet(&joined_again, &hub).expect("another key");
}

#[tokio::test]
async fn a_connection_hears_that_its_peer_is_revoked() {
    let revocations = Revocations::default();
    let [one, other] = [1, 2].map(|byte| SecretKey::from_bytes(&[byte; 32]).public());
    let both = async { tokio::join!(revocations.revoked(one), revocations.revoked(one)) };
    let revoke = async {
        revocations.replace([other]);
        tokio::task::yield_now().await;
        revocations.replace([other, one]);
    };
    tokio::join!(both, revoke);
    revocations.replace([]);
    assert!(!revocations.has(&one));
}

#[test]
fn who_wants_to_join_believes_only_a_hub_of_the_authority_that_it_was_told() {
    let (_, env) = env();
    let authority = authority(1);
    let hub = identity(&authority, PeerRole::Hub, "hub", &env);
    let node = identity(&authority, PeerRole::Node, "hub", &env);
    let meet = |key, server: &Identity| {
        let server = server.server_config(&[CONTROL_PROTOCOL], Strangers::Welcome);
        let client = stranger_config(key, CONTROL_PROTOCOL, &env).expect("a client");
        shake(client, server.expect("a server"))
    };
    meet(authority.key(), &hub).expect("they meet");
    is_certificate_error(meet(rig::authority(2).key(), &hub), "UnknownIssuer");
    is_certificate_error(meet(authority.key(), &node), "NotValidForName");
}

#[test]
fn every_gateway_of_a_store_is_the_same_authority() {
    let (first, second, other) = (authority(1), authority(1), authority(2));
    assert_eq!(first.certificate(), second.certificate());
    assert_eq!(roots(&first), roots(&second));
    assert_eq!(first.cluster(), second.cluster());
    assert_ne!(first.cluster(), other.cluster());
    assert_ne!(first.key(), first.permits().public());
}

#[test]
fn a_certificate_for_another_key_is_not_taken() {
    let (_, env) = env();
    let authority = authority(1);
    let node = identity(&authority, PeerRole::Node, "gpu-1", &env);
    let other = SecretKey::draw(env.as_ref()).public();
    let issued = authority.issue(node.name(), &other, env.now_ms()).expect("issued");
    assert!(matches!(node.renew(issued), Err(Error::Unusable { .. })));
}

#[test]
fn older_versions_of_tls_are_not_spoken() {
    let (_, env) = env();
    let node = identity(&authority(1), PeerRole::Node, "gpu-1", &env);
    let server = node.server_config(&[CARRIER_PROTOCOL], Strangers::Welcome).expect("a server");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let older = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS12]);
    let older = older.expect("known").with_root_certificates(rustls::RootCertStore::empty());
    let error = shake(Arc::new(older.with_no_client_auth()), server).expect_err("too old");
    assert!(error.to_string().contains("Tls12NotOffered"), "{error}");
}

#[test]
fn names_are_short_and_plain() {
    for good in ["a", "gpu-1", "10.0.0.1", &"x".repeat(63)] {
        let name = PeerName::parse(good).expect("a name");
        assert_eq!((name.as_str(), name.role()), (good, PeerRole::Node));
    }
    for bad in ["", "A", "a/b", "a b", "ä", "a_b", &"x".repeat(64)] {
        assert_eq!(PeerName::parse(bad), None, "{bad}");
    }
    assert_ne!(PeerName::parse("a"), PeerName::new(PeerRole::Region, "a"));
    for role in [PeerRole::Hub, PeerRole::Node, PeerRole::Region] {
        assert_eq!(PeerRole::parse(role.as_str()), Some(role));
    }
    assert_eq!(PeerRole::parse("admin"), None);
}

#[test]
fn what_is_signed_is_believed_from_its_key_only() {
    let [one, other] = [1, 2].map(|byte| SecretKey::from_bytes(&[byte; 32]));
    let signature = one.sign(b"so it is");
    assert!(one.public().has_signed(b"so it is", &signature));
    assert!(!one.public().has_signed(b"so it was", &signature));
    assert!(!other.public().has_signed(b"so it is", &signature));
    assert!(!one.public().has_signed(b"so it is", &signature[1..]));
    assert!(!PeerKey::from_bytes([0; 32]).has_signed(b"", &[0; 64]));
    assert_eq!(format!("{one:?}"), "SecretKey(***)");
}
