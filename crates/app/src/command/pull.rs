//! `pull`: a repo's files on this host, as a folder or as the Hugging Face clients' cache has them.
//!
//! A node on this host is asked to have the large files, which are then taken out of its cache by a
//! reflink, a hard link, or where neither can be by copying. From any other hub they are
//! downloaded. Each file appears whole or not at all, and what comes or was there before is hashed.

mod content;

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use ballast_format::name::{FilePath, RepoName};
use serde_json::{Value, json};

use self::content::{Content, Hashing};
use super::text;
use crate::args::{PullArgs, RemoteArgs};
use crate::client::Client;
use crate::output::Output;

const NODE: &str = "/api/ballast/v1/node";

/// A revision of a repo, as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    /// `model`, `dataset` or `space`.
    kind: &'static str,
    name: String,
    revision: String,
}

/// A file to write.
struct Wanted {
    path: FilePath,
    size: u64,
    /// What its bytes must be.
    content: Content,
    /// Where the node has it.
    cached: Option<PathBuf>,
}

/// How files came, in all.
#[derive(Debug, Default)]
struct Counts {
    here: u64,
    reflinked: u64,
    linked: u64,
    copied: u64,
    downloaded: u64,
}

impl Named {
    fn parse(text: &str) -> Result<Self> {
        let bare = text.strip_prefix("hf://").unwrap_or(text);
        let (bare, revision) = bare.split_once('@').unwrap_or((bare, "main"));
        let kinds = [("models/", "model"), ("datasets/", "dataset"), ("spaces/", "space")];
        let told = kinds.iter().find_map(|(front, kind)| Some((*kind, bare.strip_prefix(front)?)));
        let (kind, name) = told.unwrap_or(("model", bare));
        let parsed = RepoName::parse(name);
        parsed.with_context(|| format!("`{text}` is no repo\nhint: `namespace/name@revision`"))?;
        ensure!(!revision.is_empty(), "`{text}` names no revision behind its `@`");
        Ok(Self { kind, name: name.to_owned(), revision: revision.to_owned() })
    }

    fn body(&self, verb: &str) -> Value {
        json!({"verb": verb, "kind": self.kind, "repo": self.name, "revision": self.revision})
    }

    /// Where the API has it.
    fn route(&self) -> String {
        format!("/api/{}s/{}", self.kind, self.name)
    }

    /// Where a file of a commit is.
    fn file(&self, commit: &str, path: &FilePath) -> String {
        let front = if self.kind == "model" { String::new() } else { format!("/{}s", self.kind) };
        format!("{front}/{}/resolve/{commit}/{}", self.name, encoded(path.as_str()))
    }
}

