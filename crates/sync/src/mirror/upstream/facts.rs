//! What an upstream says about a repo and its commits.
//!
//! Of what it sends only what we use is read, and what we keep is bounded.

use ballast_format::hash::ObjectHash;
use ballast_format::name::RefName;
use serde::Deserialize;

use super::error::{Error, Missing};
use super::send::{Ask, text};
use super::{Repo, Upstream};

/// The longest answer about one revision: it lists every file of it.
const MAX_INFO_BYTES: usize = 64 << 20;
/// The longest answer about refs and commits.
const MAX_SMALL_BYTES: usize = 8 << 20;
/// Refs that a repo may have; the public hub has repos with some thousands of pull requests.
const MAX_REFS: usize = 100_000;
/// Tags that are kept.
const MAX_TAGS: usize = 1000;
/// Authors of one commit that are kept.
const MAX_AUTHORS: usize = 100;
/// Bytes of a text that is kept, but for a commit's message.
const MAX_TEXT: usize = 1024;
/// Bytes of a commit's message that are kept.
const MAX_MESSAGE: usize = 64 * 1024;

/// Whether the files are for everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gating {
    /// They are.
    Open,
    /// For everybody who asks.
    Automatic,
    /// For those whose request a person grants.
    Manual,
}

/// A repo at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The commit that the revision means at the moment.
    pub commit: ObjectHash,
    /// The repo's name there: another than the one asked for, if it was renamed.
    pub name: String,
    /// Whether its files are for everybody.
    pub gating: Gating,
    /// Whether only some may know of it.
    pub private: bool,
    /// Whether it is closed.
    pub disabled: bool,
    /// The licence that its card names.
    pub licence: Option<String>,
    /// What it is tagged with.
    pub tags: Vec<String>,
    /// When it last changed, in milliseconds since 1970.
    pub last_modified_ms: Option<u64>,
}

/// A ref and where it points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The ref's full name.
    pub name: RefName,
    /// The commit it points to.
    pub commit: ObjectHash,
}

/// A repo's refs; those whose names no hub of ours can hold are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refs {
    /// Branches.
    pub branches: Vec<Target>,
    /// Tags.
    pub tags: Vec<Target>,
    /// Conversions.
    pub converts: Vec<Target>,
    /// How many were left out.
    pub left_out: usize,
}

/// Who had part in a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// Their name there.
    pub user: String,
}

