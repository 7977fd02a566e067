//! Names that people and clients choose: parsed once, valid from then on.
//!
//! Repo names follow the public hub's rules, ref names git's, file paths are those that every git
//! and file system reads as the same harmless thing. Nothing here says who may use a name.

use std::fmt;
use std::str::FromStr;

use unicode_normalization::is_nfc;

use crate::error::{Error, Result};
use crate::limits::{
    MAX_NAME_BYTES, MAX_NODE_NAME_BYTES, MAX_PATH_BYTES, MAX_PATH_COMPONENT_BYTES, MAX_PATH_DEPTH,
    MAX_REGION_BYTES,
};

/// What a repo holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RepoKind {
    /// Model weights.
    Model,
    /// Data to train or test with.
    Dataset,
    /// An application.
    Space,
}

impl RepoKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Model, Self::Dataset, Self::Space];

    /// As API paths say it: `models`.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
            Self::Space => "spaces",
        }
    }

    /// As bodies say it: `model`.
    pub fn singular(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
            Self::Space => "space",
        }
    }

    /// What stands before the name in addresses of pages and files: nothing for models.
    pub fn url_prefix(self) -> &'static str {
        match self {
            Self::Model => "",
            Self::Dataset => "datasets/",
            Self::Space => "spaces/",
        }
    }

    /// The kind with this plural.
    pub fn from_plural(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.plural() == text)
    }

    /// The kind with this singular.
    pub fn from_singular(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.singular() == text)
    }

    /// The byte that stored formats write.
    pub fn to_byte(self) -> u8 {
        match self {
            Self::Model => 0,
            Self::Dataset => 1,
            Self::Space => 2,
        }
    }

    /// The kind that a stored byte means.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_byte() == byte)
    }
}

impl fmt::Display for RepoKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.singular())
    }
}

