//! Xet as clients speak it: up by xorbs and a shard, down by reconstructions and ranges.

use ballast_format::xorb::ChunkDecoder;
use ballast_testkit::content::{bf16_weights, repetitive, splitmix};
use serde_json::{Value, json};

use super::rig::Rig;
use super::upload::{Packed, ShardFile, pack, shard};

/// Fetches what a version 2 document names and puts the file together.
async fn assemble(rig: &Rig, document: &Value, packed: &Packed) -> Vec<u8> {
    let mut content = Vec::new();
    for term in document["terms"].as_array().expect("terms") {
        assert_eq!(term["hash"], packed.hash().to_string());
        let chunks = number(&term["range"]["start"])..number(&term["range"]["end"]);
        let links = document["xorbs"][term["hash"].as_str().expect("a hash")].as_array();
        let mut found = None;
        for link in links.expect("links") {
            for range in link["ranges"].as_array().expect("ranges") {
                let has = number(&range["chunks"]["start"])..number(&range["chunks"]["end"]);
                if has.start <= chunks.start && chunks.end <= has.end {
                    found = Some((link["url"].as_str().expect("a link"), range, has));
                }
            }
        }
        let (url, range, has) = found.expect("a range with the term's chunks");
        let bytes = format!("bytes={}-{}", range["bytes"]["start"], range["bytes"]["end"]);
        let reply = rig.ask("GET", Rig::local(url)).range(&bytes).send().await.expect(206);
        let mut decoded = Vec::new();
        let mut decoder = ChunkDecoder::new();
        let all = decoder.decode_chunks(&reply.body, &packed.footer, has.clone(), true, |chunk| {
            decoded.push(chunk.to_vec());
            Ok(())
        });
        all.expect("whole chunks");
        let skip = usize::try_from(chunks.start - has.start).expect("small");
        let count = usize::try_from(chunks.end - chunks.start).expect("small");
        let term_bytes = decoded[skip..skip + count].concat();
        assert_eq!(term["unpacked_length"], term_bytes.len());
        content.extend_from_slice(&term_bytes);
    }
    let offset = usize::try_from(number(&document["offset_into_first_range"])).expect("small");
    content.split_off(offset)
}

fn number(value: &Value) -> u32 {
    value.as_u64().and_then(|number| u32::try_from(number).ok()).expect("a number")
}

#[tokio::test]
async fn a_file_goes_up_and_comes_down() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    for content in [splitmix(42, 500_000), bf16_weights(1, 700_000), b"hello world".to_vec()] {
        let packed = pack(&content);
        rig.publish(&rig.admin, &repo, &packed).await;
        let token = rig.xet_token(&rig.admin, &repo, false);
        let document = rig.reconstruction(&token, &packed).await.expect(200);
        assert_eq!(document.header("content-type"), Some("application/json"));
        assert_eq!(assemble(&rig, &document.json(), &packed).await, content);
    }
    rig.stop().await;
}

#[tokio::test]
async fn ranges_of_a_file_reconstruct() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let packed = pack(&splitmix(42, 500_000));
    rig.publish(&rig.admin, &repo, &packed).await;
    let token = rig.xet_token(&rig.admin, &repo, false);
    let path = format!("/v2/reconstructions/{}", packed.file);
    for (range, bytes) in [
        ("bytes=0-499999", 0..500_000),
        ("bytes=0-18446744073709551614", 0..500_000),
        ("bytes=56712-56712", 56_712..56_713),
        ("bytes=100000-300000", 100_000..300_001),
        ("bytes=499999-600000", 499_999..500_000),
    ] {
        let document = rig.xet("GET", &path, &token).range(range).send().await.expect(200).json();
        let content = assemble(&rig, &document, &packed).await;
        // The client drops what it did not ask for at the end.
        let wanted = &packed.content[bytes];
        assert_eq!(&content[..wanted.len()], wanted, "{range}");
    }
    for range in ["bytes=500000-", "bytes=500000-600000", "bytes=700000-700001"] {
        let reply = rig.xet("GET", &path, &token).range(range).send().await.expect(416);
        assert_eq!(reply.header("content-range"), Some("bytes */500000"), "{range}");
    }
    rig.xet("GET", &path, &token).range("bytes=x").send().await.expect(400);
    rig.stop().await;
}

