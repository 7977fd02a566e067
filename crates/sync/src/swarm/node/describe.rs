//! A file's description, as the hub streams it: read, and compared with itself.

use ballast_format::cached_file::CachedFile;
use ballast_format::hash::{ChunkHash, Sha256, XorbHash};
use ballast_format::limits::MAX_CACHED_CHUNKS;
use ballast_format::manifest::Term;
use ballast_node::error::{Error, Result};
use ballast_proto::v1;
use ballast_proto::v1::described::What;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tonic::Status;

use super::attend::failed;
use super::hub_side::{Answer, Described};
use crate::swarm::exchange::{Pass, Terms};

/// The most permits of one file: each is for 16,384 xorbs.
const MOST_PERMITS: usize = 256;

/// Reads what the hub says of a file.
pub(super) async fn read_description(
    told: impl Stream<Item = std::result::Result<v1::Described, Status>>,
) -> Result<Answer> {
    let mut told = std::pin::pin!(told);
    let (mut head, mut permits) = (None, Vec::new());
    let (mut terms, mut chunks) = (Vec::new(), Vec::new());
    while let Some(part) = told.next().await {
        match part.map_err(|status| failed(&status))?.what {
            Some(What::Elsewhere(_)) => return Ok(Answer::Elsewhere),
            Some(What::Head(said)) if head.is_none() => head = Some(said),
            Some(What::Permit(said)) if permits.len() < MOST_PERMITS => permits.push(said.permit),
            Some(What::Terms(said)) => {
                for term in &said.terms {
                    terms.push(term_of(term, &mut chunks)?);
                }
                if chunks.len() > MAX_CACHED_CHUNKS {
                    return Err(senseless("it has more chunks than any file"));
                }
            }
            _ => return Err(senseless("its parts are not in order")),
        }
    }
    let head = head.ok_or_else(|| senseless("it has no head"))?;
    finish(&head, permits, (terms, &chunks))
}

fn finish(
    head: &v1::FileHead,
    permits: Vec<Bytes>,
    (terms, chunks): (Vec<Term>, &[(ChunkHash, u32)]),
) -> Result<Answer> {
    let sha256: [u8; 32] =
        head.sha256.as_ref().try_into().map_err(|_| senseless("its SHA-256 is none"))?;
    let sha256 = Sha256::from_bytes(sha256);
    let counts = (terms.len(), chunks.len());
    if counts != (head.terms as usize, head.chunks as usize) {
        return Err(senseless("it is cut short"));
    }
    let about =
        CachedFile::new(sha256, terms, chunks).map_err(|error| senseless(&error.to_string()))?;
    if about.head.size != head.size || head.piece_bytes == 0 || head.stripes == 0 {
        return Err(senseless("its head is of another file"));
    }
    let pass = Pass { sha256, permits, until_ms: head.until_ms };
    let (piece_bytes, stripes) = (u64::from(head.piece_bytes), head.stripes.min(MOST_STRIPES));
    let terms = Terms { pass, piece_bytes, stripes };
    Ok(Answer::Here(Box::new(Described { about, terms, ticket: head.ticket.clone() })))
}

/// Stripes are few, whatever is said.
const MOST_STRIPES: u32 = 256;

fn term_of(said: &v1::FileTerm, chunks: &mut Vec<(ChunkHash, u32)>) -> Result<Term> {
    let xorb: [u8; 32] =
        said.xorb.as_ref().try_into().map_err(|_| senseless("a xorb's hash is none"))?;
    let (hashes, rest) = said.hashes.as_chunks::<32>();
    if !rest.is_empty() || hashes.len() != said.lengths.len() {
        return Err(senseless("a term has not as many hashes as lengths"));
    }
    let count = u32::try_from(hashes.len()).map_err(|_| senseless("a term is too long"))?;
    let length = said.lengths.iter().try_fold(0_u32, |sum, length| sum.checked_add(*length));
    let length = length.ok_or_else(|| senseless("a term is too long"))?;
    let end = said.first.checked_add(count).ok_or_else(|| senseless("a term is too long"))?;
    let pairs = hashes.iter().zip(&said.lengths);
    chunks.extend(pairs.map(|(hash, length)| (ChunkHash::from_bytes(*hash), *length)));
    Ok(Term { xorb: XorbHash::from_bytes(xorb), chunks: said.first..end, length })
}

fn senseless(reason: &str) -> Error {
    Error::corrupt(format!("what the hub says of a file makes no sense: {reason}"))
}
