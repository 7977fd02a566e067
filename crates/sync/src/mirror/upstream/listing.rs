//! What an upstream lists, page by page: the files of a commit, and the repos of a namespace.
//!
//! A page is bounded, and so is the number of pages. The address of the next page must be the
//! upstream's own.

use std::collections::HashSet;

use ballast_format::hash::{FileHash, ObjectHash, Sha256};
use ballast_format::limits::MAX_FILE_BYTES;
use ballast_format::name::{FilePath, Namespace, RepoKind, RepoName};
use bytes::Bytes;
use reqwest::header::{HeaderMap, LINK};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::{Error, Missing};
use super::send::{Ask, text};
use super::{Repo, Upstream};

/// The longest page.
const MAX_PAGE_BYTES: usize = 32 << 20;
/// Pages of one listing.
const MAX_PAGES: usize = 10_000;
/// Entries of one tree.
const MAX_ENTRIES: usize = 1_000_000;
/// Repos that are asked for on one page.
const REPOS_A_PAGE: &str = "500";
/// The longest pointer of a large file: git-lfs takes no longer one.
const MAX_POINTER_BYTES: u64 = 1024;
/// Paths that are asked for at once; the public hub takes 1000.
const MAX_PATHS: usize = 500;

/// What a tree's entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File,
    /// A folder.
    Folder,
}

/// How a large file is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Large {
    /// The SHA-256 of its content.
    pub sha256: Sha256,
    /// Bytes of the pointer that git knows it by.
    pub pointer_size: u64,
}

/// A file or a folder of a commit, as the upstream lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it lies.
    pub path: FilePath,
    /// What it is.
    pub kind: EntryKind,
    /// Its git object: of a large file, the blob that its pointer is.
    pub oid: ObjectHash,
    /// Bytes of its content; zero for a folder.
    pub size: u64,
    /// How it is known, if it is a large file.
    pub large: Option<Large>,
    /// Its Xet hash, if the upstream has it so.
    pub xet_hash: Option<FileHash>,
}

