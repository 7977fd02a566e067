//! Every route, asked by everybody: one table (`matrix.txt`) says who may, and a route that is not
//! in it fails.
//!
//! Those who may not are asked first, then those who may, on a private repo of the row's own. Who
//! may not know of a repo hears of a missing one the same, to the letter.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::Reply;
use super::rig::Rig;
use super::upload::{Packed, pack};

/// Arms that only lead to others, or that say which method would have been right.
const NO_ROUTES: &[&str] = &[
    "api",
    "api/ballast/lfs/v1",
    "api/ballast/v1",
    "datasets/spaces",
    "resolve/raw",
    "v1/fetch",
    "v1/telemetry",
    "v1/v2/reconstructions/v1/chunks/fetch",
    "v1/v2/shards",
    "v2",
    "xet/v1/v2",
];

/// One line of the table.
struct Row {
    arm: &'static str,
    method: &'static str,
    path: &'static str,
    body: &'static str,
    who: &'static str,
    /// What those hear who may; the first who does it, and those after them.
    statuses: Vec<u16>,
    /// What others hear, where that is not as usual.
    unusual: Vec<(&'static str, u16)>,
}

impl Row {
    /// The lines of one part of the table.
    fn all(part: &str) -> Vec<Self> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/matrix.txt");
        let text: &'static str = std::fs::read_to_string(path).expect("the table").leak();
        let (_, lines) = text.split_once(&format!("[{part}]\n")).expect("the part");
        let lines = lines.split("\n[").next().expect("a first piece").lines();
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(Self::read).collect()
    }

    fn read(line: &'static str) -> Self {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [arm, method, path, body, who, status, ref unusual @ ..] = words[..] else {
            panic!("six words or more: {line}");
        };
        let number = |text: &str| text.parse::<u16>().expect("a status");
        let unusual = unusual.iter().map(|word| word.split_once('=').expect("who=status"));
        let unusual = unusual.map(|(who, text)| (who, number(text))).collect();
        Self {
            arm,
            method,
            path,
            body,
            who,
            statuses: status.split(',').map(number).collect(),
            unusual,
        }
    }

    /// What those hear who may not; usually this.
    fn refusal(&self, who: &str, usually: u16) -> u16 {
        let mut unusual = self.unusual.iter();
        unusual.find(|(other, _)| *other == who).map_or(usually, |(_, status)| *status)
    }

    fn name(&self) -> String {
        format!("{} {} {}", self.method, self.path, self.body)
    }

    fn path(&self, repo: &str) -> String {
        self.path.replace('@', "/api/models/%").replace('%', repo)
    }

    /// What is sent for this repo.
    fn body(&self, repo: &str) -> String {
        let (organization, name) = repo.split_once('/').unwrap_or(("", repo));
        let value = match self.body {
            "-" => return String::new(),
            "commit" => {
                let header = json!({"key": "header", "value": {"summary": "add"}});
                let file = json!({"key": "file", "value": {"path": "b", "content": self.path}});
                return format!("{header}\n{file}\n");
            }
            "empty" => json!({}),
            "grant" => json!({"length": 1}),
            "paths" => json!({"paths": ["a"]}),
            "preupload" => json!({"files": [{"path": "a", "size": 1, "sample": ""}]}),
            "tag" => json!({"tag": "v1"}),
            "pull" => json!({"title": "t", "pullRequest": true}),
            "named" => json!({"organization": organization, "name": name}),
            "moved" => json!({"fromRepo": repo, "toRepo": format!("lab/{name}-moved")}),
            "copied" => json!({"repository": format!("lab/{name}-copy")}),
            "lfs" => lfs("download"),
            "lfs-upload" => lfs("upload"),
            "yaml" => json!({"content": "---\nlicense: mit\n---\n", "repoType": "model"}),
            "person" => json!({"name": "person"}),
            "on" => json!({"disabled": false}),
            "org" => json!({"name": "another"}),
            "node" => json!({"name": "gpu-1"}),
            "quota" => json!({"bytes": null, "repos": 1000}),
            "role" => json!({"role": "read"}),
            "token" => json!({"user": "admin", "role": "read"}),
            "dry" => json!({"dryRun": true}),
            other => panic!("no such body: {other}"),
        };
        value.to_string()
    }
}

