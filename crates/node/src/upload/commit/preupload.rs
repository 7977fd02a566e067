//! Before an upload: which files are large, which are ignored, and which are there already.

use std::collections::HashMap;

use ballast_format::hash::ObjectHash;
use ballast_format::name::FilePath;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::attributes::Attributes;
use super::draft::MAX_ATTRIBUTES_BYTES;
use super::{ATTRIBUTES_PATH, MAX_REGULAR_BYTES};
use crate::access::Repo;
use crate::download::ItemKind;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Lines of an ignore file that are looked at.
const MAX_IGNORE_LINES: usize = 2000;

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
    /// The ignore file says not to upload it.
    pub ignore: bool,
    /// What is at that path now: a blob's id, or a large file's SHA-256.
    pub oid: Option<String>,
}

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
        let there = self.oids(repo, commit, asked).await?;
        let (asked, ignored) = (asked.to_vec(), gitignore.unwrap_or_default().to_owned());
        let judge = move || {
            let attributes = Attributes::parse(&attributes);
            let ignored = parse_ignore(&ignored)?;
            let verdict = |file: Asked| Verdict {
                large: is_large(&file, &attributes),
                ignore: ignored.matched_path_or_any_parents(file.path.as_str(), false).is_ignore(),
                oid: there.get(file.path.as_str()).cloned(),
                path: file.path,
            };
            Ok(asked.into_iter().map(verdict).collect())
        };
        self.pool().run(judge).await?
    }

    /// What is at the paths that are asked about.
    async fn oids(
        &self,
        repo: &Repo,
        commit: Option<ObjectHash>,
        asked: &[Asked],
    ) -> Result<HashMap<String, String>> {
        let Some(commit) = commit else {
            return Ok(HashMap::new());
        };
        let paths: Vec<FilePath> = asked.iter().map(|file| file.path.clone()).collect();
        let mut there = HashMap::new();
        for item in self.items(repo, commit, &paths).await? {
            if item.kind != ItemKind::File {
                continue;
            }
            // Clients pass over what is there already; what is damaged must come again.
            let (oid, is_whole) = match &item.large {
                Some(large) => {
                    let is_whole = match large.link() {
                        Some(link) => self.is_whole(&link).await?,
                        None => false,
                    };
                    (large.sha256.to_string(), is_whole)
                }
                None => (item.id.to_string(), self.is_small_whole(repo, &item.id).await?),
            };
            if is_whole {
                there.insert(item.path, oid);
            }
        }
        Ok(there)
    }

    async fn is_small_whole(&self, repo: &Repo, id: &ObjectHash) -> Result<bool> {
        if self.quarantine.is_empty() {
            return Ok(true);
        }
        match self.object_row(repo.id(), id).await? {
            Some(row) => Ok(!self.is_lost(id, &row).await?),
            None => Ok(true),
        }
    }

    /// The text of a commit's attribute file, if it has one.
    async fn attributes_of(
        &self,
        repo: &Repo,
        commit: Option<ObjectHash>,
    ) -> Result<Option<String>> {
        let Some(commit) = commit else {
            return Ok(None);
        };
        let path = FilePath::parse(ATTRIBUTES_PATH)?;
        match self.item(repo, commit, &path).await {
            Ok(item)
                if item.kind == ItemKind::File
                    && item.large.is_none()
                    && item.size <= MAX_ATTRIBUTES_BYTES =>
            {
                let content = self.raw_blob(repo, &item, MAX_ATTRIBUTES_BYTES).await?;
                Ok(Some(String::from_utf8_lossy(&content).into_owned()))
            }
            Ok(_) | Err(Error::EntryNotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn parse_ignore(text: &str) -> Result<Gitignore> {
    let mut ignored = GitignoreBuilder::new("");
    for line in text.lines().take(MAX_IGNORE_LINES) {
        // A line that git could not read either matches nothing.
        let _ = ignored.add_line(None, line);
    }
    ignored.build().map_err(|error| Error::invalid(format!("the ignore file: {error}")))
}

/// Empty files are regular whatever their name: clients send them so.
fn is_large(file: &Asked, attributes: &Attributes) -> bool {
    let by_content = || file.size > MAX_REGULAR_BYTES || is_binary(&file.sample);
    file.size > 0 && (by_content() || attributes.is_large(&file.path))
}

/// Whether bytes are not text: a zero byte as git has it, or what is not UTF-8.
fn is_binary(sample: &[u8]) -> bool {
    let text = std::str::from_utf8(sample);
    sample.contains(&0) || text.is_err_and(|error| error.error_len().is_some())
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
