//! Bodies that come compressed: taken where they are text, bounded, and refused everywhere else.

use std::io::Write as _;

use ballast_testkit::content::splitmix;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::client::Ask;
use super::rig::Rig;
use super::upload::pack;

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).expect("into memory");
    encoder.finish().expect("into memory")
}

fn packed(ask: Ask, content: &[u8]) -> Ask {
    ask.header("content-encoding", "gzip").body(gzip(content))
}

#[tokio::test]
async fn text_may_come_as_gzip_through_every_way_of_reading_it() {
    let rig = Rig::start().await;
    // As JSON.
    let body = json!({"name": "m"}).to_string();
    let create = rig.ask("POST", "/api/repos/create").bearer(&rig.admin);
    packed(create, body.as_bytes()).send().await.expect(200);
    // Line by line, and more of it than what is small.
    let content =
        splitmix(1, 200_000).iter().map(|b| char::from(b'a' + b % 26)).collect::<String>();
    let header = json!({"key": "header", "value": {"summary": "add"}});
    let file = json!({"key": "file", "value": {
        "path": "a.txt", "content": content, "encoding": "utf-8",
    }});
    let lines = format!("{header}\n{file}\n");
    let commit = rig.ask("POST", "/api/models/admin/m/commit/main").bearer(&rig.admin);
    packed(commit, lines.as_bytes()).send().await.expect(200);
    let read = rig.ask("GET", "/admin/m/resolve/main/a.txt").bearer(&rig.admin).send().await;
    assert!(read.expect(200).body == content.as_bytes());
    // As a form.
    let info = rig.ask("POST", "/api/models/admin/m/paths-info/main").bearer(&rig.admin);
    let info = info.header("content-type", "application/x-www-form-urlencoded");
    let found = packed(info, b"paths=a.txt&expand=false").send().await.expect(200).json();
    assert_eq!(found[0]["size"], 200_000);
    // What is not all read, and what is said in capitals.
    let telemetry = rig.ask("POST", "/v1/telemetry").header("content-encoding", "GZIP");
    telemetry.body(gzip(b"{}")).send().await.expect(200);
    rig.stop().await;
}

#[tokio::test]
async fn what_unpacks_to_too_much_or_to_nothing_is_refused() {
    let rig = Rig::start().await;
    let create = || rig.ask("POST", "/api/repos/create").bearer(&rig.admin);
    let bomb = packed(create(), &vec![b' '; 50_000_000]).send().await.expect(413);
    assert!(bomb.error().contains("unpacks"), "{}", bomb.error());
    assert_eq!(bomb.header("connection"), Some("close"));
    // Far from a bomb, and more than this route takes.
    let name =
        splitmix(2, 11_000_000).iter().map(|b| char::from(b'a' + b % 26)).collect::<String>();
    let large = packed(create(), json!({"name": name}).to_string().as_bytes());
    large.send().await.expect(413);
    let garbled = create().header("content-encoding", "gzip").body("{\"name\": \"x\"}");
    garbled.send().await.expect(400);
    let mut cut = gzip(b"{\"name\": \"x\"}");
    cut.truncate(cut.len() - 4);
    create().header("content-encoding", "gzip").body(cut).send().await.expect(400);
    rig.ask("GET", "/api/models/admin/x").bearer(&rig.admin).send().await.expect(404);
    rig.stop().await;
}

#[tokio::test]
async fn other_encodings_and_packed_content_are_refused() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    for encoding in ["br", "zstd", "gzip, gzip", "deflate"] {
        let create = rig.ask("POST", "/api/repos/create").bearer(&rig.admin);
        let refused = create.header("content-encoding", encoding).body("{}").send().await;
        let refused = refused.expect(415);
        assert!(refused.error().contains("`gzip`"), "{}", refused.error());
        assert_eq!(refused.header("accept-encoding"), Some("gzip, identity"));
    }
    // The same header twice is two encodings, one around the other.
    let twice = rig.ask("POST", "/api/repos/create").bearer(&rig.admin);
    let twice = twice.header("content-encoding", "gzip").header("content-encoding", "gzip");
    twice.body(gzip(b"{}")).send().await.expect(415);
    let content = pack(&splitmix(3, 300_000));
    let token = rig.xet_token(&rig.admin, &repo, true);
    let path = format!("/v1/xorbs/default/{}", content.hash());
    let refused = packed(rig.xet("POST", &path, &token), &content.xorb).send().await.expect(415);
    assert_eq!(refused.header("accept-encoding"), Some("identity"));
    rig.stop().await;
}