#[tokio::test]
async fn version_1_and_batches_say_the_same() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let (one, two) = (pack(&splitmix(1, 200_000)), pack(&splitmix(2, 300_000)));
    rig.upload(&rig.admin, &repo, &one).await;
    rig.upload(&rig.admin, &repo, &two).await;
    rig.commit(&rig.admin, &repo, "one", one.sha256).await;
    rig.commit(&rig.admin, &repo, "two", two.sha256).await;
    let token = rig.xet_token(&rig.admin, &repo, false);

    let v2 = rig.reconstruction(&token, &one).await.expect(200).json();
    let path = format!("/v1/reconstructions/{}", one.file);
    let v1 = rig.xet("GET", &path, &token).send().await.expect(200).json();
    assert_eq!(v1["terms"], v2["terms"]);
    let info = &v1["fetch_info"][one.hash().to_string()][0];
    let range = &v2["xorbs"][one.hash().to_string()][0]["ranges"][0];
    assert_eq!((&info["range"], &info["url_range"]), (&range["chunks"], &range["bytes"]));
    let bytes = format!("bytes=0-{}", info["url_range"]["end"]);
    let url = info["url"].as_str().expect("a link");
    let reply = rig.ask("GET", Rig::local(url)).range(&bytes).send().await.expect(206);
    assert_eq!(reply.body.len(), one.xorb.len());

    let unknown = pack(b"nobody has this").file;
    let query = format!("file_id={}&file_id={}&file_id={unknown}", one.file, two.file);
    let batch = rig.xet("GET", &format!("/v1/reconstructions?{query}"), &token);
    let batch = batch.send().await.expect(200).json();
    assert_eq!(batch["files"].as_object().map(serde_json::Map::len), Some(2));
    assert_eq!(batch["files"][one.file.to_string()], v1["terms"]);
    assert_eq!(batch["fetch_info"].as_object().map(serde_json::Map::len), Some(2));
    rig.xet("GET", "/v1/reconstructions", &token).send().await.expect(400);
    rig.xet("GET", "/v1/reconstructions?file_id=xyz", &token).send().await.expect(400);
    let many = format!("/v1/reconstructions?{}", format!("file_id={unknown}&").repeat(101));
    rig.xet("GET", &many, &token).send().await.expect(400);
    rig.stop().await;
}

#[tokio::test]
async fn several_ranges_come_as_parts() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let packed = pack(&splitmix(42, 500_000));
    rig.publish(&rig.admin, &repo, &packed).await;
    let token = rig.xet_token(&rig.admin, &repo, false);
    let document = rig.reconstruction(&token, &packed).await.expect(200).json();
    let url = document["xorbs"][packed.hash().to_string()][0]["url"].as_str().expect("a link");
    let ask = rig.ask("GET", Rig::local(url)).range("bytes=10-19,100000-299999,7-7");
    let reply = ask.send().await.expect(206);
    let media_type = reply.header("content-type").expect("a type");
    let boundary = media_type.strip_prefix("multipart/byteranges; boundary=").expect("parts");
    let mut expected = Vec::new();
    for range in [10..20, 100_000..300_000, 7..8] {
        expected.extend_from_slice(
            format!(
                "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\
                 Content-Range: bytes {}-{}/*\r\n\r\n",
                range.start,
                range.end - 1
            )
            .as_bytes(),
        );
        expected.extend_from_slice(&packed.xorb[range]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(reply.body == expected);
    let head = rig.ask("HEAD", Rig::local(url)).range("bytes=10-19").send().await.expect(206);
    assert_eq!(head.header("content-length"), Some("10"));
    rig.stop().await;
}

#[tokio::test]
async fn both_versions_of_shards_register_and_say_so() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let packed = pack(&repetitive(3, 300_000));
    let token = rig.xet_token(&rig.admin, &repo, true);
    let xorb = format!("/v1/xorbs/default/{}", packed.hash());
    let first = rig.xet("POST", &xorb, &token).body(packed.xorb.clone()).send().await.expect(200);
    assert_eq!(first.json(), json!({"was_inserted": true}));
    let again = rig.xet("POST", &xorb, &token).body(packed.xorb.clone()).send().await.expect(200);
    assert_eq!(again.json(), json!({"was_inserted": false}), "their own, so they may know");

    let stream = rig.xet("POST", "/v2/shards", &token).body(packed.shard()).send().await;
    let stream = stream.expect(200);
    assert_eq!(stream.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> = String::from_utf8(stream.body)
        .expect("text")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.last(), Some(&json!({"type": "result"})));
    let v1 = rig.xet("POST", "/v1/shards", &token).body(packed.shard()).send().await.expect(200);
    assert_eq!(v1.json()["result"], 0);
    // What was answered can be committed at once.
    rig.commit(&rig.admin, &repo, "w", packed.sha256).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_known_xorb_is_granted_and_an_unknown_one_is_not() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let packed = pack(&splitmix(5, 100_000));
    let token = rig.xet_token(&rig.admin, &repo, true);
    let grant = format!("/v1/xorb-grants/default/{}", packed.hash());
    let wanted = json!({"length": packed.xorb.len(),
        "checksum": {"algo": "crc64nvme", "value": "1234567890"}});
    let head = format!("/v1/xorbs/default/{}", packed.hash());
    rig.xet("POST", &grant, &token).json(&wanted).send().await.expect(404);
    rig.xet("HEAD", &head, &token).send().await.expect(404);
    rig.xet("POST", &head, &token).body(packed.xorb.clone()).send().await.expect(200);
    let granted = rig.xet("POST", &grant, &token).json(&wanted).send().await.expect(200);
    assert_eq!(granted.body, b"");
    rig.xet("HEAD", &head, &token).send().await.expect(200);
    rig.xet("POST", &grant, &token).json(&json!({})).send().await.expect(400);
    rig.xet("POST", &grant, &token).body("{").send().await.expect(400);
    rig.stop().await;
}

