//! What no honest client sends: refused with a reason, paid for by nobody, and leaving nothing.

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result, ensure};
use ballast_format::hash::ChunkHash;
use ballast_format::xorb::XorbWriter;
use serde_json::json;
use support::noise;
use support::server::Server;

/// A request, and the statuses that answer it.
struct Case {
    name: String,
    method: &'static str,
    path: String,
    token: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    statuses: &'static [u16],
}

impl Case {
    fn new(name: impl Into<String>, method: &'static str, path: impl Into<String>) -> Self {
        let (name, path) = (name.into(), path.into());
        let (token, headers, body) = (String::new(), Vec::new(), Vec::new());
        Self { name, method, path, token, headers, body, statuses: &[400] }
    }

    fn token(self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self }
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    fn answers(self, statuses: &'static [u16]) -> Self {
        Self { statuses, ..self }
    }
}

/// Sends each, looks at the answer, and that nothing is left behind.
fn refuse_all(server: &Server, cases: Vec<Case>) -> Result<()> {
    let before = server.objects()?;
    for case in cases {
        let headers: Vec<(&str, &str)> =
            case.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = server
            .request(case.method, &case.path, &case.token, &headers, &case.body)
            .with_context(|| format!("{}: no answer", case.name))?;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(case.statuses.contains(&answer.status), "{}: {} {body}", case.name, answer.status);
        let reason =
            answer.json().map(|value| value["error"].is_string() || value["message"].is_string());
        ensure!(reason.unwrap_or(false), "{}: no reason in {body}", case.name);
        ensure!(server.objects()? == before, "{} left something behind", case.name);
    }
    ensure!(server.request("GET", "/health", "", &[], &[])?.status == 200, "it is gone");
    Ok(())
}

fn repo(server: &Server, name: &str) -> Result<String> {
    let body = json!({"name": name}).to_string();
    let kind = [("content-type", "application/json")];
    let made =
        server.request("POST", "/api/repos/create", &server.token, &kind, body.as_bytes())?;
    ensure!(made.status == 200, "{made:?}");
    Ok(format!("admin/{name}"))
}

/// Where the Xet routes are, and a token for them.
fn xet(server: &Server, repo: &str) -> Result<(String, String)> {
    let access = server.get(&format!("/api/models/{repo}/xet-write-token/main"))?;
    let text = |name: &str| access[name].as_str().map(str::to_owned).context("no such field");
    Ok((text("casUrl")?, text("accessToken")?))
}

/// The chunks of a sound xorb, as they are sent, and its name.
fn xorb() -> (Vec<u8>, String) {
    let mut writer = XorbWriter::new();
    for seed in 0..4 {
        let chunk = noise(seed, 20_000);
        writer.push(&chunk, ChunkHash::of(&chunk));
    }
    let (bytes, footer) = writer.finish();
    (bytes.to_vec(), footer.hash().to_string())
}

#[test]
fn xorbs_that_lie_are_refused() -> Result<()> {
    let server = Server::start()?;
    let (cas, token) = xet(&server, &repo(&server, "m")?)?;
    let (sound, name) = xorb();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = sound.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let other = ChunkHash::of(b"another").to_string();
    let mut cases = Vec::new();
    for (what, body) in [
        ("empty", Vec::new()),
        ("cut inside a chunk", sound[..30_000].to_vec()),
        ("cut inside a header", sound[..5].to_vec()),
        ("an unknown version", with(0, &[9])),
        ("a huge chunk", with(1, &[0xff; 3])),
        ("an unknown compression", with(4, &[200])),
        ("a huge length", with(5, &[0xff; 3])),
        ("a flipped bit", with(1000, &[sound[1000] ^ 1])),
        ("bytes at the end", [sound.clone(), vec![1; 100]].concat()),
        ("noise", noise(9, 100_000)),
        ("zeroes", vec![0; 100_000]),
    ] {
        let path = format!("{cas}/v1/xorbs/default/{name}");
        let case = Case::new(what, "POST", path).token(&token).body(body);
        cases.push(case.answers(&[400, 413]));
    }
    let lying = Case::new("another name", "POST", format!("{cas}/v1/xorbs/default/{other}"));
    cases.push(lying.token(&token).body(sound.clone()));
    for bad in ["0", "zz", &"f".repeat(63), &"f".repeat(65), "%00", "..%2f..%2fetc"] {
        let path = format!("{cas}/v1/xorbs/default/{bad}");
        let case = Case::new(format!("the name {bad}"), "POST", path).token(&token);
        cases.push(case.body(sound.clone()).answers(&[400, 404]));
    }
    let path = format!("{cas}/v1/xorbs/default/{name}");
    for bad in ["", "x", server.token.as_str(), &token[..token.len() - 2], &"a".repeat(4000)] {
        let case = Case::new("a bad token", "POST", path.clone()).token(bad);
        cases.push(case.body(sound.clone()).answers(&[401, 429]));
    }
    refuse_all(&server, cases)
}