impl Entry {
    /// The `ETag` that a hub gives to the file.
    pub fn etag(&self) -> String {
        self.large.map_or_else(|| self.oid.to_string(), |large| large.sha256.to_string())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireLarge {
    oid: String,
    size: u64,
    pointer_size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEntry {
    r#type: String,
    path: String,
    oid: String,
    size: Option<u64>,
    lfs: Option<WireLarge>,
    xet_hash: Option<String>,
}

#[derive(Deserialize)]
struct WireRepo {
    id: String,
}

/// Pages of any listing.
#[derive(Debug)]
struct Pages {
    upstream: Upstream,
    next: Option<Ask>,
    seen: usize,
}

impl Pages {
    fn new(upstream: &Upstream, first: Ask) -> Self {
        Self { upstream: upstream.clone(), next: Some(first), seen: 0 }
    }

    async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<Vec<T>>, Error> {
        let Some(ask) = &self.next else { return Ok(None) };
        if self.seen == MAX_PAGES {
            return Err(Error::lied(format!("the listing of `{}` does not end", ask.what)));
        }
        let (page, headers) = self.upstream.json::<Vec<T>>(ask, MAX_PAGE_BYTES).await?;
        self.seen += 1;
        let next = match next_page(&headers) {
            None => None,
            Some(url) => {
                let url =
                    ask.url.join(&url).ok().filter(|url| self.upstream.guard.is_upstream(url));
                let url = url.filter(|url| *url != ask.url).ok_or_else(|| {
                    Error::lied(format!("the next page of `{}` is not its own", ask.what))
                })?;
                Some(Ask { url, ..ask.clone() })
            }
        };
        self.next = next;
        Ok(Some(page))
    }
}

/// The address in `Link: <…>; rel="next"`.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let links = text(headers, LINK.as_str())?;
    links.split(',').find_map(|link| {
        let (address, relation) = link.trim().strip_prefix('<')?.split_once('>')?;
        relation.replace(' ', "").contains("rel=\"next\"").then(|| address.to_owned())
    })
}

/// The files and folders of a commit, a page at a time.
#[derive(Debug)]
pub struct TreePages {
    pages: Pages,
    paths: HashSet<u64>,
    hasher: std::hash::RandomState,
}

impl TreePages {
    /// The next page, or nothing after the last.
    pub async fn next(&mut self) -> Result<Option<Vec<Entry>>, Error> {
        let Some(page) = self.pages.next::<WireEntry>().await? else { return Ok(None) };
        let entries = page.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        for entry in &entries {
            let key = std::hash::BuildHasher::hash_one(&self.hasher, entry.path.as_str());
            if !self.paths.insert(key) {
                return Err(Error::lied(format!("it lists `{}` twice", entry.path)));
            }
        }
        if self.paths.len() > MAX_ENTRIES {
            return Err(Error::Unfit {
                what: format!("a tree of more than {MAX_ENTRIES} entries"),
            });
        }
        Ok(Some(entries))
    }
}

/// The repos of a namespace, a page at a time.
#[derive(Debug)]
pub struct RepoPages {
    pages: Pages,
    author: Namespace,
}

impl RepoPages {
    /// The next page, or nothing after the last. What is not of the namespace, or has a name that
    /// no hub of ours can hold, is left out.
    pub async fn next(&mut self) -> Result<Option<Vec<RepoName>>, Error> {
        let Some(page) = self.pages.next::<WireRepo>().await? else { return Ok(None) };
        let names = page.into_iter().filter_map(|repo| RepoName::parse(&repo.id).ok());
        let ours = names.filter(|name| name.namespace().folded() == self.author.folded());
        Ok(Some(ours.collect()))
    }
}

impl Upstream {
    /// All files and folders of a commit.
    pub fn tree(&self, repo: &Repo, commit: ObjectHash) -> TreePages {
        let mut url = self.api(repo, "tree", Some(&commit.to_string()));
        url.query_pairs_mut().append_pair("recursive", "true").append_pair("expand", "false");
        let ask = Ask::get(url, format!("{repo}@{commit}"), Missing::Revision);
        TreePages {
            pages: Pages::new(self, ask),
            paths: HashSet::new(),
            hasher: std::hash::RandomState::new(),
        }
    }

    /// What is at these paths of a commit, at most 500 of them; what is not there is left out.
    pub async fn paths(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        paths: &[FilePath],
    ) -> Result<Vec<Entry>, Error> {
        let paths = &paths[..paths.len().min(MAX_PATHS)];
        let url = self.api(repo, "paths-info", Some(&commit.to_string()));
        let named: Vec<&str> = paths.iter().map(FilePath::as_str).collect();
        let body = serde_json::json!({ "paths": named, "expand": false }).to_string();
        let ask = Ask {
            method: Method::POST,
            body: Some(Bytes::from(body)),
            ..Ask::get(url, format!("{repo}@{commit}"), Missing::Revision)
        };
        let (wire, _) = self.json::<Vec<WireEntry>>(&ask, MAX_PAGE_BYTES).await?;
        let entries = wire.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        Ok(entries.into_iter().filter(|entry| paths.contains(&entry.path)).collect())
    }

    /// The repos of a user or an organisation.
    pub fn list(&self, kind: RepoKind, author: &Namespace) -> RepoPages {
        let mut url: Url = self.url(&["api", kind.plural()]);
        url.query_pairs_mut()
            .append_pair("author", author.as_str())
            .append_pair("limit", REPOS_A_PAGE);
        let ask = Ask::get(url, author.as_str(), Missing::Repo);
        RepoPages { pages: Pages::new(self, ask), author: author.clone() }
    }
}

fn entry(wire: WireEntry) -> Result<Entry, Error> {
    let path =
        FilePath::parse(&wire.path).map_err(|error| Error::Unfit { what: error.to_string() })?;
    let fault = |what: &str| Error::lied(format!("what it lists at `{path}` {what}"));
    let kind = match wire.r#type.as_str() {
        "file" => EntryKind::File,
        "directory" => EntryKind::Folder,
        _ => return Err(fault("is neither a file nor a folder")),
    };
    let oid = wire.oid.parse().map_err(|_| fault("has no git object"))?;
    let size = wire.size.unwrap_or(0);
    if size > MAX_FILE_BYTES {
        return Err(Error::Unfit { what: format!("`{path}`, a file of {size} bytes") });
    }
    let large = match wire.lfs {
        None => None,
        Some(_) if kind == EntryKind::Folder => return Err(fault("is a folder and a large file")),
        Some(lfs) if lfs.size != size => return Err(fault("has two sizes")),
        Some(lfs) if lfs.pointer_size > MAX_POINTER_BYTES => {
            return Err(fault("has a pointer that is none"));
        }
        Some(lfs) => {
            let sha256 = lfs.oid.trim_start_matches("sha256:").parse();
            let sha256 = sha256.map_err(|_| fault("is a large file without a SHA-256"))?;
            Some(Large { sha256, pointer_size: lfs.pointer_size })
        }
    };
    // An upstream whose Xet hash is none is one without Xet.
    let xet_hash = wire.xet_hash.and_then(|hash| hash.parse().ok());
    Ok(Entry { path, kind, oid, size, large, xet_hash })
}