#[tokio::test]
async fn a_second_file_may_refer_to_what_the_first_one_sent() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let packed = pack(&splitmix(6, 400_000));
    rig.publish(&rig.admin, &repo, &packed).await;
    let token = rig.xet_token(&rig.admin, &repo, true);

    let first = packed.chunks[0].0;
    for prefix in ["default", "default-merkledb"] {
        let query = rig.xet("GET", &format!("/v1/chunks/{prefix}/{first}"), &token).send().await;
        let query = query.expect(200);
        assert_eq!(query.header("content-type"), Some("application/octet-stream"));
        assert!(query.body.starts_with(b"HFRepoMetaData\0"));
        // Hashes in it are keyed: who does not have the chunk learns nothing from the answer.
        let raw = first.as_bytes();
        assert!(!query.body.windows(32).any(|window| window == raw));
    }
    let last = packed.chunks.last().expect("chunks").0;
    rig.xet("GET", &format!("/v1/chunks/other/{last}"), &token).send().await.expect(404);

    // The same content by its xorb's name only: no xorb is sent, none is in the shard.
    let other = rig.repo("other", false).await;
    let token = rig.xet_token(&rig.admin, &other, true);
    let bare = shard(&[packed.as_shard_file()], &[]);
    rig.xet("POST", "/v1/shards", &token).body(bare).send().await.expect(200);
    rig.commit(&rig.admin, &other, "w", packed.sha256).await;
    let token = rig.xet_token(&rig.admin, &other, false);
    let document = rig.reconstruction(&token, &packed).await.expect(200).json();
    assert_eq!(assemble(&rig, &document, &packed).await, packed.content);
    rig.stop().await;
}

#[tokio::test]
async fn who_is_nobody_hears_of_no_chunk_and_of_no_fault_of_theirs() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let packed = pack(&splitmix(6, 400_000));
    rig.publish(&rig.admin, &repo, &packed).await;
    let access = format!("/api/models/{repo}/xet-read-token/main");
    let access = rig.ask("GET", &access).send().await.expect(200).json();
    let token = access["accessToken"].as_str().expect("a token");
    rig.reconstruction(token, &packed).await.expect(200);
    // A 401 would end the client's work, a 404 does not.
    for (chunk, _) in &packed.chunks {
        let query = rig.xet("GET", &format!("/v1/chunks/default/{chunk}"), token);
        query.header("x-xet-session-id", "1").send().await.expect(404);
    }
    rig.stop().await;
}

#[tokio::test]
async fn who_was_not_let_in_learns_nothing_of_a_gated_repo_by_proposing() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let packed = pack(&splitmix(6, 400_000));
    rig.publish(&rig.admin, &repo, &packed).await;
    let bob = rig.user("bob").await;
    let asked = json!({
        "operation": "upload",
        "objects": [{"oid": packed.sha256.to_string(), "size": packed.content.len()}],
    });
    let batch = |token: &str| {
        let batch = rig.ask("POST", &format!("/{repo}.git/info/lfs/objects/batch"));
        batch.bearer(token).json(&asked)
    };
    let open = batch(&bob).send().await.expect(200).json();
    assert_eq!(open["objects"][0]["actions"], Value::Null, "it is public, so he need not send it");
    let path = format!("/api/models/{repo}/xet-write-token/main?create_pr=1");
    let access = rig.ask("GET", &path).bearer(&bob).send().await.expect(200).json();
    let token = access["accessToken"].as_str().expect("a token").to_owned();

    let settings = rig.ask("PUT", &format!("/api/models/{repo}/settings")).bearer(&rig.admin);
    settings.json(&json!({"gated": "manual"})).send().await.expect(200);
    batch(&bob).send().await.expect(403);
    rig.ask("GET", &path).bearer(&bob).send().await.expect(403);
    // What he was given before is of no use either.
    let shards = rig.xet("POST", "/v1/shards", &token).body(packed.shard());
    shards.send().await.expect(403);
    batch(&rig.admin).send().await.expect(200);
    rig.stop().await;
}

#[tokio::test]
async fn an_empty_file_is_accepted_and_has_nothing_to_fetch() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let empty = ShardFile {
        file: ballast_format::hash::FileHash::ZERO,
        segments: Vec::new(),
        sha256: ballast_format::hash::Sha256::ZERO,
    };
    let token = rig.xet_token(&rig.admin, &repo, true);
    let empty = shard(&[empty], &[]);
    rig.xet("POST", "/v1/shards", &token).body(empty).send().await.expect(200);
    rig.stop().await;
}

#[tokio::test]
async fn telemetry_is_answered_at_once_with_or_without_a_token() {
    let rig = Rig::start().await;
    let report = json!({"event": "xet_upload_summary", "session_id": "1", "metrics": {"a": 1}});
    for path in ["/v1/telemetry", "/xet/v1/telemetry"] {
        rig.ask("POST", path).json(&report).send().await.expect(200);
        rig.ask("POST", path).bearer("whatever").body("not json").send().await.expect(200);
        rig.ask("POST", path).body(vec![b' '; 1024 * 1024 + 1]).send().await.expect(413);
    }
    rig.stop().await;
}