#[test]
fn shards_that_lie_are_refused() -> Result<()> {
    let server = Server::start()?;
    let (cas, token) = xet(&server, &repo(&server, "m")?)?;
    let mut head = b"HFRepoMetaData\0".to_vec();
    head.extend([
        0x55, 0x69, 0x67, 0x45, 0x6a, 0x7b, 0x81, 0x57, 0x83, 0xa5, 0xbd, 0xd9, 0x5c, 0xcd, 0xd1,
        0x4a, 0xa9,
    ]);
    head.extend(2_u64.to_le_bytes());
    head.extend(0_u64.to_le_bytes());
    let record = |hash: [u8; 32], numbers: [u32; 4]| {
        let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
        hash.into_iter().chain(numbers).collect::<Vec<u8>>()
    };
    let end = record([0xff; 32], [0; 4]);
    let many = record([1; 32], [0xc000_0000, u32::MAX, 0, 0]);
    let segment = record([2; 32], [0, 1000, 0, 1]);
    let unknown = [
        head.clone(),
        record([1; 32], [0xc000_0000, 1, 0, 0]),
        segment,
        record([3; 32], [0; 4]),
        record([4; 32], [0; 4]),
        end.clone(),
        end.clone(),
    ];
    let huge_xorb = record([5; 32], [0, u32::MAX, u32::MAX, u32::MAX]);
    let mut cases = Vec::new();
    for (what, body) in [
        ("empty", Vec::new()),
        ("noise", noise(1, 10_000)),
        ("a head alone", head.clone()),
        ("no end of files", [head.clone(), record([1; 32], [0, 1, 0, 0])].concat()),
        ("more segments than bytes", [head.clone(), many, end.clone(), end.clone()].concat()),
        ("more chunks than bytes", [head.clone(), end.clone(), huge_xorb, end.clone()].concat()),
        ("an unknown xorb", unknown.concat()),
    ] {
        for version in ["v1", "v2"] {
            let case = Case::new(what, "POST", format!("{cas}/{version}/shards")).token(&token);
            cases.push(case.body(body.clone()));
        }
    }
    refuse_all(&server, cases)
}

#[test]
fn small_shards_that_name_billions_of_chunks_are_refused() -> Result<()> {
    let server = Server::start()?;
    let (cas, token) = xet(&server, &repo(&server, "m")?)?;
    let mut writer = XorbWriter::new();
    for _ in 0..8192 {
        writer.push(b"x", ChunkHash::of(b"x"));
    }
    let (bytes, footer) = writer.finish();
    let path = format!("{cas}/v1/xorbs/default/{}", footer.hash());
    let sent = server.request("POST", &path, &token, &[], &bytes)?;
    ensure!(sent.status == 200, "{sent:?}");

    let record = |hash: &[u8; 32], numbers: [u32; 4]| {
        let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
        hash.iter().copied().chain(numbers).collect::<Vec<u8>>()
    };
    let segments: u32 = 600_000;
    let proof = footer.range_hash(0..8192)?;
    let mut body = b"HFRepoMetaData\0".to_vec();
    body.extend(b"\x55\x69\x67\x45\x6a\x7b\x81\x57\x83\xa5\xbd\xd9\x5c\xcd\xd1\x4a\xa9");
    body.extend([2_u64.to_le_bytes(), 0_u64.to_le_bytes()].concat());
    body.extend(record(&[1; 32], [1 << 31, segments, 0, 0]));
    body.extend(record(footer.hash().as_bytes(), [0, 8192, 0, 8192]).repeat(segments as usize));
    body.extend(record(proof.as_bytes(), [0; 4]).repeat(segments as usize));
    body.extend(record(&[0xff; 32], [0; 4]).repeat(2));
    let case = Case::new("five billion chunks", "POST", format!("{cas}/v1/shards"));
    refuse_all(&server, vec![case.token(&token).body(body).answers(&[413])])
}

