//! The files of a process that joined: `cluster/member`, and `cluster/joining` until it has.
//!
//! Both hold a secret key, so nobody else may read them. They are replaced whole.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ballast_format::member::Member as Kept;
use ballast_store::env::SharedEnv;
use tokio::fs::{self, File, OpenOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Error, Result, SecretKey};

/// Longer files are none of ours.
const LONGEST: u64 = 64 * 1024;
/// A key, and the hash of the token that it is for.
const JOINING_BYTES: usize = 64;

/// The folder that they are in.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// In this data folder.
    pub(super) fn of(data: &Path) -> Self {
        Self(data.join("cluster"))
    }

    pub(super) fn member_path(&self) -> PathBuf {
        self.0.join("member")
    }

    fn joining_path(&self) -> PathBuf {
        self.0.join("joining")
    }

    /// Who this process is, if it has joined.
    pub(super) async fn member(&self) -> Result<Option<Kept>> {
        let path = self.member_path();
        let Some(bytes) = read(&path).await? else { return Ok(None) };
        let damaged = |error| {
            let file = path.display();
            Error::Invalid(format!(
                "`{file}` is damaged: {error}\nhint: remove it, and join again with a new token"
            ))
        };
        Kept::decode(&bytes).map(Some).map_err(damaged)
    }

    /// Keeps who this process is, and forgets that it was joining.
    pub(super) async fn keep(&self, member: &Kept) -> Result<()> {
        let bytes = member.encode().map_err(|error| Error::unusable("the identity", error))?;
        self.replace(&self.member_path(), &bytes).await?;
        match fs::remove_file(self.joining_path()).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::file(&self.joining_path(), error))
            }
            _ => Ok(()),
        }
    }

    /// The key with which this process joins by the token of this hash: the same however often it
    /// tries.
    pub(super) async fn joining_key(
        &self,
        joined_by: &[u8; 32],
        env: &SharedEnv,
    ) -> Result<SecretKey> {
        let path = self.joining_path();
        let known = read(&path).await?.and_then(|bytes| {
            let (key, for_token) = bytes.split_first_chunk::<32>()?;
            (for_token == joined_by).then(|| SecretKey::from_bytes(key))
        });
        if let Some(key) = known {
            return Ok(key);
        }
        let key = SecretKey::draw(env.as_ref());
        let mut bytes = Vec::with_capacity(JOINING_BYTES);
        bytes.extend_from_slice(&key.to_bytes());
        bytes.extend_from_slice(joined_by);
        self.replace(&path, &bytes).await?;
        Ok(key)
    }

    /// Writes a file beside, makes it durable, and gives it the name.
    async fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let written = async {
            let mut folder = fs::DirBuilder::new();
            folder.recursive(true).mode(0o700).create(&self.0).await?;
            let beside = path.with_extension("new");
            let mut file = OpenOptions::new();
            file.write(true).create(true).truncate(true).mode(0o600);
            let mut file = file.open(&beside).await?;
            // One that lay there may have had another mode.
            file.set_permissions(std::fs::Permissions::from_mode(0o600)).await?;
            file.write_all(bytes).await?;
            file.sync_all().await?;
            fs::rename(&beside, path).await?;
            File::open(&self.0).await?.sync_all().await
        };
        written.await.map_err(|error| Error::file(path, error))
    }
}

/// What is in a file that nobody else may read; nothing: it is not there.
async fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let failed = |error| Error::file(path, error);
    let file = match File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = file.metadata().await.map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        let shown = path.display();
        return Err(Error::Invalid(format!(
            "`{shown}` holds a secret, and others may open it (mode {:o})\nhint: chmod 600 {shown}",
            mode & 0o777
        )));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    Ok(Some(bytes))
}
