//! Which route a path is, and what all answers have in common.

use proptest::prelude::*;
use serde_json::json;

use super::rig::Rig;
use crate::call::{Path, Query, decode};

fn segments(path: &str) -> Vec<String> {
    let path = Path::new(path.parse().expect("an address"));
    path.segments().into_iter().map(str::to_owned).collect()
}

#[test]
fn encoded_slashes_do_not_split() {
    assert_eq!(
        segments("/api/models/a/b/tree/refs%2Fpr%2F1/x%2Fy/z?recursive=true"),
        ["api", "models", "a", "b", "tree", "refs%2Fpr%2F1", "x%2Fy", "z"]
    );
    assert_eq!(decode("refs%2Fpr%2F1").ok().as_deref(), Some("refs/pr/1"));
}

#[test]
fn paths_of_all_shapes_are_cut_into_segments() {
    for (path, expected) in [
        ("/", vec![]),
        ("/health", vec!["health"]),
        ("/health/", vec!["health"]),
        ("/gpt2/resolve/main/a.json", vec!["gpt2", "resolve", "main", "a.json"]),
        ("/datasets/a/b.git/info/lfs", vec!["datasets", "a", "b.git", "info", "lfs"]),
        ("/a//b", vec!["a", "", "b"]),
        ("/a/%20%25", vec!["a", "%20%25"]),
    ] {
        assert_eq!(segments(path), expected, "{path}");
    }
}

#[test]
fn segments_decode_to_text_or_to_nothing() {
    assert_eq!(decode("a%20b+c").ok().as_deref(), Some("a b+c"));
    assert_eq!(decode("%C3%A9").ok().as_deref(), Some("\u{e9}"));
    assert_eq!(decode("100%").ok().as_deref(), Some("100%"));
    assert!(decode("%FF").is_err());
    assert!(decode("a%00b").is_err());
}

