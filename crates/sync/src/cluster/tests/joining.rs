//! Nodes that come to a hub's door, over the network.

use std::os::unix::fs::PermissionsExt;

use async_trait::async_trait;
use ballast_proto::v1::nodes_client::NodesClient;
use ballast_proto::v1::{BeatRequest, HelloRequest};
use ballast_store::env::RealEnv;
use tempfile::tempdir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;

use super::super::client::stranger_channel;
use super::super::door::DoorLimits;
use super::super::rig::Served;
use super::*;

fn is_refused<T: fmt::Debug>(done: Result<T>, reason: &str) {
    let error = done.expect_err("it must be refused").to_string();
    assert!(error.contains(reason), "{error}");
}

#[tokio::test]
async fn a_node_joins_with_one_word_and_is_known_from_then_on() {
    let (env, folder) = (RealEnv::shared(), tempdir().expect("a folder"));
    let served = Served::start(&env).await;
    let token = served.token("gpu-1").await.to_text();
    let member = join(None, &token, folder.path(), &env).await.expect("it joins");
    assert_eq!(member.identity().name().to_string(), "gpu-1");
    let hello = member.hello().await.expect("it is heard");
    assert_eq!(hello.cluster, member.identity().cluster().as_str());
    assert_eq!(hello.name, "hub");
    assert_eq!(member.identity().permits(), served.registry.identity().permits());
    served.hub.authenticate(&member.token()).expect("it may read");
    let mut calls = NodesClient::new(member.channel().expect("a channel"));
    let again = member.beat(&mut calls, "10.0.0.7:8081").await.expect("it is heard");
    assert!(again > Duration::ZERO);
    let seen = served.registry.seen(&member.identity().key().public()).expect("seen");
    assert_eq!(seen.address, "10.0.0.7:8081");
    member.beat(&mut calls, "0.0.0.0:8082").await.expect("it is heard");
    let seen = served.registry.seen(&member.identity().key().public()).expect("seen");
    assert_eq!(seen.address, "127.0.0.1:8082", "as the hub sees it");
    let sighting = member.sighting().expect("it was connected");
    assert_eq!(sighting.address.to_string(), served.address);
    assert_eq!(sighting.hub.to_string(), "hub/hub");
    assert!(!sighting.round_trip.is_zero());

    let mode = member_file(folder.path()).metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!folder.path().join("cluster/joining").exists());
    let opened = open(folder.path(), &env).await.expect("sound").expect("it has joined");
    assert_eq!(opened.identity().key().public(), member.identity().key().public());
    let again = join(None, &token, folder.path(), &env).await.expect("it is in already");
    assert_eq!(again.identity().issued(), member.identity().issued());
    served.hub.close().await.expect("closed");
}

#[tokio::test]
async fn a_replayed_token_is_refused_and_who_was_cut_off_may_ask_again() {
    let env = RealEnv::shared();
    let [first, other] = [(); 2].map(|()| tempdir().expect("a folder"));
    let served = Served::start(&env).await;
    let token = served.token("gpu-1").await.to_text();
    let member = join(None, &token, first.path(), &env).await.expect("it joins");
    is_refused(join(None, &token, other.path(), &env).await, "was used");
    // The answer was lost: all that is left is the key with which it asked.
    let key = member.identity().key().clone();
    let joined_by = blake3::hash(token.as_bytes());
    let joining = [key.to_bytes().as_slice(), joined_by.as_bytes()].concat();
    std::fs::remove_file(member_file(first.path())).expect("lost");
    let left = first.path().join("cluster/joining");
    std::fs::write(&left, joining).expect("written");
    std::fs::set_permissions(&left, PermissionsExt::from_mode(0o600)).expect("its owner's");
    let again = join(None, &token, first.path(), &env).await.expect("it joins");
    assert_eq!(again.identity().key().public(), key.public());
    assert!(served.hub.authenticate(&member.token()).is_err(), "that answer was lost");
    served.hub.authenticate(&again.token()).expect("this one is good");
}

