//! The arguments of `ballast node`.

use bytesize::ByteSize;
use clap::{Args, Subcommand, ValueEnum};

use super::{ConfigArgs, RemoteArgs};

/// `ballast node`: runs one, or does something about one.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct NodeArgs {
    /// What to do about nodes
    #[command(subcommand)]
    pub(crate) command: Option<NodeCommand>,
    /// How to run one
    #[command(flatten)]
    pub(crate) run: NodeRunArgs,
}

/// `ballast node` by itself: runs a node of a hub.
#[derive(Debug, Args)]
pub(crate) struct NodeRunArgs {
    /// Where the settings come from
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// The hub's address; `node.hub` in the configuration says the same
    #[arg(long, value_name = "URL")]
    pub(crate) join: Option<String>,
    /// What `ballast node join-token` printed; for the first start
    #[arg(long, env = "BALLAST_JOIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// How much of the disk the cache may have [default: 100GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) cache: Option<ByteSize>,
    /// The address at which peers reach it, TCP and UDP [default: 0.0.0.0:8081]
    #[arg(long, value_name = "ADDR")]
    pub(crate) peers: Option<String>,
}

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
    /// Have the node on this host fetch repos now, so that they are there when they are needed
    Warm {
        /// What to fetch: `ns/name`, at its branch `main`, or `ns/name@revision`
        #[arg(value_name = "REPO", required = true)]
        repos: Vec<String>,
        /// Keep their files from being evicted
        #[arg(long)]
        pin: bool,
        /// The node
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// List the files that the node on this host keeps pinned, or let some of them go
    Pins {
        /// Let the files of these go when room is needed
        #[arg(long, value_name = "REPO")]
        release: Vec<String>,
        /// The node
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

/// `ballast top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Print it once and end; so it does where its output is no terminal
    #[arg(long)]
    pub(crate) once: bool,
    /// The hub
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}
