//! Repos, their branches and commits: beginnings, ends, and what is refused.

use http::StatusCode;
use serde_json::{Value, json};

use super::client::Reply;
use super::rig::Rig;
use super::upload::pack;

impl Rig {
    async fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask("POST", path).bearer(&self.admin).json(body).send().await
    }

    async fn told(&self, path: &str) -> Reply {
        self.ask("GET", path).bearer(&self.admin).send().await
    }

    /// Where a branch is.
    async fn tip(&self, repo: &str, branch: &str) -> String {
        let refs = self.told(&format!("/api/models/{repo}/refs")).await.expect(200).json();
        let branches = refs["branches"].as_array().expect("a list").clone();
        let found = branches.iter().find(|view| view["name"] == branch).expect("the branch");
        found["targetCommit"].as_str().expect("a commit").to_owned()
    }

    async fn write(&self, repo: &str, revision: &str, path: &str, content: &str) -> Reply {
        let lines = [
            json!({"key": "header", "value": {"summary": "add"}}),
            json!({"key": "file", "value": {"path": path, "content": content}}),
        ];
        let body = format!("{}\n{}\n", lines[0], lines[1]);
        let ask = self.ask("POST", &format!("/api/models/{repo}/commit/{revision}"));
        ask.bearer(&self.admin)
            .header("content-type", "application/x-ndjson")
            .body(body)
            .send()
            .await
    }
}

#[tokio::test]
async fn a_branch_that_is_there_stays_where_it_is() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let branch = format!("/api/models/{repo}/branch/dev");
    rig.post(&branch, &json!({})).await.expect(200);
    rig.write(&repo, "dev", "a", "1").await.expect(200);
    let dev = rig.tip(&repo, "dev").await;
    rig.post(&branch, &json!({})).await.expect(409);
    rig.post(&branch, &json!({"overwrite": true})).await.expect(200);
    assert_eq!(rig.tip(&repo, "dev").await, dev);
    rig.post(&branch, &json!({"overwrite": true, "startingPoint": "main"})).await.expect(200);
    assert_eq!(rig.tip(&repo, "dev").await, rig.tip(&repo, "main").await);
    rig.stop().await;
}

#[tokio::test]
async fn an_empty_branch_has_a_commit_without_files_and_parents() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let branch = format!("/api/models/{repo}/branch/gh-pages");
    rig.post(&branch, &json!({"emptyBranch": true})).await.expect(200);
    rig.post(&branch, &json!({"emptyBranch": true})).await.expect(409);
    let tree = rig.told(&format!("/api/models/{repo}/tree/gh-pages")).await.expect(200).json();
    assert_eq!(tree, json!([]));
    let commits = rig.told(&format!("/api/models/{repo}/commits/gh-pages")).await.expect(200);
    let commits = commits.json();
    assert_eq!((&commits[0]["parents"], &commits[1]), (&json!([]), &Value::Null));
    rig.write(&repo, "gh-pages", "a", "1").await.expect(200);
    let tree = rig.told(&format!("/api/models/{repo}/tree/gh-pages")).await.expect(200).json();
    assert_eq!((&tree[0]["path"], &tree[1]), (&json!("a"), &Value::Null));
    let again = json!({"emptyBranch": true, "overwrite": true});
    rig.post(&branch, &again).await.expect(200);
    let tree = rig.told(&format!("/api/models/{repo}/tree/gh-pages")).await.expect(200).json();
    assert_eq!(tree, json!([]));
    rig.stop().await;
}

#[tokio::test]
async fn a_single_revision_is_compared_with_its_parent() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let first = rig.tip(&repo, "main").await;
    rig.write(&repo, "main", "a", "1\n").await.expect(200);
    let raw = |range: &str| format!("/api/models/{repo}/compare/{range}?raw=true");
    let text = |reply: Reply| String::from_utf8(reply.expect(200).body).expect("text");
    let one = text(rig.told(&raw("main")).await);
    assert_eq!(one, text(rig.told(&raw(&format!("{first}..main"))).await));
    assert!(one.ends_with(" A\ta\n") && one.lines().count() == 1, "{one}");
    let all = text(rig.told(&raw(&first)).await);
    assert!(all.ends_with(" A\t.gitattributes\n") && all.lines().count() == 1, "{all}");
    let diff = text(rig.told(&format!("/api/models/{repo}/compare/main")).await);
    assert!(diff.contains("+1\n"), "{diff}");
    rig.stop().await;
}

