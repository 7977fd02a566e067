//! Quotas, as clients hear of them.

use ballast_testkit::content::splitmix;
use serde_json::{Value, json};

use super::rig::Rig;
use super::upload::pack;

impl Rig {
    async fn quota(&self, name: &str, change: &Value) -> Value {
        let set = self.ask("PATCH", &format!("/api/ballast/v1/quotas/{name}"));
        set.bearer(&self.admin).json(change).send().await.expect(200).json()
    }
}

#[tokio::test]
async fn an_upload_over_the_quota_is_refused_before_it_is_sent_and_says_why() {
    let rig = Rig::start().await;
    let ann = rig.user("ann").await;
    let repo = rig.repo_of(&ann, "ann/m", false).await;
    let used = rig.quota("ann", &json!({"bytes": null})).await["bytes"]["used"].clone();
    let used = used.as_u64().expect("a number");
    let limit = used + 200_000;
    rig.quota("ann", &json!({"bytes": limit})).await;
    let packed = pack(&splitmix(1, 300_000));

    let objects = json!([{"oid": packed.sha256.to_string(), "size": 300_000}]);
    let batch = |transfers: Value| {
        let body = json!({"operation": "upload", "transfers": transfers, "objects": objects});
        let ask = rig.ask("POST", "/ann/m.git/info/lfs/objects/batch").bearer(&ann);
        ask.json(&body).send()
    };
    for transfers in [json!(["basic"]), json!(["basic", "multipart", "xet"])] {
        let refused = batch(transfers).await;
        assert_eq!(refused.status, 413, "{refused:?}");
        let said = String::from_utf8_lossy(&refused.body).into_owned();
        let reason =
            format!("`ann` may have {limit} bytes and has {used}: 300000 more are too many");
        assert!(said.contains(&reason), "{said}");
        assert_eq!(refused.header("x-error-code"), Some("QuotaExceeded"));
    }
    let token = rig.xet_token(&ann, &repo, true);
    let path = format!("/v1/xorbs/default/{}", packed.hash());
    let refused = rig.xet("POST", &path, &token).body(packed.xorb.clone()).send().await;
    let refused = refused.expect(413).json();
    assert_eq!(refused["quota"]["of"], "bytes");
    assert_eq!(refused["quota"]["limit"], limit);
    // A link that was given out before there was a limit is no way around it.
    rig.quota("ann", &json!({"bytes": null})).await;
    let given = batch(json!(["basic"])).await.expect(200).json();
    let href =
        given["objects"][0]["actions"]["upload"]["href"].as_str().expect("a link").to_owned();
    rig.quota("ann", &json!({"bytes": limit})).await;
    let put = rig.ask("PUT", Rig::local(&href)).body(splitmix(1, 300_000)).send().await;
    assert_eq!(put.status, 413);
    rig.quota("ann", &json!({"bytes": null})).await;
    rig.ask("PUT", Rig::local(&href)).body(splitmix(1, 300_000)).send().await.expect(200);
    rig.stop().await;
}

#[tokio::test]
async fn who_asks_before_an_upload_hears_that_it_would_be_too_much() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let packed = pack(&splitmix(1, 300_000));
    rig.publish(&rig.admin, &repo, &packed).await;
    let ask = |path: &str, size: u64| {
        let body = json!({"files": [{"path": path, "size": size, "sample": ""}]});
        let ask = rig.ask("POST", &format!("/api/models/{repo}/preupload/main"));
        ask.bearer(&rig.admin).json(&body).send()
    };
    let quota = rig.quota("admin", &json!({"bytes": null})).await;
    let used = quota["bytes"]["used"].as_u64().expect("a number");
    rig.quota("admin", &json!({"bytes": used + 20_000_000})).await;
    ask("new.bin", 20_000_000).await.expect(200);
    let refused = ask("new.bin", 20_000_001).await.expect(413);
    assert!(refused.error().contains("20000001 more are too many"), "{}", refused.error());
    // What is there already is sent again without being more.
    rig.quota("admin", &json!({"bytes": 1})).await;
    ask("weights.bin", 300_000).await.expect(200);
    ask("weights.bin", 300_001).await.expect(413);
    ask("other.bin", 300_000).await.expect(413);
    rig.stop().await;
}

#[tokio::test]
async fn a_repo_too_many_is_refused_and_owners_see_what_they_have() {
    let rig = Rig::start().await;
    let ann = rig.user("ann").await;
    let create = |name: &str| {
        let ask = rig.ask("POST", "/api/repos/create").bearer(&ann);
        ask.json(&json!({"name": name})).send()
    };
    create("one").await.expect(200);
    rig.quota("ann", &json!({"repos": 1})).await;
    let refused = create("two").await.expect(403);
    assert_eq!(refused.error(), "`ann` may have 1 repos and has 1: 1 more are too many");
    assert_eq!(refused.header("x-error-code"), Some("QuotaExceeded"));
    // One that is there is there, as ever.
    create("one").await.expect(409);
    let seen = rig.ask("GET", "/api/ballast/v1/quotas/ann").bearer(&ann).send().await.expect(200);
    assert_eq!(seen.json()["repos"], json!({"used": 1, "limit": 1}));
    let other = rig.user("other").await;
    rig.ask("GET", "/api/ballast/v1/quotas/ann").bearer(&other).send().await.expect(403);
    // What is said twice, or not known, is no quota.
    let set = || rig.ask("PATCH", "/api/ballast/v1/quotas/ann").bearer(&rig.admin);
    set().json(&json!({"bytes": -1})).send().await.expect(400);
    set().json(&json!({"byte": 1})).send().await.expect(400);
    rig.quota("ann", &json!({"repos": null})).await;
    create("two").await.expect(200);
    rig.stop().await;
}