#[test]
fn commits_that_can_not_be_are_refused_whole() -> Result<()> {
    let server = Server::start()?;
    let repo = repo(&server, "m")?;
    let path = format!("/api/models/{repo}/commit/main");
    let header = r#"{"key":"header","value":{"summary":"s"}}"#;
    let file = |path: &str| {
        let value = json!({"path": path, "content": "aGk=", "encoding": "base64"});
        format!("{header}\n{}\n", json!({"key": "file", "value": value}))
    };
    let line = |value: &str| format!("{header}\n{value}\n").into_bytes();
    let mut cases = vec![
        Case::new("nothing", "POST", path.as_str()),
        Case::new("not JSON", "POST", path.as_str()).body("{"),
        Case::new("no header", "POST", path.as_str()).body(file("a").lines().nth(1).unwrap_or("")),
        Case::new("an array", "POST", path.as_str()).body("[]\n"),
        Case::new("an unknown operation", "POST", path.as_str())
            .body(line(r#"{"key":"explode","value":{}}"#)),
        Case::new("base64 that is none", "POST", path.as_str())
            .body(line(r#"{"key":"file","value":{"path":"a","content":"*","encoding":"base64"}}"#)),
        Case::new("deep JSON", "POST", path.as_str()).body(line(&"[".repeat(100_000))),
        Case::new("no path", "POST", path.as_str()).body(line(r#"{"key":"file","value":{}}"#)),
        Case::new("a large file that nobody sent", "POST", path.as_str()).body(line(
            &json!({"key": "lfsFile", "value": {"path": "a.bin", "algo": "sha256",
                "oid": "ab".repeat(32), "size": 5}})
            .to_string(),
        )),
        Case::new("an object id that is none", "POST", path.as_str()).body(line(
            r#"{"key":"lfsFile","value":{"path":"a.bin","algo":"sha256","oid":"xyz","size":5}}"#,
        )),
    ];
    for bad in [
        "",
        "/a",
        "../a",
        "a/../b",
        "a//b",
        "./a",
        "a/.",
        ".git/config",
        "a/.GIT/b",
        "a\u{0}b",
        "a\nb",
        "a/",
        "..",
        "a\\b",
        ".git /a",
        ".git./a",
        "git~1/a",
        ".g\u{200c}it/a",
        "a/\u{7f}",
        &"a/".repeat(2000),
        &"a".repeat(300),
    ] {
        let shown: String = bad.chars().take(20).collect();
        let case = Case::new(format!("the path {shown:?}"), "POST", path.as_str());
        cases.push(case.body(file(bad)));
        // The same list at the other doors of a commit.
        let large = json!({"path": bad, "algo": "sha256", "oid": "ab".repeat(32), "size": 5});
        let renamed = json!({"path": "x", "oldPath": bad});
        for (key, value) in [
            ("lfsFile", large),
            ("deletedFile", json!({"path": bad})),
            ("deletedFolder", json!({"path": bad})),
            ("lfsFile", renamed),
        ] {
            if (key, bad) == ("deletedFolder", "a/") {
                continue; // A folder may end so.
            }
            let case = Case::new(format!("{key} {shown:?}"), "POST", path.as_str());
            cases.push(case.body(line(&json!({"key": key, "value": value}).to_string())));
        }
    }
    let twice = [file("a"), file("a/b").lines().nth(1).unwrap_or("").to_owned()].concat();
    cases.push(Case::new("a file that is also a folder", "POST", path.as_str()).body(twice));
    let cases = cases.into_iter().map(|case| {
        case.token(&server.token)
            .header("content-type", "application/x-ndjson")
            .answers(&[400, 404])
    });
    refuse_all(&server, cases.collect())
}

#[test]
fn names_tokens_ranges_and_objects_that_can_not_be_are_refused() -> Result<()> {
    let server = Server::start()?;
    let repo = repo(&server, "m")?;
    let token = server.token.as_str();
    let mut cases = Vec::new();
    for bad in ["", "a--b", "a..b", "a.git", "-a", ".a", "a-", "a b", "\u{e9}", "a/b/c", "a\u{0}"] {
        let case = Case::new(format!("the name {bad:?}"), "POST", "/api/repos/create");
        cases.push(case.token(token).body(json!({"name": bad}).to_string()).answers(&[400, 403]));
    }
    let long = json!({"name": "a".repeat(200)}).to_string();
    cases.push(Case::new("a long name", "POST", "/api/repos/create").token(token).body(long));
    for (path, statuses) in [
        ("/api/models/admin/m/tree/none", &[404][..]),
        ("/api/models/admin/m/tree/%00", &[400, 404]),
        ("/api/models/admin/m/revision/..%2f..", &[404]),
        ("/admin/m/resolve/main/%ff", &[400, 404]),
        ("/admin/m/resolve/main/..%2f..%2fetc%2fpasswd", &[400, 404]),
        ("/admin/m/resolve/main/a%00b", &[400, 404]),
        ("/api/models/admin%2fm", &[401, 404]),
        ("/api/models?limit=-1&num_parameters=x", &[400]),
    ] {
        cases.push(Case::new(path, "GET", path).token(token).answers(statuses));
    }
    for bad in ["hf_x", "Bearer", &"a".repeat(5000)] {
        let case = Case::new("a bad token", "GET", "/api/whoami-v2").token(bad);
        cases.push(case.answers(&[401]));
    }
    refuse_all(&server, cases)?;
    // A batch answers for each object.
    let batch = format!("/{repo}.git/info/lfs/objects/batch");
    for object in [
        json!({"oid": "x", "size": 1}),
        json!({"oid": "ab".repeat(32), "size": -1}),
        json!({"oid": "ab".repeat(32)}),
        json!({"oid": "ab".repeat(32), "size": u64::MAX}),
    ] {
        let body = json!({"operation": "upload", "transfers": ["basic"], "objects": [object]});
        let body = body.to_string();
        let answer = server.request("POST", &batch, token, &[], body.as_bytes())?;
        let code = match answer.status {
            200 => answer.json()?["objects"][0]["error"]["code"].as_u64().unwrap_or(200),
            status => u64::from(status),
        };
        ensure!((400..500).contains(&code), "{object}: {code}");
    }
    Ok(())
}

/// One raw request; what came back before the connection ended.
fn raw(server: &Server, bytes: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(server.endpoint.trim_start_matches("http://"))?;
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The most memory that the server has had, in bytes.
fn peak(server: &Server) -> Result<u64> {
    let pid = server.pid().context("it is not running")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib = line.trim().trim_end_matches(" kB").trim().parse::<u64>()?;
    Ok(kib * 1024)
}

#[test]
fn what_is_claimed_costs_nothing() -> Result<()> {
    let server = Server::start()?;
    let (cas, token) = xet(&server, &repo(&server, "m")?)?;
    let host = server.endpoint.trim_start_matches("http://").to_owned();
    let base = cas.trim_start_matches(&server.endpoint).to_owned();
    let (_, name) = xorb();
    let before = (server.objects()?, peak(&server)?);
    for (path, length) in [
        (format!("{base}/v1/xorbs/default/{name}"), "67108864"),
        (format!("{base}/v1/xorbs/default/{name}"), "99999999999"),
        (format!("{base}/v1/shards"), "67108864"),
        (format!("{base}/v1/shards"), "18446744073709551615"),
        (format!("{base}/v1/shards"), "-1"),
        ("/api/models/admin/m/commit/main".to_owned(), "150000000"),
        ("/api/repos/create".to_owned(), "99999999999999999999999"),
    ] {
        let token = if path.starts_with("/api") { &server.token } else { &token };
        for _ in 0..20 {
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
                 content-length: {length}\r\n\r\n0123"
            );
            let answer = raw(&server, head.as_bytes())?;
            ensure!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{path}: {answer}");
        }
    }
    for bad in [
        "GET / HTTP/1.1\r\nhost: x\r\nx: ".to_owned() + &"y".repeat(1 << 20),
        "GET / HTTP/1.1\r\nhost: x\r\n".to_owned() + &"x: y\r\n".repeat(100_000),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(1 << 20)),
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n\
         ffffffffffffffff\r\n"
            .to_owned(),
        "\u{0}\u{1}\u{2}".to_owned(),
    ] {
        let answer = raw(&server, bad.as_bytes())?;
        ensure!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // More than was announced, or than is taken: what comes is not kept.
    for (path, length) in
        [("xorbs/default/".to_owned() + &name, 70 << 20), ("shards".into(), 65 << 20)]
    {
        let head = format!(
            "POST {base}/v1/{path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
             content-length: {length}\r\n\r\n"
        );
        let answer = raw(&server, &[head.into_bytes(), vec![7; length]].concat())?;
        ensure!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    }
    ensure!(server.objects()? == before.0, "something is left behind");
    let grown = peak(&server)?.saturating_sub(before.1);
    ensure!(grown < 64 << 20, "claims took {grown} bytes of memory");
    Ok(())
}
