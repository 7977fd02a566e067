//! What is told of repos: one by one, in lists, by search.

use ballast_format::name::FilePath;
use ballast_node::upload::commit::CommitHeader;
use bytes::Bytes;
use serde_json::{Value, json};

use super::client::Reply;
use super::rig::Rig;
use super::upload::pack;

impl Rig {
    /// A commit of one small file; its id.
    async fn add(&self, token: &str, repo: &str, path: &str, content: &str) -> String {
        let revision = "main".to_owned();
        let header =
            CommitHeader { summary: "add".to_owned(), revision, ..CommitHeader::default() };
        let (caller, repo) = (self.caller(token), self.found(token, repo));
        let mut draft = self.hub().begin_commit(&caller, repo, header).await.expect("a draft");
        let path = FilePath::parse(path).expect("a path");
        let content = Bytes::copy_from_slice(content.as_bytes());
        draft.add_file(path, content).await.expect("a file");
        draft.finish().await.expect("a commit").commit.to_string()
    }

    async fn read(&self, token: &str, path: &str) -> Reply {
        self.ask("GET", path).bearer(token).send().await
    }

    async fn listed(&self, token: &str, query: &str) -> Vec<String> {
        names(&self.read(token, &format!("/api/models?{query}")).await.expect(200))
    }
}

fn names(reply: &Reply) -> Vec<String> {
    let list = reply.json();
    let name = |repo: &Value| repo["id"].as_str().expect("a name").to_owned();
    list.as_array().expect("a list").iter().map(name).collect()
}

#[tokio::test]
async fn a_repo_is_told_of_as_it_was_at_a_revision() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    rig.publish(&rig.admin, &repo, &pack(&[7; 3000])).await;
    let before = rig.add(&rig.admin, &repo, "README.md", "---\nlicense: mit\n---\n").await;
    rig.add(&rig.admin, &repo, "README.md", "---\nlicense: apache-2.0\n---\n").await;

    let now = rig.read(&rig.admin, "/api/models/admin/m?blobs=true").await.expect(200).json();
    assert_eq!(now["cardData"]["license"], "apache-2.0");
    assert_eq!((&now["private"], &now["gated"]), (&json!(false), &json!(false)));
    let siblings = now["siblings"].as_array().expect("files").clone();
    let large = siblings.iter().find(|file| file["rfilename"] == "weights.bin").expect("it");
    assert_eq!((&large["size"], &large["lfs"]["size"]), (&json!(3000), &json!(3000)));
    assert!(large["lfs"]["pointerSize"].is_u64() && large["lfs"]["sha256"].is_string());

    let then = format!("/api/models/admin/m/revision/{before}");
    let then = rig.read(&rig.admin, &then).await.expect(200).json();
    assert_eq!((&then["sha"], &then["cardData"]["license"]), (&json!(before), &json!("mit")));
    let few = "/api/models/admin/m/revision/HEAD?expand=sha&expand[]=tags";
    let few = rig.read(&rig.admin, few).await.expect(200).json();
    let keys: Vec<&String> = few.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["_id", "id", "sha", "tags"]);
    assert!(few["tags"].as_array().is_some_and(|tags| tags.contains(&json!("license:apache-2.0"))));
    let missing = rig.read(&rig.admin, "/api/models/admin/m/revision/none").await.expect(404);
    assert_eq!(missing.header("x-error-code"), Some("RevisionNotFound"));
    rig.stop().await;
}

