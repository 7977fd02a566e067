//! The arguments of `ballast policy`.

use clap::{Subcommand, ValueEnum};

use super::RemoteArgs;

/// At which border the rules are asked.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum StageArg {
    /// When a client commits files
    Upload,
    /// When a client asks for files
    Download,
    /// When a repo is mirrored
    Mirror,
    /// When a bundle is imported
    Import,
}

impl StageArg {
    /// The word on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Mirror => "mirror",
            Self::Import => "import",
        }
    }
}

/// `ballast policy …`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Judge repos as they are: which rule refuses which file, and why
    ///
    /// Files that were not scanned yet are scanned. Exits with 1 if a file is refused.
    Check {
        /// Repos (`ns/name`, `datasets/ns/name`), each at `main` or at a revision: `ns/name@v1`
        #[arg(value_name = "REPO[@REVISION]", conflicts_with = "all")]
        repos: Vec<String>,
        /// All repos of the hub
        #[arg(long)]
        all: bool,
        /// Which rules to ask
        #[arg(long, value_enum, default_value = "download")]
        stage: StageArg,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
}
