//! Rules, and the one function that judges by them.
//!
//! Rules are asked in their order, and the first one that fits decides. A rule fits if all that it
//! says is so. Where a fact is missing that could make a rule fit, the judgement waits for it,
//! unless a refusal is certain whatever the fact is.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

use super::facts::{FileFacts, RepoFacts};
use crate::error::{Error, Result};
use crate::scan::Status;

/// Kinds of content that a scan tells, whatever a file is called.
const SCANNED: &[&str] =
    &["pickle", "numpy", "zip", "keras", "hdf5", "tar", "7z", "rar", "gzip", "bzip2", "xz", "zstd"];

/// What a rule does with what it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lets it pass.
    Allow,
    /// Refuses it.
    Deny,
}

/// At which border something is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A commit by a client.
    Upload,
    /// A request for a file.
    Download,
    /// A repo of an upstream.
    Mirror,
    /// A repo in a bundle.
    Import,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 4] = [Self::Upload, Self::Download, Self::Mirror, Self::Import];

    /// Its word in rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Mirror => "mirror",
            Self::Import => "import",
        }
    }

    /// The mirror of [`Stage::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == text)
    }
}

/// Patterns of names, of which one must match. `*` stops at slashes, `**` does not.
#[derive(Clone, Debug, Default)]
pub struct Globs(Vec<GlobMatcher>);

impl Globs {
    /// Reads patterns.
    pub fn parse(patterns: &[String]) -> Result<Self> {
        let parse = |pattern: &String| {
            let glob = GlobBuilder::new(pattern).literal_separator(true).build();
            let bad = |error| Error::invalid(format!("the pattern `{pattern}`: {error}"));
            Ok(glob.map_err(bad)?.compile_matcher())
        };
        Ok(Self(patterns.iter().map(parse).collect::<Result<_>>()?))
    }

    fn matches(&self, text: &str) -> bool {
        self.0.iter().any(|glob| glob.is_match(text))
    }
}

/// A rule. Lists that are empty, and options that are none, say nothing.
#[derive(Clone, Debug)]
pub struct Rule {
    /// By which refusals call it.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// Where it is asked; nowhere named: everywhere.
    pub stages: Vec<Stage>,
    /// Names of repos.
    pub repos: Globs,
    /// Publishers.
    pub publishers: Vec<String>,
    /// Licences, in lower case; `none` for a repo that states none.
    pub licenses: Vec<String>,
    /// Endings of files, or what a scan finds them to be.
    pub formats: Vec<String>,
    /// Paths of files.
    pub files: Globs,
    /// Files of more bytes.
    pub larger_than: Option<u64>,
    /// Repos of more bytes.
    pub repo_larger_than: Option<u64>,
    /// Whether readers must ask for the files.
    pub gated: Option<bool>,
    /// Verdicts of scans.
    pub scans: Vec<Status>,
    /// Keys that vouch for a file; `none` for one that none vouches for.
    pub signed_by: Vec<String>,
}

impl Rule {
    /// A rule that says nothing yet, and so fits everything.
    pub fn new(name: impl Into<String>, action: Action) -> Self {
        Self {
            name: name.into(),
            action,
            stages: Vec::new(),
            repos: Globs::default(),
            publishers: Vec::new(),
            licenses: Vec::new(),
            formats: Vec::new(),
            files: Globs::default(),
            larger_than: None,
            repo_larger_than: None,
            gated: None,
            scans: Vec::new(),
            signed_by: Vec::new(),
        }
    }

    pub(super) fn is_for(&self, stage: Stage) -> bool {
        self.stages.is_empty() || self.stages.contains(&stage)
    }
}

/// A fact that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It depends on the files.
    File,
    /// The file's size.
    Bytes,
    /// What a scan of the file finds.
    Scan,
    /// Who vouches for the file.
    Signed,
    /// The licences that the repo states.
    Licenses,
    /// Whether the repo is gated.
    Gated,
    /// How large the repo is.
    RepoBytes,
}

/// Why something is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rule.
    pub rule: String,
    /// What made it fit.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused by the policy rule `{}`: {}", self.rule, self.reason)
    }
}

