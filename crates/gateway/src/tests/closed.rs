//! A hub that strangers may not use: what they hear, and what they do not.

use serde_json::json;

use super::rig::Rig;

#[tokio::test]
async fn a_closed_hub_tells_strangers_nothing() {
    let rig = Rig::start_closed().await;
    rig.user("ann").await;
    rig.repo("m", false).await;
    let orgs = rig.ask("POST", "/api/ballast/v1/orgs").bearer(&rig.admin);
    orgs.json(&json!({"name": "lab"})).send().await.expect(201);
    for path in [
        "/api/models",
        "/api/datasets",
        "/api/spaces?author=admin",
        "/api/users/ann/overview",
        "/api/users/admin/likes",
        "/api/organizations/lab/overview",
        "/api/organizations/lab/members",
        "/api/organizations/lab/settings/repositories",
        "/api/settings/repositories",
        "/api/models-tags-by-type",
        "/api/datasets-tags-by-type",
        "/api/tasks",
        "/api/users/nobody/overview",
    ] {
        let reply = rig.ask("GET", path).send().await.expect(401);
        assert!(!reply.error().contains("nobody"), "{path}");
        rig.ask("GET", path).bearer(&rig.admin).send().await;
    }
    rig.ask("GET", "/api/users/ann/overview").bearer(&rig.admin).send().await.expect(200);
    rig.stop().await;
}

#[tokio::test]
async fn strangers_at_a_closed_hub_hear_of_repos_what_clients_understand() {
    let rig = Rig::start_closed().await;
    let repo = rig.repo("m", false).await;
    for path in [
        format!("/api/models/{repo}"),
        format!("/api/models/{repo}/revision/main"),
        format!("/api/models/{repo}/tree/main"),
        format!("/{repo}/resolve/main/config.json"),
        format!("/{repo}/raw/main/config.json"),
        format!("/v2/{repo}/manifests/latest"),
        "/api/models/admin/none".to_owned(),
        "/api/models/gpt2".to_owned(),
        "/gpt2/resolve/main/config.json".to_owned(),
    ] {
        for method in ["GET", "HEAD"] {
            let reply = rig.ask(method, &path).send().await;
            assert_eq!(reply.status, 401, "{method} {path}");
            assert_eq!(reply.header("x-error-code"), Some("RepoNotFound"), "{method} {path}");
        }
    }
    // Whoever has a token goes on as on an open hub.
    rig.ask("GET", &format!("/api/models/{repo}")).bearer(&rig.admin).send().await.expect(200);
    rig.stop().await;
}

#[tokio::test]
async fn what_tells_nothing_of_a_closed_hub_stays_open() {
    let rig = Rig::start_closed().await;
    rig.ask("GET", "/health").send().await.expect(200);
    let reply = rig.ask("GET", "/api/whoami-v2").send().await.expect(401);
    assert_eq!(reply.error(), "Invalid credentials in Authorization header");
    let card = json!({"content": "---\nlicense: mit\n---\n", "repoType": "model"});
    rig.ask("POST", "/api/validate-yaml").json(&card).send().await.expect(200);
    rig.ask("HEAD", "/api/telemetry/hub/download").send().await.expect(200);
    rig.stop().await;
}