#[tokio::test]
async fn a_comparison_takes_slashes_as_they_are() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    rig.write(&repo, "main?create_pr=1", "a", "1\n").await.expect(200);
    for range in ["main..refs/pr/1", "main..refs%2Fpr%2F1", "refs/pr/1"] {
        let path = format!("/api/models/{repo}/compare/{range}?raw=true");
        let text = rig.told(&path).await.expect(200).body;
        assert!(String::from_utf8_lossy(&text).ends_with(" A\ta\n"), "{range}");
    }
    let back = rig.told(&format!("/api/models/{repo}/compare/refs/pr/1..main?raw=true")).await;
    assert!(String::from_utf8_lossy(&back.expect(200).body).ends_with(" D\ta\n"));
    rig.stop().await;
}

#[tokio::test]
async fn a_repo_begins_with_all_of_its_files_or_not_at_all() {
    let rig = Rig::start().await;
    let file = |path: &str, content: &str, encoding: &str| {
        let (path, content) = (json!(path), json!(content));
        json!({"path": path, "content": content, "encoding": encoding})
    };
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 5\n",
        "11".repeat(32)
    );
    for files in [
        json!([file("a", "!!!", "base64")]),
        json!([file("../a", "x", "utf-8")]),
        json!([file("a", "x", "utf-8"), file("a", "y", "utf-8")]),
        json!([file("a", "x", "utf-8"), file("a/b", "y", "utf-8")]),
        json!([file("a", &pointer, "utf-8")]),
    ] {
        let body = json!({"name": "m", "files": files});
        rig.post("/api/repos/create", &body).await.expect(400);
        rig.told("/api/models/admin/m").await.expect(404);
    }
    let bad = json!({"name": "m", "license": "two words"});
    rig.post("/api/repos/create", &bad).await.expect(400);
    rig.told("/api/models/admin/m").await.expect(404);
    let good = json!({"name": "m", "files": [file("a/b", "eA==", "base64")]});
    rig.post("/api/repos/create", &good).await.expect(200);
    rig.told("/admin/m/raw/main/a/b").await.expect(200);
    rig.stop().await;
}

#[tokio::test]
async fn a_change_of_nothing_is_not_proposed() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    rig.write(&repo, "main", "a", "1").await.expect(200);
    let reply = rig.write(&repo, "main?create_pr=1", "a", "1").await.expect(400);
    assert!(reply.error().starts_with("nothing to propose"), "{}", reply.error());
    let open = rig.told(&format!("/api/models/{repo}/discussions")).await.expect(200).json();
    assert_eq!(open["count"], 0);
    rig.write(&repo, "main", "a", "1").await.expect(200);
    rig.stop().await;
}

#[tokio::test]
async fn what_is_protected_is_private_here() {
    let rig = Rig::start().await;
    let body = json!({"name": "m", "visibility": "protected"});
    rig.post("/api/repos/create", &body).await.expect(200);
    assert_eq!(rig.told("/api/models/admin/m").await.expect(200).json()["private"], true);
    let bad = json!({"name": "n", "visibility": "secret"});
    rig.post("/api/repos/create", &bad).await.expect(400);
    rig.stop().await;
}

#[tokio::test]
async fn a_repos_name_spells_its_owner_as_the_owner_does() {
    let rig = Rig::start().await;
    let made = rig.post("/api/repos/create", &json!({"name": "m", "organization": "ADMIN"})).await;
    assert_eq!(made.expect(200).json()["name"], "admin/m");
    let moved = json!({"fromRepo": "admin/m", "toRepo": "aDmin/N", "type": "model"});
    let moved = rig.post("/api/repos/move", &moved).await.expect(200);
    assert_eq!(moved.json()["name"], "admin/N");
    rig.stop().await;
}