#[tokio::test]
async fn lists_hold_what_fits_and_what_the_caller_may_see() {
    let rig = Rig::start().await;
    let ann = rig.user("ann").await;
    for (name, private, card) in [
        (
            "french",
            false,
            "---\nlanguage: fr\nlicense: mit\npipeline_tag: translation\n---\n# Nid\n",
        ),
        ("german", false, "---\nlanguage: de\nlicense: mit\nlibrary_name: peft\n---\nBaut auf.\n"),
        ("secret", true, "---\nlanguage: fr\nlicense: mit\n---\n"),
    ] {
        let repo = rig.repo_of(&ann, &format!("ann/{name}"), private).await;
        rig.add(&ann, &repo, "README.md", card).await;
    }
    for (query, expected) in [
        ("filter=fr", &["ann/french", "ann/secret"][..]),
        ("language=fr&license=mit", &["ann/french", "ann/secret"]),
        ("filter=license:mit&filter=de", &["ann/german"]),
        ("pipeline_tag=translation", &["ann/french"]),
        ("library=peft", &["ann/german"]),
        ("search=BAUT", &["ann/german"]),
        ("search=nid", &["ann/french"]),
        ("search=ann/ger", &["ann/german"]),
        ("author=ANN", &["ann/french", "ann/german", "ann/secret"]),
        ("author=admin", &[]),
        ("num_parameters=min:1B", &[]),
        ("unknown=1&gated=true", &[]),
    ] {
        let mut found = rig.listed(&ann, query).await;
        found.sort();
        assert_eq!(found, expected, "{query}");
        let open: Vec<&&str> = expected.iter().filter(|name| **name != "ann/secret").collect();
        let mut found = names(&rig.ask("GET", &format!("/api/models?{query}")).send().await);
        found.sort();
        assert!(found.iter().eq(open), "{query}, asked by nobody: {found:?}");
    }
    rig.read(&ann, "/api/models?num_parameters=many").await.expect(400);
    assert_eq!(rig.listed(&ann, "sort=id").await[0], "ann/french");
    assert_eq!(rig.listed(&ann, "sort=id&direction=1").await[0], "ann/french");
    assert_eq!(rig.listed(&ann, "sort=id&direction=-1").await[0], "ann/secret");
    rig.stop().await;
}

#[tokio::test]
async fn pages_follow_each_other_with_the_same_question() {
    let rig = Rig::start().await;
    for number in 0..5 {
        rig.repo(&format!("m{number}"), false).await;
    }
    let mut path = "/api/models?sort=id&limit=2&expand=author".to_owned();
    let mut all = Vec::new();
    loop {
        let reply = rig.read(&rig.admin, &path).await.expect(200);
        all.extend(names(&reply));
        let Some(link) = reply.header("link") else { break };
        let url = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
        path = Rig::local(url.expect("one address")).to_owned();
        assert!(path.contains("limit=2") && path.contains("sort=id"), "{path}");
    }
    let expected: Vec<String> = (0..5).map(|number| format!("admin/m{number}")).collect();
    assert_eq!(all, expected);
    rig.stop().await;
}

#[tokio::test]
async fn a_manifest_names_the_file_of_a_quantization() {
    let rig = Rig::start().await;
    let repo = rig.repo("gguf", true).await;
    rig.add(&rig.admin, &repo, "m-Q8_0.gguf", "8").await;
    rig.add(&rig.admin, &repo, "m-Q4_K_M.gguf", "4").await;
    for (tag, file) in [("q8_0", "m-Q8_0.gguf"), ("latest", "m-Q4_K_M.gguf")] {
        let path = format!("/v2/admin/gguf/manifests/{tag}");
        let manifest = rig.read(&rig.admin, &path).await.expect(200).json();
        assert_eq!(manifest["ggufFile"]["rfilename"], file);
        rig.ask("GET", &path).send().await.expect(401);
    }
    rig.read(&rig.admin, "/v2/admin/gguf/manifests/q2").await.expect(404);
    rig.read(&rig.admin, "/v2/admin/none/manifests/latest").await.expect(404);
    rig.stop().await;
}

#[tokio::test]
async fn an_owner_sees_what_their_repos_take() {
    let rig = Rig::start().await;
    let path = "/api/settings/repositories";
    rig.ask("GET", path).send().await.expect(401);
    let repo = rig.repo("m", true).await;
    let empty = rig.read(&rig.admin, path).await.expect(200).json()[0]["storage"].as_u64();
    rig.publish(&rig.admin, &repo, &pack(&[7; 3000])).await;
    let list = rig.read(&rig.admin, path).await.expect(200).json();
    assert_eq!((&list[0]["id"], &list[0]["visibility"]), (&json!(repo), &json!("private")));
    assert_eq!(list[0]["storage"].as_u64(), empty.map(|empty| empty + 3000));
    assert_eq!(list[0]["storagePercent"], 100.0);
    rig.stop().await;
}

