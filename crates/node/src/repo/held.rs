//! Which refs hold large files.

use std::collections::HashSet;

use ballast_format::hash::{ObjectHash, Sha256};
use ballast_format::name::RefName;

use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Commits whose files are looked at; many refs are usually at the same few.
const MAX_COMMITS: usize = 1000;

/// A large file that a ref holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldFile {
    /// The file.
    pub sha256: Sha256,
    /// One of the refs.
    pub reference: RefName,
    /// Where the file is there.
    pub path: String,
}

impl Hub {
    /// Those of these files that the commit of a branch, a tag or a pull request has, each once.
    pub async fn held_files(&self, repo: &Repo, files: &[Sha256]) -> Result<Vec<HeldFile>> {
        let mut wanted: HashSet<Sha256> = files.iter().copied().collect();
        let mut seen: HashSet<ObjectHash> = HashSet::new();
        let mut held = Vec::new();
        for (reference, commit) in &self.repo_state(repo).await?.refs {
            if wanted.is_empty() {
                break;
            }
            if !seen.insert(*commit) {
                continue;
            }
            if seen.len() > MAX_COMMITS {
                let reason = format!("the refs of `{}` are at too many commits", repo.name());
                return Err(Error::invalid(reason));
            }
            for item in self.siblings(repo, *commit).await? {
                if let Some(large) = item.large
                    && wanted.remove(&large.sha256)
                {
                    let (sha256, reference) = (large.sha256, reference.clone());
                    held.push(HeldFile { sha256, reference, path: item.path });
                }
            }
        }
        Ok(held)
    }
}
