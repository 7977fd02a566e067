//! A round trip with the Rust client, against the hub that `HF_ENDPOINT` and `HF_TOKEN` name.
//!
//! `tests/round_trip.rs` runs it; its argument is the name of a repo to make.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use hf_hub::repository::{AddSource, RepoTreeEntry};
use hf_hub::{HFClient, HFClientSync, HFRepositorySync, RepoTypeModel, split_id};

type Model = HFRepositorySync<RepoTypeModel>;

const CARD: &str = "---\nlicense: mit\nlibrary_name: candle\n---\n# From Rust\n";
const LARGE_BYTES: usize = 12_000_000;

fn main() -> Result<()> {
    let name = std::env::args().nth(1).context("which repo?")?;
    let home = std::env::var("HF_HOME").context("HF_HOME is not set")?;
    let client = HFClientSync::from_inner(HFClient::new()?)?;
    ensure!(client.whoami().send()?.username == "admin", "another name");
    client.create_repository().repo_id(&name).repo_type(RepoTypeModel).private(true).send()?;
    let (owner, short) = split_id(&name);
    let model = client.model(owner, short);
    let content = content();
    let first = upload(&model, &content)?;
    look(&client, &model, &name, &first)?;
    download(&model, &content, Path::new(&home))?;
    history(&model, &first)?;
    client.delete_repository().repo_id(&name).repo_type(RepoTypeModel).send()?;
    ensure!(!model.exists().send()?, "it is still there");
    Ok(())
}

/// Bytes that do not repeat.
fn content() -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..LARGE_BYTES / 8).flat_map(|_| next()).collect()
}

/// Uploads a card and a large file; the last commit.
fn upload(model: &Model, content: &[u8]) -> Result<String> {
    let card = AddSource::Bytes(CARD.as_bytes().to_vec().into());
    model.upload_file().source(card).path_in_repo("README.md").send()?;
    let large = AddSource::Bytes(content.to_vec().into());
    let upload = model.upload_file().source(large).path_in_repo("w/model.safetensors");
    let commit = upload.commit_message("add weights").send()?;
    commit.commit_oid.context("a commit without an id")
}

fn look(client: &HFClientSync, model: &Model, name: &str, first: &str) -> Result<()> {
    let info = model.info().send()?;
    ensure!(info.id == name && info.sha.as_deref() == Some(first), "{info:?}");
    let found = client.list_models().author("admin").search("from rust").send()?;
    ensure!(found.iter().any(|model| model.id == name), "not found by its card: {found:?}");
    let tree = model.list_tree().recursive(true).send()?;
    let large = tree.iter().find_map(|entry| match entry {
        RepoTreeEntry::File { path, size, xet_hash, .. } if path == "w/model.safetensors" => {
            Some((*size, xet_hash.is_some()))
        }
        _ => None,
    });
    ensure!(large == Some((LARGE_BYTES as u64, true)), "{tree:?}");
    ensure!(model.file_exists().filename("README.md").send()?, "no card");
    ensure!(!model.file_exists().filename("missing.txt").send()?, "a file from nowhere");
    Ok(())
}

fn download(model: &Model, content: &[u8], home: &Path) -> Result<()> {
    let card = model.download_file().filename("README.md").send()?;
    ensure!(std::fs::read(card)? == CARD.as_bytes(), "the card came back different");
    let large = model.download_file().filename("w/model.safetensors").send()?;
    ensure!(std::fs::read(large)? == content, "the weights came back different");
    let part = model.download_file_to_bytes().filename("w/model.safetensors");
    let part = part.range(5_000_000..5_100_000).send()?;
    ensure!(part == content[5_000_000..5_100_000], "a range came back different");
    let folder = home.join("snapshot");
    model.snapshot_download().local_dir(folder.clone()).send()?;
    ensure!(std::fs::read(folder.join("w/model.safetensors"))? == content, "not the snapshot");
    Ok(())
}

fn history(model: &Model, first: &str) -> Result<()> {
    model.create_tag().tag("v1").revision(first).send()?;
    model.create_branch().branch("side/line").send()?;
    let note = AddSource::Bytes("on the side".into());
    let upload = model.upload_file().source(note).path_in_repo("note.txt");
    upload.revision("side/line").send()?;
    let refs = model.list_refs().send()?;
    ensure!(refs.branches.len() == 2 && refs.tags.len() == 1, "{refs:?}");
    let changes = model.get_raw_diff_stream().compare("v1..side/line").send()?;
    ensure!(changes.len() == 1 && changes[0].file_path == "note.txt", "{changes:?}");
    ensure!(changes[0].new_file_size == 11, "{changes:?}");
    let commits = model.list_commits().revision("side/line").send()?;
    ensure!(commits.len() >= 3, "{commits:?}");
    model.delete_file().path_in_repo("note.txt").revision("side/line").send()?;
    model.delete_branch().branch("side/line").send()?;
    model.delete_tag().tag("v1").send()?;
    Ok(())
}