#[tokio::test]
async fn who_guesses_tokens_waits_and_the_right_one_is_not_looked_at_meanwhile() {
    let (clock, env) = env();
    let served = Served::start(&env).await;
    let token = served.token("gpu-1").await;
    let key = SecretKey::draw(env.as_ref());
    let join = |secret: [u8; 32]| {
        let signature = key.sign(&join_message(served.registry.authority().cluster(), &secret));
        let channel = stranger_channel(token.authority, &served.address, &env).expect("a channel");
        let request = ballast_proto::v1::JoinRequest {
            secret: secret.to_vec().into(),
            key: key.public().as_bytes().to_vec().into(),
            signature: signature.to_vec().into(),
        };
        async move { NodesClient::new(channel).join(request).await.map_err(|status| status.code()) }
    };
    for guess in 0..20 {
        assert_eq!(join([guess; 32]).await.err(), Some(Code::PermissionDenied));
    }
    assert_eq!(join(token.secret).await.err(), Some(Code::ResourceExhausted));
    clock.advance(Duration::from_mins(1));
    join(token.secret).await.expect("it is good still");
}

#[tokio::test]
async fn no_secret_is_sent_to_who_is_not_the_hub_of_the_token() {
    let (env, folder) = (RealEnv::shared(), tempdir().expect("a folder"));
    let (served, other) = tokio::join!(Served::start(&env), Served::start(&env));
    let token = served.token("gpu-1").await;
    let elsewhere = join(Some(&other.address), &token.to_text(), folder.path(), &env).await;
    is_refused(elsewhere, "is not a hub of this cluster");
    let wrong = JoinToken { authority: PeerKey::from_bytes([9; 32]), ..token.clone() };
    is_refused(join(None, &wrong.to_text(), folder.path(), &env).await, "is not a hub");
    let member = join(None, &token.to_text(), folder.path(), &env).await;
    member.expect("the token is still good");
    is_refused(join(None, "hf_word", folder.path(), &env).await, "no join token");
    let token = served.token("gpu-2").await.to_text();
    is_refused(join(Some("http://hub"), &token, folder.path(), &env).await, "is no address");
}

