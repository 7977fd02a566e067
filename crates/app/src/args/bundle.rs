//! The arguments of `ballast bundle` and `ballast key`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{RemoteArgs, StoreArgs};

/// `ballast key …`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Draw an Ed25519 key; its public half goes beside it, as FILE.pub
    New {
        /// Where to write it, as PEM; it must not be there yet
        file: PathBuf,
    },
}

/// `ballast bundle …`. A repo is `ns/name` for a model, `datasets/ns/name` or `spaces/ns/name`.
#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Make a bundle of repos, while the hub serves or not
    ///
    /// Reads the store itself, not the hub. A revision brings what is behind it, as in git. Cut
    /// short and run again, it goes on with the volumes that it had written.
    Create(BundleCreateArgs),
    /// Read all of a bundle, and compare each byte with what was signed
    ///
    /// Exits with 1 if something is missing or damaged, and names the files that are affected.
    Verify(BundleReadArgs),
    /// Show whose a bundle is and what it brings, without reading its volumes
    Inspect(BundleInspectArgs),
    /// Bring a bundle into a hub that is running, from a folder of the hub's machine
    ///
    /// Run again, it goes on where it was cut short. Exits with 1 if a repo could not be brought
    /// in; the others are here then.
    Import(BundleImportArgs),
}

/// `ballast bundle create`.
#[derive(Debug, Args)]
pub(crate) struct BundleCreateArgs {
    /// The repos: `REPO`, at its branch `main`, or `REPO@REVISION`
    #[arg(required_unless_present = "set", value_name = "REPO")]
    pub(crate) repos: Vec<String>,
    /// The repos of a set, as `mirror add --set` named it; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) set: Vec<String>,
    /// Leave out large files of mirrors that were never fetched
    #[arg(long)]
    pub(crate) partial: bool,
    /// The folder to make it in
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// The key that signs it
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// Leave out what the other side has: the receipt of its last import
    #[arg(long, value_name = "RECEIPT")]
    pub(crate) since: Option<PathBuf>,
    /// The most bytes of a volume
    #[arg(long, default_value = "64GiB", value_name = "SIZE")]
    pub(crate) split: bytesize::ByteSize,
    /// Which hub
    #[command(flatten)]
    pub(crate) config: StoreArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `ballast bundle verify`.
#[derive(Debug, Args)]
pub(crate) struct BundleReadArgs {
    /// The bundle's folder
    pub(crate) folder: PathBuf,
    /// The public key of whoever may have signed it; may be repeated
    #[arg(long, required = true, value_name = "FILE")]
    pub(crate) key: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `ballast bundle inspect`.
#[derive(Debug, Args)]
pub(crate) struct BundleInspectArgs {
    /// The bundle's folder
    pub(crate) folder: PathBuf,
    /// The public key of whoever may have signed it; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `ballast bundle import`.
#[derive(Debug, Args)]
pub(crate) struct BundleImportArgs {
    /// The bundle's folder, as the hub's machine names it
    pub(crate) folder: PathBuf,
    /// The public key of whoever may have signed it; may be repeated
    #[arg(long, required = true, value_name = "FILE")]
    pub(crate) key: Vec<PathBuf>,
    /// Where to write the receipt, for the next `bundle create --since`
    #[arg(long, default_value = "bundle.receipt", value_name = "FILE")]
    pub(crate) receipt: PathBuf,
    /// Take it into the hub's store while no hub runs, before its first start too
    #[arg(long)]
    pub(crate) local: bool,
    /// Which hub's store, with `--local`
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// The hub
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}
