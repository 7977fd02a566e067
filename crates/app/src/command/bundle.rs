//! `bundle`: repos in signed files, for a hub that no network leads to.
//!
//! Creating, verifying and inspecting work on files; importing is done by the hub that is running,
//! or on its store while none is.

mod local;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use ballast_format::bundle::Receipt;
use ballast_format::hash::Sha256;
use ballast_format::name::{RepoKind, RepoName};
use ballast_gateway::AskedImport;
use ballast_node::hub::Hub;
use ballast_node::pool::Pool;
use ballast_store::backend;
use ballast_store::env::RealEnv;
use ballast_sync::bundle::{
    Affected, Created, LeftOut, NewBundle, OpenBundle, VolumeState, Wish, create, open, verify,
};
use ballast_sync::mirror::jobs::{Member, members_of_set};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::key::{key_texts, public_keys, signing_key};
use super::text;
use crate::args::{
    BundleCommand, BundleCreateArgs, BundleImportArgs, BundleInspectArgs, BundleReadArgs,
};
use crate::client::Client;
use crate::config::Config;
use crate::importer::affected_view;
use crate::output::Output;
use crate::{stores, telemetry};

/// Bytes between two lines about how far it is.
const NOTED_EVERY: u64 = 1 << 30;

/// One of the commands.
pub(crate) fn bundle(command: &BundleCommand, output: &mut Output) -> Result<ExitCode> {
    match command {
        BundleCommand::Create(args) => create_bundle(args, output),
        BundleCommand::Verify(args) => verify_bundle(args, output),
        BundleCommand::Inspect(args) => inspect_bundle(args, output),
        BundleCommand::Import(args) => import_bundle(args, output),
    }
}

/// Says how far it is, from time to time.
struct Progress<'a> {
    output: RefCell<&'a mut Output>,
    noted: Cell<u64>,
}

impl<'a> Progress<'a> {
    fn on(output: &'a mut Output) -> Self {
        Self { output: RefCell::new(output), noted: Cell::new(0) }
    }

    fn hear(&self, done: u64, total: u64) {
        if done < self.noted.get().saturating_add(NOTED_EVERY) {
            return;
        }
        self.noted.set(done);
        let percent = done.saturating_mul(100) / total.max(1);
        self.output.borrow_mut().note(format!("{} of {} ({percent} %)", size(done), size(total)));
    }
}

fn size(bytes: u64) -> bytesize::Display {
    bytesize::ByteSize::b(bytes).display().si()
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("starting the runtime")
}

fn pool() -> Pool {
    Pool::new(std::thread::available_parallelism().map_or(2, std::num::NonZero::get))
}

/// `ns/name`, `datasets/ns/name@revision`, …
fn wish(text: &str, is_partial: bool) -> Result<Wish> {
    let (repo, revision) = match text.split_once('@') {
        Some((repo, revision)) => (repo, Some(revision.to_owned())),
        None => (text, None),
    };
    let (kind, name) = match repo.split_once('/') {
        Some(("datasets", name)) if name.contains('/') => (RepoKind::Dataset, name),
        Some(("spaces", name)) if name.contains('/') => (RepoKind::Space, name),
        Some(("models", name)) if name.contains('/') => (RepoKind::Model, name),
        _ => (RepoKind::Model, repo),
    };
    let name = RepoName::parse(name).with_context(|| format!("reading `{text}`"))?;
    Ok(Wish { kind, name, revision, is_partial })
}

fn create_bundle(args: &BundleCreateArgs, output: &mut Output) -> Result<ExitCode> {
    let config = Config::load(&args.config.to_config())?;
    telemetry::start(&config.log)?;
    let wishes = args.repos.iter().map(|repo| wish(repo, args.partial));
    let mut wishes: Vec<Wish> = wishes.collect::<Result<_>>()?;
    let key = signing_key(&args.key)?;
    let since = args.since.as_deref().map(read_receipt).transpose()?;
    let env = RealEnv::shared();
    let location = config.storage.location(&config.data)?;
    let from = backend::open_to_read(&location, &config.storage.access()?)?;
    let store = stores::layered(&from, &env);
    let progress = Progress::on(output);
    let created = runtime()?.block_on(async {
        let hub = Hub::open_to_read(store, env).await?;
        let heard = |done, total| progress.hear(done, total);
        for set in &args.set {
            wishes.extend(members_of_set(&hub, set).await?.into_iter().map(|member| {
                let Member { repo, revision, is_partial } = member;
                let (kind, name) = (repo.kind(), repo.name().clone());
                let is_partial = is_partial || args.partial;
                Wish { kind, name, revision: Some(revision), is_partial }
            }));
        }
        let (since, split) = (since.as_ref(), args.split.as_u64());
        let new = NewBundle { wishes: &wishes, since, split, key: &key };
        let created = create(&hub, &args.output, &new, &heard).await;
        hub.close().await?;
        Ok::<_, anyhow::Error>(created?)
    })?;
    tell_created(&created, args, output)
}