fn lfs(operation: &str) -> Value {
    json!({"operation": operation, "objects": [{"oid": "11".repeat(32), "size": 5}]})
}

/// The literal words of each arm of a function's outermost match, joined.
fn arms(source: &str, function: &str) -> BTreeSet<String> {
    let begin = source.find(&format!("fn {function}(")).expect("the function");
    let text = &source[begin..];
    let text = &text[..text.find("\n}\n").expect("its end")];
    let pieces: Vec<&str> = text.split("=>").collect();
    let patterns = pieces[..pieces.len() - 1].iter().filter_map(|piece| {
        let begin = piece.rfind("\n        [").max(piece.rfind("\n        ("))?;
        let pattern = &piece[begin..];
        let words: Vec<&str> = pattern.split('"').skip(1).step_by(2).collect();
        Some(words.join("/")).filter(|words| !words.is_empty())
    });
    patterns.collect()
}

#[test]
fn each_route_is_in_a_table() {
    let mut listed: BTreeSet<&str> = NO_ROUTES.iter().copied().collect();
    for part in ["repos", "xet", "hub"] {
        listed.extend(Row::all(part).iter().map(|row| row.arm));
    }
    let mut count = 0;
    for (source, functions) in [
        (include_str!("../router.rs"), &["dispatch", "dispatch_fresh"][..]),
        (include_str!("../hub/mod.rs"), &["route", "api", "repo_api", "below_repo", "web"]),
        (include_str!("../xet/mod.rs"), &["route"]),
        (include_str!("../operate/admin.rs"), &["route"]),
    ] {
        for function in functions {
            for arm in arms(source, function) {
                // The manifest's route is written with its place.
                let is_listed = listed.contains(arm.as_str()) || arm == "runtime";
                assert!(is_listed, "`{function}` has a route that is in no table: {arm}");
                count += 1;
            }
        }
    }
    assert!(count > 60, "only {count} arms were found");
}

/// Somebody who asks.
struct Actor {
    name: &'static str,
    token: Option<String>,
    /// What they may do with the repos of `lab`.
    may: &'static [&'static str],
    /// What those hear who may not even know of them.
    outside: u16,
}

/// A hub with an organisation `lab`, and everybody who may or may not work there.
impl Actor {
    fn is_of_lab_and_whole(&self) -> bool {
        !["an outsider", "a token for another repo", "a token scoped to read"].contains(&self.name)
    }
}

struct World {
    rig: Rig,
    actors: Vec<Actor>,
    manager: String,
    packed: Packed,
    asked: std::cell::Cell<u32>,
}

