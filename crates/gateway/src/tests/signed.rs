//! Addresses that open something to whoever has them, and everything else that they do not open.

use std::time::Duration;

use ballast_testkit::content::splitmix;
use serde_json::{Value, json};

use super::rig::Rig;
use super::upload::{Packed, pack};

/// A private repo with a file, and the address of its bytes.
async fn fetchable(rig: &Rig, name: &str, seed: u64) -> (Packed, String, u64) {
    let repo = rig.repo(name, true).await;
    let packed = pack(&splitmix(seed, 400_000));
    rig.publish(&rig.admin, &repo, &packed).await;
    let token = rig.xet_token(&rig.admin, &repo, false);
    let document = rig.reconstruction(&token, &packed).await.expect(200).json();
    let entry = &document["xorbs"][packed.hash().to_string()][0];
    let link = entry["url"].as_str().map(Rig::local).expect("an address").to_owned();
    let last = entry["ranges"][0]["bytes"]["end"].as_u64().expect("a number");
    (packed, link, last)
}

#[tokio::test]
async fn a_fetch_link_opens_its_bytes_and_nothing_else() {
    let rig = Rig::start().await;
    let (packed, link, last) = fetchable(&rig, "m", 1).await;
    let (_, other, _) = fetchable(&rig, "n", 2).await;
    let ask = |link: &str, range: &str| rig.ask("GET", link).range(range);
    let whole = format!("bytes=0-{last}");
    let taken = ask(&link, &whole).send().await.expect(206);
    assert_eq!(taken.body, packed.xorb[..=usize::try_from(last).expect("small")]);

    for range in [format!("bytes=0-{}", last + 1), format!("bytes={0}-{0}", last + 1)] {
        ask(&link, &range).send().await.expect(403);
    }
    for range in ["bytes=0-", "bytes=-1", "bytes=1-0", "bytes=0-18446744073709551615", "lines=0-1"]
    {
        let reply = ask(&link, range).send().await;
        assert!([400, 403].contains(&reply.status), "{range}: {}", reply.status);
    }
    rig.ask("GET", &link).send().await.expect(403);
    for method in ["PUT", "POST", "DELETE", "PATCH"] {
        let reply = rig.ask(method, &link).range(&whole).body("x").send().await;
        assert_eq!(reply.status, 405, "{method}");
    }

    // Any change to it: a letter at each place, one less, one more, a half of another one.
    let (path, sealed) = link.rsplit_once('/').expect("a path");
    let (_, others) = other.rsplit_once('/').expect("a path");
    let half = sealed.len() / 2;
    let mut changed = vec![
        sealed[1..].to_owned(),
        sealed[..sealed.len() - 1].to_owned(),
        format!("{sealed}A"),
        format!("{sealed}{sealed}"),
        format!("{}{}", &sealed[..half], &others[half..]),
        String::new(),
    ];
    for at in (0..sealed.len()).step_by(7) {
        let mut text = sealed.as_bytes().to_vec();
        text[at] = if text[at] == b'A' { b'B' } else { b'A' };
        changed.push(String::from_utf8(text).expect("letters"));
    }
    for sealed in changed {
        let reply = ask(&format!("{path}/{sealed}"), &whole).send().await;
        assert!([403, 404].contains(&reply.status), "{sealed}: {}", reply.status);
    }
    // It is no address of another kind, and no token.
    rig.ask("GET", &format!("/api/ballast/lfs/v1/{sealed}")).send().await.expect(403);
    rig.ask("GET", "/api/whoami-v2").bearer(sealed).send().await.expect(401);
    let query = format!("/v1/reconstructions/{}", packed.file);
    rig.xet("GET", &query, sealed).send().await.expect(401);

    rig.env.advance(Duration::from_mins(14));
    ask(&link, &whole).send().await.expect(206);
    rig.env.advance(Duration::from_mins(2));
    ask(&link, &whole).send().await.expect(403);
    // A key of days ago is no key.
    rig.env.advance(Duration::from_hours(72));
    ask(&link, &whole).send().await.expect(403);
    rig.stop().await;
}

#[tokio::test]
async fn an_lfs_link_is_for_one_act_and_dies_with_the_right_to_it() {
    let rig = Rig::start().await;
    let ann = rig.user("ann").await;
    let repo = rig.repo_of(&ann, "ann/m", true).await;
    let packed = pack(&splitmix(3, 200_000));
    rig.publish(&ann, &repo, &packed).await;
    let href = async |token: &str, operation: &str, act: &str, sha256: &str, size: usize| {
        let object = json!({"oid": sha256, "size": size});
        let asked = json!({"operation": operation, "objects": [object]});
        let batch = rig.ask("POST", &format!("/{repo}.git/info/lfs/objects/batch"));
        let told = batch.bearer(token).json(&asked).send().await.expect(200).json();
        let href: &Value = &told["objects"][0]["actions"][act]["href"];
        href.as_str().map(Rig::local).expect("an address").to_owned()
    };
    let sha256 = packed.sha256.to_string();
    let get = href(&ann, "download", "download", &sha256, packed.content.len()).await;
    let reply = rig.ask("GET", &get).send().await.expect(200);
    assert_eq!(reply.body, packed.content);
    for method in ["PUT", "POST", "DELETE"] {
        rig.ask(method, &get).body("x").send().await.expect(405);
    }
    let new = ballast_testkit::xet::sha256(b"new");
    let put = href(&ann, "upload", "upload", &new.to_string(), 3).await;
    rig.ask("GET", &put).send().await.expect(405);
    // It takes that object only.
    for (body, status) in [("old", 400), ("newer", 400), ("ne", 400)] {
        let reply = rig.ask("PUT", &put).body(body).send().await;
        assert_eq!(reply.status, status, "{body}: {}", reply.error());
    }
    rig.ask("PUT", &put).body("new").send().await.expect(200);

    // Whoever made it may not any more: so it opens nothing.
    let second = rig.token("ann", json!({"role": "write"})).await;
    let of_second = href(&second, "download", "download", &sha256, packed.content.len()).await;
    rig.ask("GET", &of_second).send().await.expect(200);
    rig.revoke(&second).await;
    rig.ask("GET", &of_second).send().await.expect(401);
    rig.ask("GET", &get).send().await.expect(200);
    let disabled = rig.ask("PATCH", "/api/ballast/v1/users/ann").bearer(&rig.admin);
    disabled.json(&json!({"disabled": true})).send().await.expect(200);
    rig.ask("GET", &get).send().await.expect(401);
    rig.ask("PUT", &put).body("new").send().await.expect(401);
    rig.stop().await;
}