fn read_receipt(path: &Path) -> Result<Receipt> {
    let bytes = std::fs::read(path).with_context(|| format!("reading `{}`", path.display()))?;
    Receipt::decode(&bytes).with_context(|| format!("reading `{}`", path.display()))
}

fn tell_created(
    created: &Created,
    args: &BundleCreateArgs,
    output: &mut Output,
) -> Result<ExitCode> {
    let Created { statement, kept, forgotten, was_there, left_out } = created;
    let bytes: u64 = statement.volumes.iter().map(|sum| sum.bytes).sum();
    if *forgotten > 0 {
        output.note(format!(
            "{forgotten} revisions of the receipt are not here any more, and what they had may be \
             carried again"
        ));
    }
    if args.json {
        output.json(&json!({
            "bundle": statement.bundle.to_string(),
            "sequence": statement.sequence,
            "previous": statement.previous.map(|previous| previous.to_string()),
            "volumes": statement.volumes.len(),
            "bytes": bytes,
            "keptVolumes": kept,
            "forgottenRevisions": forgotten,
            "wasThere": was_there,
            "leftOut": left_out.iter().map(left_out_view).collect::<Vec<_>>(),
        }))?;
    } else {
        for LeftOut { repo, files, bytes } in left_out {
            let bytes = size(*bytes);
            output.line(format!("{repo}: without {files} files of {bytes}, which are not here"))?;
        }
        let (count, folder) = (statement.volumes.len(), args.output.display());
        let was = if *was_there { "is whole already in" } else { "is made in" };
        output.line(format!(
            "bundle {} {was} {folder}: {count} volumes, {}",
            statement.bundle,
            size(bytes),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn left_out_view(left_out: &LeftOut) -> Value {
    json!({"repo": left_out.repo, "files": left_out.files, "bytes": left_out.bytes})
}

fn verify_bundle(args: &BundleReadArgs, output: &mut Output) -> Result<ExitCode> {
    let keys = public_keys(&args.key)?;
    let progress = Progress::on(output);
    let (bundle, verified) = runtime()?.block_on(async {
        let bundle = open(&args.folder, &keys, &pool()).await?;
        let total = bundle.volume_bytes();
        let verified = verify(&bundle, &|done| progress.hear(done, total)).await?;
        Ok::<_, anyhow::Error>((bundle, verified))
    })?;
    let affected = bundle.affected(&verified.bad);
    let volumes = (1..).zip(&verified.volumes).filter_map(|(number, state)| match state {
        VolumeState::Sound => None,
        VolumeState::Missing => Some((number, "it is missing".to_owned())),
        VolumeState::Damaged(reason) => Some((number, reason.clone())),
    });
    let volumes: BTreeMap<u32, String> = volumes.collect();
    let is_sound = verified.is_sound();
    if args.json {
        let (repos, volumes) = (affected_json(&affected), volumes_json(&volumes));
        output.json(&json!({
            "sound": is_sound,
            "bundle": bundle.statement.bundle.to_string(),
            "bytes": verified.bytes,
            "volumes": volumes,
            "materials": verified.materials,
            "affected": repos,
        }))?;
    } else {
        tell_volumes(&volumes, output)?;
        if let Some(reason) = &verified.materials {
            output.line(format!("bill of materials: {reason}"))?;
        }
        for (repo, affected) in &affected {
            tell_affected(repo, affected, output)?;
        }
        let verdict = if is_sound { "is what was signed" } else { "is damaged" };
        let (name, bytes) = (bundle.statement.bundle, size(verified.bytes));
        output.line(format!("bundle {name} {verdict}; {bytes} read"))?;
    }
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn affected_json(affected: &BTreeMap<String, Affected>) -> Value {
    let repos = affected.iter().map(|(repo, affected)| {
        let mut view = affected_view(affected);
        view["repo"] = json!(repo);
        view
    });
    Value::Array(repos.collect())
}

fn volumes_json(volumes: &BTreeMap<u32, String>) -> Value {
    let volumes = volumes.iter();
    Value::Array(
        volumes.map(|(number, reason)| json!({"volume": number, "reason": reason})).collect(),
    )
}

fn tell_volumes(volumes: &BTreeMap<u32, String>, output: &mut Output) -> Result<()> {
    for (number, reason) in volumes {
        output.line(format!("volume {number:04}: {reason}"))?;
    }
    Ok(())
}

fn tell_affected(repo: &str, affected: &Affected, output: &mut Output) -> Result<()> {
    if affected.objects {
        output.line(format!("{repo}: its commits, folders and small files are affected"))?;
    }
    for file in &affected.files {
        output.line(format!("{repo}: {file} is affected"))?;
    }
    if affected.older > 0 {
        output.line(format!("{repo}: {} files of earlier commits are affected", affected.older))?;
    }
    Ok(())
}

fn inspect_bundle(args: &BundleInspectArgs, output: &mut Output) -> Result<ExitCode> {
    let keys = public_keys(&args.key)?;
    let bundle = runtime()?.block_on(open(&args.folder, &keys, &pool()))?;
    let view = inspect_view(&bundle);
    if args.json {
        output.json(&view)?;
        return Ok(ExitCode::SUCCESS);
    }
    let trust = match bundle.is_trusted {
        true => "whose key was given",
        false => "which nobody has checked: give a key with `--key`",
    };
    output.line(format!("bundle    {}", text(&view, "bundle")))?;
    output.line(format!("signed by {}, {trust}", text(&view, "creator")))?;
    if let Some(previous) = view["previous"].as_str() {
        output.line(format!("follows   {previous}"))?;
    }
    let (count, bytes) = (bundle.statement.volumes.len(), size(bundle.volume_bytes()));
    output.line(format!("volumes   {count}, {bytes}"))?;
    let repos = view["repos"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |repo: &Value| {
        let list = |field: &str| {
            let texts = repo[field].as_array().into_iter().flatten();
            texts.filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        };
        let names = ["repo", "license", "newFiles", "newBytes"].map(|field| text(repo, field));
        let [name, license, files, bytes] = names;
        vec![name, list("revisions"), list("refs"), license, files, bytes]
    };
    let rows: Vec<Vec<String>> = repos.iter().map(row).collect();
    output.table(&["repo", "revision", "refs", "licence", "new files", "bytes"], &rows)?;
    for LeftOut { repo, files, bytes } in LeftOut::of(&bundle.contents) {
        output.line(format!("{repo}: without {files} files of {}", size(bytes)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn inspect_view(bundle: &OpenBundle) -> Value {
    let statement = &bundle.statement;
    let hex = |bytes: &[u8; 32]| Sha256::from_bytes(*bytes).to_string();
    let repos = bundle.contents.repos.iter().map(|repo| {
        let files = repo.links.iter().map(|file| &bundle.contents.files[*file as usize]);
        let new_bytes: u64 = files.map(|file| file.size).sum();
        let paths = repo.paths.iter().map(|named| {
            let file = &bundle.contents.files[named.file as usize];
            json!({
                "path": named.path.as_str(), "size": file.size, "sha256": file.sha256.to_string(),
            })
        });
        json!({
            "repo": format!("{}{}", repo.kind.url_prefix(), repo.name),
            "license": repo.license,
            "upstream": repo.upstream,
            "revisions": repo.revisions.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "refs": repo.refs.iter().map(|carried| carried.name.as_str()).collect::<Vec<_>>(),
            "newObjects": repo.objects.len(),
            "newFiles": repo.links.len(),
            "newBytes": new_bytes,
            "files": paths.collect::<Vec<_>>(),
            "leftOut": repo.absent.iter().map(|pointer| json!({
                "size": pointer.size, "sha256": pointer.sha256.to_string(),
            })).collect::<Vec<_>>(),
        })
    });
    json!({
        "bundle": statement.bundle.to_string(),
        "creator": hex(&statement.creator),
        "trusted": bundle.is_trusted,
        "sequence": statement.sequence,
        "createdUnixMs": statement.created_ms,
        "previous": statement.previous.map(|previous| previous.to_string()),
        "volumes": statement.volumes.iter().map(|sum| json!({
            "bytes": sum.bytes, "blake3": hex(&sum.hash),
        })).collect::<Vec<_>>(),
        "buildsOn": bundle.contents.bases.iter().map(|base| base.sha256.to_string())
            .collect::<Vec<_>>(),
        "repos": repos.collect::<Vec<_>>(),
    })
}

fn import_bundle(args: &BundleImportArgs, output: &mut Output) -> Result<ExitCode> {
    let keys = key_texts(&args.key)?;
    let folder = std::path::absolute(&args.folder)
        .with_context(|| format!("reading `{}`", args.folder.display()))?;
    let progress = Progress::on(output);
    let mut summary = None::<Value>;
    let hear = |line: Value| {
        match line["type"].as_str() {
            Some("progress") => {
                let count = |field: &str| line[field].as_u64().unwrap_or_default();
                progress.hear(count("bytes"), count("total"));
            }
            Some("summary") => summary = Some(line),
            Some("error") => bail!("{}", text(&line, "message")),
            _ => {}
        }
        Ok(())
    };
    if args.local {
        local::import(&args.store, AskedImport { folder, keys }, hear)?;
    } else {
        if args.store.data.is_some() {
            bail!("`--data` is for an import without a running hub\nhint: add `--local`");
        }
        let folder = folder.to_str().context("the folder's name is no text")?;
        let body = json!({"folder": folder, "keys": keys});
        Client::new(&args.remote).lines("/api/ballast/v1/bundle/import", &body, hear)?;
    }
    let mut summary = summary.context("the hub stopped before it was done; run it again")?;
    let receipt =
        BASE64_STANDARD.decode(text(&summary, "receipt")).context("reading the receipt")?;
    write_receipt(&args.receipt, &receipt)?;
    let repos = summary["repos"].as_array().cloned().unwrap_or_default();
    let all_here = repos.iter().all(|repo| repo["state"] == json!("here"));
    if args.remote.json {
        summary["receipt"] = json!(args.receipt.display().to_string());
        output.json(&summary)?;
    } else {
        tell_imported(&summary, &repos, output)?;
        output.line(format!("the receipt is in {}", args.receipt.display()))?;
    }
    Ok(if all_here { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Replaces the receipt of the import before.
fn write_receipt(path: &Path, bytes: &[u8]) -> Result<()> {
    let context = || format!("writing `{}`", path.display());
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    std::fs::write(&part, bytes).with_context(context)?;
    std::fs::File::open(&part).and_then(|file| file.sync_all()).with_context(context)?;
    std::fs::rename(&part, path).with_context(context)
}

fn tell_imported(summary: &Value, repos: &[Value], output: &mut Output) -> Result<()> {
    match summary["standing"].as_str() {
        Some("again") => output.note("this bundle came before"),
        Some("older") => output.note("a later bundle came before: refs stay where they are"),
        Some("gap") => output.note(format!(
            "it was made to follow the bundle {}, which never came",
            text(summary, "missingBundle")
        )),
        _ => {}
    }
    for volume in summary["volumes"].as_array().into_iter().flatten() {
        output.line(format!(
            "volume {:04}: {}",
            volume["volume"].as_u64().unwrap_or(0),
            text(volume, "reason")
        ))?;
    }
    for repo in repos {
        let name = text(repo, "repo");
        match repo["state"].as_str() {
            Some("here") => {
                let count = |field: &str| repo[field].as_u64().unwrap_or_default();
                let but = match count("absentFiles") {
                    0 => String::new(),
                    files => {
                        format!(", without {files} files of {}", size(count("absentBytes")))
                    }
                };
                output.line(format!("{name}: is here{but}"))?;
            }
            Some("refused") => output.line(format!("{name}: {}", text(repo, "reason")))?,
            _ => {
                output.line(format!("{name}: waits for what is missing or damaged"))?;
                let affected = &repo["affected"];
                let files = affected["files"].as_array().into_iter().flatten();
                let files = files.filter_map(Value::as_str).map(ToOwned::to_owned).collect();
                let objects = affected["objects"].as_bool().unwrap_or_default();
                let older = affected["olderFiles"].as_u64().unwrap_or_default();
                let older = usize::try_from(older).unwrap_or(usize::MAX);
                tell_affected(&name, &Affected { objects, files, older }, output)?;
            }
        }
    }
    Ok(())
}
