//! What a job names: repos of an upstream by name or by pattern, and files by patterns.

use ballast_format::limits::{MAX_JOB_PATTERNS, MAX_NAME_BYTES};
use ballast_format::mirror_job::MirrorJob;
use ballast_format::name::{Namespace, RepoKind, RepoName};
use ballast_node::error::{Error, Result};
use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// How addresses of repos begin, where they begin so.
const SCHEME: &str = "hf://";
/// The longest revision, pattern or name of a set.
const MAX_TEXT: usize = 255;

/// What somebody asks to be mirrored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// `[hf://][datasets/|spaces/]namespace/name[@revision]`; the name may be a pattern.
    pub address: String,
    /// Patterns of files to bring; none are all.
    pub include: Vec<String>,
    /// Patterns of files to leave out.
    pub exclude: Vec<String>,
    /// The set that the repos belong to; empty for none.
    pub set: String,
    /// Seconds from the end of one run to the next; 0 for no next one.
    pub every_seconds: u64,
}

impl Wish {
    /// The job, if the wish makes sense.
    pub fn to_job(&self, added_ms: u64) -> Result<MirrorJob> {
        let fault = |why: &str| {
            let shown: String = self.address.chars().take(120).collect();
            Error::invalid(format!("`{shown}` {why}\nhint: hf://namespace/name@revision"))
        };
        let address = self.address.trim();
        let address = address.strip_prefix(SCHEME).unwrap_or(address);
        let (address, revision) = address.split_once('@').unwrap_or((address, "main"));
        let (kind, address) = match address.split_once('/') {
            Some((first, rest)) if rest.contains('/') => {
                let kind = RepoKind::from_plural(first);
                (kind.ok_or_else(|| fault("is in no kind of repo"))?, rest)
            }
            _ => (RepoKind::Model, address),
        };
        let (namespace, name) = address.split_once('/').ok_or_else(|| fault("names no repo"))?;
        Namespace::parse(namespace)?;
        if is_pattern(name) {
            Glob::new(name).map_err(|_| fault("has a pattern that is none"))?;
            if name.len() > MAX_NAME_BYTES {
                return Err(fault("has a pattern that is too long"));
            }
        } else {
            RepoName::parse(address)?;
        }
        let clean = |text: &str| text.len() <= MAX_TEXT && !text.contains(char::is_control);
        if revision.is_empty() || !clean(revision) {
            return Err(fault("names no revision"));
        }
        if !clean(&self.set) {
            return Err(Error::invalid("the name of a set is one short line"));
        }
        if self.include.len() + self.exclude.len() > MAX_JOB_PATTERNS {
            let reason = format!("a job has at most {MAX_JOB_PATTERNS} patterns");
            return Err(Error::invalid(reason));
        }
        let job = MirrorJob {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            revision: revision.to_owned(),
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            set: self.set.clone(),
            every_seconds: self.every_seconds,
            added_ms,
            is_removed: false,
            claim: None,
            last: None,
        };
        Selection::of(&job)?;
        Ok(job)
    }
}

/// Whether a name stands for several.
pub(super) fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '[', '{'])
}

/// What a job is about, as people write it.
pub fn address_of(job: &MirrorJob) -> String {
    let MirrorJob { kind, namespace, name, revision, .. } = job;
    format!("{SCHEME}{}{namespace}/{name}@{revision}", kind.url_prefix())
}

/// Which files of a repo a job is about.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl Selection {
    /// The files of a job.
    pub(super) fn of(job: &MirrorJob) -> Result<Self> {
        let include = set_of(&job.include)?;
        Ok(Self {
            include: (!job.include.is_empty()).then_some(include),
            exclude: set_of(&job.exclude)?,
        })
    }

    /// Whether a file is one of them.
    pub(super) fn has(&self, path: &str) -> bool {
        let included = self.include.as_ref().is_none_or(|include| include.is_match(path));
        included && !self.exclude.is_match(path)
    }
}

/// As clients of hubs match: a star stands for slashes too, and a folder for all that is in it.
fn set_of(patterns: &[String]) -> Result<GlobSet> {
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        let fault = || Error::invalid(format!("`{pattern}` is not a pattern of files"));
        if pattern.is_empty() || pattern.len() > MAX_TEXT {
            return Err(fault());
        }
        let whole = if pattern.ends_with('/') { format!("{pattern}*") } else { pattern.clone() };
        let glob = GlobBuilder::new(&whole).literal_separator(false).build();
        builder.add(glob.map_err(|_| fault())?);
    }
    builder.build().map_err(|error| Error::invalid(error.to_string()))
}

/// Which names a job's pattern is about.
pub(super) fn name_matcher(pattern: &str) -> Result<impl Fn(&str) -> bool> {
    let glob = GlobBuilder::new(pattern).case_insensitive(true).build();
    let matcher = glob.map_err(|error| Error::invalid(error.to_string()))?.compile_matcher();
    Ok(move |name: &str| matcher.is_match(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(address: &str) -> Wish {
        Wish { address: address.to_owned(), ..Wish::default() }
    }

    #[test]
    fn an_address_names_kind_repo_and_revision() {
        for (address, shown) in [
            ("org/model", "hf://org/model@main"),
            ("hf://org/model@v1.0", "hf://org/model@v1.0"),
            (
                "hf://datasets/org/data@refs/convert/parquet",
                "hf://datasets/org/data@refs/convert/parquet",
            ),
            ("models/org/model", "hf://org/model@main"),
            ("org/Llama-*", "hf://org/Llama-*@main"),
        ] {
            let job = wish(address).to_job(5).expect("right");
            assert_eq!((address_of(&job).as_str(), job.added_ms), (shown, 5));
        }
        for wrong in [
            "",
            "model",
            "org/",
            "org/model@",
            "hf://nothing/org/model",
            "org/../x",
            "*/model",
            "org/[",
            "org/a/b/c",
            "org/model@a\nb",
        ] {
            assert!(wish(wrong).to_job(0).is_err(), "{wrong}");
        }
    }

    #[test]
    fn patterns_choose_files_as_clients_do() {
        let job = |include: &[&str], exclude: &[&str]| Wish {
            include: include.iter().map(ToString::to_string).collect(),
            exclude: exclude.iter().map(ToString::to_string).collect(),
            ..wish("org/model")
        };
        let has = |wish: &Wish, path: &str| {
            Selection::of(&wish.to_job(0).expect("right")).expect("right").has(path)
        };
        let all = job(&[], &[]);
        assert!(has(&all, "a/b/c.bin"));
        let some = job(&["*.safetensors", "config.json"], &["original/", "*-fp32*"]);
        for (path, expected) in [
            ("model.safetensors", true),
            ("deep/er/model.safetensors", true),
            ("config.json", true),
            ("other.json", false),
            ("original/model.safetensors", false),
            ("model-fp32.safetensors", false),
        ] {
            assert_eq!(has(&some, path), expected, "{path}");
        }
        assert!(job(&["["], &[]).to_job(0).is_err());
        assert!(job(&[""], &[]).to_job(0).is_err());
        assert!(job(&["x"; MAX_JOB_PATTERNS + 1], &[]).to_job(0).is_err());
    }

    #[test]
    fn a_pattern_of_names_is_of_names_only() {
        let matches = name_matcher("Llama-3*").expect("right");
        assert!(matches("llama-3.1-8B") && !matches("Llama-2-7B"));
    }
}
