//! `ballast mirror …`: what it takes on the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::RemoteArgs;

/// `ballast mirror …`. What it brings is `hf://ns/name@revision`, `hf://datasets/ns/name` or, with
/// a pattern, `hf://ns/Llama-*`.
#[derive(Debug, Subcommand)]
pub(crate) enum MirrorCommand {
    /// Show what repos would bring, and have the hub bring it
    ///
    /// The hub goes on until all of it is here, whatever comes between.
    Add(MirrorAddArgs),
    /// Run jobs now and show how far they are; Ctrl-C stops them, and nothing that came is lost
    ///
    /// Exits with 1 if something could not be brought.
    Run(ChosenJobsArgs),
    /// Show how far jobs are, and how they went the last time
    Status(ChosenSetArgs),
    /// List the jobs
    List(ChosenSetArgs),
    /// Remove jobs; what they have brought stays
    Remove(ChosenJobsArgs),
}

/// `ballast mirror add`.
#[derive(Debug, Args)]
pub(crate) struct MirrorAddArgs {
    /// What to bring: `hf://ns/name`, at its branch `main`, or `hf://ns/name@revision`
    #[arg(value_name = "REPO", required_unless_present = "from")]
    pub(crate) repos: Vec<String>,
    /// A file that names more, one a line; `#` begins a comment
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// Only files that match; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub(crate) include: Vec<String>,
    /// No files that match; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
    /// The set that they belong to
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub(crate) set: String,
    /// How often to look for what is new, such as `6h` [default: only until all is here]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) every: Option<std::time::Duration>,
    /// Only show what would be brought
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The hub
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

/// Some jobs, or all of them.
#[derive(Debug, Args)]
pub(crate) struct ChosenJobsArgs {
    /// Their ids, as `mirror list` prints them
    #[arg(value_name = "ID")]
    pub(crate) jobs: Vec<String>,
    /// Those of this set
    #[arg(long, value_name = "NAME")]
    pub(crate) set: Option<String>,
    /// All of them
    #[arg(long, conflicts_with_all = ["jobs", "set"])]
    pub(crate) all: bool,
    /// The hub
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

/// The jobs of a set, or all of them.
#[derive(Debug, Args)]
pub(crate) struct ChosenSetArgs {
    /// Those of this set
    #[arg(long, value_name = "NAME")]
    pub(crate) set: Option<String>,
    /// The hub
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}
