//! Addresses by which a client reads one object from the store itself, without us in between.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use object_store::signer::{HeaderName, HeaderValue, Method, SignedUrlOptions};

use super::Store;
use crate::error::{Error, Result};
use crate::keyspace::Key;

/// An address that works for a while, for whoever has it.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedGet {
    /// Where to read.
    pub url: String,
    /// What the reader must send as `Range`, to the letter: the signature covers it.
    pub range: Option<String>,
}

impl fmt::Debug for SignedGet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SignedGet(***, {:?})", self.range)
    }
}

impl Store {
    /// An address for an object, or for one range of it. `None`: this store has none to give, or
    /// can't bind one to a range.
    pub async fn signed_get(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
        lifetime: Duration,
    ) -> Result<Option<SignedGet>> {
        let Some(signer) = &self.signer else { return Ok(None) };
        let range = range.map(|range| spell_range(&range)).transpose()?;
        let mut options = SignedUrlOptions::new();
        if let Some(range) = &range {
            let value = HeaderValue::from_str(range);
            let value = value.map_err(|_| Error::invalid("a range is digits"))?;
            options = options.with_signed_header(HeaderName::from_static("range"), value);
        }
        match signer.signed_url_opts(Method::GET, &key.path(), lifetime, &options).await {
            Ok(url) => Ok(Some(SignedGet { url: url.into(), range })),
            Err(object_store::Error::NotSupported { .. }) => Ok(None),
            Err(error) => Err(Error::from_backend(key, &error)),
        }
    }
}

fn spell_range(range: &Range<u64>) -> Result<String> {
    let last = range.end.checked_sub(1).filter(|last| *last >= range.start);
    let last = last.ok_or_else(|| Error::invalid("an empty range can't be signed"))?;
    Ok(format!("bytes={}-{last}", range.start))
}