#[tokio::test]
async fn a_repo_is_found_by_what_was_measured_and_by_all_of_its_card() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let filler: Vec<String> = (0..4000).map(|n| format!("filler{n} ")).collect();
    let filler = filler.concat();
    let result = json!({
        "task": {"type": "summarization"},
        "dataset": {"type": "xsum", "name": "Extreme"},
        "metrics": [{"type": "rouge", "name": "ROUGE-Ell", "value": 0.5}],
    });
    // JSON is YAML.
    let front = json!({
        "pretty_name": "Perfect Cardinal", "model-index": [{"name": "m", "results": [result]}],
    });
    let card = format!("---\n{front}\n---\n{filler} lastword\n");
    rig.add(&rig.admin, &repo, "README.md", &card).await;
    let other = rig.repo("other", false).await;
    rig.add(&rig.admin, &other, "README.md", "# Other\n").await;
    for word in ["rouge", "rouge-ell", "xsum", "Extreme", "summarization", "cardinal", "LASTWORD"] {
        assert_eq!(rig.listed(&rig.admin, &format!("search={word}")).await, [&*repo], "{word}");
    }
    let told = rig.read(&rig.admin, "/api/models/admin/m?expand=model-index").await.expect(200);
    let metric = &told.json()["model-index"][0]["results"][0]["metrics"][0]["type"];
    assert_eq!(metric, "rouge");
    rig.stop().await;
}

#[tokio::test]
async fn results_are_told_of_in_the_form_that_clients_read() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let card =
        "---\neval_results:\n- dataset: {id: a/b, task_id: t}\n  value: 1\n- nonsense\n---\n";
    rig.add(&rig.admin, &repo, "README.md", card).await;
    let results = "- dataset: {id: cais/hle, task_id: default}\n  value: 20.5\n- value: 1\n";
    rig.add(&rig.admin, &repo, ".eval_results/hle.yaml", results).await;
    let told = rig.read(&rig.admin, "/api/models/admin/m?expand=evalResults").await.expect(200);
    assert_eq!(
        told.json()["evalResults"],
        json!([
            {"dataset": {"id": "a/b", "task_id": "t"}, "value": 1},
            {"dataset": {"id": "cais/hle", "task_id": "default"}, "value": 20.5},
        ])
    );
    assert_eq!(rig.listed(&rig.admin, "search=cais/hle").await, [repo]);
    rig.stop().await;
}

