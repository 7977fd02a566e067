//! The program: configuration, commands, wiring and shutdown.
//!
//! `anyhow` is allowed here and nowhere below: this floor only tells a person what went wrong.

mod args;
mod certificate;
mod client;
mod cluster;
mod command;
mod config;
mod importer;
mod keeping;
mod mirroring;
mod node;
mod output;
mod overview;
mod regions;
mod reload;
mod serve;
mod shutdown;
mod stores;
mod telemetry;
mod wire;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command, NodeArgs};
use output::Output;

/// Runs the program with these arguments, the program's name first.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to the parser; it knows which stream each belongs to.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let mut output = Output::standard();
    let result = match cli.command {
        Command::Serve(args) => serve::run(&args, &mut output).map(|()| ExitCode::SUCCESS),
        Command::CheckConfig(args) => command::check_config(&args, &mut output),
        Command::User(command) => command::user(command, &mut output),
        Command::Org(command) => command::org(command, &mut output),
        Command::Token(command) => command::token(command, &mut output),
        Command::Repo(command) => command::repo(command, &mut output),
        Command::Audit(command) => command::audit(command, &mut output),
        Command::Quota(command) => command::quota(command, &mut output),
        Command::Policy(command) => command::policy(command, &mut output),
        Command::Verify(args) => command::verify(&args, &mut output),
        Command::Scrub(command) => command::scrub(&command, &mut output),
        Command::ExportMetadata(args) => command::export(&args, &mut output),
        Command::Backup(args) => command::backup(&args, &mut output),
        Command::Restore(args) => command::restore(&args, &mut output),
        Command::Bundle(command) => command::bundle(&command, &mut output),
        Command::Mirror(command) => command::mirror(&command, &mut output),
        Command::Pull(args) => command::pull(&args, &mut output),
        Command::Node(NodeArgs { command: Some(command), .. }) => {
            command::node(command, &mut output)
        }
        Command::Top(args) => command::top(&args, &mut output),
        Command::Node(NodeArgs { run, .. }) => {
            node::run(&run, &mut output).map(|()| ExitCode::SUCCESS)
        }
        Command::Remote(command) => command::remote(&command, &mut output),
        Command::Replicate(command) => command::replicate(&command, &mut output),
        Command::Region(command) => command::region(&command, &mut output),
        Command::Key(command) => command::key(&command, &mut output),
        Command::Index(command) => command::index(&command, &mut output),
        Command::Gc(args) => command::gc(&args, &mut output).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        output.error(&error);
        ExitCode::FAILURE
    })
}
