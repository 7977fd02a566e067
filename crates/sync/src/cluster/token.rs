//! The one word that a person carries from the hub to a host that shall join.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::{Error, PeerKey, Result};

/// What every join token begins with: leak scanners look for it.
const PREFIX: &str = "ballast-join-";
/// The layout of what follows.
const VERSION: u8 = 1;
/// Bytes of the check at the end: a word that was cut is told from one that is refused.
const CHECK_BYTES: usize = 4;
/// The longest address: a host's name has 253 characters at most.
const LONGEST_ADDRESS: usize = 260;

/// What a join token holds.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Good for one join.
    pub secret: [u8; 32],
    /// How to know the hub: the key of its cluster's authority.
    pub authority: PeerKey,
    /// Where it is, as `host:port`.
    pub address: String,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "JoinToken(*** for {})", self.address)
    }
}

impl JoinToken {
    /// The word.
    pub fn to_text(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(self.authority.as_bytes());
        bytes.extend_from_slice(self.address.as_bytes());
        bytes.extend_from_slice(&check(&bytes));
        format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Result<Self> {
        Self::read(text.trim()).ok_or_else(|| {
            Error::Invalid(
                "this is no join token, or only a part of one\n\
                 hint: copy the whole word that `ballast node join-token` printed"
                    .to_owned(),
            )
        })
    }

    fn read(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let (content, written) = bytes.split_last_chunk::<CHECK_BYTES>()?;
        let (version, rest) = content.split_first()?;
        let (secret, rest) = rest.split_first_chunk()?;
        let (authority, address) = rest.split_first_chunk()?;
        let address = String::from_utf8(address.to_vec()).ok()?;
        let is_good = *version == VERSION && *written == check(content) && is_address(&address);
        is_good.then(|| Self {
            secret: *secret,
            authority: PeerKey::from_bytes(*authority),
            address,
        })
    }
}

fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let [a, b, c, d, ..] = *blake3::hash(bytes).as_bytes();
    [a, b, c, d]
}

/// Whether this is `host:port`.
pub fn is_address(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    let (host, port) = text.rsplit_once(':').unwrap_or_default();
    text.len() <= LONGEST_ADDRESS
        && !host.is_empty()
        && host.bytes().all(fits)
        && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')))
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(address: &str) -> JoinToken {
        let authority = PeerKey::from_bytes([8; 32]);
        JoinToken { secret: [7; 32], authority, address: address.to_owned() }
    }

    #[test]
    fn a_token_is_one_word_and_reads_back() {
        for address in ["hub.example:8081", "10.0.0.1:1", "[::1]:8081"] {
            let text = token(address).to_text();
            assert!(text.starts_with("ballast-join-") && !text.contains(char::is_whitespace));
            assert_eq!(JoinToken::parse(&format!(" {text}\n")).expect("own"), token(address));
        }
        assert!(!format!("{:?}", token("hub:1")).contains('7'));
    }

    #[test]
    fn a_word_that_was_cut_or_mistyped_is_told() {
        let text = token("hub.example:8081").to_text();
        for length in 0..text.len() {
            assert!(JoinToken::parse(&text[..length]).is_err(), "{length}");
        }
        for place in PREFIX.len()..text.len() {
            let mut letters = text.clone().into_bytes();
            letters[place] = if letters[place] == b'x' { b'y' } else { b'x' };
            let other = String::from_utf8(letters).expect("letters");
            assert!(JoinToken::parse(&other).is_err(), "{place}");
        }
        let error = JoinToken::parse("hf_abc").expect_err("no token").to_string();
        assert!(error.contains("hint:"), "{error}");
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for bad in ["", "hub", "hub:", ":1", "hub:0", "hub:65536", "a b:1", "::1:1", "http://a:1"] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise: Vec<u8>, text: String) {
            let _ = JoinToken::parse(&text);
            let _ = JoinToken::parse(&format!("{PREFIX}{text}"));
            let noise = BASE64_URL_SAFE_NO_PAD.encode(noise);
            let _ = JoinToken::parse(&format!("{PREFIX}{noise}"));
        }
    }
}
