//! Random names of 16 bytes for what has no content to be named by.
//!
//! Whoever makes one draws the bytes; this crate has no randomness. As text they are 32
//! hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result, hex};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Takes the raw bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex::write(&self.0, out)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, out)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                hex::decode(text)
                    .map(Self)
                    .ok_or_else(|| Error::malformed($what, hex::reason(16)))
            }
        }
    };
}

id!(
    /// A repo, whatever it is called at the moment.
    RepoId,
    "repo id"
);
id!(
    /// A user, whatever they are called at the moment.
    UserId,
    "user id"
);
id!(
    /// An organisation.
    OrgId,
    "organisation id"
);
id!(
    /// An access token; not the secret itself.
    TokenId,
    "token id"
);
id!(
    /// One attempt to change something: it tells our own write from another's.
    OperationId,
    "operation id"
);
id!(
    /// An upload in progress.
    UploadId,
    "upload id"
);
id!(
    /// Something that is brought from an upstream, again and again.
    JobId,
    "job id"
);

id!(
    /// A node that was invited, and may have joined.
    NodeId,
    "node id"
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_plain_hexadecimal() {
        let id = RepoId::from_bytes(*b"0123456789abcdef");
        assert_eq!(id.to_string(), "30313233343536373839616263646566");
        assert_eq!("30313233343536373839616263646566".parse::<RepoId>().expect("valid"), id);
        assert_eq!("30313233343536373839616263646566", format!("{id:?}"));
    }

    #[test]
    fn text_of_a_wrong_length_or_alphabet_is_refused() {
        for wrong in ["", "0", &"0".repeat(31), &"0".repeat(33), &"x".repeat(32), &"é".repeat(16)]
        {
            assert!(wrong.parse::<UserId>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn text_and_bytes_round_trip_and_keep_the_order(a: [u8; 16], b: [u8; 16]) {
            let (a, b) = (OperationId::from_bytes(a), OperationId::from_bytes(b));
            prop_assert_eq!(a.to_string().parse::<OperationId>().expect("own text"), a);
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }
}
