//! The large files that a repo holds, of whatever commit.

use std::collections::HashSet;

use ballast_format::hash::Sha256;
use ballast_store::index::Table;
use ballast_store::index::schema::FileRow;

use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;

const ROWS: usize = 1000;

/// A large file of a repo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Its SHA-256.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
    /// Where `main` has it; nothing if it does not.
    pub path: Option<String>,
}

impl Hub {
    /// The large files of a repo, with where `main` has them.
    pub async fn files_of(&self, repo: &Repo) -> Result<Vec<StoredFile>> {
        let mut files: Vec<StoredFile> = Vec::new();
        let mut named = HashSet::new();
        if let Some(main) = self.repo_state(repo).await?.main() {
            for item in self.siblings(repo, main).await? {
                if let Some(large) = item.large {
                    named.insert(large.sha256);
                    let (sha256, size, path) = (large.sha256, large.size, Some(item.path));
                    files.push(StoredFile { sha256, size, path });
                }
            }
        }
        let id = repo.id();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows =
                self.index().scan(Table::File, id.as_bytes(), after.as_deref(), ROWS).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(files);
            };
            after = Some(last.clone());
            for (key, row) in &rows {
                let sha256 = key.last_chunk::<32>().copied().map(Sha256::from_bytes);
                let sha256 = sha256.ok_or_else(|| Error::internal("a file's row has no key"))?;
                if !named.contains(&sha256) {
                    let size = FileRow::decode(row)?.size;
                    files.push(StoredFile { sha256, size, path: None });
                }
            }
        }
    }
}
