//! How much one address or one token may ask for, and what it hears beyond that.

use std::sync::Arc;
use std::time::Duration;

use rcgen::generate_simple_self_signed;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::client::{Ask, Reply, read_reply};
use super::connections::{connect, until_closed};
use super::rig::Rig;
use crate::tls::Tls;

/// A gateway that is told by a proxy who calls, with these limits.
async fn behind_a_proxy(per_second: u32, at_once: u32) -> Rig {
    let mut settings = Rig::settings();
    settings.trust_forwarded = true;
    settings.requests_per_second = per_second;
    settings.requests_at_once = at_once;
    Rig::start_with(settings).await
}

fn from(ask: Ask, address: &str) -> Ask {
    ask.header("x-forwarded-for", address)
}

#[track_caller]
fn assert_waits(reply: &Reply) -> u64 {
    assert_eq!(reply.status, 429, "{}", reply.error());
    let wait: u64 = reply.header("retry-after").expect("how long").parse().expect("seconds");
    assert_eq!(reply.header("ratelimit"), Some(&*format!("\"api\";r=0;t={wait}")));
    assert!(reply.error().contains("wait"), "{}", reply.error());
    wait
}

#[tokio::test]
async fn an_address_that_asks_too_often_hears_how_long_to_wait() {
    let rig = behind_a_proxy(2, 100).await;
    let ask = |address: &str| from(rig.ask("GET", "/api/models"), address).send();
    for _ in 0..21 {
        ask("192.0.2.1").await.expect(200);
    }
    let wait = assert_waits(&ask("192.0.2.1").await);
    // Others, and who watches the hub, notice nothing.
    ask("192.0.2.2").await.expect(200);
    from(rig.ask("GET", "/health"), "192.0.2.1").send().await.expect(200);
    from(rig.ask("GET", "/metrics"), "192.0.2.1").send().await.expect(200);
    // One owner of IPv6 addresses has a whole network of them.
    for host in 0..21 {
        ask(&format!("2001:db8::{host:x}")).await.expect(200);
    }
    assert_waits(&ask("2001:db8::ffff").await);
    rig.env.advance(Duration::from_secs(wait));
    ask("192.0.2.1").await.expect(200);
    rig.stop().await;
}

#[tokio::test]
async fn a_token_is_counted_wherever_it_comes_from_and_by_whatever_it_opens() {
    let rig = behind_a_proxy(2, 100).await;
    let repo = rig.repo("m", false).await;
    let other = rig.user("ada").await;
    let xet = rig.xet_token(&rig.admin, &repo, false);
    let mut asked = 0_u8;
    // From another address each time.
    let mut ask = |token: &str, path: &str| {
        asked += 1;
        from(rig.ask("GET", path).bearer(token), &format!("192.0.2.{asked}")).send()
    };
    let chunk = format!("/xet/v1/chunks/default/{}", "0".repeat(64));
    // Making the other user was one.
    let mut reply = ask(&rig.admin, "/api/whoami-v2").await;
    for _ in 0..30 {
        if reply.status == 429 {
            break;
        }
        reply = ask(&rig.admin, "/api/whoami-v2").await;
    }
    assert_waits(&reply);
    // What was made with it counts for it.
    assert_waits(&ask(&xet, &chunk).await);
    ask(&other, "/api/whoami-v2").await.expect(200);
    rig.stop().await;
}

#[tokio::test]
async fn requests_at_once_have_a_limit_and_end_with_their_answers() {
    let rig = behind_a_proxy(0, 2).await;
    let repo = rig.repo("m", false).await;
    let packed = super::upload::pack(&ballast_testkit::content::splitmix(1, 20_000_000));
    rig.publish(&rig.admin, &repo, &packed).await;
    let open = async |head: &str| {
        let mut stream = connect(&rig).await;
        let head = format!("{head}host: x\r\nconnection: close\r\nx-forwarded-for: 192.0.2.1\r\n");
        stream.write_all(format!("{head}\r\n").as_bytes()).await.expect("open");
        stream
    };
    // One whose body does not come, one whose answer is not taken.
    let mut sends = open("POST /v1/telemetry HTTP/1.1\r\ncontent-length: 2\r\n").await;
    rig.until_waiting_for_bodies(1).await;
    let mut reads = open(&format!("GET /{repo}/resolve/main/weights.bin HTTP/1.1\r\n")).await;
    reads.read_exact(&mut [0; 15]).await.expect("an answer");

    let ask = |address: &str| from(rig.ask("GET", "/api/models"), address).send();
    assert_eq!(assert_waits(&ask("192.0.2.1").await), 1);
    ask("192.0.2.2").await.expect(200);

    sends.write_all(b"{}").await.expect("open");
    read_reply(&mut sends, false).await.expect(200);
    ask("192.0.2.1").await.expect(200);
    sends = open("POST /v1/telemetry HTTP/1.1\r\ncontent-length: 2\r\n").await;
    rig.until_waiting_for_bodies(1).await;
    assert_waits(&ask("192.0.2.1").await);
    // Who goes away is not in flight.
    drop((sends, reads));
    rig.until_free().await;
    ask("192.0.2.1").await.expect(200);
    rig.stop().await;
}

