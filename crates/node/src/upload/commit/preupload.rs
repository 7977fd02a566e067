//! Before an upload: which files are large, which are ignored, and which are there already.

use ballast_format::hash::ObjectHash;
use ballast_format::name::FilePath;
use ignore::gitignore::GitignoreBuilder;

use super::attributes::Attributes;
use super::{ATTRIBUTES_PATH, MAX_REGULAR_BYTES};
use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// A file that a client wants to upload.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Where to.
    pub path: FilePath,
    /// Its size in bytes.
    pub size: u64,
    /// Its first bytes.
    pub sample: Vec<u8>,
}

/// What to do with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The path that was asked about.
    pub path: FilePath,
    /// Upload it as a large file, or within the commit.
    pub large: bool,
    /// The repo's ignore file says not to upload it.
    pub ignore: bool,
    /// What is at that path now: a blob's id, or a large file's SHA-256.
    pub oid: Option<String>,
}

/// Longer attribute files are not read.
const MAX_ATTRIBUTES_BYTES: u64 = 1 << 20;

impl Hub {
    /// Judges files before they are uploaded to a revision; none yet: an empty one.
    pub async fn preupload(
        &self,
        repo: &Repo,
        commit: Option<ObjectHash>,
        asked: &[Asked],
        gitignore: Option<&str>,
        gitattributes: Option<&str>,
    ) -> Result<Vec<Verdict>> {
        let attributes = match gitattributes {
            Some(text) => text.to_owned(),
            None => self.attributes_of(repo, commit).await?.unwrap_or_default(),
        };
        let attributes = Attributes::parse(&attributes);
        let mut ignored = GitignoreBuilder::new("");
        for line in gitignore.unwrap_or_default().lines() {
            // A line that git could not read either matches nothing.
            let _ = ignored.add_line(None, line);
        }
        let ignored = ignored.build().map_err(|error| Error::invalid(error.to_string()))?;
        let mut verdicts = Vec::with_capacity(asked.len());
        for file in asked {
            let path = file.path.as_str();
            let oid = match commit {
                Some(commit) => self.oid_at(repo, commit, &file.path).await?,
                None => None,
            };
            let large = file.size > 0
                && (file.size > MAX_REGULAR_BYTES
                    || attributes.is_large(&file.path)
                    || is_binary(&file.sample));
            verdicts.push(Verdict {
                path: file.path.clone(),
                large,
                ignore: ignored.matched_path_or_any_parents(path, false).is_ignore(),
                oid,
            });
        }
        Ok(verdicts)
    }

    async fn oid_at(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        path: &FilePath,
    ) -> Result<Option<String>> {
        match self.item(repo, commit, path).await {
            Ok(item) if item.kind == crate::download::ItemKind::File => Ok(Some(
                item.large.map_or_else(|| item.id.to_string(), |large| large.sha256.to_string()),
            )),
            Ok(_) | Err(Error::EntryNotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The text of a commit's attribute file, if it has one.
    pub(super) async fn attributes_of(
        &self,
        repo: &Repo,
        commit: Option<ObjectHash>,
    ) -> Result<Option<String>> {
        let Some(commit) = commit else { return Ok(None) };
        let path = FilePath::parse(ATTRIBUTES_PATH)?;
        match self.item(repo, commit, &path).await {
            Ok(item) if item.large.is_none() && item.size <= MAX_ATTRIBUTES_BYTES => {
                let content = self.raw_blob(repo, &item, MAX_ATTRIBUTES_BYTES).await?;
                Ok(Some(String::from_utf8_lossy(&content).into_owned()))
            }
            Ok(_) | Err(Error::EntryNotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether bytes are not text: git's own rule, a zero byte among the first.
fn is_binary(sample: &[u8]) -> bool {
    sample.contains(&0) || std::str::from_utf8(sample).is_err_and(|error| error.error_len().is_some())
}

#[cfg(test)]
mod tests {
    use super::is_binary;

    #[test]
    fn text_that_is_cut_in_the_middle_of_a_letter_is_text() {
        assert!(!is_binary("grün".as_bytes()));
        assert!(!is_binary(&"grü".as_bytes()[..3]));
        assert!(is_binary(b"\x89PNG\r\n") && is_binary(b"a\0b"));
    }
}