impl World {
    async fn begin() -> Self {
        let mut settings = Rig::settings();
        // Each request comes from another address: guessing is not what is tried here.
        settings.trust_forwarded = true;
        settings.requests_per_second = 0;
        let rig = Rig::start_with(settings).await;
        let owner = rig.user("owner").await;
        let org = rig.ask("POST", "/api/ballast/v1/orgs").bearer(&rig.admin);
        org.json(&json!({"name": "lab"})).send().await.expect(201);
        rig.member("owner", "admin").await;
        let mut tokens = Vec::new();
        for (name, role) in [("reader", "read"), ("writer", "write"), ("gone", "admin")] {
            tokens.push(rig.user(name).await);
            rig.member(name, role).await;
        }
        let [reader, writer, gone] = <[String; 3]>::try_from(tokens).expect("three");
        let other = rig.repo_of(&owner, "lab/other", true).await;
        let scoped = async |kind: &str, name: &str, role: &str| {
            let scope = json!({"entity": {"type": kind, "name": name}, "role": role});
            rig.token("owner", json!({"role": "read", "scopes": [scope]})).await
        };
        let elsewhere = scoped("model", "lab/other", "write").await;
        let to_read = scoped("namespace", "lab", "read").await;
        let reads = rig.token("owner", json!({"role": "read"})).await;
        let short = json!({"role": "write", "expiresInSeconds": 30});
        let expired = rig.token("owner", short).await;
        let revoked = rig.token("owner", json!({"role": "write"})).await;
        rig.revoke(&revoked).await;
        let disabled = rig.ask("PATCH", "/api/ballast/v1/users/gone").bearer(&rig.admin);
        disabled.json(&json!({"disabled": true})).send().await.expect(200);
        rig.env.advance(Duration::from_secs(31));
        let outsider = rig.user("outsider").await;
        let (xet_reads, xet_writes) =
            (rig.xet_token(&owner, &other, false), rig.xet_token(&owner, &other, true));

        let bad = |name, token| Actor { name, token: Some(token), may: &[], outside: 401 };
        let outside = |name, token| Actor { name, token: Some(token), may: &[], outside: 404 };
        let inside = |name, token, may| Actor { name, token: Some(token), may, outside: 404 };
        let actors = vec![
            Actor { name: "nobody", token: None, may: &[], outside: 401 },
            bad("a made-up token", format!("hf_{}", "a".repeat(34))),
            bad("an expired token", expired),
            bad("a revoked token", revoked),
            bad("a token of a disabled user", gone),
            bad("a Xet token to read", xet_reads),
            bad("a Xet token to write", xet_writes),
            outside("an outsider", outsider),
            outside("a token for another repo", elsewhere),
            inside("a manager's token to read", reads, &["read"]),
            inside("a token scoped to read", to_read, &["read"]),
            inside("a reader", reader, &["read", "propose"]),
            inside("a writer", writer, &["read", "propose", "write"]),
            inside("a manager", owner.clone(), &["read", "propose", "write", "manage"]),
        ];
        let packed = pack(&ballast_testkit::content::splitmix(5, 300_000));
        Self { rig, actors, manager: owner, packed, asked: std::cell::Cell::new(0) }
    }

    /// A private repo with a small and a large file.
    async fn repo(&self, name: &str) -> String {
        let repo = self.rig.repo_of(&self.manager, &format!("lab/{name}"), true).await;
        self.rig.publish(&self.manager, &repo, &self.packed).await;
        let header = json!({"key": "header", "value": {"summary": "add"}});
        let file = json!({"key": "file", "value": {"path": "a", "content": "a"}});
        let commit = self.rig.ask("POST", &format!("/api/models/{repo}/commit/main"));
        let commit = commit.bearer(&self.manager).body(format!("{header}\n{file}\n"));
        commit.send().await.expect(200);
        repo
    }

    async fn send(&self, row: &Row, repo: &str, token: Option<&str>) -> Reply {
        let asked = self.asked.get() + 1;
        self.asked.set(asked);
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + asked).to_string();
        let mut path = row.path(repo);
        for (word, hash) in [
            ("xorb", self.packed.hash().to_string()),
            ("file", self.packed.file.to_string()),
            ("chunk", self.packed.chunks[0].0.to_string()),
        ] {
            // Only as the last word: routes have these words too.
            for before in ['/', '='] {
                if let Some(start) = path.strip_suffix(&format!("{before}{word}")) {
                    path = format!("{start}{before}{hash}");
                }
            }
        }
        let mut ask = self.rig.ask(row.method, &path).header("x-forwarded-for", &address);
        if let Some(token) = token {
            ask = ask.bearer(token);
        }
        match row.body {
            "-" => ask,
            "xorb" => ask.body(self.packed.xorb.clone()),
            "shard" => ask.body(self.packed.shard()),
            _ => ask.header("content-type", "application/json").body(row.body(repo)),
        }
        .send()
        .await
    }
}

