//! The large files of a commit: a line in the attribute file for each that none matches, and a
//! link for each that the repo did not have.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::name::FilePath;
use ballast_format::object::{EntryMode, Pointer};
use ballast_format::pack::FileLink;
use ballast_store::index::Table;
use ballast_store::index::schema::{self, FileRow, ObjectRow};
use bytes::Bytes;

use super::ATTRIBUTES_PATH;
use super::attributes::{self, Attributes};
use super::draft::{Draft, MAX_ATTRIBUTES_BYTES, Operation};
use super::folder::{File, Folder};
use crate::error::{Error, Result};

impl Draft {
    /// The large files that this commit puts somewhere, as the tree has them in the end.
    pub(super) async fn large_files(
        &self,
        folder: &mut Folder,
    ) -> Result<Vec<(FilePath, Pointer)>> {
        let (hub, repo) = (&self.hub, self.repo.id());
        let put = |operation: &Operation| match operation {
            Operation::Put { path, .. } => Some(path.clone()),
            Operation::Copy { to, .. } | Operation::Rename { to, .. } => Some(to.clone()),
            Operation::DeleteFile(_) | Operation::DeleteFolder(_) => None,
        };
        let paths: BTreeSet<FilePath> = self.operations.iter().filter_map(put).collect();
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            if let Some(file) = folder.get(hub, repo, &path).await?
                && file.mode != EntryMode::Submodule
            {
                files.push((path, file.id));
            }
        }
        let older: Vec<ObjectHash> =
            files.iter().filter(|(_, id)| !self.spool.knows(id)).map(|(_, id)| *id).collect();
        let rows = hub.object_rows(repo, &older).await?;
        let older: HashMap<ObjectHash, ObjectRow> = older.into_iter().zip(rows).collect();
        let pointer = |id: &ObjectHash| {
            self.spool.pointer(id).or_else(|| older.get(id).and_then(|row| row.pointer))
        };
        let large = |(path, id): (FilePath, ObjectHash)| Some((path, pointer(&id)?));
        Ok(files.into_iter().filter_map(large).collect())
    }

    /// Large files that no line of the attribute file matches get one.
    pub(super) async fn note_attributes(
        &mut self,
        folder: &mut Folder,
        large: &[(FilePath, Pointer)],
    ) -> Result<()> {
        if large.is_empty() {
            return Ok(());
        }
        let (hub, repo) = (Arc::clone(&self.hub), self.repo.id());
        let path = FilePath::parse(ATTRIBUTES_PATH)?;
        let mut text = match folder.get(&hub, repo, &path).await? {
            Some(file) => {
                let content = self.spool.read(&hub, &file.id, MAX_ATTRIBUTES_BYTES).await?;
                String::from_utf8_lossy(&content).into_owned()
            }
            None => String::new(),
        };
        let paths: Vec<FilePath> = large.iter().map(|(path, _)| path.clone()).collect();
        let (before, lines) = hub
            .pool()
            .run(move || {
                let attributes = Attributes::parse(&text);
                let unmatched = paths.iter().filter(|path| !attributes.is_large(path));
                let lines: String = unmatched.map(attributes::line_for).collect();
                if !text.is_empty() && !text.ends_with('\n') && !lines.is_empty() {
                    text.push('\n');
                }
                (text, lines)
            })
            .await?;
        if lines.is_empty() {
            return Ok(());
        }
        let text = before + &lines;
        if text.len() as u64 > MAX_ATTRIBUTES_BYTES {
            let reason =
                format!("`{ATTRIBUTES_PATH}` would be too long: add a pattern to it first");
            return Err(Error::invalid(reason));
        }
        let id = self.spool.add(&hub, Bytes::from(text)).await?;
        folder.put(&hub, repo, &path, File { id, mode: EntryMode::File }).await
    }

    /// The large files that the repo did not have before, or of which its own are damaged.
    pub(super) async fn new_links(&self, large: &[(FilePath, Pointer)]) -> Result<Vec<FileLink>> {
        let mut seen = HashSet::new();
        let links: Vec<FileLink> = large
            .iter()
            .filter(|(_, pointer)| seen.insert(pointer.sha256))
            .filter_map(|(_, pointer)| self.links.get(&pointer.sha256).copied())
            .collect();
        let repo = self.repo.id();
        let key = |link: &FileLink| schema::file_key(&repo, &link.sha256);
        let rows = self.hub.index().get_many(Table::File, links.iter().map(key).collect()).await?;
        let mut new = Vec::new();
        for (link, row) in links.into_iter().zip(rows) {
            let is_new = match row {
                None => true,
                Some(row) => {
                    let FileRow { manifest, size } = FileRow::decode(&row)?;
                    let FileLink { sha256, .. } = link;
                    let own = FileLink { sha256, file: manifest.file, shard: manifest.shard, size };
                    own != link && !self.hub.is_whole(&own).await?
                }
            };
            if is_new {
                new.push(link);
            }
        }
        Ok(new)
    }
}
