//! What scans found, in the shapes that clients read.

use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_node::download::{ItemKind, TreeItem};
use ballast_node::scan::{Scan, Status};
use serde_json::{Value, json};

use super::place::Context;
use crate::call::Call;
use crate::error::Failure;

/// What is known of these items, in their order. What is not known yet is looked at soon.
pub(super) async fn scans(
    at: &Context<'_>,
    call: &Call,
    commit: ObjectHash,
    items: &[TreeItem],
) -> Result<Vec<Option<Arc<Scan>>>, Failure> {
    let known = at.hub().known_scans(items).await;
    let known = known.map_err(|error| Failure::of(error, &call.caller))?;
    let is_missing =
        |(item, known): (&TreeItem, &Option<_>)| item.kind == ItemKind::File && known.is_none();
    if items.iter().zip(&known).any(is_missing) {
        at.hub().scan_soon(at.repo(), commit);
    }
    Ok(known)
}

/// `securityFileStatus`: all members, or null where nothing is scanned by itself and nobody asked.
pub(crate) fn file_status(scan: Option<&Scan>, is_coming: bool) -> Value {
    let Some(scan) = scan else {
        if !is_coming {
            return Value::Null;
        }
        return json!({"status": "queued", "avScan": null, "pickleImportScan": null});
    };
    let imports = json!(scan.imports);
    let imports_any = |safety: &str| scan.imports.iter().any(|import| import.safety == safety);
    let highest = if imports_any("dangerous") {
        "dangerous"
    } else if imports_any("suspicious") || scan.status > Status::Caution {
        "suspicious"
    } else {
        "innocuous"
    };
    let pickle = scan.has_pickle().then(|| {
        // Clients of different ages read different names.
        json!({
            "status": scan.status.as_str(),
            "highestSafetyLevel": highest,
            "pickleImports": imports,
            "imports": imports,
            "message": scan.summary(),
        })
    });
    json!({"status": scan.status.as_str(), "avScan": null, "pickleImportScan": pickle})
}

/// `securityRepoStatus`: whether all files were looked at, and those that are not safe.
pub(super) fn repo_status(items: &[TreeItem], scans: &[Option<Arc<Scan>>]) -> Value {
    let issues: Vec<Value> = items
        .iter()
        .zip(scans)
        .filter_map(|(item, scan)| {
            let status = scan.as_ref()?.status;
            let is_issue = status != Status::Safe;
            is_issue.then(|| json!({"path": item.path, "level": status.as_str()}))
        })
        .collect();
    json!({"scansDone": scans.iter().all(Option::is_some), "filesWithIssues": issues})
}
