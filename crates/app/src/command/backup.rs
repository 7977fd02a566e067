//! `backup` and `restore`: a whole hub, from one store to another.
//!
//! They work on the stores themselves. A backup locks nothing and writes nothing where the hub is;
//! a restore has the hub's folder for itself.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use ballast_node::backup::{Copied, Purpose};
use ballast_node::hub::Hub;
use ballast_store::backend::{self, Access, Location, Secret};
use ballast_store::env::{RealEnv, SharedEnv};
use ballast_store::local::FolderLock;
use ballast_store::objects::Store;
use serde_json::json;

use crate::args::{BackupArgs, BucketArgs, RestoreArgs};
use crate::config::{Config, read_secret};
use crate::output::Output;
use crate::{serve, stores, telemetry};

/// Objects between two lines about how far it is.
const NOTED_EVERY: u64 = 200;

/// Copies the hub's store to another place.
pub(crate) fn backup(args: &BackupArgs, output: &mut Output) -> Result<ExitCode> {
    let config = Config::load(&args.config.to_config())?;
    telemetry::start(&config.log)?;
    let env = RealEnv::shared();
    let own = config.storage.location(&config.data)?;
    let place = place(&args.to)?;
    if place == own {
        bail!("the backup would be where the hub is, in `{}`", args.to);
    }
    let from = backend::open_to_read(&own, &config.storage.access()?)?;
    let from = stores::layered(&from, &env);
    let to = backend::open(&place, &access(&args.bucket)?, 0)
        .with_context(|| format!("opening the place of the backup, `{}`", args.to))?;
    let to_store = stores::layered(&to, &env);
    let copied = copy(from, &to_store, to.lock, Purpose::Backup, &env, output)?;
    tell(&copied, args.json, &format!("backed up to `{}`", args.to), output)
}

/// Makes a hub from a backup.
pub(crate) fn restore(args: &RestoreArgs, output: &mut Output) -> Result<ExitCode> {
    let config = Config::load(&args.config.to_config())?;
    telemetry::start(&config.log)?;
    let env = RealEnv::shared();
    let own = config.storage.location(&config.data)?;
    let place = place(&args.from)?;
    if own == Location::Memory {
        bail!("a hub in memory is gone when this command ends\nhint: set `storage.url`");
    }
    let from = backend::open_to_read(&place, &access(&args.bucket)?)
        .with_context(|| format!("opening the backup, `{}`", args.from))?;
    let from = stores::layered(&from, &env);
    let (to, locks) = serve::open_store(&config, &own, &env)?;
    let copied = copy(from, &to, locks, Purpose::Restore, &env, output)?;
    tell(&copied, args.json, &format!("restored from `{}`", args.from), output)
}

/// A folder, or a URL.
fn place(text: &str) -> Result<Location> {
    if text.contains("://") {
        return match text.parse().context("reading the place")? {
            Location::Memory => bail!("a backup in memory is gone when this command ends"),
            place => Ok(place),
        };
    }
    let path = std::path::absolute(Path::new(text)).with_context(|| format!("reading `{text}`"))?;
    Ok(Location::Folder(path))
}

fn access(args: &BucketArgs) -> Result<Access> {
    let secret = match &args.secret_file {
        None if args.access_key.is_some() => bail!("`--secret-file` names the secret of the key"),
        None => String::new(),
        Some(path) => read_secret("--secret-file", path)?,
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    if text(&args.endpoint).starts_with("http:") && !args.allow_http {
        bail!("without TLS everything travels in the clear\nhint: `--allow-http` if you want that");
    }
    Ok(Access {
        endpoint: text(&args.endpoint),
        region: text(&args.region),
        access_key: text(&args.access_key),
        secret: Secret::new(secret.trim()),
        allow_http: args.allow_http,
        virtual_hosted: args.virtual_hosted,
    })
}

/// Copies, and says how far it is. The locks are held until it is done.
fn copy<L: IntoIterator<Item = FolderLock>>(
    from: Store,
    to: &Store,
    locks: L,
    purpose: Purpose,
    env: &SharedEnv,
    output: &mut Output,
) -> Result<Copied> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let (output, noted) = (RefCell::new(output), Cell::new(0));
    let heard = |copied: &Copied| {
        if copied.objects >= noted.get() + NOTED_EVERY {
            noted.set(copied.objects);
            let line = format!("{} objects copied, {} bytes", copied.objects, copied.bytes);
            output.borrow_mut().note(line);
        }
    };
    let copied = runtime.block_on(async {
        let hub = Hub::open_to_read(from, Arc::clone(env)).await?;
        let copied = hub.copy_to(to, purpose, &heard).await;
        to.finish_cleanups().await;
        hub.close().await?;
        copied
    });
    drop(locks.into_iter().collect::<Vec<_>>());
    Ok(copied?)
}

fn tell(copied: &Copied, is_json: bool, done: &str, output: &mut Output) -> Result<ExitCode> {
    let Copied { repos, objects, bytes, present, entries, unsound } = copied;
    if is_json {
        output.json(&json!({
            "repos": repos, "objects": objects, "bytes": bytes, "present": present,
            "entries": entries, "unsound": unsound,
        }))?;
    } else {
        for what in unsound {
            output.line(format!("left out: {what}"))?;
        }
        output.line(format!(
            "{done}: {repos} repos; {objects} objects, {bytes} bytes and {entries} log entries \
             copied; {present} objects were there",
        ))?;
    }
    Ok(if unsound.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
