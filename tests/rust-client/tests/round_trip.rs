//! The Rust client against the built binary.

#[path = "../../support/mod.rs"]
mod support;

use std::process::Command;

use anyhow::Result;
use support::client::{finish, point_at};
use support::server::Server;

#[test]
fn a_round_trip_with_the_rust_client() -> Result<()> {
    let server = Server::start()?;
    let home = server.scratch("home")?;
    let mut client = Command::new(env!("CARGO_BIN_EXE_ballast-rust-client"));
    point_at(&mut client, &server, &server.token, &home);
    finish(client.arg("admin/from-rust"))?;
    Ok(())
}
