//! What to bring from an upstream, how often, and how that went the last time.
//!
//! Each version of a job is an object of its own; the newest one counts. Layout:
//! `docs/formats/mirror-job.md`.

use crate::codec::{Decoder, Encoder, Format};
use crate::error::{Error, Result};
use crate::id::OperationId;
use crate::limits::{MAX_JOB_PATTERNS, MAX_MIRROR_JOB_BYTES};
use crate::name::RepoKind;

const FORMAT: Format = Format {
    what: "mirror job",
    magic: *b"BLSTMJOB",
    version: 1,
    limit: MAX_MIRROR_JOB_BYTES,
    has_checksum: true,
};

/// How a run of a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRun {
    /// When, in unix milliseconds.
    pub ended_ms: u64,
    /// Whether all that the job names is here.
    pub is_complete: bool,
    /// Repos that it named.
    pub repos: u64,
    /// Files that it named.
    pub files: u64,
    /// Bytes of them that it fetched.
    pub fetched_bytes: u64,
    /// What went wrong, for a person.
    pub message: String,
}

/// Who runs a job, and until when nobody else should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobClaim {
    /// The run.
    pub run: OperationId,
    /// When the claim ends, in unix milliseconds.
    pub until_ms: u64,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorJob {
    /// What its repos hold.
    pub kind: RepoKind,
    /// The namespace there.
    pub namespace: String,
    /// The repo's name, or a pattern of names.
    pub name: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// Patterns of the files to bring; none are all.
    pub include: Vec<String>,
    /// Patterns of the files to leave out.
    pub exclude: Vec<String>,
    /// The set that its repos belong to; empty for none.
    pub set: String,
    /// How long after the end of a complete run the next one begins, in seconds; 0 for never.
    pub every_seconds: u64,
    /// When it was added, in unix milliseconds.
    pub added_ms: u64,
    /// Whether it was removed.
    pub is_removed: bool,
    /// Who runs it.
    pub claim: Option<JobClaim>,
    /// How it went the last time.
    pub last: Option<JobRun>,
}

impl MirrorJob {
    /// The stored bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        check_count(self.include.len() + self.exclude.len())?;
        FORMAT.encode(|encoder| {
            encoder.u8(self.kind.to_byte());
            for text in [&self.namespace, &self.name, &self.revision, &self.set] {
                encoder.str(text);
            }
            for patterns in [&self.include, &self.exclude] {
                encoder.list(patterns, |encoder, pattern| encoder.str(pattern));
            }
            encoder.u64(self.every_seconds);
            encoder.u64(self.added_ms);
            encoder.bool(self.is_removed);
            encoder.option(self.claim.as_ref(), |encoder, claim| {
                encoder.array(claim.run.as_bytes());
                encoder.u64(claim.until_ms);
            });
            encoder.option(self.last.as_ref(), encode_run);
        })
    }

    /// Reads stored bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = FORMAT.decode(bytes)?;
        let kind = RepoKind::from_byte(decoder.u8()?);
        let kind = kind.ok_or_else(|| decoder.malformed("no kind of repo has this number"))?;
        let [namespace, name, revision, set] = texts(&mut decoder)?;
        let include = patterns(&mut decoder)?;
        let exclude = patterns(&mut decoder)?;
        check_count(include.len() + exclude.len())?;
        let job = Self {
            kind,
            namespace,
            name,
            revision,
            include,
            exclude,
            set,
            every_seconds: decoder.u64()?,
            added_ms: decoder.u64()?,
            is_removed: decoder.bool()?,
            claim: decoder.option(|decoder| {
                let run = OperationId::from_bytes(decoder.array()?);
                Ok(JobClaim { run, until_ms: decoder.u64()? })
            })?,
            last: decoder.option(decode_run)?,
        };
        decoder.finish()?;
        Ok(job)
    }
}

fn texts(decoder: &mut Decoder<'_>) -> Result<[String; 4]> {
    let mut next = || Ok::<_, Error>(decoder.str()?.to_owned());
    Ok([next()?, next()?, next()?, next()?])
}