/// What the rules say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It may pass, by this rule or because none fits.
    Allowed {
        /// The rule, if one did.
        rule: Option<String>,
    },
    /// It may not.
    Denied(Refusal),
    /// That depends on a fact that is missing.
    Undecided {
        /// The rule that asks for it.
        rule: String,
        /// Which fact.
        needs: Need,
    },
}

/// What is judged.
pub(super) struct Subject<'a> {
    pub(super) repo: &'a RepoFacts,
    pub(super) file: Option<&'a FileFacts>,
}

/// Whether a part of a rule is so.
enum Fit {
    No,
    /// With the words for a refusal.
    Yes(String),
    Unknown(Need),
}

impl Fit {
    /// Yes if `fits`, in the words of `why`.
    fn when(fits: bool, why: impl FnOnce() -> String) -> Self {
        if fits { Self::Yes(why()) } else { Self::No }
    }
}

/// Judges by the first rule that fits.
pub(super) fn judge(
    rules: &[Rule],
    otherwise: Action,
    stage: Stage,
    subject: &Subject<'_>,
) -> Judgement {
    let mut waits: Option<Judgement> = None;
    for rule in rules.iter().filter(|rule| rule.is_for(stage)) {
        match (fit(rule, subject), rule.action) {
            (Fit::No, _) => {}
            (Fit::Unknown(needs), action) => {
                let undecided = Judgement::Undecided { rule: rule.name.clone(), needs };
                let first = waits.take().unwrap_or(undecided);
                if action == Action::Allow {
                    return first;
                }
                // Whether this one refuses or not, a later one that does is right.
                waits = Some(first);
            }
            (Fit::Yes(reason), Action::Deny) => {
                return Judgement::Denied(Refusal { rule: rule.name.clone(), reason });
            }
            (Fit::Yes(_), Action::Allow) => {
                let rule = Some(rule.name.clone());
                return waits.unwrap_or(Judgement::Allowed { rule });
            }
        }
    }
    match otherwise {
        Action::Allow => waits.unwrap_or(Judgement::Allowed { rule: None }),
        Action::Deny => {
            let reason = format!("no rule allows {}", called(subject));
            Judgement::Denied(Refusal { rule: "default".to_owned(), reason })
        }
    }
}

fn called(subject: &Subject<'_>) -> String {
    match subject.file {
        Some(file) => format!("{} of `{}`", file.called(), subject.repo.name),
        None => format!("`{}`", subject.repo.name),
    }
}

/// Whether all that a rule says is so.
fn fit(rule: &Rule, subject: &Subject<'_>) -> Fit {
    let (mut reasons, mut unknown) = (Vec::new(), None);
    // What costs nothing to know comes first; a `no` of any part settles it.
    for part in of_repo(rule, subject.repo).into_iter().chain(of_file(rule, subject.file)) {
        match part {
            Fit::No => return Fit::No,
            Fit::Unknown(need) => unknown = unknown.or(Some(need)),
            Fit::Yes(reason) => reasons.push(reason),
        }
    }
    match unknown {
        Some(need) => Fit::Unknown(need),
        None if reasons.is_empty() => Fit::Yes(format!("it fits all, as {}", called(subject))),
        None => Fit::Yes(reasons.join(", and ")),
    }
}

fn of_repo(rule: &Rule, repo: &RepoFacts) -> Vec<Fit> {
    let name = &repo.name;
    let mut parts = Vec::new();
    if !rule.repos.0.is_empty() {
        parts.push(Fit::when(rule.repos.matches(name), || format!("the repo is `{name}`")));
    }
    if !rule.publishers.is_empty() {
        let publisher = &repo.publisher;
        let is_named = rule.publishers.iter().any(|named| named.eq_ignore_ascii_case(publisher));
        parts.push(Fit::when(is_named, || format!("its publisher is `{publisher}`")));
    }
    if let Some(gated) = rule.gated {
        parts.push(match repo.gated {
            None => Fit::Unknown(Need::Gated),
            Some(is) => Fit::when(is == gated, || {
                format!("the repo is {}gated", if gated { "" } else { "not " })
            }),
        });
    }
    if !rule.licenses.is_empty() {
        parts.push(of_license(&rule.licenses, repo.licenses.as_deref()));
    }
    if let Some(most) = rule.repo_larger_than {
        parts.push(match repo.bytes {
            None => Fit::Unknown(Need::RepoBytes),
            Some(bytes) => Fit::when(bytes > most, || {
                format!("the repo has {bytes} bytes, which is over {most}")
            }),
        });
    }
    parts
}

