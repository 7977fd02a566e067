//! Makes the messages and services of `proto/` into Rust, without a compiler of theirs on the
//! machine.

use std::error::Error;
use std::path::PathBuf;

const FILES: &[&str] = &["node.proto", "replicate.proto", "swarm.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto/v1");
    println!("cargo::rerun-if-changed={}", root.display());
    let files = FILES.iter().map(|name| root.join(name));
    let descriptors = protox::compile(files, [&root])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
