//! A large file of a mirror comes in: by the way on which a client's comes, and then the repo's log
//! links it.

use std::sync::Arc;

use ballast_format::hash::Sha256;
use ballast_format::id::{TokenId, UserId};
use ballast_format::log::TokenRole;
use ballast_format::manifest::ManifestId;
use ballast_format::pack::{FileLink, PackBuilder};
use ballast_store::index::Table;
use ballast_store::index::schema::{FileRow, UploadRow};

use super::growing::Growing;
use crate::access::{Caller, Repo, UserCaller};
use crate::download::ByteStream;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Large files of a repo that are looked at for those that resemble one.
const LOOKED_AT: usize = 10_000;

impl Hub {
    /// Takes in a large file of a mirror; when this returns, the repo has it. It is the file that
    /// it is said to be, or nothing is stored. For origins: nobody is asked whether they may.
    pub async fn put_mirrored(
        self: &Arc<Self>,
        repo: &Repo,
        (sha256, size): (Sha256, u64),
        body: ByteStream,
        growing: Arc<Growing>,
    ) -> Result<()> {
        if !repo.is_mirror() {
            return Err(Error::denied(format!("`{}` is no mirror", repo.name())));
        }
        let caller = bringer(repo);
        self.put_growing(&caller, repo, (sha256, size), body, growing).await?;
        let upload = self.recent_upload(&caller, &sha256).await?;
        let UploadRow { manifest, size, .. } =
            upload.ok_or_else(|| Error::internal("a file was registered and is not known"))?;
        let mut pack = PackBuilder::new();
        pack.link(FileLink { sha256, file: manifest.file, shard: manifest.shard, size });
        let pack = self.store_pack(pack, Vec::new()).await?;
        self.append_packs(repo.id(), None, &[pack], |_| Ok(Some(Vec::new()))).await?;
        // The headers of weights tell what the repo is.
        self.main_moved(repo).await;
        Ok(())
    }

    /// Large files of a mirror that are here and about so long, those nearest to it first: one of
    /// them may be an older version of what is wanted.
    pub async fn mirrored_like(
        &self,
        repo: &Repo,
        size: u64,
        most: usize,
    ) -> Result<Vec<ManifestId>> {
        // The log as it is now: what the index has of it is read.
        self.state_of(repo.id()).await?;
        let prefix = repo.id().as_bytes().to_vec();
        let rows = self.index().scan(Table::File, &prefix, None, LOOKED_AT).await?;
        let mut files = Vec::new();
        for (_, row) in rows {
            let FileRow { manifest, size: found } = FileRow::decode(&row)?;
            if found >= size / 2 && found / 2 <= size {
                files.push((found.abs_diff(size), manifest));
            }
        }
        files.sort_by_key(|(distance, id)| (*distance, id.file));
        Ok(files.into_iter().take(most).map(|(_, id)| id).collect())
    }

    /// Whether a mirror has the content of this large file.
    pub async fn has_mirrored(&self, repo: &Repo, sha256: &Sha256) -> Result<bool> {
        self.state_of(repo.id()).await?;
        Ok(self.link_of(repo.id(), sha256).await?.is_some())
    }
}

/// Who brings files to a mirror. Each mirror has its own, so that what one was given is within
/// reach of no other: an upstream gives to each what its own rules say (R17).
pub(super) fn bringer(repo: &Repo) -> Caller {
    Caller::User(Arc::new(UserCaller {
        user: UserId::from_bytes(*repo.id().as_bytes()),
        name: "mirror".to_owned(),
        admin: false,
        token: TokenId::from_bytes([0; 16]),
        role: TokenRole::Write,
        expires_ms: None,
    }))
}
