//! `[policy]`: which files may come in and go out.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use ballast_node::policy::{Action, Globs, Policy, Rule, Stage};
use ballast_node::scan::Status;
use ballast_node::signature::Key;
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// Rules of one policy.
const MAX_RULES: usize = 1000;

/// Which files may come in and go out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PolicyConfig {
    /// A file with the rules, as `[[rules]]`; empty: they stand here.
    pub(crate) file: PathBuf,
    /// What is done with what no rule fits: `allow` or `deny`.
    pub(crate) default: String,
    /// Scan files after each commit, and not only where a rule asks for it.
    pub(crate) scan: bool,
    /// Keys whose signatures count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) keys: Vec<KeyConfig>,
    /// The rules; the first one that fits decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rules: Vec<RuleConfig>,
}

/// A public key, in a file of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyConfig {
    name: String,
    file: PathBuf,
}

/// A rule: it fits if all that it says is so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleConfig {
    name: String,
    action: String,
    #[serde(default)]
    stages: Vec<String>,
    #[serde(default)]
    repos: Vec<String>,
    #[serde(default)]
    publishers: Vec<String>,
    #[serde(default)]
    licenses: Vec<String>,
    #[serde(default)]
    formats: Vec<String>,
    #[serde(default)]
    files: Vec<String>,
    larger_than: Option<ByteSize>,
    repo_larger_than: Option<ByteSize>,
    gated: Option<bool>,
    #[serde(default)]
    scans: Vec<String>,
    #[serde(default)]
    signed_by: Vec<String>,
}

/// A file of rules.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    #[serde(default)]
    rules: Vec<RuleConfig>,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        let (file, default) = (PathBuf::new(), "allow".to_owned());
        Self { file, default, scan: true, keys: Vec::new(), rules: Vec::new() }
    }
}

impl PolicyConfig {
    /// The same for those who judge.
    pub(crate) fn policy(&self) -> Result<Policy> {
        let from_file;
        let rules = if self.file.as_os_str().is_empty() {
            &self.rules
        } else {
            ensure!(
                self.rules.is_empty(),
                "`policy.file` and `policy.rules` are both set\nhint: keep the rules in one place"
            );
            let path = self.file.display();
            let text = std::fs::read_to_string(&self.file)
                .with_context(|| format!("cannot read the policy file `{path}`"))?;
            let parsed: RuleFile = toml::from_str(&text).with_context(|| format!("in `{path}`"))?;
            from_file = parsed.rules;
            &from_file
        };
        ensure!(rules.len() <= MAX_RULES, "the policy has more than {MAX_RULES} rules");
        let keys = self.keys.iter().map(KeyConfig::key).collect::<Result<Vec<Key>>>()?;
        let otherwise = action(&self.default).context("`policy.default`")?;
        let mut read: Vec<Rule> = Vec::with_capacity(rules.len());
        for rule in rules {
            let new = rule.rule().with_context(|| format!("policy rule `{}`", rule.name))?;
            if read.iter().any(|known| known.name == new.name) {
                bail!("two policy rules are called `{}`", new.name);
            }
            let is_key = |name: &&String| keys.iter().any(|key| key.name() == *name);
            if let Some(name) = new.signed_by.iter().find(|name| *name != "none" && !is_key(name)) {
                bail!("policy rule `{}`: there is no key `{name}` in `policy.keys`", new.name);
            }
            read.push(new);
        }
        Ok(Policy::new(read, otherwise).with_keys(keys))
    }
}

impl KeyConfig {
    fn key(&self) -> Result<Key> {
        let (name, path) = (&self.name, self.file.display());
        ensure!(
            !name.is_empty() && name != "none",
            "a key in `policy.keys` needs a name other than `none`"
        );
        let pem = std::fs::read(&self.file)
            .with_context(|| format!("cannot read the key file `{path}`"))?;
        Ok(Key::from_pem(name.clone(), &pem)?)
    }
}