#[tokio::test]
async fn a_revoked_node_is_out_at_once_and_the_others_hear_of_it() {
    let env = RealEnv::shared();
    let [one, other] = [(); 2].map(|()| tempdir().expect("a folder"));
    let served = Served::start(&env).await;
    let stolen = served.member("gpu-1", one.path()).await;
    let member = served.member("gpu-2", other.path()).await;
    let mut held = NodesClient::new(stolen.channel().expect("a channel"));
    stolen.beat(&mut held, "").await.expect("it is heard");
    served.revoke("gpu-1").await;
    is_refused(stolen.beat(&mut held, "").await, "");
    is_refused(stolen.hello().await, "does not accept our certificate");
    is_refused(stolen.renew().await, "no node of this hub has this key");
    assert!(served.hub.authenticate(&stolen.token()).is_err());
    assert_eq!(served.registry.seen(&stolen.identity().key().public()), None);
    let key = stolen.identity().key().public();
    assert!(!member.identity().revocations().has(&key));
    let mut calls = NodesClient::new(member.channel().expect("a channel"));
    member.beat(&mut calls, "").await.expect("it is heard");
    assert!(member.identity().revocations().has(&key));
    is_certificate_error(meet(stolen.identity(), member.identity()), "Revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_refused_hears_why_every_time() {
    let (env, folder) = (RealEnv::shared(), tempdir().expect("a folder"));
    let served = Served::start(&env).await;
    let stolen = served.member("gpu-1", folder.path()).await;
    served.revoke("gpu-1").await;
    for _ in 0..300 {
        is_refused(stolen.hello().await, "does not accept our certificate");
    }
    // By the carrier, too, which says more than it is asked for at once.
    for _ in 0..300 {
        let config = stolen.identity().client_config(CARRIER_PROTOCOL).expect("a client");
        let mut stream = connect(config, &served.address).await.expect("our side is done");
        let said = async {
            stream.write_all(&[7; 16 * 1024]).await?;
            stream.flush().await?;
            stream.read_u8().await
        };
        let error = said.await.expect_err("nothing comes").to_string();
        assert!(error.contains("CertificateRevoked"), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_even_if_it_has_ended_and_is_kept() {
    let (env, folder) = (RealEnv::shared(), tempdir().expect("a folder"));
    let served = Served::start(&env).await;
    let member = served.member("gpu-1", folder.path()).await;
    // As it is after some days in which the host was off.
    let (name, key) = (member.identity().name(), member.identity().key().public());
    let old = served.registry.authority().issue(name, &key, 1_700_000_000_000).expect("issued");
    member.identity().renew(old).expect("ours");
    assert!(member.identity().has_ended() && member.identity().renew_in().is_zero());
    is_refused(member.hello().await, "does not accept our certificate");
    member.renew().await.expect("the key is known");
    member.hello().await.expect("it is heard");
    let opened = open(folder.path(), &env).await.expect("sound").expect("it has joined");
    assert_eq!(opened.identity().issued(), member.identity().issued());
}

#[tokio::test]
async fn a_host_that_was_off_for_days_is_known_again_as_soon_as_it_asks_for_its_hub() {
    let ((clock, env), folder) = (env(), tempdir().expect("a folder"));
    let served = Served::start(&env).await;
    drop(served.member("gpu-1", folder.path()).await);
    clock.advance(CERTIFICATE_LIFE * 3);
    // The hub was on all the time.
    while served.registry.identity().has_ended() {
        tokio::task::yield_now().await;
    }
    let member = open(folder.path(), &env).await.expect("sound").expect("it has joined");
    assert!(member.identity().has_ended());
    let [address] = look_up(&member.hub_address()).await.expect("an address")[..] else {
        panic!("it is one");
    };
    let (one, other) = tokio::join!(member.hub_at(address), member.hub_at(address));
    let called = [one, other].map(|name| name.expect("it is heard").to_string());
    assert_eq!(called, ["hub/hub", "hub/hub"]);
    assert!(!member.identity().has_ended());
    let opened = open(folder.path(), &env).await.expect("sound").expect("it has joined");
    assert_eq!(opened.identity().issued(), member.identity().issued(), "and that is kept");
    served.revoke("gpu-1").await;
    clock.advance(CERTIFICATE_LIFE * 2);
    while served.registry.identity().has_ended() {
        tokio::task::yield_now().await;
    }
    is_refused(member.hub_at(address).await, "no node of this hub has this key");
}

#[tokio::test]
async fn a_member_stays_known_by_itself() {
    let (env, folder) = (RealEnv::shared(), tempdir().expect("a folder"));
    let served = Served::start(&env).await;
    let member = served.member("gpu-1", folder.path()).await;
    let (name, key) = (member.identity().name(), member.identity().key().public());
    let old = served.registry.authority().issue(name, &key, 1_700_000_000_000).expect("issued");
    member.identity().renew(old).expect("ours");
    member.stay(served.hub.runner(), "10.0.0.8:1".to_owned()).expect("it stays");
    let is_seen = || served.registry.seen(&key).is_some_and(|seen| seen.address == "10.0.0.8:1");
    while !is_seen() {
        tokio::task::yield_now().await;
    }
    assert!(!member.identity().has_ended());
    served.hub.close().await.expect("it ends when asked");
}

#[tokio::test]
async fn strangers_may_join_and_do_nothing_else() {
    let env = RealEnv::shared();
    let served = Served::start(&env).await;
    let authority = served.registry.authority().key();
    let channel = || stranger_channel(authority, &served.address, &env).expect("a channel");
    let hello = NodesClient::new(channel()).hello(HelloRequest {}).await.expect("it answers");
    assert_eq!(hello.into_inner().cluster, served.registry.authority().cluster().as_str());
    let beat = NodesClient::new(channel()).beat(BeatRequest::default()).await;
    assert_eq!(beat.expect_err("nobody").code(), Code::Unauthenticated);
    let join = NodesClient::new(channel()).join(ballast_proto::v1::JoinRequest::default()).await;
    assert_eq!(join.expect_err("nothing").code(), Code::InvalidArgument);
}

/// Says to each peer what it is called.
struct Greeter;

#[async_trait]
impl TakeStreams for Greeter {
    async fn serve(&self, mut stream: CarrierStream, peer: PeerName) {
        let greeted = stream.write_all(peer.to_string().as_bytes()).await;
        greeted.expect("somebody listens");
        // Kept until the other side is gone, or not welcome any more.
        let _ = stream.read(&mut [0; 1]).await;
    }
}

async fn connect(
    config: Arc<ClientConfig>,
    address: &str,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from(SERVER_NAME).expect("a name");
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(config).connect(name, stream).await
}

#[tokio::test]
async fn the_carriers_streams_come_with_the_name_of_their_peer_and_end_with_it() {
    let (env, folder) = (RealEnv::shared(), tempdir().expect("a folder"));
    let served = Served::with(&env, Some(Arc::new(Greeter)), DoorLimits::default()).await;
    let member = served.member("gpu-1", folder.path()).await;
    let config = member.identity().client_config(CARRIER_PROTOCOL).expect("a client");
    let mut stream = connect(config, &served.address).await.expect("it connects");
    let mut name = [0; 5];
    stream.read_exact(&mut name).await.expect("a greeting");
    assert_eq!(&name, b"gpu-1");
    served.revoke("gpu-1").await;
    assert!(!matches!(stream.read(&mut name).await, Ok(1..)), "it ends");

    let authority = served.registry.authority().key();
    let config = stranger_config(authority, CARRIER_PROTOCOL, &env).expect("a client");
    let mut stream = connect(config, &served.address).await.expect("the handshake is done");
    assert!(!matches!(stream.read(&mut name).await, Ok(1..)), "no chunks for strangers");
}

#[tokio::test]
async fn a_door_has_limits() {
    let env = RealEnv::shared();
    let limits = DoorLimits {
        connections: 2,
        handshake_time: Duration::from_millis(20),
        stranger_time: Duration::from_millis(20),
        ..DoorLimits::default()
    };
    let served = Served::with(&env, None, limits).await;
    // Who says nothing is not waited for.
    let mut silent = TcpStream::connect(&served.address).await.expect("it connects");
    assert_eq!(silent.read(&mut [0; 1]).await.expect("the end"), 0);
    // Who has no certificate does not stay.
    let authority = served.registry.authority().key();
    let config = stranger_config(authority, CONTROL_PROTOCOL, &env).expect("a client");
    let mut stranger = connect(Arc::clone(&config), &served.address).await.expect("it connects");
    let mut answer = Vec::new();
    let _ = stranger.read_to_end(&mut answer).await;
    // Both have given their seats back.
    connect(config, &served.address).await.expect("there is room");
}

#[tokio::test]
async fn who_finds_no_seat_is_not_answered() {
    let env = RealEnv::shared();
    let limits = DoorLimits { connections: 1, ..DoorLimits::default() };
    let served = Served::with(&env, None, limits).await;
    let authority = served.registry.authority().key();
    let config = stranger_config(authority, CONTROL_PROTOCOL, &env).expect("a client");
    let held = connect(Arc::clone(&config), &served.address).await.expect("it connects");
    assert!(connect(Arc::clone(&config), &served.address).await.is_err());
    drop(held);
    while connect(Arc::clone(&config), &served.address).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn files_that_others_may_read_or_that_are_damaged_are_not_used() {
    let (env, folder) = (RealEnv::shared(), tempdir().expect("a folder"));
    let served = Served::start(&env).await;
    assert!(open(folder.path(), &env).await.expect("nothing").is_none());
    served.member("gpu-1", folder.path()).await;
    let file = member_file(folder.path());
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).expect("opened");
    is_refused(open(folder.path(), &env).await, "hint: chmod 600");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("closed");
    let mut bytes = std::fs::read(&file).expect("it is there");
    bytes[40] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    is_refused(open(folder.path(), &env).await, "join again with a new token");
}
