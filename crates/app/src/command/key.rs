//! `key new`: the keys that bundles are signed with.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use ballast_store::env::RealEnv;
use ballast_sync::bundle::{PublicKey, SigningKey};

use crate::args::KeyCommand;
use crate::config::read_secret;
use crate::output::Output;

/// Makes a key.
pub(crate) fn key(command: &KeyCommand, output: &mut Output) -> Result<ExitCode> {
    let KeyCommand::New { file } = command;
    let key = SigningKey::new(RealEnv::shared().as_ref());
    let public = public_name(file);
    write(&public, 0o644, &key.public().to_pem()?)?;
    if let Err(error) = write(file, 0o600, &key.to_pem()?) {
        // Half a pair is of no use to anybody.
        let _ = std::fs::remove_file(&public);
        return Err(error);
    }
    output.line(format!("{}: keep it secret, and keep a copy", file.display()))?;
    output.line(format!("{}: who imports your bundles needs it", public.display()))?;
    output.line(format!("the public key is {}", key.public()))?;
    Ok(ExitCode::SUCCESS)
}

fn public_name(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}

fn write(path: &Path, mode: u32, text: &str) -> Result<()> {
    let context = || format!("writing `{}`", path.display());
    let open = || -> std::io::Result<File> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(file)
    };
    open().map(drop).with_context(context)
}

/// Reads a key that signs; nobody else may be able to.
pub(super) fn signing_key(path: &Path) -> Result<SigningKey> {
    let text = read_secret("--key", path)?;
    SigningKey::from_pem(&text).with_context(|| format!("reading `{}`", path.display()))
}

/// Reads public keys, as they are written.
pub(super) fn key_texts(paths: &[PathBuf]) -> Result<Vec<String>> {
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("reading `{}`", path.display()))?;
        PublicKey::from_pem(&text).with_context(|| format!("reading `{}`", path.display()))?;
        Ok(text)
    };
    paths.iter().map(read).collect()
}

/// Reads public keys.
pub(super) fn public_keys(paths: &[PathBuf]) -> Result<Vec<PublicKey>> {
    let texts = key_texts(paths)?;
    texts.iter().map(|text| Ok(PublicKey::from_pem(text)?)).collect()
}
