//! The arguments of `ballast node`.

use clap::{Subcommand, ValueEnum};

use super::RemoteArgs;

/// What a process that joins is.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum NodeRoleArg {
    /// It keeps files of the hub on its host
    Node,
    /// It is the hub of another region, which follows this one
    Region,
}

impl NodeRoleArg {
    /// The word on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Region => "region",
        }
    }
}

/// `ballast node …`.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Make a token with which a node joins the hub: good once, for 15 minutes
    JoinToken {
        /// The node's name: letters, digits, `-` and `.`
        name: String,
        /// Whose rights to read it has [default: yours]
        #[arg(long = "as", value_name = "USER")]
        user: Option<String>,
        /// What joins
        #[arg(long, value_enum, default_value = "node")]
        role: NodeRoleArg,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// List nodes, and those that may join
    List {
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Shut a node out at once, or take its join token back
    Revoke {
        /// The node's name
        name: String,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
}
