//! Which requests count as one download.

use std::time::Duration;

use super::rig::Rig;
use super::upload::pack;

impl Rig {
    fn downloads(&self, repo: &str) -> u64 {
        self.hub().downloads(&self.found(&self.admin, repo).id()).recent
    }

    async fn get(&self, method: &str, repo: &str, agent: &str) {
        let ask = self.ask(method, &format!("/{repo}/resolve/main/weights.bin"));
        ask.bearer(&self.admin).header("user-agent", agent).send().await.expect(200);
    }
}

#[tokio::test]
async fn what_a_client_says_of_each_file_makes_no_other_download() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    rig.publish(&rig.admin, &repo, &pack(&[7; 3000])).await;
    let agent = "transformers/5.23; hf_hub/2.4.0; python/3.11";
    for more in ["", "; file_type/config; from_auto_class/True", "; file_type/model; framework/pt"]
    {
        rig.get("GET", &repo, &format!("{agent}{more}")).await;
        assert_eq!(rig.downloads(&repo), 1, "{more}");
    }
    rig.env.advance(Duration::from_secs(301));
    rig.get("GET", &repo, agent).await;
    assert_eq!(rig.downloads(&repo), 2);
    rig.stop().await;
}

#[tokio::test]
async fn a_load_by_xet_counts_once_whoever_marks_it() {
    let rig = Rig::start().await;
    let (marked, silent) = (rig.repo("marked", false).await, rig.repo("silent", false).await);
    let packed = pack(&[7; 3000]);
    for repo in [&marked, &silent] {
        rig.publish(&rig.admin, repo, &packed).await;
    }
    let path = format!("/{marked}/resolve/main/weights.bin");
    let head = rig.ask("HEAD", &path).bearer(&rig.admin).header("x-hf-download-counter", "1");
    head.send().await.expect(200);
    // Some clients only look at the headers, and say nothing of a download.
    rig.get("HEAD", &silent, "hf-hub/1.0").await;
    assert_eq!((rig.downloads(&marked), rig.downloads(&silent)), (1, 0));
    for repo in [&marked, &silent] {
        let token = rig.xet_token(&rig.admin, repo, false);
        rig.reconstruction(&token, &packed).await.expect(200);
        rig.get("GET", repo, "hf-hub/1.0").await;
        assert_eq!(rig.downloads(repo), 1, "{repo}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_clone_by_lfs_counts_where_the_bytes_are_taken() {
    use serde_json::json;
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let packed = pack(&[7; 3000]);
    rig.publish(&rig.admin, &repo, &packed).await;
    let object = json!({"oid": packed.sha256.to_string(), "size": 3000});
    let asked = json!({"operation": "download", "transfers": ["basic"], "objects": [object]});
    let batch = rig.ask("POST", &format!("/{repo}.git/info/lfs/objects/batch"));
    let batch = batch.bearer(&rig.admin).json(&asked).send().await.expect(200).json();
    assert_eq!(rig.downloads(&repo), 0);
    let href = batch["objects"][0]["actions"]["download"]["href"].as_str().expect("a link");
    for _ in 0..2 {
        rig.ask("GET", Rig::local(href)).send().await.expect(200);
        assert_eq!(rig.downloads(&repo), 1);
    }
    rig.stop().await;
}