impl Rig {
    /// Lets a user work in `lab`.
    async fn member(&self, name: &str, role: &str) {
        let member = self.ask("PUT", &format!("/api/ballast/v1/orgs/lab/members/{name}"));
        member.bearer(&self.admin).json(&json!({"role": role})).send().await.expect(200);
    }

    /// Ends a token, by its id.
    pub(super) async fn revoke(&self, token: &str) {
        let id = match self.caller(token) {
            ballast_node::access::Caller::User(user) => user.token.to_string(),
            ballast_node::access::Caller::Anonymous => panic!("nobody's token"),
        };
        let revoke = self.ask("DELETE", &format!("/api/ballast/v1/tokens/{id}"));
        revoke.bearer(&self.admin).send().await.expect(200);
    }
}

/// All that an answer says, without what differs from one to the next, and the repo's name masked.
fn said(reply: &Reply, repo: &str) -> String {
    let name = repo.split('/').next_back().expect("a name");
    let passing = ["date", "x-request-id"];
    let headers = reply.headers.iter().filter(|(name, _)| !passing.contains(&name.as_str()));
    let headers: Vec<String> = headers.map(|(name, value)| format!("{name}: {value}")).collect();
    let headers = headers.join("\n");
    let text = format!("{}\n{headers}\n{}", reply.status, String::from_utf8_lossy(&reply.body));
    text.replace(name, "NAME")
}

