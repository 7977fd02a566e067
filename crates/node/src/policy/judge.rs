//! The hub's own verbs under the policy: the facts of a repo that is here, and scans where a rule
//! asks for one.

use std::sync::Arc;

use ballast_format::hash::{FileHash, ObjectHash, Sha256};
use ballast_format::log::Gating;
use ballast_store::index::Table;
use ballast_store::index::schema::{self, FileRow};

use super::Policy;
use super::facts::{FileFacts, RepoFacts, licenses_of};
use super::rules::{Judgement, Need, Stage};
use crate::access::Repo;
use crate::download::{Content, ItemKind, LargeFile, TreeItem};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::scan::item_of;

impl Hub {
    /// The rules.
    pub fn policy(&self) -> &Policy {
        &self.settings().policy
    }

    /// What is known of a repo, by the card of its `main`.
    pub fn repo_facts(&self, repo: &Repo) -> RepoFacts {
        let facts = self.facts(&repo.id());
        RepoFacts {
            licenses: Some(licenses_of(facts.card.as_ref())),
            bytes: Some(facts.used_storage),
            ..named(repo)
        }
    }

    /// Judges a file of a commit that is here; scans it, and looks who signed it, where a rule asks
    /// for that.
    pub async fn judge_item(
        self: &Arc<Self>,
        stage: Stage,
        facts: &RepoFacts,
        (repo, commit): (&Repo, ObjectHash),
        item: &TreeItem,
    ) -> Result<Judgement> {
        let path = (!item.path.is_empty()).then(|| item.path.clone());
        let mut file = FileFacts { path, bytes: Some(item.size), ..FileFacts::default() };
        loop {
            let judgement = self.policy().judge_file(stage, facts, &file);
            match judgement {
                Judgement::Undecided { needs: Need::Scan, .. } if file.scan.is_none() => {
                    file.scan = Some(self.scan(repo, item).await?);
                }
                Judgement::Undecided { needs: Need::Signed, .. } if file.signed_by.is_none() => {
                    file.signed_by = Some(self.signed_by(repo, commit, item).await?);
                }
                settled => return Ok(settled),
            }
        }
    }

    /// Refuses what comes from elsewhere if it is certain that a rule denies it: a repo with what
    /// is known of its files. What depends on a scan passes; it is scanned when it is here, and
    /// judged again when somebody asks for it.
    pub fn may_enter(&self, stage: Stage, repo: &RepoFacts, files: &[FileFacts]) -> Result<()> {
        let denied = |judgement| match judgement {
            judgement @ Judgement::Denied(_) => settled(judgement),
            _ => Ok(()),
        };
        match self.policy().judge_repo(stage, repo) {
            Judgement::Undecided { .. } => files
                .iter()
                .try_for_each(|file| denied(self.policy().judge_file(stage, repo, file))),
            judgement => denied(judgement),
        }
    }

    /// Refuses a file of a commit that the rules do not let out.
    pub async fn may_download(
        self: &Arc<Self>,
        repo: &Repo,
        commit: ObjectHash,
        item: &TreeItem,
    ) -> Result<()> {
        let stages = self.stages_out(repo);
        if stages.is_empty() || item.kind != ItemKind::File {
            return Ok(());
        }
        let facts = self.repo_facts(repo);
        for stage in stages {
            settled(self.judge_item(stage, &facts, (repo, commit), item).await?)?;
        }
        Ok(())
    }

    /// Where a file of a repo is judged when somebody asks for it, as far as anything is refused
    /// there. What came from elsewhere before it could be scanned is judged as such, too.
    fn stages_out(&self, repo: &Repo) -> Vec<Stage> {
        let border = match (repo.is_mirror(), self.origin()) {
            (false, _) => None,
            (true, Some(_)) => Some(Stage::Mirror),
            (true, None) => Some(Stage::Import),
        };
        let stages = [Some(Stage::Download), border].into_iter().flatten();
        stages.filter(|stage| !self.policy().allows_all(*stage)).collect()
    }

    /// The same of a large file that is asked for by its hash alone: rules about paths fit nothing,
    /// and the signatures that count are those of `main`.
    pub async fn may_download_sha256(self: &Arc<Self>, repo: &Repo, sha256: &Sha256) -> Result<()> {
        if self.stages_out(repo).is_empty() {
            return Ok(());
        }
        let key = schema::file_key(&repo.id(), sha256);
        // What the repo does not have is not given out of it.
        let Some(row) = self.index().get(Table::File, &key).await? else { return Ok(()) };
        let Some(main) = self.repo_state(repo).await?.main() else { return Ok(()) };
        let FileRow { manifest, size } = FileRow::decode(&row)?;
        let (sha256, content) = (*sha256, Content::Stored(manifest));
        let large = LargeFile { sha256, size, pointer_size: 0, content };
        let item = item_of("", ObjectHash::from_bytes([0; 20]), large);
        self.may_download(repo, main, &item).await
    }

    /// The same by its name in Xet.
    pub async fn may_download_file(self: &Arc<Self>, repo: &Repo, file: &FileHash) -> Result<()> {
        if self.stages_out(repo).is_empty() {
            return Ok(());
        }
        let key = schema::file_repo_key(file, &repo.id());
        let Some(sha256) = self.index().get(Table::FileRepo, &key).await? else { return Ok(()) };
        let sha256 = <[u8; 32]>::try_from(sha256.as_slice());
        let sha256 = sha256.map_err(|_| Error::internal("a file's row has no hash"))?;
        self.may_download_sha256(repo, &Sha256::from_bytes(sha256)).await
    }
}

/// What a repo's record says.
pub(crate) fn named(repo: &Repo) -> RepoFacts {
    let gated = Some(repo.record.gating != Gating::None);
    RepoFacts { gated, ..RepoFacts::of(repo.kind(), repo.name()) }
}

/// A judgement as an end: what is not decided although all was looked at is refused.
pub(crate) fn settled(judgement: Judgement) -> Result<()> {
    match judgement {
        Judgement::Allowed { .. } => Ok(()),
        Judgement::Denied(refusal) => {
            Err(Error::Refused { reason: refusal.to_string(), rule: refusal.rule })
        }
        Judgement::Undecided { rule, needs } => {
            let reason =
                format!("refused by the policy rule `{rule}`: {needs:?} is not known of it");
            Err(Error::Refused { reason, rule })
        }
    }
}
