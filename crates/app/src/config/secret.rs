//! Files that hold a secret: read only if nobody but their owner can.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// Longer files are no keys.
const LONGEST: u64 = 1024 * 1024;

/// The content of the file that the setting `key` names.
pub(crate) fn read_secret(key: &str, path: &Path) -> Result<String> {
    let shown = path.display();
    let context = || format!("reading `{key}`, `{shown}`");
    let mut file = File::open(path).with_context(context)?;
    let mode = file.metadata().with_context(context)?.permissions().mode();
    if mode & 0o077 != 0 && !is_guarded(path) {
        bail!(
            "`{key}` is `{shown}`, which others may open (mode {:o})\n\
             hint: chmod 600 {shown}",
            mode & 0o777
        );
    }
    let mut text = String::new();
    file.by_ref().take(LONGEST).read_to_string(&mut text).with_context(context)?;
    Ok(text)
}

/// systemd gives credentials in a folder that only the service can enter; the modes in it do not
/// say so.
fn is_guarded(path: &Path) -> bool {
    std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    #[test]
    fn what_others_may_open_is_refused_with_the_way_out() {
        let path = std::env::temp_dir().join(format!("ballast-key-{}", std::process::id()));
        fs::write(&path, "hidden").unwrap();
        for (mode, is_read) in
            [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o666, false)]
        {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let read = read_secret("tls.key", &path);
            assert_eq!(read.is_ok(), is_read, "{mode:o}");
            if let Err(error) = read {
                let error = format!("{error:#}");
                assert!(error.contains("hint: chmod 600"), "{error}");
                assert!(!error.contains("hidden"), "{error}");
            }
        }
        fs::remove_file(&path).unwrap();
        assert!(format!("{:#}", read_secret("tls.key", &path).unwrap_err()).contains("tls.key"));
    }
}