#[tokio::test]
async fn uploads_and_downloads_at_once_have_limits_of_their_own() {
    let mut settings = Rig::settings();
    settings.trust_forwarded = true;
    (settings.uploads_at_once, settings.downloads_at_once) = (1, 1);
    let rig = Rig::start_with(settings).await;
    let repo = rig.repo("m", false).await;
    let packed = super::upload::pack(&ballast_testkit::content::splitmix(1, 20_000_000));
    rig.publish(&rig.admin, &repo, &packed).await;
    let open = async |head: &str, address: &str| {
        let mut stream = connect(&rig).await;
        let (head, token) = (format!("{head}host: x\r\nconnection: close\r\n"), &rig.admin);
        let who = format!("x-forwarded-for: {address}\r\nauthorization: Bearer {token}\r\n\r\n");
        stream.write_all(format!("{head}{who}").as_bytes()).await.expect("open");
        stream
    };
    let commit = format!("POST /api/models/{repo}/commit/main HTTP/1.1\r\ncontent-length: 99\r\n");
    let mut sends = open(&commit, "192.0.2.1").await;
    rig.until_waiting_for_bodies(1).await;
    let file = format!("/{repo}/resolve/main/weights.bin");
    let mut reads = open(&format!("GET {file} HTTP/1.1\r\n"), "192.0.2.1").await;
    reads.read_exact(&mut [0; 15]).await.expect("an answer");

    // The token has one of each wherever it comes from, the address whatever its token.
    let other = rig.user("other").await;
    let get =
        |token: &str, address: &str| from(rig.ask("GET", &file).bearer(token), address).send();
    let waits = get(&rig.admin, "192.0.2.2").await;
    assert_waits(&waits);
    assert!(waits.error().contains("downloads"), "{}", waits.error());
    assert_waits(&get(&other, "192.0.2.1").await);
    let refused = from(rig.ask("POST", &format!("/api/models/{repo}/commit/main")), "192.0.2.2");
    let refused = refused.bearer(&rig.admin).body("x").send().await;
    assert_waits(&refused);
    assert!(refused.error().contains("uploads"), "{}", refused.error());
    // All else goes on, and what is only looked at.
    from(rig.ask("GET", "/api/models").bearer(&rig.admin), "192.0.2.1").send().await.expect(200);
    from(rig.ask("HEAD", &file).bearer(&rig.admin), "192.0.2.1").send().await.expect(200);
    get(&other, "192.0.2.2").await.expect(200);

    sends.shutdown().await.expect("open");
    drop((sends, reads));
    rig.until_free().await;
    get(&rig.admin, "192.0.2.1").await.expect(200);
    rig.stop().await;
}

#[tokio::test]
async fn a_trusted_proxy_may_have_all_connections() {
    let mut settings = Rig::settings();
    settings.trust_forwarded = true;
    settings.connections_per_address = 1;
    let rig = Rig::start_with(settings).await;
    let kept = [connect(&rig).await, connect(&rig).await];
    rig.ask("GET", "/health").send().await.expect(200);
    drop(kept);
    rig.stop().await;
}

#[tokio::test]
async fn handshakes_are_bounded_in_time_and_number() {
    let made = generate_simple_self_signed(vec!["hub.test".to_owned()]).expect("a certificate");
    let tls = Tls::new(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes());
    let mut settings = Rig::settings();
    settings.tls = Some(Arc::new(tls.expect("usable")));
    settings.connections = 8;
    let rig = Rig::start_with(settings).await;
    let begin = rig.elapsed();
    // A quarter of the connections may be at it.
    let mut silent = [connect(&rig).await, connect(&rig).await];
    let closed = async |stream: &mut TcpStream| stream.read(&mut [0; 100]).await.unwrap_or(0) == 0;
    assert!(closed(&mut connect(&rig).await).await, "a third handshake");
    for stream in &mut silent {
        assert!(until_closed(&rig, stream).await.is_empty(), "it said something");
    }
    let took = rig.elapsed() - begin;
    assert!((10..=30).contains(&took.as_secs()), "{took:?}");
    // What is no handshake ends at once.
    let mut plain = connect(&rig).await;
    plain.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("open");
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said).await;
    assert!(!String::from_utf8_lossy(&said).contains("HTTP"), "{said:?}");
    rig.until_free().await;
    rig.stop().await;
}