fn patterns(decoder: &mut Decoder<'_>) -> Result<Vec<String>> {
    decoder.list(4, |decoder| Ok(decoder.str()?.to_owned()))
}

fn check_count(patterns: usize) -> Result<()> {
    if patterns <= MAX_JOB_PATTERNS {
        return Ok(());
    }
    let (size, limit) = (patterns as u64, MAX_JOB_PATTERNS as u64);
    Err(Error::TooLarge { what: "list of patterns", size, limit })
}

fn encode_run(encoder: &mut Encoder, run: &JobRun) {
    encoder.u64(run.ended_ms);
    encoder.bool(run.is_complete);
    encoder.u64(run.repos);
    encoder.u64(run.files);
    encoder.u64(run.fetched_bytes);
    encoder.str(&run.message);
}

fn decode_run(decoder: &mut Decoder<'_>) -> Result<JobRun> {
    Ok(JobRun {
        ended_ms: decoder.u64()?,
        is_complete: decoder.bool()?,
        repos: decoder.u64()?,
        files: decoder.u64()?,
        fetched_bytes: decoder.u64()?,
        message: decoder.str()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first job that was ever written; it must be readable for ever.
    const KEPT: &[u8] = include_bytes!("../../../tests/fixtures/mirror-job-v1.bin");

    fn job() -> MirrorJob {
        MirrorJob {
            kind: RepoKind::Dataset,
            namespace: "org".to_owned(),
            name: "Llama-*".to_owned(),
            revision: "main".to_owned(),
            include: vec!["*.safetensors".to_owned(), "*.json".to_owned()],
            exclude: vec!["original/*".to_owned()],
            set: "prod".to_owned(),
            every_seconds: 3600,
            added_ms: 1_700_000_000_000,
            is_removed: false,
            claim: Some(JobClaim {
                run: OperationId::from_bytes([7; 16]),
                until_ms: 1_700_000_900_000,
            }),
            last: Some(JobRun {
                ended_ms: 1_700_000_500_000,
                is_complete: false,
                repos: 2,
                files: 31,
                fetched_bytes: 1 << 33,
                message: "`org/Llama-8B`: the upstream is not available".to_owned(),
            }),
        }
    }

    #[test]
    fn kept_bytes_are_written_and_read_today() {
        assert_eq!(job().encode().expect("small"), KEPT);
        assert_eq!(MirrorJob::decode(KEPT).expect("kept"), job());
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        for place in 0..KEPT.len() * 8 {
            let mut bytes = KEPT.to_vec();
            bytes[place / 8] ^= 1 << (place % 8);
            assert!(MirrorJob::decode(&bytes).is_err(), "bit {place}");
        }
    }

    #[test]
    fn what_is_over_a_limit_is_not_written() {
        let pattern = || "*.json".to_owned();
        let mut many = job();
        many.include = (0..=MAX_JOB_PATTERNS).map(|_| pattern()).collect();
        assert!(matches!(many.encode(), Err(Error::TooLarge { .. })));
        let mut long = job();
        long.name = "x".repeat(MAX_MIRROR_JOB_BYTES);
        assert!(matches!(long.encode(), Err(Error::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn round_trip(
            texts: [String; 5], include: Vec<String>, numbers: [u64; 4],
            claim: Option<([u8; 16], u64)>, flags: [bool; 3],
        ) {
            let [namespace, name, revision, set, message] = texts;
            let [every_seconds, added_ms, ended_ms, files] = numbers;
            let claim = claim.map(|(run, until_ms)| JobClaim {
                run: OperationId::from_bytes(run), until_ms,
            });
            let last = flags[1].then_some(JobRun {
                ended_ms, is_complete: flags[2], repos: files, files, fetched_bytes: files, message,
            });
            let job = MirrorJob {
                kind: RepoKind::Model, namespace, name, revision, include, exclude: Vec::new(), set,
                every_seconds, added_ms, is_removed: flags[0], claim, last,
            };
            prop_assert_eq!(MirrorJob::decode(&job.encode().expect("small")).expect("own"), job);
        }

        #[test]
        fn noise_never_panics(noise: Vec<u8>) {
            prop_assert!(MirrorJob::decode(&noise).is_err());
        }
    }
}
