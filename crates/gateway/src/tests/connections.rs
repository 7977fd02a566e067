//! Slow, idle, greedy and broken clients are bounded, and nobody else notices.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use serde_json::json;

use super::client::read_reply;
use super::rig::Rig;

pub(super) async fn connect(rig: &Rig) -> TcpStream {
    TcpStream::connect(rig.address).await.expect("the listener is up")
}

/// Waits until so many tasks of the server are waiting for the clock, then moves it.
async fn pass(rig: &Rig, sleepers: usize, time: Duration) {
    while rig.env.sleepers() < sleepers {
        tokio::task::yield_now().await;
    }
    rig.env.advance(time);
}

/// Lets time pass in steps until the server has ended the connection.
pub(super) async fn until_closed(rig: &Rig, stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        tokio::select! {
            biased;
            read = stream.read(&mut piece) => match read {
                Ok(0) | Err(_) => return bytes,
                Ok(n) => bytes.extend_from_slice(&piece[..n]),
            },
            () = pass(rig, 1, Duration::from_secs(1)) => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_is_a_408() {
    let rig = Rig::start().await;
    for half in ["", "GET /health HTTP/1.1\r\nhost: x\r\nx-a: "] {
        let mut stream = connect(&rig).await;
        stream.write_all(half.as_bytes()).await.expect("open");
        let begin = rig.elapsed();
        let said = String::from_utf8(until_closed(&rig, &mut stream).await).expect("text");
        assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
        assert!(said.ends_with("{\"error\":\"the request's head is too slow\"}"), "{said}");
        assert!(rig.elapsed() - begin >= Duration::from_secs(10));
        assert!(rig.elapsed() - begin <= Duration::from_secs(20));
    }
    rig.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_a_while_and_then_closed() {
    let rig = Rig::start().await;
    let mut stream = connect(&rig).await;
    let request = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    for _ in 0..3 {
        stream.write_all(request).await.expect("open");
        let mut head = [0; 15];
        stream.read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        let mut rest = [0; 1000];
        let _ = stream.read(&mut rest).await.expect("the rest");
        // More than a head may take, less than idleness may.
        for _ in 0..4 {
            pass(&rig, 1, Duration::from_secs(10)).await;
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(until_closed(&rig, &mut stream).await, b"");
    rig.stop().await;
}

#[tokio::test]
async fn a_body_that_trickles_is_a_408_and_one_that_flows_is_not() {
    let rig = Rig::start().await;
    let head = "POST /v1/telemetry HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: ";

    let mut slow = connect(&rig).await;
    slow.write_all(format!("{head}100000\r\n\r\n").as_bytes()).await.expect("open");
    slow.write_all(b"{").await.expect("open");
    let said = String::from_utf8(until_closed(&rig, &mut slow).await).expect("text");
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    assert!(said.contains("the body came too slowly"), "{said}");

    // A bit over 1 KiB a second, for a minute and more.
    let mut fast = connect(&rig).await;
    let body = vec![b' '; 70 * 1100];
    fast.write_all(format!("{head}{}\r\n\r\n", body.len()).as_bytes()).await.expect("open");
    for piece in body.chunks(1100) {
        fast.write_all(piece).await.expect("open");
        pass(&rig, 3, Duration::from_secs(1)).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    read_reply(&mut fast, false).await.expect(200);
    rig.stop().await;
}

#[tokio::test]
async fn what_strangers_announce_takes_no_room_from_others() {
    let mut settings = Rig::settings();
    settings.buffer_bytes = 8 << 20;
    let rig = Rig::start_with(settings).await;
    let repo = rig.repo("m", false).await;
    let mut strangers = Vec::new();
    for path in ["/v1/telemetry".to_owned(), format!("/api/models/{repo}/paths-info/main")] {
        for _ in 0..10 {
            let mut stranger = connect(&rig).await;
            let head =
                format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{{");
            stranger.write_all(head.as_bytes()).await.expect("open");
            strangers.push(stranger);
        }
    }
    rig.until_waiting_for_bodies(20).await;
    let mut batch = json!({"operation": "upload", "objects": []}).to_string();
    batch.push_str(&" ".repeat(3_000_000));
    let asked = rig.ask("POST", &format!("/{repo}.git/info/lfs/objects/batch"));
    asked.bearer(&rig.admin).body(batch).send().await.expect(200);
    drop(strangers);
    rig.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_taken_byte_by_byte_is_ended() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let packed = super::upload::pack(&ballast_testkit::content::splitmix(1, 40_000_000));
    rig.publish(&rig.admin, &repo, &packed).await;
    let mut slow = connect(&rig).await;
    let head = format!("GET /{repo}/resolve/main/weights.bin HTTP/1.1\r\nhost: x\r\n\r\n");
    slow.write_all(head.as_bytes()).await.expect("open");
    let mut status = [0; 15];
    slow.read_exact(&mut status).await.expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 200 OK");
    let mut taken = 0;
    let begin = rig.elapsed();
    while rig.gateway.metrics.open_connections.load(std::sync::atomic::Ordering::Relaxed) > 0 {
        let mut piece = [0; 100];
        taken += slow.read(&mut piece).await.unwrap_or(0);
        pass(&rig, 1, Duration::from_secs(5)).await;
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert!(rig.elapsed() - begin < Duration::from_mins(10), "{taken} bytes taken");
    }
    rig.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_taken_slowly_but_steadily_goes_on() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let packed = super::upload::pack(&ballast_testkit::content::splitmix(1, 40_000_000));
    rig.publish(&rig.admin, &repo, &packed).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("a small buffer");
    let mut slow = socket.connect(rig.address).await.expect("the listener is up");
    let head = format!("GET /{repo}/resolve/main/weights.bin HTTP/1.1\r\nhost: x\r\n\r\n");
    slow.write_all(head.as_bytes()).await.expect("open");
    // 4 KiB a second for five minutes: more than what is cut, less than a buffer shows at once.
    for second in 0..300 {
        let read = slow.read_exact(&mut [0; 4096]).await;
        assert!(read.is_ok(), "cut after {second} s");
        pass(&rig, 1, Duration::from_secs(1)).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    let open = &rig.gateway.metrics.open_connections;
    assert_eq!(open.load(std::sync::atomic::Ordering::Relaxed), 1);
    drop(slow);
    rig.stop().await;
}

#[tokio::test]
async fn large_heads_are_refused() {
    let rig = Rig::start().await;
    let long = "x".repeat(9000);
    rig.ask("GET", &format!("/{long}")).send().await.expect(414);

    let mut stream = connect(&rig).await;
    let line = format!("x-a: {}\r\n", "y".repeat(1000));
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", line.repeat(70));
    let _ = stream.write_all(head.as_bytes()).await;
    assert_eq!(read_reply(&mut stream, false).await.status, 431);

    let mut stream = connect(&rig).await;
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x-a: y\r\n".repeat(10_000));
    let _ = stream.write_all(head.as_bytes()).await;
    assert_eq!(read_reply(&mut stream, false).await.status, 431);
    rig.ask("GET", "/health").send().await.expect(200);
    rig.stop().await;
}

#[tokio::test]
async fn malformed_requests_end_their_connection_and_no_other() {
    let rig = Rig::start().await;
    for bad in [
        "\r\n\r\nnonsense\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
        "POST /v1/telemetry HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\na",
        "POST /v1/telemetry HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        "POST /v1/telemetry HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "\u{0}\u{1}\u{2}\r\n\r\n",
    ] {
        let mut stream = connect(&rig).await;
        let _ = stream.write_all(bad.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{bad:?}: {said}");
    }
    rig.ask("GET", "/health").send().await.expect(200);
    rig.stop().await;
}

#[tokio::test]
async fn a_body_cut_short_changes_nothing() {
    let rig = Rig::start().await;
    let mut stream = connect(&rig).await;
    let head = "POST /v1/telemetry HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("open");
    drop(stream);
    let plain = rig.ask("POST", "/v1/telemetry").header("content-encoding", "identity").body("x");
    plain.send().await.expect(200);
    rig.stop().await;
}

#[tokio::test]
async fn connections_have_limits_in_all_and_for_each_address() {
    let mut settings = Rig::settings();
    settings.connections_per_address = 3;
    let rig = Rig::start_with(settings).await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        kept.push(connect(&rig).await);
    }
    let refused = read_reply(&mut connect(&rig).await, false).await.expect(429);
    assert_eq!(refused.error(), "too many connections from your address");
    drop(kept);
    rig.until_free().await;
    rig.ask("GET", "/health").send().await.expect(200);
    rig.stop().await;

    let mut settings = Rig::settings();
    settings.connections = 2;
    let rig = Rig::start_with(settings).await;
    let kept = [connect(&rig).await, connect(&rig).await];
    let refused = read_reply(&mut connect(&rig).await, false).await.expect(503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    drop(kept);
    rig.until_free().await;
    rig.ask("GET", "/health").send().await.expect(200);
    rig.stop().await;
}

#[tokio::test]
async fn stopping_lets_a_request_finish_and_ends_idle_connections() {
    let rig = Rig::start().await;
    let mut idle = connect(&rig).await;
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("open");
    let mut some = [0; 15];
    idle.read_exact(&mut some).await.expect("an answer");
    let mut busy = connect(&rig).await;
    let head = "POST /v1/telemetry HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n{";
    busy.write_all(head.as_bytes()).await.expect("open");
    rig.until_waiting_for_bodies(1).await;

    let address = rig.address;
    #[expect(clippy::disallowed_methods, reason = "a test owns this task and awaits it")]
    let stopped = tokio::spawn(rig.stop());
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.expect("closed in order");
    assert!(TcpStream::connect(address).await.is_err(), "it still accepts");
    assert!(!stopped.is_finished());
    busy.write_all(b"  }").await.expect("still served");
    read_reply(&mut busy, false).await.expect(200);
    stopped.await.expect("stopped");
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let rig = Rig::start().await;
    let mut stuck = connect(&rig).await;
    let head = "POST /v1/telemetry HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n{";
    stuck.write_all(head.as_bytes()).await.expect("open");
    rig.until_waiting_for_bodies(1).await;
    let env = std::sync::Arc::clone(&rig.env);
    #[expect(clippy::disallowed_methods, reason = "a test owns this task and awaits it")]
    let stopped = tokio::spawn(rig.stop());
    while !stopped.is_finished() {
        env.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    stopped.await.expect("stopped");
}