#[tokio::test]
async fn repos_open_to_those_who_may_and_are_not_there_for_others() {
    let world = World::begin().await;
    let mut wrong = Vec::new();
    for (number, row) in Row::all("repos").iter().enumerate() {
        // As long as the name of the missing one.
        let repo = world.repo(&format!("r{number:02}")).await;
        for actor in &world.actors {
            let token = actor.token.as_deref();
            let reply = world.send(row, &repo, token).await;
            let place = format!("{} by {}", row.name(), actor.name);
            let is_bad = actor.outside == 401 && token.is_some();
            let expected = match () {
                () if actor.may.contains(&row.who) => row.statuses.clone(),
                () if is_bad => vec![401],
                () if token.is_none() => vec![row.refusal("nobody", 401)],
                () if actor.may.is_empty() => vec![row.refusal("outside", 404)],
                () => vec![row.refusal("inside", 403)],
            };
            let code = reply.header("x-error-code");
            if !expected.contains(&reply.status) {
                let said = String::from_utf8_lossy(&reply.body).into_owned();
                wrong.push(format!("{place}: {} {code:?}, not {expected:?}: {said}", reply.status));
            }
            if actor.may.is_empty() {
                let is_usual =
                    row.refusal("nobody", 401) == 401 && row.refusal("outside", 404) == 404;
                let is_named_in_body = row.path.starts_with("/api/repos/");
                if !is_bad && is_usual && !is_named_in_body && code != Some("RepoNotFound") {
                    wrong.push(format!("{place}: code {code:?}"));
                }
                let missing = world.send(row, "lab/n00", token).await;
                let (there, missing) = (said(&reply, &repo), said(&missing, "lab/n00"));
                if there != missing {
                    wrong.push(format!("{place}: a hidden repo shows\n{there}\n---\n{missing}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.rig.stop().await;
}

#[tokio::test]
async fn xet_tokens_open_what_they_are_for() {
    let world = World::begin().await;
    let rig = &world.rig;
    let repo = world.repo("x").await;
    let by = |name: &str| {
        let mut actors = world.actors.iter();
        actors.find(|actor| actor.name == name).and_then(|actor| actor.token.clone())
    };
    let outsider = by("an outsider").expect("a token");
    let own = rig.repo_of(&outsider, "outsider/own", true).await;
    let dying = rig.token("owner", json!({"role": "write"})).await;
    let leaver = rig.user("leaver").await;
    rig.member("leaver", "write").await;

    let old = rig.xet_token(&world.manager, &repo, true);
    rig.env.advance(Duration::from_mins(17));
    let ends = rig.xet_token(&dying, &repo, true);
    rig.revoke(&dying).await;
    let left = rig.xet_token(&leaver, &repo, true);
    let leave = rig.ask("DELETE", "/api/ballast/v1/orgs/lab/members/leaver");
    leave.bearer(&rig.admin).send().await.expect(200);
    let reads = rig.xet_token(&by("a reader").expect("a token"), &repo, false);
    let writes = rig.xet_token(&by("a writer").expect("a token"), &repo, true);
    let mut bits = writes.clone().into_bytes();
    bits[20] ^= 1;
    let forged = String::from_utf8(bits).expect("still text");

    let mut wrong = Vec::new();
    for row in &Row::all("xet") {
        for (name, token, expected) in [
            ("nobody", None, 401),
            ("a token of the hub", Some(&world.manager), 401),
            ("nonsense", Some(&"x".to_owned()), 401),
            ("a forged token", Some(&forged), 401),
            ("an old token", Some(&old), 401),
            ("a token whose own is revoked", Some(&ends), 401),
            ("a token of one who left", Some(&left), 404),
            ("a reader", Some(&reads), if row.who == "send" { 403 } else { row.statuses[0] }),
            ("a writer", Some(&writes), row.statuses[0]),
        ] {
            let reply = world.send(row, &repo, token.map(String::as_str)).await;
            if reply.status != expected {
                let said = String::from_utf8_lossy(&reply.body).into_owned();
                let row = row.name();
                wrong.push(format!("{row} by {name}: {}, not {expected}: {said}", reply.status));
            }
        }
        // With the right hash in hand, in a repo of one's own: it is not there.
        if row.who != "send" {
            let token = rig.xet_token(&outsider, &own, true);
            let reply = world.send(row, &own, Some(&token)).await;
            let is_none = match row.path.contains('?') {
                // A batch leaves out what it does not find.
                true => !String::from_utf8_lossy(&reply.body).contains("url"),
                false => reply.status == 404,
            };
            if !is_none {
                wrong.push(format!("{} from another repo: {}", row.name(), reply.status));
            }
        }
    }
    let shard = rig.xet("POST", "/v1/shards", &rig.xet_token(&outsider, &own, true));
    let reply = shard.body(world.packed.shard()).send().await;
    assert_eq!(reply.status, 400, "a file over others' xorb: {}", reply.error());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.rig.stop().await;
}

#[tokio::test]
async fn routes_of_no_repo_open_to_those_who_may() {
    let world = World::begin().await;
    let mut wrong = Vec::new();
    for row in &Row::all("hub") {
        let admin = Actor {
            name: "an administrator",
            token: Some(world.rig.admin.clone()),
            may: &["admin", "manage", "in", "whole"],
            outside: 0,
        };
        for actor in world.actors.iter().chain([&admin]) {
            let token = actor.token.as_deref();
            let is_bad = actor.outside == 401 && token.is_some();
            let expected = match row.who {
                "anybody" => row.statuses[0],
                _ if is_bad => 401,
                "public" => row.statuses[0],
                _ if token.is_none() => row.refusal("nobody", 401),
                "user" => row.statuses[0],
                who if actor.may.contains(&who) => row.statuses[0],
                "in" if actor.name != "an outsider" => row.statuses[0],
                "whole" if actor.is_of_lab_and_whole() => row.statuses[0],
                _ => row.refusal("outside", 403),
            };
            let reply = world.send(row, "lab/other", token).await;
            if reply.status != expected {
                let said = String::from_utf8_lossy(&reply.body).into_owned();
                let (row, status) = (row.name(), reply.status);
                wrong.push(format!("{row} by {}: {status}, not {expected}: {said}", actor.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.rig.stop().await;
}
