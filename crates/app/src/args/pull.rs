//! The arguments of `ballast pull`.

use std::path::PathBuf;

use clap::Args;

use super::RemoteArgs;

/// `ballast pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// What to bring: `ns/name`, `datasets/ns/name`, and a revision behind `@` [default: main]
    #[arg(value_name = "REPO")]
    pub(crate) repo: String,
    /// Write a plain folder
    #[arg(long, value_name = "DIR", conflicts_with = "cache")]
    pub(crate) to: Option<PathBuf>,
    /// Write into this cache of the Hugging Face clients [default: theirs, by `HF_HUB_CACHE` or
    /// `HF_HOME`]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// A node on this host, or any hub
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}