/// A path as it stands in an address.
fn encoded(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// `ballast pull`.
pub(crate) fn pull(args: &PullArgs, output: &mut Output) -> Result<ExitCode> {
    let (named, client) = (Named::parse(&args.repo)?, Client::new(&args.remote));
    let (commit, files) = look_up(&client, &named, args.remote.json, output)?;
    let mut counts = Counts::default();
    let folder = if let Some(folder) = &args.to {
        for file in &files {
            let target = folder.join(file.path.as_str());
            write(&client, &named.file(&commit, &file.path), file, &target, &mut counts)?;
        }
        folder.clone()
    } else {
        let cache = args.cache.clone().map_or_else(default_cache, Ok)?;
        snapshot(&client, &named, &commit, &files, &cache, &mut counts)?
    };
    let bytes: u64 = files.iter().map(|file| file.size).sum();
    let Counts { here, reflinked, linked, copied, downloaded } = counts;
    if args.remote.json {
        output.json(&json!({
            "folder": folder, "commit": commit, "files": files.len(), "bytes": bytes,
            "alreadyHere": here, "reflinked": reflinked, "linked": linked, "copied": copied,
            "downloaded": downloaded,
        }))?;
    } else {
        output.note(format!(
            "{} files: {here} were here, {reflinked} reflinked, {linked} linked, {copied} copied, \
             {downloaded} downloaded",
            files.len()
        ));
        output.line(folder.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The commit and its files, and where a node has them.
fn look_up(
    client: &Client,
    named: &Named,
    quiet: bool,
    output: &mut Output,
) -> Result<(String, Vec<Wanted>)> {
    let mut cached = HashMap::new();
    let brought = ask(client, &named.body("bring"), |line| {
        if line["type"] == "file" {
            if let Some(path) = line["cached"].as_str() {
                cached.insert(text(&line, "path"), PathBuf::from(path));
            }
        } else if !quiet {
            output.note(progress(&line));
        }
        Ok(())
    });
    let commit = match brought {
        Ok(summary) => text(&summary, "commit"),
        // Any hub has them too.
        Err(error) if error.to_string().starts_with("this is no node") => {
            let route = format!("{}/revision/{}", named.route(), encoded(&named.revision));
            text(&client.call("GET", &route, None)?, "sha")
        }
        Err(error) => return Err(error),
    };
    ensure!(commit.len() == 40, "the hub does not say which commit `{}` is", named.revision);
    let tree = format!("{}/tree/{commit}?recursive=true", named.route());
    let mut files = Vec::new();
    for item in client.list(&tree)? {
        if item["type"] == "file" {
            let path = text(&item, "path");
            files.push(Wanted {
                cached: cached.remove(&path),
                path: FilePath::parse(&path)?,
                size: item["size"].as_u64().context("a file has no size")?,
                content: Content::parse(&text(&item, "oid"), item["lfs"]["oid"].as_str())?,
            });
        }
    }
    Ok((commit, files))
}

fn progress(line: &Value) -> String {
    let (here, size) = (line["here"].as_u64().unwrap_or(0), line["size"].as_u64().unwrap_or(0));
    let percent = (here.saturating_mul(100)).checked_div(size).unwrap_or(100);
    format!("{}: {percent}%", text(line, "path"))
}

/// Asks a node, hears each line, and gives back the summary.
fn ask(client: &Client, body: &Value, mut hear: impl FnMut(Value) -> Result<()>) -> Result<Value> {
    let mut summary = None;
    client.lines(NODE, body, |line| {
        match line["type"].as_str() {
            Some("summary") => summary = Some(line),
            Some("error") => bail!("{}", text(&line, "message")),
            _ => hear(line)?,
        }
        Ok(())
    })?;
    summary.context("the node stopped before it was done; run it again")
}

/// Where the clients have their cache.
fn default_cache() -> Result<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(cache) = named("HF_HUB_CACHE") {
        return Ok(cache.into());
    }
    if let Some(home) = named("HF_HOME") {
        return Ok(Path::new(&home).join("hub"));
    }
    let cache = named("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| named("HOME").map(|home| Path::new(&home).join(".cache")));
    let cache = cache.context("there is no home folder\nhint: name one with --cache or --to")?;
    Ok(cache.join("huggingface/hub"))
}

/// Writes a snapshot as the clients do: contents by their names, and links to them by path.
fn snapshot(
    client: &Client,
    named: &Named,
    commit: &str,
    files: &[Wanted],
    cache: &Path,
    counts: &mut Counts,
) -> Result<PathBuf> {
    let repo = cache.join(format!("{}s--{}", named.kind, named.name.replace('/', "--")));
    let snapshot = repo.join("snapshots").join(commit);
    for file in files {
        let (address, etag) = (named.file(commit, &file.path), file.content.etag());
        write(client, &address, file, &repo.join("blobs").join(&etag), counts)?;
        let link = snapshot.join(file.path.as_str());
        let depth = file.path.as_str().split('/').count() + 1;
        let target = format!("{}blobs/{etag}", "../".repeat(depth));
        if fs::read_link(&link).is_ok_and(|there| there == Path::new(&target)) {
            continue;
        }
        let made = appear(&link, |new| Ok(std::os::unix::fs::symlink(&target, new)?));
        made.with_context(|| format!("linking `{}`", link.display()))?;
    }
    if named.revision != commit {
        let reference = repo.join("refs").join(&named.revision);
        appear(&reference, |new| Ok(fs::write(new, commit)?))
            .with_context(|| format!("writing `{}`", reference.display()))?;
    }
    Ok(snapshot)
}

/// Writes a file, unless it is there already.
fn write(
    client: &Client,
    address: &str,
    file: &Wanted,
    target: &Path,
    counts: &mut Counts,
) -> Result<()> {
    let (size, cached) = (file.size, file.cached.as_deref());
    if file.content.is_at(target, size, cached) {
        counts.here += 1;
        return Ok(());
    }
    let done = appear(target, |new| {
        if cached.is_some_and(|cached| take(cached, new, counts).is_ok()) {
            return Ok(());
        }
        let mut into = Hashing::new(File::create(new)?, file.content, size);
        let bytes = client.read(address, &mut into)?;
        ensure!(bytes == size, "{bytes} bytes came, not {size}; run it again");
        ensure!(into.finish(), "the bytes that came are not those of the file; run it again");
        counts.downloaded += 1;
        Ok(())
    });
    done.with_context(|| format!("writing `{}`", target.display()))
}

/// Takes a file out of the node's cache.
fn take(cached: &Path, new: &Path, counts: &mut Counts) -> std::io::Result<()> {
    if reflink_copy::reflink(cached, new).is_ok() {
        counts.reflinked += 1;
    } else if fs::hard_link(cached, new).is_ok() {
        counts.linked += 1;
    } else {
        fs::copy(cached, new)?;
        counts.copied += 1;
    }
    Ok(())
}

/// Makes something beside its place, and then puts it there.
fn appear(target: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = target.parent().context("it has no folder")?;
    fs::create_dir_all(folder)?;
    let name = target.file_name().context("it has no name")?.to_string_lossy();
    let new = folder.join(format!(".{name}.{}.part", std::process::id()));
    // One that a killed process of this number left.
    let _ = fs::remove_file(&new);
    let made = make(&new).and_then(|()| Ok(fs::rename(&new, target)?));
    // Where both are one file already, a rename leaves the new name.
    let _ = fs::remove_file(&new);
    made
}

/// `ballast node warm`.
pub(super) fn warm(
    repos: &[String],
    pin: bool,
    remote: &RemoteArgs,
    output: &mut Output,
) -> Result<ExitCode> {
    let client = Client::new(remote);
    let verb = if pin { "pin" } else { "bring" };
    let mut summaries = Vec::new();
    for repo in repos {
        let summary = ask(&client, &Named::parse(repo)?.body(verb), |line| {
            if line["type"] == "progress" && !remote.json {
                output.note(progress(&line));
            }
            Ok(())
        })?;
        if !remote.json {
            let (files, commit) = (text(&summary, "files"), text(&summary, "commit"));
            output.line(format!("{repo}: {files} files of {commit} are here"))?;
        }
        summaries.push(summary);
    }
    if remote.json {
        output.json(&Value::Array(summaries))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `ballast node pins`.
pub(super) fn pins(
    release: &[String],
    remote: &RemoteArgs,
    output: &mut Output,
) -> Result<ExitCode> {
    let client = Client::new(remote);
    for repo in release {
        ask(&client, &Named::parse(repo)?.body("unpin"), |_| Ok(()))?;
    }
    let mut pinned = Vec::new();
    ask(&client, &json!({"verb": "list"}), |line| {
        if line["pinned"] == json!(true) {
            pinned.push(line);
        }
        Ok(())
    })?;
    if remote.json {
        output.json(&Value::Array(pinned))?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |file: &Value| ["sha256", "size", "whole"].map(|field| text(file, field)).to_vec();
    let rows: Vec<Vec<String>> = pinned.iter().map(row).collect();
    output.table(&["SHA256", "SIZE", "WHOLE"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repos_are_named_as_people_do() -> Result<()> {
        let named = |kind, name: &str, revision: &str| Named {
            kind,
            name: name.to_owned(),
            revision: revision.to_owned(),
        };
        assert_eq!(Named::parse("acme/tiny")?, named("model", "acme/tiny", "main"));
        assert_eq!(Named::parse("hf://acme/tiny@v1")?, named("model", "acme/tiny", "v1"));
        assert_eq!(Named::parse("datasets/acme/d@a/b")?, named("dataset", "acme/d", "a/b"));
        for wrong in ["", "acme", "acme/tiny@", "a/b/c", "../tiny"] {
            assert!(Named::parse(wrong).is_err(), "{wrong}");
        }
        let path = FilePath::parse("a b/ü.bin")?;
        let commit = "0".repeat(40);
        let file = named("dataset", "acme/d", "main").file(&commit, &path);
        assert_eq!(file, format!("/datasets/acme/d/resolve/{commit}/a%20b/%C3%BC.bin"));
        Ok(())
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("ballast-pull-{}", std::process::id()));
        let target = folder.join("a/b");
        let failed = appear(&target, |new| {
            fs::write(new, "half")?;
            bail!("it broke")
        });
        assert!(failed.is_err() && !target.exists());
        appear(&target, |new| Ok(fs::write(new, "whole")?))?;
        let cached = folder.join("cached");
        fs::write(&cached, "of the node")?;
        let mut counts = Counts::default();
        appear(&target, |new| Ok(take(&cached, new, &mut counts)?))?;
        assert_eq!(fs::read_to_string(&target)?, "of the node");
        assert_eq!(counts.reflinked + counts.linked, 1);
        // The same once more.
        appear(&target, |new| Ok(take(&cached, new, &mut counts)?))?;
        assert_eq!(fs::read_dir(folder.join("a"))?.count(), 1);
        fs::remove_dir_all(&folder)?;
        Ok(())
    }
}
