//! What a scan found, as it is kept and told.

use ballast_format::archive::Flaw;
use ballast_format::pickle::{Import, Problem, RULES, Report, Safety};
use serde::{Deserialize, Serialize};

/// Imports that are kept of a file.
const MAX_IMPORTS: usize = 1000;
/// Problems that are kept of a file.
const MAX_PROBLEMS: usize = 20;

/// Whether loading a file can do harm, as far as was looked. In the order of how bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing was found.
    Safe,
    /// It is, or makes programs run, code that is not looked into.
    Caution,
    /// It can't be followed to its end, or programs may disagree about what it is.
    Suspicious,
    /// It imports what is not known to do no harm.
    Unsafe,
}

impl Status {
    /// Every status, from good to bad.
    pub const ALL: [Self; 4] = [Self::Safe, Self::Caution, Self::Suspicious, Self::Unsafe];

    /// The word that clients know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Caution => "caution",
            Self::Suspicious => "suspicious",
            Self::Unsafe => "unsafe",
        }
    }

    /// The mirror of [`Status::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// A name that a file imports when it is loaded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Imported {
    /// The module.
    pub module: String,
    /// The name in it.
    pub name: String,
    /// `innocuous`, `suspicious` or `dangerous`.
    pub safety: String,
}

impl From<Import> for Imported {
    fn from(import: Import) -> Self {
        let safety = import.safety.as_str().to_owned();
        Self { module: import.module, name: import.name, safety }
    }
}

/// What was found in a file. It depends on nothing but the content, the kind of name that the file
/// has, and the edition of the rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// The edition of the rules by which it was made.
    rules: u32,
    /// What the content is, where it matters: `pickle`, `numpy`, `zip`, `keras`, `hdf5`, or what
    /// else it is packed by.
    pub kinds: Vec<String>,
    /// The verdict.
    pub status: Status,
    /// What it imports, each once.
    pub imports: Vec<Imported>,
    /// What is wrong with it, in words.
    pub problems: Vec<String>,
}

impl Default for Scan {
    fn default() -> Self {
        let (imports, problems) = (Vec::new(), Vec::new());
        Self { rules: EDITION, kinds: Vec::new(), status: Status::Safe, imports, problems }
    }
}

/// The edition of the rules: those about pickles, and in the last digits those about all else.
const EDITION: u32 = RULES * 100 + 2;

impl Scan {
    /// Whether it was made by the rules of today.
    pub(super) fn is_current(&self) -> bool {
        self.rules == EDITION
    }

    /// Whether it has pickles in it.
    pub fn has_pickle(&self) -> bool {
        self.kinds.iter().any(|kind| kind == "pickle")
    }

    pub(super) fn kind(&mut self, kind: &str) {
        if !self.kinds.iter().any(|known| known == kind) {
            self.kinds.push(kind.to_owned());
        }
    }

    fn at_least(&mut self, status: Status) {
        self.status = self.status.max(status);
    }

    /// Adds what is wrong.
    pub(super) fn note(&mut self, status: Status, problem: impl ToString) {
        self.at_least(status);
        let problem = problem.to_string();
        if self.problems.len() < MAX_PROBLEMS && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Adds what was found in a pickle.
    pub(super) fn add(&mut self, report: Report) {
        self.kind("pickle");
        if report.is_dangerous() {
            self.at_least(Status::Unsafe);
        }
        if report.imports.iter().any(|import| import.safety == Safety::Suspicious) {
            self.note(Status::Caution, "it holds TorchScript, which is a program");
        }
        for problem in report.problems {
            self.note(Status::Suspicious, problem);
        }
        // The dangerous ones first, should there be more than are kept.
        let mut imports = report.imports;
        imports.sort_by_key(|import| std::cmp::Reverse(import.safety));
        for import in imports {
            let import = Imported::from(import);
            if self.imports.contains(&import) {
                continue;
            }
            if self.imports.len() >= MAX_IMPORTS {
                self.note(Status::Suspicious, Problem::TooLarge);
                break;
            }
            self.imports.push(import);
        }
    }

    /// Adds what is wrong with an archive.
    pub(super) fn flaws(&mut self, flaws: &[Flaw]) {
        for flaw in flaws {
            self.note(Status::Suspicious, flaw);
        }
    }

    /// What was found, in a few words.
    pub fn summary(&self) -> String {
        const SHOWN: usize = 3;
        let dangerous = self.imports.iter().filter(|import| import.safety == "dangerous");
        let mut words: Vec<String> = dangerous
            .map(|import| format!("imports `{}.{}`", import.module, import.name))
            .collect();
        words.extend(self.problems.iter().cloned());
        let more = words.len().saturating_sub(SHOWN);
        words.truncate(SHOWN);
        let mut text = words.join(", ");
        if more > 0 {
            text.push_str(&format!(", and {more} more"));
        }
        text
    }
}