/// What an upstream says of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitFacts {
    /// The commit.
    pub commit: ObjectHash,
    /// Its first line.
    pub title: String,
    /// The rest.
    pub message: String,
    /// When it was made, in milliseconds since 1970.
    pub date_ms: u64,
    /// By whom.
    pub authors: Vec<Author>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WireGated {
    Flag(bool),
    How(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WireCard {
    Card { license: Option<OneOrMany> },
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireFacts {
    id: String,
    sha: String,
    gated: Option<WireGated>,
    private: Option<bool>,
    disabled: Option<bool>,
    tags: Option<Vec<String>>,
    card_data: Option<WireCard>,
    last_modified: Option<String>,
}

#[derive(Deserialize)]
struct WireRef {
    r#ref: String,
    #[serde(rename = "targetCommit")]
    target: String,
}

#[derive(Deserialize)]
struct WireRefs {
    #[serde(default)]
    branches: Vec<WireRef>,
    #[serde(default)]
    tags: Vec<WireRef>,
    #[serde(default)]
    converts: Vec<WireRef>,
}

#[derive(Deserialize)]
struct WireAuthor {
    user: Option<String>,
}

#[derive(Deserialize)]
struct WireCommit {
    id: String,
    title: Option<String>,
    message: Option<String>,
    date: String,
    #[serde(default)]
    authors: Vec<WireAuthor>,
}

impl Upstream {
    /// What a revision is at the moment: a branch, a tag, a commit, or another ref's full name.
    pub async fn revision(&self, repo: &Repo, revision: &str) -> Result<Facts, Error> {
        let url = self.api(repo, "revision", Some(revision));
        let ask = Ask::get(url, format!("{repo}@{revision}"), Missing::Revision);
        let (wire, headers) = self.json::<WireFacts>(&ask, MAX_INFO_BYTES).await?;
        let commit = parse_commit(&wire.sha)?;
        if let Ok(asked) = revision.parse::<ObjectHash>()
            && asked != commit
        {
            return Err(Error::lied(format!("it gives commit `{commit}` for `{asked}`")));
        }
        if text(&headers, "x-repo-commit").is_some_and(|named| named != wire.sha) {
            return Err(Error::lied(format!("it names two commits for `{revision}`")));
        }
        facts(wire, commit)
    }

    /// The refs of a repo, pull requests not among them.
    pub async fn refs(&self, repo: &Repo) -> Result<Refs, Error> {
        let ask = Ask::get(self.api(repo, "refs", None), repo.to_string(), Missing::Repo);
        let (wire, _) = self.json::<WireRefs>(&ask, MAX_SMALL_BYTES).await?;
        if wire.branches.len() + wire.tags.len() + wire.converts.len() > MAX_REFS {
            return Err(Error::lied(format!("`{repo}` has more than {MAX_REFS} refs")));
        }
        let mut left_out = 0;
        let mut targets = |wire: Vec<WireRef>, space: &str| -> Result<Vec<Target>, Error> {
            let mut found = Vec::with_capacity(wire.len());
            for WireRef { r#ref, target } in wire {
                let commit = parse_commit(&target)?;
                match RefName::parse(&r#ref) {
                    Ok(name) if r#ref.starts_with(space) => found.push(Target { name, commit }),
                    _ => left_out += 1,
                }
            }
            Ok(found)
        };
        let branches = targets(wire.branches, "refs/heads/")?;
        let tags = targets(wire.tags, "refs/tags/")?;
        let converts = targets(wire.converts, "refs/convert/")?;
        Ok(Refs { branches, tags, converts, left_out })
    }

    /// What is said of a commit.
    pub async fn commit(&self, repo: &Repo, commit: ObjectHash) -> Result<CommitFacts, Error> {
        let mut url = self.api(repo, "commits", Some(&commit.to_string()));
        url.query_pairs_mut().append_pair("limit", "1");
        let ask = Ask::get(url, format!("{repo}@{commit}"), Missing::Revision);
        let (wire, _) = self.json::<Vec<WireCommit>>(&ask, MAX_SMALL_BYTES).await?;
        let first = wire.into_iter().next().filter(|first| first.id == commit.to_string());
        let wire = first.ok_or_else(|| {
            Error::lied(format!("its history of `{commit}` does not begin with it"))
        })?;
        let date_ms = parse_date(&wire.date)
            .ok_or_else(|| Error::lied(format!("the date of `{commit}` is not a date")))?;
        let authors = wire.authors.into_iter().filter_map(|author| author.user);
        let authors = authors.map(|user| Author { user: cut(user, MAX_TEXT) });
        Ok(CommitFacts {
            commit,
            title: cut(wire.title.unwrap_or_default(), MAX_TEXT),
            message: cut(wire.message.unwrap_or_default(), MAX_MESSAGE),
            date_ms,
            authors: authors.take(MAX_AUTHORS).collect(),
        })
    }
}

fn facts(wire: WireFacts, commit: ObjectHash) -> Result<Facts, Error> {
    let tags = wire.tags.unwrap_or_default();
    let licence = match wire.card_data {
        Some(WireCard::Card { license }) => license,
        Some(WireCard::Other(_)) | None => None,
    };
    let from_card = match licence {
        Some(OneOrMany::One(one)) => Some(one),
        Some(OneOrMany::Many(many)) if !many.is_empty() => Some(many.join(", ")),
        _ => None,
    };
    let from_tags = || tags.iter().find_map(|tag| tag.strip_prefix("license:").map(str::to_owned));
    let gating = match wire.gated {
        None | Some(WireGated::Flag(false)) => Gating::Open,
        Some(WireGated::How(how)) if how == "auto" => Gating::Automatic,
        // What we do not know is taken for the stricter.
        Some(_) => Gating::Manual,
    };
    Ok(Facts {
        commit,
        name: cut(wire.id, MAX_TEXT),
        gating,
        private: wire.private.unwrap_or(false),
        disabled: wire.disabled.unwrap_or(false),
        licence: from_card.or_else(from_tags).map(|licence| cut(licence, MAX_TEXT)),
        tags: tags.into_iter().take(MAX_TAGS).map(|tag| cut(tag, MAX_TEXT)).collect(),
        last_modified_ms: wire.last_modified.as_deref().and_then(parse_date),
    })
}

pub(super) fn parse_commit(text: &str) -> Result<ObjectHash, Error> {
    text.parse().map_err(|_| Error::lied("what it calls a commit is none"))
}

/// Milliseconds since 1970.
fn parse_date(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_millisecond()).ok()
}

/// At most so many bytes of a text, without control characters but line breaks.
fn cut(text: String, limit: usize) -> String {
    let mut kept = String::new();
    for c in text.chars().filter(|&c| !c.is_control() || c == '\n' || c == '\t') {
        if kept.len() + c.len_utf8() > limit {
            break;
        }
        kept.push(c);
    }
    kept
}