impl RuleConfig {
    fn rule(&self) -> Result<Rule> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        ensure!(
            !self.name.is_empty() && self.name != "default" && self.name.chars().all(is_plain),
            "a rule's name has letters, digits, `-`, `_` and `.`, and is not `default`"
        );
        let lower = |texts: &[String]| texts.iter().map(|text| text.to_lowercase()).collect();
        let stages: Vec<Stage> =
            self.stages.iter().map(|stage| parse_stage(stage)).collect::<Result<_>>()?;
        ensure!(
            self.signed_by.is_empty() || !(stages.is_empty() || stages.contains(&Stage::Upload)),
            "`signed_by` is not known while files are uploaded\nhint: name the `stages`, without \
             `upload`"
        );
        let formats = self.formats.iter().map(|text| text.trim_start_matches('.').to_lowercase());
        Ok(Rule {
            stages,
            repos: Globs::parse(&self.repos)?,
            publishers: self.publishers.clone(),
            licenses: lower(&self.licenses),
            formats: formats.collect(),
            files: Globs::parse(&self.files)?,
            larger_than: self.larger_than.map(|size| size.as_u64()),
            repo_larger_than: self.repo_larger_than.map(|size| size.as_u64()),
            gated: self.gated,
            scans: self.scans.iter().map(|scan| parse_status(scan)).collect::<Result<_>>()?,
            signed_by: self.signed_by.clone(),
            ..Rule::new(self.name.clone(), action(&self.action)?)
        })
    }
}

fn action(text: &str) -> Result<Action> {
    match text {
        "allow" => Ok(Action::Allow),
        "deny" => Ok(Action::Deny),
        other => bail!("`{other}` is no action\nhint: `allow` or `deny`"),
    }
}

fn parse_stage(text: &str) -> Result<Stage> {
    let hint = || format!("`{text}` is no stage\nhint: {}", words(Stage::ALL.map(Stage::as_str)));
    Stage::parse(text).with_context(hint)
}

fn parse_status(text: &str) -> Result<Status> {
    let hint =
        || format!("`{text}` is no verdict\nhint: {}", words(Status::ALL.map(Status::as_str)));
    Status::parse(text).with_context(hint)
}

fn words<const N: usize>(words: [&str; N]) -> String {
    words.map(|word| format!("`{word}`")).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Policy> {
        toml::from_str::<PolicyConfig>(text)?.policy()
    }

    #[test]
    fn rules_are_read_as_people_write_them() -> Result<()> {
        let policy = read(
            "[[rules]]\nname = \"small\"\naction = \"deny\"\nlarger_than = \"1GiB\"\n\
             stages = [\"upload\"]\nscans = [\"unsafe\", \"suspicious\"]\nformats = [\".BIN\"]\n",
        )?;
        ensure!(!policy.allows_all(Stage::Upload) && policy.allows_all(Stage::Download));
        Ok(())
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let rule = "[[rules]]\nname = \"a\"\naction = \"deny\"\n";
        for text in [
            "default = \"perhaps\"",
            "[[rules]]\nname = \"a\"",
            "[[rules]]\nname = \"a b\"\naction = \"deny\"",
            "[[rules]]\nname = \"a\"\naction = \"warn\"",
            &format!("{rule}colour = 1"),
            &format!("{rule}stages = [\"sometimes\"]"),
            &format!("{rule}scans = [\"bad\"]"),
            &format!("{rule}repos = [\"[\"]"),
            &format!("{rule}{rule}"),
            &format!("file = \"/nowhere/at/all\"\n{rule}"),
            "file = \"/nowhere/at/all\"",
            "[[keys]]\nname = \"a\"\nfile = \"/nowhere/at/all\"",
            &format!("{rule}signed_by = [\"none\"]"),
            &format!("{rule}signed_by = [\"a\"]\nstages = [\"download\"]"),
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