/// One part of a repo's name: 1 to 96 ASCII letters, digits, `_`, `-` and `.`.
fn check_part(what: &'static str, text: &str) -> Result<()> {
    let fault = |reason: &str| Err(Error::malformed(what, format!("`{}` {reason}", shown(text))));
    if text.is_empty() {
        return Err(Error::malformed(what, "it is empty"));
    }
    if text.len() > MAX_NAME_BYTES {
        return fault(&format!("is longer than {MAX_NAME_BYTES} characters"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
        return fault("has characters other than letters, digits, `_`, `-` and `.`");
    }
    if text.starts_with(['-', '.']) || text.ends_with(['-', '.']) {
        return fault("begins or ends with `-` or `.`");
    }
    if text.contains("--") || text.contains("..") {
        return fault("contains `--` or `..`");
    }
    if text.to_ascii_lowercase().ends_with(".git") {
        return fault("ends with `.git`");
    }
    Ok(())
}

/// Text from outside, cut to what an error should repeat.
fn shown(text: &str) -> String {
    text.chars().take(120).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The name of a process that belongs to a hub: 1 to 63 of `a-z`, `0-9`, `-` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

impl NodeName {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self> {
        let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        if (1..=MAX_NODE_NAME_BYTES).contains(&text.len()) && text.bytes().all(fits) {
            return Ok(Self(text.to_owned()));
        }
        let rule = format!("must be 1 to {MAX_NODE_NAME_BYTES} of `a-z`, `0-9`, `-` and `.`");
        Err(Error::malformed("name of a node", format!("`{}` {rule}", shown(text))))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a user or an organisation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(String);

impl Namespace {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self> {
        check_part("namespace", text)?;
        Ok(Self(text.to_owned()))
    }

    /// The name as it was chosen.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form in which two names are the same: lower case.
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

/// The name of a region: 1 to 63 of `a-z`, `0-9`, `-` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionName(String);

impl RegionName {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self> {
        let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        if (1..=MAX_REGION_BYTES).contains(&text.len()) && text.bytes().all(fits) {
            return Ok(Self(text.to_owned()));
        }
        let reason = "is not 1 to 63 of `a-z`, `0-9`, `-` and `.`";
        Err(Error::malformed("region", format!("`{}` {reason}", shown(text))))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a repo: `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoName {
    namespace: Namespace,
    name: String,
}

impl RepoName {
    /// Reads `namespace/name`.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((namespace, name)) = text.split_once('/') else {
            return Err(Error::malformed(
                "repo name",
                format!("`{}` is not of the form `namespace/name`", shown(text)),
            ));
        };
        Self::new(Namespace::parse(namespace)?, name)
    }

    /// Joins a namespace and a name.
    pub fn new(namespace: Namespace, name: &str) -> Result<Self> {
        check_part("repo name", name)?;
        Ok(Self { namespace, name: name.to_owned() })
    }

    /// Whose it is.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The part behind the slash.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The form in which two names are the same: lower case.
    pub fn folded(&self) -> String {
        self.to_string().to_ascii_lowercase()
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace.0, self.name)
    }
}

/// A name that moves, in full: `refs/heads/main`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefName(String);

impl RefName {
    const BRANCH: &str = "refs/heads/";
    const TAG: &str = "refs/tags/";
    const PULL: &str = "refs/pr/";

    /// The branch that every repo has.
    pub fn main() -> Self {
        Self(format!("{}main", Self::BRANCH))
    }

    /// A branch by its short name.
    pub fn branch(name: &str) -> Result<Self> {
        Self::parse(&format!("{}{name}", Self::BRANCH))
    }

    /// A tag by its short name.
    pub fn tag(name: &str) -> Result<Self> {
        Self::parse(&format!("{}{name}", Self::TAG))
    }

    /// The ref of a pull request.
    pub fn pull(number: u32) -> Self {
        Self(format!("{}{number}", Self::PULL))
    }

    /// Reads a full name, by git's rules for refs (`git help check-ref-format`).
    pub fn parse(text: &str) -> Result<Self> {
        let fault =
            |reason: &str| Err(Error::malformed("ref name", format!("`{}` {reason}", shown(text))));
        if text.len() > MAX_PATH_COMPONENT_BYTES {
            return fault(&format!("is longer than {MAX_PATH_COMPONENT_BYTES} bytes"));
        }
        let spaces = [Self::BRANCH, Self::TAG, Self::PULL, "refs/convert/"];
        if !spaces.iter().any(|space| text.len() > space.len() && text.starts_with(space)) {
            return fault("is neither a branch, a tag, a pull request nor a conversion");
        }
        let forbidden = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
        if text.contains(forbidden) {
            return fault("has a space, a control character or one of `~^:?*[\\`");
        }
        if text.contains("..") || text.contains("@{") || text.ends_with('.') {
            return fault("contains `..` or `@{`, or ends with `.`");
        }
        #[expect(
            clippy::case_sensitive_file_extension_comparisons,
            reason = "git compares it as it is"
        )]
        let bad = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
        if text.split('/').any(bad) {
            return fault("has a part that is empty, begins with `.` or ends with `.lock`");
        }
        let name = Self(text.to_owned());
        match name.0.strip_prefix(Self::PULL) {
            Some(number) if !is_number(number) => fault("is not the number of a pull request"),
            None if means_something_else(name.short()) => {
                fault("has a short name that means something else")
            }
            _ => Ok(name),
        }
    }

    /// The full name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without the space it is in; pull requests keep theirs.
    pub fn short(&self) -> &str {
        let name = self.0.strip_prefix(Self::BRANCH).or_else(|| self.0.strip_prefix(Self::TAG));
        name.unwrap_or(&self.0)
    }

    /// Whether it is a branch.
    pub fn is_branch(&self) -> bool {
        self.0.starts_with(Self::BRANCH)
    }

    /// Whether it is a tag.
    pub fn is_tag(&self) -> bool {
        self.0.starts_with(Self::TAG)
    }

    /// The number of the pull request whose ref it is.
    pub fn pull_number(&self) -> Option<u32> {
        self.0.strip_prefix(Self::PULL)?.parse().ok()
    }
}

/// Whether this is a number from 1, in the only way to write it.
fn is_number(text: &str) -> bool {
    text.parse::<u32>().is_ok_and(|number| number > 0 && number.to_string() == text)
}

/// Whether git or a client reads this short name of a branch or a tag as no name: as an option, as
/// the head, or as a commit. The last matters most: whoever pins a commit must get that commit.
fn means_something_else(short: &str) -> bool {
    let is_commit = short.len() == 40 && short.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit || short.starts_with('-') || short == "HEAD" || short == "@"
}

/// Where a file lies in a repo: parts joined by `/`, none of which anything reads as special.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(String);

impl FilePath {
    /// Reads a path.
    pub fn parse(text: &str) -> Result<Self> {
        let fault =
            |reason: &str| Err(Error::malformed("path", format!("`{}` {reason}", shown(text))));
        if text.is_empty() {
            return Err(Error::malformed("path", "it is empty"));
        }
        if text.len() > MAX_PATH_BYTES {
            return fault(&format!("is longer than {MAX_PATH_BYTES} bytes"));
        }
        if text.split('/').count() > MAX_PATH_DEPTH {
            return fault(&format!("is deeper than {MAX_PATH_DEPTH} folders"));
        }
        if text.contains('\\') || text.contains(char::is_control) {
            return fault("has a backslash or a control character");
        }
        if !is_nfc(text) {
            return fault("is not in Unicode's normal form C");
        }
        for part in text.split('/') {
            if part.is_empty() || part == "." || part == ".." {
                return fault("has a part that is empty, `.` or `..`");
            }
            if part.len() > MAX_PATH_COMPONENT_BYTES {
                return fault(&format!("has a part over {MAX_PATH_COMPONENT_BYTES} bytes"));
            }
            if reads_as_special(part) {
                return fault("has a part that some systems read as `.git`, `.` or `..`");
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its parts, outermost first.
    pub fn components(&self) -> std::str::Split<'_, char> {
        self.0.split('/')
    }

    /// The folder it lies in, unless that is the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// Its last part.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }
}

/// Whether some git or file system takes this part for `.git` or for a folder above: without regard
/// to case, trailing dots and spaces, an NTFS stream, a short name, or code points that are
/// ignored.
fn reads_as_special(part: &str) -> bool {
    let seen: String = part.chars().filter(|&c| !is_ignorable(c)).collect();
    let seen = seen.split(':').next().unwrap_or("").trim_end_matches(['.', ' ']);
    seen.is_empty() || seen.eq_ignore_ascii_case(".git") || seen.eq_ignore_ascii_case("git~1")
}

/// Code points that file systems without regard to case may leave out when they compare names:
/// Unicode's property `Default_Ignorable_Code_Point`, in which those that HFS+ leaves out are.
fn is_ignorable(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

macro_rules! text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
text!(Namespace, RegionName, RefName, FilePath);

macro_rules! parsed {
    ($($name:ident),*) => {$(
        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Self::parse(text)
            }
        }
    )*};
}
parsed!(Namespace, RegionName, RepoName, RefName, FilePath);

#[cfg(test)]
mod tests;
