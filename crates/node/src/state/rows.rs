//! Index rows for what a repo's log names: the objects of packs, and the large files they link.

use ballast_format::ErrorKind;
use ballast_format::hash::PackHash;
use ballast_format::id::RepoId;
use ballast_format::limits::MAX_PACK_DIRECTORY_BYTES;
use ballast_format::pack::{FOOTER_BYTES, FileLink, PackDirectory};
use ballast_store::index::schema::{self, FileRow, ObjectRow};
use ballast_store::index::{Batch, Table};
use ballast_store::keyspace::{CopyKind, CopyName, Key, LogId};

use super::ledger::Damage;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::upload::rows as upload_rows;

/// Rows that are taken away at once.
const ROWS: usize = 1000;
/// Bytes at a pack's end that are read first: most directories fit.
pub(crate) const LIKELY_TAIL: u64 = 64 * 1024;

/// The rows of a pack that a repo's log names.
pub(crate) async fn of_stored_pack(
    hub: &Hub,
    log: LogId,
    pack: PackHash,
    damage: Damage,
) -> Result<Batch> {
    let LogId::Repo(repo) = log else {
        return Ok(Batch::new());
    };
    let found = match find_pack(hub, repo, pack).await {
        Ok((copy, directory)) => of_pack(hub, repo, &copy, &directory, damage).await,
        Err(error) => Err(error),
    };
    match found {
        Err(error) if error.is_corrupt() && damage == Damage::IsReported => {
            tracing::error!(%repo, %pack, %error, "a pack is damaged: what it holds is missing");
            Ok(Batch::new())
        }
        other => other,
    }
}

/// A copy of a pack that can be read, with what is in it.
pub(crate) async fn find_pack(
    hub: &Hub,
    repo: RepoId,
    pack: PackHash,
) -> Result<(CopyName, PackDirectory)> {
    let mut fault = Error::corrupt(format!("pack `{pack}` of repo `{repo}` is missing"));
    for copy in hub.copies_by_trust(CopyKind::Pack, *pack.as_bytes()).await? {
        match read_directory(hub, &copy).await {
            Ok(directory) if directory.hash == pack => return Ok((copy, directory)),
            Ok(_) => {
                let what = format!("`{}` holds another pack", Key::Copy(copy));
                fault = hub.note_damage(&copy, Error::corrupt(what));
            }
            // It was listed, and is gone.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => fault = hub.note_damage(&copy, error),
        }
    }
    Err(fault)
}

/// Reads what a stored pack holds.
pub(crate) async fn read_directory(hub: &Hub, copy: &CopyName) -> Result<PackDirectory> {
    let key = Key::Copy(*copy);
    let damaged = |error: ballast_format::Error| Error::corrupt(format!("`{key}`: {error}"));
    let (mut tail, total) = hub.store().get_tail(&key, LIKELY_TAIL).await?;
    let footer = tail.len().checked_sub(FOOTER_BYTES);
    let footer = footer.ok_or_else(|| Error::corrupt(format!("`{key}` is cut short")))?;
    let length = PackDirectory::tail_length(&tail[footer..]).map_err(damaged)?;
    if length > MAX_PACK_DIRECTORY_BYTES + FOOTER_BYTES || length as u64 > total {
        return Err(Error::corrupt(format!("`{key}` has a directory that is too long")));
    }
    if length > tail.len() {
        tail = hub.store().get_tail(&key, length as u64).await?.0;
    }
    PackDirectory::decode(&tail[tail.len() - length..], total).map_err(damaged)
}

/// The rows of a pack whose directory is known.
pub(crate) async fn of_pack(
    hub: &Hub,
    repo: RepoId,
    copy: &CopyName,
    directory: &PackDirectory,
    damage: Damage,
) -> Result<Batch> {
    let mut batch = Batch::new();
    for object in &directory.objects {
        let row = ObjectRow {
            pack: *copy,
            offset: object.offset,
            length: object.length,
            kind: object.kind,
            pointer: object.pointer,
        };
        let key = schema::object_key(&repo, &object.id);
        batch.put(Table::Object, key, row.encode());
    }
    let keys = directory.links.iter().map(|link| schema::file_key(&repo, &link.sha256));
    let before = hub.index().get_many(Table::File, keys.collect()).await?;
    for (link, before) in directory.links.iter().zip(before) {
        if let Some(before) = before.map(|row| FileRow::decode(&row)).transpose()?
            && before.manifest != link.manifest()
        {
            // What it was made of stays within reach while it is there: clients were told of it.
            hub.caches.forget_manifest(&before.manifest);
        }
        let row = FileRow { manifest: link.manifest(), size: link.size };
        let key = schema::file_key(&repo, &link.sha256);
        batch.put(Table::File, key, row.encode());
        let by_file = schema::file_repo_key(&link.file, &repo);
        batch.put(Table::FileRepo, by_file, link.sha256.as_bytes().to_vec());
        let by_sha256 = schema::sha256_repo_key(&link.sha256, &repo);
        batch.put(Table::FileRepo, by_sha256, link.file.as_bytes().to_vec());
        let file = &link.file;
        let error = match upload_rows::of_link(hub, repo, link).await {
            Ok(Some(rows)) => {
                batch.extend(rows);
                continue;
            }
            Ok(None) => Error::corrupt(format!("the manifest of `{file}` is missing")),
            Err(error) if error.is_corrupt() => error,
            Err(error) => return Err(error),
        };
        // What it led to may be damaged, or have been collected since.
        if is_replaced(hub, repo, directory, link).await? {
            continue;
        }
        if damage == Damage::Stops {
            return Err(error);
        }
        tracing::error!(%repo, %file, %error, "what a file is made of is damaged");
    }
    Ok(batch)
}

/// Takes away what the index knows of a repo's log and of what that names: other entries count now.
pub(super) async fn forget(hub: &Hub, repo: RepoId) -> Result<()> {
    let log = schema::log_prefix(&LogId::Repo(repo));
    let id = repo.as_bytes().as_slice();
    for (table, prefix) in [(Table::Log, log.as_slice()), (Table::Object, id), (Table::File, id)] {
        loop {
            let rows = hub.index().scan(table, prefix, None, ROWS).await?;
            if rows.is_empty() {
                break;
            }
            let mut batch = Batch::new();
            for (key, _) in rows {
                batch.delete(table, key);
            }
            hub.index().apply(batch).await?;
        }
    }
    Ok(())
}

/// Whether a later pack of the repo's log links the same file by another manifest.
async fn is_replaced(
    hub: &Hub,
    repo: RepoId,
    directory: &PackDirectory,
    link: &FileLink,
) -> Result<bool> {
    let packs = hub.packs_of(repo).await?;
    let Some(at) = packs.iter().position(|pack| *pack == directory.hash) else {
        return Ok(false);
    };
    let later = hub.manifests_of(repo, &packs[at + 1..]).await?;
    Ok(later.get(&link.sha256).is_some_and(|id| *id != link.manifest()))
}