#[test]
fn queries_decode_lists_flags_and_spaces() {
    let query = "expand[]=a&expand%5B%5D=b&expand=c&search=two+words&a%26b=%3D&x=1&y=True&z=yes&w";
    let query = Query::parse(query).expect("a good query");
    assert_eq!(query.all("expand").collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(query.first("search"), Some("two words"));
    assert_eq!(query.first("a&b"), Some("="));
    assert_eq!(
        ["x", "y", "z", "w", "v"].map(|name| query.flag(name)),
        [true, true, false, false, false]
    );
    assert_eq!(query.first("w"), Some(""));
    assert!(Query::parse("a=%FF").is_err());
    assert!(Query::parse(&"a&".repeat(6000)).is_err());
}

proptest! {
    #[test]
    fn nothing_in_a_query_or_a_segment_panics(text in ".{0,200}") {
        let _ = Query::parse(&text);
        let _ = decode(&text);
    }
}

#[tokio::test]
async fn what_is_not_a_route_is_a_404_in_json_at_once() {
    let rig = Rig::start().await;
    for path in [
        "/xet",
        "/xet/v3/shards",
        "/xet/v1/nothing",
        "/xet/v1/xorb-commits/default/0/grant/1",
        "/xet/v1/xorbs/other/0",
        "/api/ballast/v1/nothing",
        "/v1/other",
        "/api/jobs/x",
        "/api/ballast/lfs/v2/x",
    ] {
        for method in ["GET", "POST", "DELETE"] {
            let reply = rig.ask(method, path).bearer(&rig.admin).body("{}").send().await;
            assert!(!reply.error().is_empty());
            assert_eq!(reply.status, 404, "{method} {path}");
            assert!(reply.header("x-error-message").is_some());
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_known_route_with_another_method_says_which() {
    let rig = Rig::start().await;
    for (method, path, allowed) in [
        ("PUT", "/health", "GET, HEAD"),
        ("GET", "/xet/v1/shards", "POST"),
        ("PUT", "/xet/v2/reconstructions/0", "GET"),
        ("GET", "/v1/telemetry", "POST"),
        ("GET", "/xet/v1/xorb-grants/default/0", "POST"),
    ] {
        let reply = rig.ask(method, path).send().await.expect(405);
        assert_eq!(reply.header("allow"), Some(allowed), "{method} {path}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn each_answer_carries_an_id() {
    let rig = Rig::start().await;
    let first = rig.ask("GET", "/health").send().await;
    let second = rig.ask("GET", "/nothing").send().await;
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
    let own = rig.ask("GET", "/nothing").header("x-amzn-trace-id", "abc-1").send().await;
    assert_eq!(own.header("x-request-id"), Some("abc-1"));
    let bad = rig.ask("GET", "/nothing").header("x-request-id", "a b\"<c>").send().await;
    assert_ne!(bad.header("x-request-id"), Some("a b\"<c>"));
    rig.stop().await;
}

#[tokio::test]
async fn browsers_may_ask_and_read() {
    let rig = Rig::start().await;
    let asks = rig.ask("OPTIONS", "/api/models/a/b").header("origin", "http://page");
    let asks = asks.header("access-control-request-method", "GET");
    let reply = asks.send().await.expect(204);
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    assert!(reply.header("access-control-allow-headers").is_some_and(|h| h.contains("Range")));
    assert_eq!(reply.header("access-control-allow-credentials"), None);
    let reply = rig.ask("GET", "/nothing").header("origin", "http://page").send().await;
    let exposed = reply.header("access-control-expose-headers");
    assert!(exposed.is_some_and(|h| h.contains("X-Linked-Size") && h.contains("ETag")));
    assert_eq!(rig.ask("GET", "/nothing").send().await.header("access-control-allow-origin"), None);
    rig.stop().await;
}

#[tokio::test]
async fn credentials_come_in_one_header_in_two_forms() {
    use base64::Engine as _;
    let rig = Rig::start().await;
    let users = "/api/ballast/v1/users";
    let basic = |pair: &str| {
        let pair = base64::engine::general_purpose::STANDARD.encode(pair);
        format!("Basic {pair}")
    };
    let ask = || rig.ask("GET", users);
    ask().bearer(&rig.admin).send().await.expect(200);
    ask().header("authorization", &basic(&format!("any:{}", rig.admin))).send().await.expect(200);
    ask().header("authorization", &format!("bearer  {}", rig.admin)).send().await.expect(200);
    ask().send().await.expect(401);
    for bad in ["Bearer", "Bearer x", "Basic !!!", &basic("nothing"), "Digest x", "", &rig.admin] {
        let reply = ask().header("authorization", bad).send().await.expect(401);
        assert_eq!(reply.error(), "Invalid credentials in Authorization header", "{bad}");
    }
    let twice = ask().bearer(&rig.admin).bearer(&rig.admin).send().await;
    twice.expect(400);
    let in_query = format!("{users}?token={0}&access_token={0}", rig.admin);
    rig.ask("GET", &in_query).send().await.expect(401);
    rig.stop().await;
}

#[tokio::test]
async fn guessing_is_slowed_for_the_one_who_guesses() {
    let rig = Rig::start().await;
    let users = "/api/ballast/v1/users";
    for _ in 0..20 {
        rig.ask("GET", users).bearer("hf_wrong").send().await.expect(401);
    }
    let reply = rig.ask("GET", users).bearer("hf_wrong").send().await.expect(429);
    let wait = reply.header("retry-after").expect("how long");
    assert_eq!(reply.header("ratelimit"), Some(&*format!("\"api\";r=0;t={wait}")));
    // A good token is not looked at either; what needs none goes on.
    rig.ask("GET", users).bearer(&rig.admin).send().await.expect(429);
    rig.ask("GET", "/health").send().await.expect(200);
    rig.env.advance(std::time::Duration::from_secs(61));
    rig.ask("GET", users).bearer(&rig.admin).send().await.expect(200);
    rig.stop().await;
}

#[tokio::test]
async fn forwarded_addresses_are_believed_only_from_a_trusted_proxy() {
    let plain = Rig::start().await;
    let ask = |rig: &Rig, path: &str| {
        rig.ask("POST", path)
            .bearer(&rig.admin)
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "models.example.com")
            .json(&json!({"operation": "upload", "transfers": ["basic"],
                "objects": [{"oid": "11".repeat(32), "size": 5}]}))
    };
    let path = format!("/{}.git/info/lfs/objects/batch", plain.repo("m", false).await);
    let href = |reply: super::client::Reply| {
        let value = reply.expect(200).json();
        value["objects"][0]["actions"]["upload"]["href"].as_str().expect("href").to_owned()
    };
    assert!(href(ask(&plain, &path).send().await).starts_with("http://hub.test/"));
    plain.stop().await;

    let mut settings = Rig::settings();
    settings.trust_forwarded = true;
    let behind = Rig::start_with(settings).await;
    let path = format!("/{}.git/info/lfs/objects/batch", behind.repo("m", false).await);
    assert!(href(ask(&behind, &path).send().await).starts_with("https://models.example.com/"));
    behind.stop().await;

    let mut settings = Rig::settings();
    settings.public_url = Some("https://hub.example.com/".to_owned());
    let named = Rig::start_with(settings).await;
    let path = format!("/{}.git/info/lfs/objects/batch", named.repo("m", false).await);
    assert!(href(ask(&named, &path).send().await).starts_with("https://hub.example.com/api/"));
    named.stop().await;
}
