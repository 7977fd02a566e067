//! Who takes bundles in, for the gateway: what an import tells, as lines of JSON.

use std::sync::Arc;

use async_trait::async_trait;
use ballast_gateway::{AskedImport, BundleImporter};
use ballast_node::access::Caller;
use ballast_node::hub::Hub;
use ballast_sync::bundle::{
    Affected, Imported, ImportedRepo, Outcome, PublicKey, Standing, Step, import,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Imports with what `ballast-sync` knows of bundles.
#[derive(Debug)]
pub(crate) struct Importer;

#[async_trait]
impl BundleImporter for Importer {
    async fn import(
        &self,
        hub: &Arc<Hub>,
        caller: &Caller,
        asked: AskedImport,
        lines: &mpsc::Sender<Value>,
    ) -> Result<Value, String> {
        let read = |key: &String| PublicKey::from_pem(key).map_err(|error| error.to_string());
        let keys: Vec<PublicKey> = asked.keys.iter().map(read).collect::<Result<_, _>>()?;
        if !asked.folder.is_absolute() {
            return Err("the folder must be named from the root".to_owned());
        }
        // Whoever is too slow to hear how far it is misses some of it.
        let heard = |step: Step| drop(lines.try_send(step_view(&step)));
        match import(hub, caller, &asked.folder, &keys, &heard).await {
            Ok(imported) => summary(&imported),
            Err(error) => {
                tracing::info!(%error, "a bundle was not imported to its end");
                Err(error.to_string())
            }
        }
    }
}

fn step_view(step: &Step) -> Value {
    match step {
        Step::Bytes(done, total) => json!({"type": "progress", "bytes": done, "total": total}),
        Step::Repo(repo) => repo_view(repo),
    }
}

fn repo_view(repo: &ImportedRepo) -> Value {
    let mut view = json!({"type": "repo", "repo": repo.name});
    match &repo.outcome {
        Outcome::Here { moved, absent } => {
            let bytes: u64 = absent.iter().map(|pointer| pointer.size).sum();
            view["state"] = json!("here");
            view["moved"] = json!(moved);
            view["absentFiles"] = json!(absent.len());
            view["absentBytes"] = json!(bytes);
        }
        Outcome::Waits(affected) => {
            view["state"] = json!("waits");
            view["affected"] = affected_view(affected);
        }
        Outcome::Refused(reason) => {
            view["state"] = json!("refused");
            view["reason"] = json!(reason);
        }
    }
    view
}

/// What of a repo is affected by damage.
pub(crate) fn affected_view(affected: &Affected) -> Value {
    let Affected { objects, files, older } = affected;
    json!({"objects": objects, "files": files, "olderFiles": older})
}

fn summary(imported: &Imported) -> Result<Value, String> {
    let receipt = imported.receipt.encode().map_err(|error| error.to_string())?;
    let (standing, missing) = match &imported.standing {
        Standing::Next => ("next", None),
        Standing::Again => ("again", None),
        Standing::Older => ("older", None),
        Standing::Gap(previous) => ("gap", Some(previous.to_string())),
    };
    let volumes = imported.volumes.iter();
    let volumes: Vec<Value> =
        volumes.map(|(number, reason)| json!({"volume": number, "reason": reason})).collect();
    Ok(json!({
        "type": "summary",
        "bundle": imported.receipt.bundle.to_string(),
        "standing": standing,
        "missingBundle": missing,
        "presentBytes": imported.present,
        "volumes": volumes,
        "repos": imported.repos.iter().map(repo_view).collect::<Vec<_>>(),
        "receipt": BASE64_STANDARD.encode(receipt),
    }))
}