#[tokio::test]
async fn large_files_are_not_said_to_be_deleted() {
    let rig = Rig::start().await;
    let ann = rig.user("ann").await;
    let repo = rig.repo("m", false).await;
    let (kept, gone) = (pack(&[7; 3000]), pack(&[8; 3000]));
    rig.publish(&rig.admin, &repo, &kept).await;
    rig.upload(&rig.admin, &repo, &gone).await;
    let path = format!("/api/models/{repo}/lfs-files/batch");
    let body = |sha: &[String]| json!({"deletions": {"sha": sha, "rewriteHistory": true}});
    let (kept, gone) = (kept.sha256.to_string(), gone.sha256.to_string());
    let refused = rig.post(&path, &body(&[gone.clone(), kept.clone()])).await.expect(409);
    assert!(refused.error().contains(&kept) && refused.error().contains("weights.bin"));
    let later = rig.post(&path, &body(std::slice::from_ref(&gone))).await;
    assert_eq!(later.status, StatusCode::NOT_IMPLEMENTED.as_u16());
    assert!(later.error().starts_with("nothing was deleted"));
    rig.post(&path, &body(&["x".to_owned()])).await.expect(400);
    rig.post(&path, &body(&[])).await.expect(200);
    let other = rig.ask("POST", &path).bearer(&ann).json(&body(&[gone]));
    other.send().await.expect(403);
    rig.ask("POST", &path).json(&body(&[kept])).send().await.expect(401);
    rig.stop().await;
}

#[tokio::test]
async fn members_see_what_the_repos_of_their_organisation_take() {
    let rig = Rig::start().await;
    let (ann, bob) = (rig.user("ann").await, rig.user("bob").await);
    rig.post("/api/ballast/v1/orgs", &json!({"name": "lab"})).await.expect(201);
    let member = rig.ask("PUT", "/api/ballast/v1/orgs/lab/members/ann").bearer(&rig.admin);
    member.json(&json!({"role": "read"})).send().await.expect(200);
    let repo = rig.repo_of(&rig.admin, "lab/m", true).await;
    rig.repo_of(&rig.admin, "lab/n", true).await;
    let path = "/api/organizations/LAB/settings/repositories";
    let list = rig.ask("GET", path).bearer(&ann).send().await.expect(200).json();
    assert_eq!(list.as_array().map(Vec::len), Some(2));
    rig.ask("GET", path).bearer(&bob).send().await.expect(403);
    rig.ask("GET", path).send().await.expect(401);
    // A token for one repo does not name the others.
    let scopes = json!([{"entity": {"type": "model", "name": repo}, "role": "read"}]);
    let one = rig.token("ann", json!({"role": "read", "scopes": scopes})).await;
    let list = rig.ask("GET", path).bearer(&one).send().await.expect(200).json();
    assert_eq!((&list[0]["id"], &list[1]), (&json!(repo), &Value::Null));
    rig.stop().await;
}

#[tokio::test]
async fn tokens_are_shown_with_what_they_are_for() {
    let rig = Rig::start().await;
    rig.user("ann").await;
    rig.post("/api/ballast/v1/orgs", &json!({"name": "lab"})).await.expect(201);
    let scope = |kind: &str, name: &str, role: &str| {
        let entity = json!({"type": kind, "name": name});
        json!({"entity": entity, "role": role})
    };
    let scopes = json!([
        scope("model", "ann/m", "write"),
        scope("namespace", "lab", "read"),
        scope("namespace", "ann", "admin"),
    ]);
    let token = rig.token("ann", json!({"role": "read", "scopes": scopes})).await;
    let list = rig.told("/api/ballast/v1/tokens?user=ann").await.expect(200).json();
    let of = |role: &str| {
        let mut tokens = list.as_array().into_iter().flatten();
        tokens.find(|token| token["role"] == role).map(|token| token["scopes"].clone())
    };
    assert_eq!((of("write"), of("fineGrained")), (Some(json!([])), Some(scopes)));
    let me = rig.ask("GET", "/api/whoami-v2").bearer(&token).send().await.expect(200).json();
    let scoped = &me["auth"]["accessToken"]["fineGrained"]["scoped"];
    let kinds: Vec<&Value> = (0..3).map(|n| &scoped[n]["entity"]["type"]).collect();
    assert_eq!(kinds, ["model", "org", "user"]);
    rig.stop().await;
}