/// Whether one of a repo's licences is one that a rule names; `none` names having none.
fn of_license(named: &[String], has: Option<&[String]>) -> Fit {
    let Some(has) = has else { return Fit::Unknown(Need::Licenses) };
    if has.is_empty() {
        let is_named = named.iter().any(|name| name == "none");
        return Fit::when(is_named, || "the repo states no licence".to_owned());
    }
    match has.iter().find(|name| named.contains(name)) {
        Some(name) => Fit::Yes(format!("the repo's licence is `{name}`")),
        None => Fit::No,
    }
}

fn of_file(rule: &Rule, file: Option<&FileFacts>) -> Vec<Fit> {
    let asks = !rule.files.0.is_empty()
        || !rule.formats.is_empty()
        || rule.larger_than.is_some()
        || !rule.scans.is_empty()
        || !rule.signed_by.is_empty();
    let file = match file {
        None if asks => return vec![Fit::Unknown(Need::File)],
        None => return Vec::new(),
        Some(file) => file,
    };
    let called = file.called();
    let mut parts = Vec::new();
    if !rule.files.0.is_empty() {
        let matches = file.path.as_ref().is_some_and(|path| rule.files.matches(path));
        parts.push(Fit::when(matches, || format!("{called} is named so")));
    }
    if let Some(most) = rule.larger_than {
        parts.push(match file.bytes {
            None => Fit::Unknown(Need::Bytes),
            Some(bytes) => Fit::when(bytes > most, || {
                format!("{called} has {bytes} bytes, which is over {most}")
            }),
        });
    }
    if !rule.formats.is_empty() {
        parts.push(of_format(&rule.formats, file));
    }
    if !rule.signed_by.is_empty() {
        parts.push(of_signers(&rule.signed_by, file));
    }
    if !rule.scans.is_empty() {
        parts.push(match &file.scan {
            None => Fit::Unknown(Need::Scan),
            Some(scan) => Fit::when(rule.scans.contains(&scan.status), || {
                let (status, found) = (scan.status.as_str(), scan.summary());
                let found = if found.is_empty() { found } else { format!(" ({found})") };
                format!("the scan of {called} says `{status}`{found}")
            }),
        });
    }
    parts
}

/// Whether one of the keys that vouch for a file is one that a rule names.
fn of_signers(named: &[String], file: &FileFacts) -> Fit {
    let called = file.called();
    let Some(keys) = &file.signed_by else { return Fit::Unknown(Need::Signed) };
    if keys.is_empty() {
        let is_named = named.iter().any(|name| name == "none");
        return Fit::when(is_named, || format!("{called} is signed by no key that is configured"));
    }
    match keys.iter().find(|key| named.contains(key)) {
        Some(key) => Fit::Yes(format!("{called} is signed by `{key}`")),
        None => Fit::No,
    }
}

/// Whether a file has one of these formats, by its name or by what it is.
fn of_format(formats: &[String], file: &FileFacts) -> Fit {
    let yes = |format: &str| Fit::Yes(format!("{} has the format `{format}`", file.called()));
    if let Some(ending) = file.ending().filter(|ending| formats.contains(ending)) {
        return yes(&ending);
    }
    let by_scan = formats.iter().any(|format| SCANNED.contains(&format.as_str()));
    match &file.scan {
        None if by_scan => Fit::Unknown(Need::Scan),
        None => Fit::No,
        Some(scan) => match scan.kinds.iter().find(|kind| formats.contains(kind)) {
            Some(kind) => yes(kind),
            None => Fit::No,
        },
    }
}
