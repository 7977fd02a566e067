//! The command line: what `ballast --help` says, and nothing else.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod bundle;
mod mirror;
mod node;
mod policy;
mod pull;
mod region;

pub(crate) use bundle::{
    BundleCommand, BundleCreateArgs, BundleImportArgs, BundleInspectArgs, BundleReadArgs,
    KeyCommand,
};
pub(crate) use mirror::{ChosenJobsArgs, ChosenSetArgs, MirrorAddArgs, MirrorCommand};
pub(crate) use node::{NodeArgs, NodeCommand, NodeRunArgs, TopArgs};
pub(crate) use policy::PolicyCommand;
pub(crate) use pull::PullArgs;
pub(crate) use region::{RegionCommand, RemoteCommand, ReplicateArgs, ReplicateCommand};

/// A private model hub that you run yourself.
///
/// Start one with `ballast serve`, point `HF_ENDPOINT` at it, and the tools you already have push
/// and pull models, with chunk-level deduplication.
#[derive(Debug, Parser)]
#[command(name = "ballast", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the hub
    Serve(ServeArgs),
    /// Read the configuration as `serve` would, and say what is wrong with it
    CheckConfig(CheckConfigArgs),
    /// Create, list and disable users
    #[command(subcommand)]
    User(UserCommand),
    /// Create organisations and say who belongs to them
    #[command(subcommand)]
    Org(OrgCommand),
    /// Create, list and revoke access tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// List, create, move and delete repos, and change their settings
    #[command(subcommand)]
    Repo(RepoCommand),
    /// Say how much a user or an organisation may have, and see how much they have
    #[command(subcommand)]
    Quota(QuotaCommand),
    /// See what the rules of the hub's policy say of repos
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// See who changed what, and whether anything of that was taken away or changed
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Read and hash again everything that a repo, or the whole hub, refers to
    ///
    /// Damage does not stop it: it goes on to the end, names each file that is affected, and exits
    /// with 1 if it found any.
    Verify(VerifyArgs),
    /// See what the hub read again lately, and what it found damaged
    #[command(subcommand)]
    Scrub(ScrubCommand),
    /// Copy everything to another place, while the hub serves
    ///
    /// Reads the store itself, not the hub, and hashes every byte on its way. Run again with the
    /// same place, it copies what is new. Exits with 1 if something is damaged and so left out.
    Backup(BackupArgs),
    /// Make a hub from a backup, where there is none; then start it with `serve`
    Restore(RestoreArgs),
    /// Print who and what there is, down to each file with its hashes, as JSON lines
    ///
    /// No secrets and no contents: what a person would need to make sense of the bytes without this
    /// program. Exits with 1 if something could not be read.
    ExportMetadata(ExportArgs),
    /// Carry repos to a hub that no network leads to, in signed files
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Bring repos from the upstream, and bring them again when they have changed
    #[command(subcommand)]
    Mirror(MirrorCommand),
    /// Bring a repo's files to this host, as a folder or into the cache of the Hugging Face clients
    ///
    /// From a node on this host large files are linked, where the file system can, and not copied.
    Pull(PullArgs),
    /// Run a node of a hub; let nodes join, see them, and shut them out
    ///
    /// A node serves the hub's API on its own host. What it lacks it takes from other nodes, and
    /// from the hub: `ballast node --join http://hub:8080 --token …` is all that it takes to start one,
    /// with a token of `ballast node join-token`.
    Node(NodeArgs),
    /// Watch what nodes take, from where, and how fast
    Top(TopArgs),
    /// Follow other regions: what they let go to this one comes here
    #[command(subcommand)]
    Remote(RemoteCommand),
    /// Let repos go to other regions, and see how far they are
    #[command(subcommand)]
    Replicate(ReplicateCommand),
    /// Say which region is a repo's home
    #[command(subcommand)]
    Region(RegionCommand),
    /// Make keys that bundles are signed with
    #[command(subcommand)]
    Key(KeyCommand),
    /// Make the index anew while the hub is stopped
    #[command(subcommand)]
    Index(IndexCommand),
    /// Collect garbage now: begin a collection, or go on with the one that is under way
    ///
    /// The hub does this by itself if `gc.interval` is set. What is condemned is deleted by a later
    /// step, `gc.wait` afterwards, if nothing refers to it again.
    Gc(GcArgs),
}