#[tokio::test]
async fn filters_ask_for_what_can_run_a_model() {
    let rig = Rig::start().await;
    let gguf = rig.repo("gguf", false).await;
    rig.add(&rig.admin, &gguf, "m.gguf", "no header").await;
    let mlx = rig.repo("mlx", false).await;
    rig.add(&rig.admin, &mlx, "README.md", "---\nlibrary_name: mlx\n---\n").await;
    for (query, expected) in [
        ("apps=ollama", &[&*gguf][..]),
        ("apps=mlx-lm", &[&*mlx]),
        ("apps=ollama,mlx-lm&sort=id", &[&*gguf, &*mlx]),
        ("apps=llama.cpp&apps=mlx-lm&sort=id", &[&*gguf, &*mlx]),
        ("apps=vllm", &[]),
        ("inference=warm", &[]),
        ("inference_provider=all", &[]),
        ("inference_provider=&sort=id", &[&*gguf, &*mlx]),
    ] {
        assert_eq!(rig.listed(&rig.admin, query).await, expected, "{query}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_value_that_begins_like_its_filter_is_a_value() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let card = "---\ndatasets:\n- dataset-org/words\n---\n";
    rig.add(&rig.admin, &repo, "README.md", card).await;
    for query in ["dataset=dataset-org/words", "dataset=dataset:dataset-org/words"] {
        assert_eq!(rig.listed(&rig.admin, query).await, [&*repo], "{query}");
    }
    rig.stop().await;
}

/// The beginning of a GGUF file with one tensor of so many elements.
fn gguf(elements: u64) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend_from_slice(&3_u32.to_le_bytes());
    for number in [1_u64, 0, 1] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    file.push(b't');
    file.extend_from_slice(&1_u32.to_le_bytes());
    file.extend_from_slice(&elements.to_le_bytes());
    file.extend_from_slice(&[0; 12]);
    file
}

#[tokio::test]
async fn a_split_model_has_the_parameters_of_all_parts() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let total = || async {
        let told = rig.read(&rig.admin, "/api/models/admin/m?expand=gguf").await.expect(200);
        told.json()["gguf"]["total"].as_u64()
    };
    for (part, expected) in [(1_u64, None), (2, None), (3, Some(60))] {
        let text = String::from_utf8(gguf(part * 10)).expect("these numbers are text");
        let path = format!("q4/m-0000{part}-of-00003.gguf");
        rig.add(&rig.admin, &repo, &path, &text).await;
        assert_eq!(total().await, expected, "{part}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn headers_of_weights_come_in_one_answer() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let header = r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}"#;
    let length = u64::try_from(header.len()).expect("it is short").to_le_bytes();
    let length = String::from_utf8(length.to_vec()).expect("it is a letter");
    let file = format!("{length}{header}\0\0\0\0");
    rig.add(&rig.admin, &repo, "m-1.safetensors", &file).await;
    rig.add(&rig.admin, &repo, "m-2.safetensors", "no header at all").await;
    let index = |files: &[&str]| {
        let map: serde_json::Map<_, _> =
            files.iter().map(|file| ((*file).to_owned(), json!(file))).collect();
        json!({"metadata": {"total_size": 4}, "weight_map": map}).to_string()
    };
    rig.add(&rig.admin, &repo, "good.json", &index(&["m-1.safetensors"])).await;
    rig.add(&rig.admin, &repo, "bad.json", &index(&["m-1.safetensors", "m-2.safetensors"])).await;
    let path = |file: &str| format!("/api/models/{repo}/safetensors-metadata/{file}");
    let header: Value = serde_json::from_str(header).expect("JSON");
    let headers = json!({"m-1.safetensors": header});
    let one = rig.read(&rig.admin, &path("m-1.safetensors")).await.expect(200);
    assert_eq!(one.json(), json!({"headers": headers}));
    let all = rig.read(&rig.admin, &path("good.json")).await.expect(200);
    let index = json!({"metadata": {"total_size": 4}});
    assert_eq!(all.json(), json!({"headers": headers, "index": index}));
    rig.read(&rig.admin, &path("bad.json")).await.expect(400);
    rig.stop().await;
}

#[tokio::test]
async fn clients_that_ask_whether_there_is_xet_are_told() {
    for xet in [true, false] {
        let mut settings = Rig::settings();
        settings.xet = xet;
        let rig = Rig::start_with(settings).await;
        rig.repo("m", false).await;
        let path = "/api/models/admin/m?expand=xetEnabled&expand=usedStorage";
        let told = rig.read(&rig.admin, path).await.expect(200).json();
        assert_eq!(told["xetEnabled"], xet);
        assert!(told["usedStorage"].is_u64());
        rig.stop().await;
    }
}

#[tokio::test]
async fn datasets_and_spaces_are_told_of_with_what_is_theirs() {
    let rig = Rig::start().await;
    let card = |text: &str| json!([{"path": "README.md", "content": text}]);
    let citing = "---\npaperswithcode_id: pw\n---\n```bibtex\n@misc{a, title={b}}\n```\n";
    for body in [
        json!({"type": "dataset", "name": "d", "files": card(citing)}),
        json!({"type": "space", "sdk": "static", "name": "uses",
            "files": card("---\nmodels: [a/b]\n---\n")}),
        json!({"type": "space", "sdk": "static", "name": "alone"}),
    ] {
        let create = rig.ask("POST", "/api/repos/create").bearer(&rig.admin);
        create.json(&body).send().await.expect(200);
    }
    let data = rig.read(&rig.admin, "/api/datasets/admin/d").await.expect(200).json();
    let told = (&data["citation"], &data["paperswithcode_id"], &data["mainSize"]);
    let size = &data["usedStorage"];
    assert_eq!(told, (&json!("@misc{a, title={b}}"), &json!("pw"), size));
    let space = rig.read(&rig.admin, "/api/spaces/admin/uses").await.expect(200).json();
    let space = space.as_object().expect("an object");
    assert!(space.get("host") == Some(&Value::Null) && space.contains_key("region"));
    for (query, expected) in [
        ("linked=true", &["admin/uses"][..]),
        ("linked=false&sort=id", &["admin/alone", "admin/uses"]),
        ("models=a/b", &["admin/uses"]),
        ("models=linked", &[]),
    ] {
        let found = rig.read(&rig.admin, &format!("/api/spaces?{query}")).await.expect(200);
        assert_eq!(names(&found), expected, "{query}");
    }
    rig.stop().await;
}
