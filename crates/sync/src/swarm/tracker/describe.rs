//! What a file is made of: told to a node that may have it.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;

use ballast_format::hash::{Sha256, XorbHash};
use ballast_format::manifest::{Manifest, Term};
use ballast_format::name::{FilePath, RepoKind, RepoName};
use ballast_node::error::{Error, Result};
use ballast_proto::v1::described::What;
use ballast_proto::{LONGEST_MESSAGE, v1};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};

use super::Tracker;
use crate::cluster::PeerName;
use crate::swarm::plan::Cut;

/// How long a ticket and permits are good: as long as a certificate, so that nodes finish without
/// the hub, and who lost a right loses it within a day.
const GOOD_FOR_MS: u64 = 24 * 60 * 60 * 1000;
/// Xorbs of one permit: half a message.
const PERMITTED: usize = LONGEST_MESSAGE / 2 / 32;
/// Terms are sent together up to this size; the largest term is a third of it.
const TERMS_BYTES: usize = LONGEST_MESSAGE / 2;
/// Footers that are read ahead.
const AHEAD: usize = 4;

/// A description on its way.
pub(super) type Description = Pin<Box<dyn Stream<Item = Result<v1::Described>> + Send>>;

impl Tracker {
    /// What a file is made of, for this node.
    pub(super) async fn describe(
        self: &Arc<Self>,
        node: &PeerName,
        asked: &v1::DescribeRequest,
    ) -> Result<Description> {
        let hub = &self.hub;
        hub.freshen().await?;
        let caller = self.members.caller(node).ok_or(Error::RepoNotFound)?;
        let kind = RepoKind::from_singular(&asked.kind)
            .ok_or_else(|| Error::invalid(format!("`{}` is no kind of repo", asked.kind)))?;
        let name = RepoName::parse(&asked.repo)?;
        let repo = hub.repo_or_bring(&caller, kind, &name).await?;
        let commit = hub.resolve(&repo, &asked.revision).await?.commit;
        hub.may_read_files(&caller, &repo)?;
        let item = hub.item(&repo, commit, &FilePath::parse(&asked.path)?).await?;
        hub.may_download(&repo, commit, &item).await?;
        let Some(large) = item.large else {
            let reason = format!("`{}` is no large file: ask for it over HTTP", asked.path);
            return Err(Error::invalid(reason));
        };
        let Some(manifest) = large.manifest() else {
            let (size, sha256) = (large.size, bytes_of(large.sha256.as_bytes()));
            let elsewhere = v1::FileElsewhere { size, sha256 };
            return Ok(Box::pin(stream::iter([Ok(told(What::Elsewhere(elsewhere)))])));
        };
        let manifest = hub.carried_manifest(&manifest).await?;
        self.described.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let head = self.head(node, &large.sha256, &manifest);
        let permits = self.permits(node, &manifest, head.until_ms);
        let first = stream::iter([Ok(told(What::Head(head)))]).chain(stream::iter(permits));
        Ok(Box::pin(first.chain(self.terms(manifest))))
    }

    fn head(&self, node: &PeerName, sha256: &Sha256, manifest: &Manifest) -> v1::FileHead {
        let until_ms = self.hub.env().now_ms().saturating_add(GOOD_FOR_MS);
        let cut = Cut::of(manifest.size);
        v1::FileHead {
            sha256: bytes_of(sha256.as_bytes()),
            file: bytes_of(manifest.file.as_bytes()),
            size: manifest.size,
            terms: small(manifest.terms.len()),
            chunks: small(manifest.terms.iter().map(|term| term.chunks.len()).sum()),
            piece_bytes: u32::try_from(cut.piece_bytes()).unwrap_or(u32::MAX),
            stripes: cut.stripes(),
            ticket: self.roster().ticket(node, (sha256, manifest.size), until_ms),
            until_ms,
        }
    }

    fn permits(
        &self,
        node: &PeerName,
        manifest: &Manifest,
        until_ms: u64,
    ) -> Vec<Result<v1::Described>> {
        let mut seen = HashSet::new();
        let xorbs = manifest.terms.iter().map(|term| term.xorb);
        let xorbs: Vec<XorbHash> = xorbs.filter(|xorb| seen.insert(*xorb)).collect();
        let permit = |xorbs: &[XorbHash]| {
            let permit = self.members.permit(node, xorbs, until_ms);
            Ok(told(What::Permit(v1::FilePermit { permit })))
        };
        xorbs.chunks(PERMITTED).map(permit).collect()
    }

    /// The terms with their chunks, some in each message.
    fn terms(
        self: &Arc<Self>,
        manifest: Arc<Manifest>,
    ) -> impl Stream<Item = Result<v1::Described>> + Send + use<> {
        let this = Arc::clone(self);
        let count = manifest.terms.len();
        let terms = stream::iter(0..count).map(move |index| {
            let (this, manifest) = (Arc::clone(&this), Arc::clone(&manifest));
            async move { this.term(&manifest.terms[index]).await }
        });
        let terms = Box::pin(terms.buffered(AHEAD));
        let batches = stream::try_unfold((terms, None), |(mut terms, kept)| async move {
            let mut batch: Vec<v1::FileTerm> = Vec::from_iter(kept);
            let mut bytes: usize = batch.iter().map(length).sum();
            while let Some(term) = terms.try_next().await? {
                bytes += length(&term);
                if bytes > TERMS_BYTES && !batch.is_empty() {
                    return Ok(Some((batch, (terms, Some(term)))));
                }
                batch.push(term);
            }
            Ok::<_, Error>((!batch.is_empty()).then_some((batch, (terms, None))))
        });
        batches.map_ok(|terms| told(What::Terms(v1::FileTerms { terms })))
    }

    async fn term(&self, term: &Term) -> Result<v1::FileTerm> {
        let footer = self.hub.carried_footer(&term.xorb).await?;
        if term.chunks.end > footer.chunk_count() {
            return Err(Error::corrupt(format!("a term names more than `{}` has", term.xorb)));
        }
        let mut hashes = Vec::with_capacity(32 * term.chunks.len());
        for index in term.chunks.clone() {
            hashes.extend_from_slice(footer.chunk_hash(index).as_bytes());
        }
        Ok(v1::FileTerm {
            xorb: bytes_of(term.xorb.as_bytes()),
            first: term.chunks.start,
            hashes: hashes.into(),
            lengths: term.chunks.clone().map(|index| footer.chunk_length(index)).collect(),
        })
    }
}

/// What a term takes in a message, about.
fn length(term: &v1::FileTerm) -> usize {
    64 + term.hashes.len() + 5 * term.lengths.len()
}

/// A count that is within what a manifest may have.
fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn told(what: What) -> v1::Described {
    v1::Described { what: Some(what) }
}

fn bytes_of(hash: &[u8; 32]) -> Bytes {
    Bytes::copy_from_slice(hash)
}