/// Settings that `serve` and `check-config` take on the command line.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file (TOML); every key is in deploy/config.example.toml
    #[arg(long, env = "BALLAST_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The folder that holds everything [default: ./ballast-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The address to listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Open no socket but the one to listen on: mirrors serve what they have
    #[arg(long)]
    pub(crate) offline: bool,
}

/// `ballast serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where the settings come from
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// `ballast check-config`.
#[derive(Debug, Args)]
pub(crate) struct CheckConfigArgs {
    /// Where the settings come from
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a command reaches the hub it administers.
#[derive(Clone, Debug, Args)]
pub(crate) struct RemoteArgs {
    /// The hub's address
    #[arg(long, env = "HF_ENDPOINT", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub(crate) endpoint: String,
    /// An access token; prefer the environment, which other users of the machine can't list
    #[arg(long, env = "HF_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `ballast user …`.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Create a user; give them a token with `ballast token create`
    Create {
        /// The user's name, which is also their namespace
        name: String,
        /// The name to show
        #[arg(long, value_name = "TEXT")]
        fullname: Option<String>,
        /// An address to show
        #[arg(long, value_name = "ADDRESS")]
        email: Option<String>,
        /// May administer the hub
        #[arg(long)]
        admin: bool,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// List users
    List {
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Disable a user: all their tokens stop working at once
    Disable {
        /// The user's name
        name: String,
        /// Let them in again instead
        #[arg(long)]
        undo: bool,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

/// Who may see a repo.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum VisibilityArg {
    /// Everybody who may use the hub
    Public,
    /// Its owner, or the members of its organisation
    Private,
}

impl VisibilityArg {
    /// The word on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
        }
    }
}

/// What a member may do in an organisation.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RoleArg {
    /// Read private repos
    Read,
    /// Read and write repos
    Write,
    /// Also create, move and delete repos, and change settings
    Admin,
}

impl RoleArg {
    /// The word on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// `ballast org …`.
#[derive(Debug, Subcommand)]
pub(crate) enum OrgCommand {
    /// Create an organisation; you become its administrator
    Create {
        /// The organisation's name, which is also its namespace
        name: String,
        /// The name to show
        #[arg(long, value_name = "TEXT")]
        fullname: Option<String>,
        /// Visibility of new repos where the client does not say
        #[arg(long, value_enum, default_value = "public")]
        default_visibility: VisibilityArg,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Add a member, or change what a member may do
    Add {
        /// The organisation
        org: String,
        /// The user
        user: String,
        /// What they may do
        #[arg(long, value_enum)]
        role: RoleArg,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Remove a member
    Remove {
        /// The organisation
        org: String,
        /// The user
        user: String,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

/// `ballast token …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token; it is shown once
    Create {
        /// Whose token
        #[arg(long, value_name = "NAME")]
        user: String,
        /// What it may do
        #[arg(long, value_enum)]
        role: RoleArg,
        /// What it is for
        #[arg(long, default_value = "token", value_name = "TEXT")]
        name: String,
        /// Only this repo (`ns/name`, `datasets/ns/name`); may be repeated
        #[arg(long, value_name = "REPO")]
        repo: Vec<String>,
        /// Only repos of this user or organisation; may be repeated
        #[arg(long, value_name = "NAME")]
        namespace: Vec<String>,
        /// How long it is good for, such as `12h` or `30days` [default: until revoked]
        #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
        expires: Option<std::time::Duration>,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// List tokens, without their secrets
    List {
        /// Only this user's
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Revoke a token at once
    Revoke {
        /// The token's id, as `token list` prints it
        id: String,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

/// `ballast repo …`. A repo is `ns/name` for a model, `datasets/ns/name` or `spaces/ns/name`.
#[derive(Debug, Subcommand)]
pub(crate) enum RepoCommand {
    /// List the repos that you may see
    List {
        /// Only this kind
        #[arg(long, value_name = "KIND", value_parser = ["model", "dataset", "space"])]
        kind: Option<String>,
        /// Only this namespace
        #[arg(long, value_name = "NAME")]
        author: Option<String>,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Create a repo
    Create {
        /// The repo
        repo: String,
        /// Who may see it [default: as its organisation says, else public]
        #[arg(long, value_enum)]
        visibility: Option<VisibilityArg>,
        /// For a space: what runs it
        #[arg(long, value_name = "SDK")]
        sdk: Option<String>,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Delete a repo
    Delete {
        /// The repo
        repo: String,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Rename a repo or give it to another namespace; its old name leads to the new one
    Move {
        /// The repo
        from: String,
        /// Its new name
        to: String,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Change a repo's settings
    Settings {
        /// The repo
        repo: String,
        /// Who may see it
        #[arg(long, value_enum)]
        visibility: Option<VisibilityArg>,
        /// Must readers ask for access: no, and get it at once, or wait for a person
        #[arg(long, value_parser = ["none", "auto", "manual"])]
        gated: Option<String>,
        /// A line that describes it
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

/// A number, or `none` for no limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuotaArg<T>(pub(crate) Option<T>);

/// `ballast quota …`.
#[derive(Debug, Subcommand)]
pub(crate) enum QuotaCommand {
    /// Change a quota; what is there stays, even if it is more
    Set {
        /// The user or the organisation
        name: String,
        /// Bytes in all files of all revisions of their repos, such as `500GB`, or `none`
        #[arg(long, value_name = "SIZE", required_unless_present = "repos")]
        bytes: Option<QuotaArg<bytesize::ByteSize>>,
        /// How many repos, or `none`
        #[arg(long, value_name = "COUNT")]
        repos: Option<QuotaArg<u64>>,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Show a quota and what is used of it
    Show {
        /// The user or the organisation
        name: String,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

/// `ballast audit …`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Print every act with when and by whom, in the order of time; JSON lines with `--json`
    List {
        /// Only what happened in this repo (`ns/name`, `datasets/ns/name`)
        #[arg(long, value_name = "REPO")]
        repo: Option<String>,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Walk every log; exits with 1 if an entry is missing, changed or not where it was
    ///
    /// Keep what `--json` prints elsewhere: with it, a later walk also misses the end of a log.
    Verify {
        /// What an earlier `audit verify --json` printed
        #[arg(long, value_name = "FILE")]
        heads: Option<PathBuf>,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

/// How the place of a backup is reached, if it is a bucket.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct BucketArgs {
    /// The service's address, where it is not the public one
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// The bucket's region
    #[arg(long, value_name = "NAME")]
    pub(crate) region: Option<String>,
    /// The id of the key [default: from the environment, as the service's own tools do it]
    #[arg(long, value_name = "ID")]
    pub(crate) access_key: Option<String>,
    /// A file with the key
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Let the endpoint begin with `http:`
    #[arg(long)]
    pub(crate) allow_http: bool,
    /// The bucket's name stands in front of the host
    #[arg(long)]
    pub(crate) virtual_hosted: bool,
}

/// `ballast backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// Where to: a folder, or a URL such as `s3://bucket/prefix`
    pub(crate) to: String,
    /// Which hub
    #[command(flatten)]
    pub(crate) config: StoreArgs,
    /// How to reach the place
    #[command(flatten)]
    pub(crate) bucket: BucketArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `ballast restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup: a folder, or a URL such as `s3://bucket/prefix`
    pub(crate) from: String,
    /// Where the hub is to be
    #[command(flatten)]
    pub(crate) config: StoreArgs,
    /// How to reach the backup
    #[command(flatten)]
    pub(crate) bucket: BucketArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which hub's store a command works on, beside any server.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct StoreArgs {
    /// The hub's configuration file (TOML)
    #[arg(long, env = "BALLAST_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The hub's data folder [default: ./ballast-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

impl StoreArgs {
    /// The same as `serve` would get it.
    pub(crate) fn to_config(&self) -> ConfigArgs {
        let (config, data) = (self.config.clone(), self.data.clone());
        ConfigArgs { config, data, listen: None, offline: false }
    }
}

/// `ballast export-metadata`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The hub
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

/// `ballast index …`.
#[derive(Debug, Subcommand)]
pub(crate) enum IndexCommand {
    /// Read the store and make the index anew; `serve` does so by itself where it must
    Rebuild {
        /// Which hub
        #[command(flatten)]
        config: StoreArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `ballast gc`.
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Change nothing; name each object that would go, and say why
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The hub
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

/// `ballast scrub …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ScrubCommand {
    /// Show how far it is, what is damaged, and which files that affects; exits with 1 if any are
    Status {
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

/// `ballast verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The repo (`ns/name`, `datasets/ns/name`); the whole hub if none is given
    pub(crate) repo: Option<String>,
    /// The hub
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}
