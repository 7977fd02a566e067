//! The hashes that name things, each a type of its own.
//!
//! Chunk, xorb, file and range hashes belong to the Xet formats: their text reverses the bytes
//! within each group of eight. All others are plain hexadecimal. The two views are never mixed,
//! since only the types below turn bytes into text and back. The order of every hash is the order
//! of its text.
//!
//! Nothing here decides whether a hash is the right one; that is for whoever holds the content.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::{Error, Result, hex};

const CHUNK_KEY: [u8; 32] = *b"\x66\x97\xf5\x77\x5b\x95\x50\xde\x31\x35\xcb\xac\xa5\x97\x18\x1c\
      \x9d\xe4\x21\x10\x9b\xeb\x2b\x58\xb4\xd0\xb0\x4b\x93\xad\xf2\x29";
const NODE_KEY: [u8; 32] = *b"\x01\x7e\xc5\xc7\xa5\x47\x29\x96\xfd\x94\x66\x66\xb4\x8a\x02\xe6\
      \x5d\xdd\x53\x6f\x37\xc7\x6d\xd2\xf8\x63\x52\xe6\x4a\x53\x71\x3f";
const RANGE_KEY: [u8; 32] = *b"\x7f\x18\x57\xd6\xce\x56\xed\x66\x12\x7f\xf9\x13\xe7\xa5\xc3\xf3\
      \xa4\xcd\x26\xd5\xb5\xdb\x49\xe6\x41\x24\x98\x7f\x28\xfb\x94\xc3";

macro_rules! hash {
    ($(#[$doc:meta])* $name:ident, $size:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; $size]);

        impl $name {
            /// All bytes zero.
            pub const ZERO: Self = Self([0; $size]);

            /// Takes the raw bytes.
            pub const fn from_bytes(bytes: [u8; $size]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, out)
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
    };
}

macro_rules! xet_hash {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        hash!($(#[$doc])* $name, 32);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex::write(&reverse_groups(self.0), out)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                hex::decode(text)
                    .map(|bytes| Self(reverse_groups(bytes)))
                    .ok_or_else(|| Error::malformed($what, hex::reason(32)))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                reverse_groups(self.0).cmp(&reverse_groups(other.0))
            }
        }
    };
}

macro_rules! plain_hash {
    ($(#[$doc:meta])* $name:ident, $size:literal, $what:literal) => {
        hash!($(#[$doc])* $name, $size);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex::write(&self.0, out)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                hex::decode(text)
                    .map(Self)
                    .ok_or_else(|| Error::malformed($what, hex::reason($size)))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                self.0.cmp(&other.0)
            }
        }
    };
}

xet_hash!(
    /// Names a chunk by its uncompressed bytes.
    ChunkHash,
    "chunk hash"
);
xet_hash!(
    /// Names a xorb by the hashes and lengths of its chunks; how they are compressed does not
    /// matter to it.
    XorbHash,
    "xorb hash"
);
xet_hash!(
    /// Names a file's content by the hashes and lengths of its chunks. Zero is the empty file.
    FileHash,
    "file hash"
);
xet_hash!(
    /// Proves knowledge of all chunk hashes of one term.
    RangeHash,
    "range hash"
);
plain_hash!(
    /// The SHA-256 of a file: the name that commits use.
    Sha256,
    32,
    "sha256"
);
plain_hash!(
    /// Names a stored shard object by its bytes.
    ShardHash,
    32,
    "shard hash"
);
plain_hash!(
    /// Names a stored pack by its bytes.
    PackHash,
    32,
    "pack hash"
);
plain_hash!(
    /// Names a bundle by its list of contents.
    BundleHash,
    32,
    "bundle hash"
);
plain_hash!(
    /// Names a log entry by its bytes.
    EntryHash,
    32,
    "log entry hash"
);
plain_hash!(
    /// The SHA-1 that git gives to a blob, a tree or a commit.
    ObjectHash,
    20,
    "object hash"
);

impl ChunkHash {
    /// Hashes the uncompressed bytes of a chunk.
    pub fn of(chunk: &[u8]) -> Self {
        Self(*blake3::keyed_hash(&CHUNK_KEY, chunk).as_bytes())
    }

    /// The hash as a number modulo `n`: its last eight bytes, least significant first.
    pub fn modulo(&self, n: u64) -> u64 {
        modulo(&self.0, n)
    }

    /// The form in which a dedup answer names a chunk: who does not know the chunk's own hash
    /// learns nothing from it. Keyed BLAKE3, not the HMAC of RFC 2104, whatever clients call it.
    #[must_use]
    pub fn keyed(&self, key: &[u8; 32]) -> Self {
        Self(*blake3::keyed_hash(key, &self.0).as_bytes())
    }
}

impl RangeHash {
    /// Hashes the chunk hashes of a term, in order.
    pub fn over<'a>(chunks: impl IntoIterator<Item = &'a ChunkHash>) -> Self {
        // Gathered, since BLAKE3 is fast only on several of its 1 KiB blocks at once.
        let mut gathered = [0; 8192];
        let mut filled = 0;
        let mut hasher = blake3::Hasher::new_keyed(&RANGE_KEY);
        for chunk in chunks {
            if filled == gathered.len() {
                hasher.update(&gathered);
                filled = 0;
            }
            gathered[filled..filled + 32].copy_from_slice(&chunk.0);
            filled += 32;
        }
        hasher.update(&gathered[..filled]);
        Self(*hasher.finalize().as_bytes())
    }
}

impl Sha256 {
    /// The digest as a shard carries it: each group of eight bytes reversed, so that readers who
    /// take the field for a hash print the usual text.
    pub fn to_field(&self) -> [u8; 32] {
        reverse_groups(self.0)
    }

    /// The mirror of [`Sha256::to_field`].
    pub fn from_field(field: [u8; 32]) -> Self {
        Self(reverse_groups(field))
    }
}

impl ShardHash {
    /// Hashes the stored bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl PackHash {
    /// Hashes the stored bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl BundleHash {
    /// The name of the bundle with this list of contents.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl EntryHash {
    /// Hashes the stored bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// The hash of an inner node of the hash tree over the node's text.
pub(crate) fn node_hash(text: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(&NODE_KEY, text).as_bytes()
}

/// The hash of a file over the root of its hash tree, with the zero salt.
pub(crate) fn salted_root(root: &[u8; 32]) -> [u8; 32] {
    *blake3::keyed_hash(&[0; 32], root).as_bytes()
}

/// A hash as a number modulo `n`.
pub(crate) fn modulo(hash: &[u8; 32], n: u64) -> u64 {
    let last = hash.last_chunk().expect("a hash is longer than eight bytes");
    u64::from_le_bytes(*last) % n
}

/// Turns raw bytes into the order of their text, and back.
pub(crate) fn reverse_groups(mut bytes: [u8; 32]) -> [u8; 32] {
    for group in bytes.chunks_exact_mut(8) {
        group.reverse();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HELLO: &[u8] = b"hello world";

    fn counting() -> [u8; 32] {
        std::array::from_fn(|i| u8::try_from(i).expect("under 32"))
    }

    #[test]
    fn text_of_a_xet_hash_reverses_groups_of_eight() {
        let text = "07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918";
        assert_eq!(ChunkHash::from_bytes(counting()).to_string(), text);
        assert_eq!(text.parse::<XorbHash>().expect("valid").as_bytes(), &counting());
        assert_eq!(text.to_uppercase().parse::<FileHash>().expect("valid").to_string(), text);
    }

    #[test]
    fn text_of_other_hashes_is_plain() {
        let text = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
        assert_eq!(Sha256::from_bytes(counting()).to_string(), text);
        assert_eq!(text.parse::<PackHash>().expect("valid").as_bytes(), &counting());
        let object = "ce013625030ba8dba906f756967f9e9ca394464a";
        assert_eq!(object.parse::<ObjectHash>().expect("valid").to_string(), object);
    }

    #[test]
    fn chunk_hashes_are_those_of_clients() {
        assert_eq!(
            ChunkHash::of(b"").to_string(),
            "e0f2cf784e7e5f10c34f84af150e9a5ff9664216debad915364d741049870f67"
        );
        let hello = ChunkHash::of(HELLO);
        assert_eq!(
            hello.to_string(),
            "4e39378b9d359f118190557a1f44130219a54e5fcfa07bd96cf50b466fe651b1"
        );
        assert_eq!(hello.as_bytes()[..4], [0x11, 0x9f, 0x35, 0x9d]);
        assert_eq!(hello.modulo(1024), 433);
        assert_eq!(hello.modulo(4), 1);
    }

    #[test]
    fn node_hash_is_that_of_clients() {
        assert_eq!(
            XorbHash::from_bytes(node_hash(HELLO)).to_string(),
            "2fba9cb0b7c387e6b4604e48315f15b4371d879464e18a7f9d2961c21a5accbf"
        );
    }

    #[test]
    fn keyed_chunk_hash_is_keyed_blake3() {
        let hello = ChunkHash::of(HELLO);
        assert_eq!(
            hello.keyed(&[0; 32]).to_string(),
            "f15edd43b7e85cfd25e2758ffe13b99fdd09dfa817e8d9f6548722a7a126db7f"
        );
        assert_eq!(
            hello.keyed(&counting()).to_string(),
            "01d774a58eab4d28ea31a959ebdd1adbfb6940544b51a316db7acd593dfdd0b4"
        );
    }

    #[test]
    fn range_hashes_are_those_of_clients() {
        assert_eq!(
            RangeHash::over(&[ChunkHash::of(HELLO)]).to_string(),
            "22ef2fdcff5cea306e42ad7e15ed8a0c5e789e7d2ec34658c10d2758946847da"
        );
        assert_eq!(
            RangeHash::over(&[ChunkHash::of(&[0])]).to_string(),
            "7be708517ff612a74bdd0d7197e09b38f7d644fff72a547d7f0620cbccac5ea2"
        );
        assert_eq!(
            RangeHash::over(&[ChunkHash::of(&vec![0; 131_072]); 8]).to_string(),
            "4c8a43f586d304f6006c4a323671636fbb32ffc7d146b778ed91ddca10f80fce"
        );
    }

    #[test]
    fn range_hash_does_not_depend_on_how_hashes_are_gathered() {
        let chunks: Vec<_> = (0..600_u32).map(|i| ChunkHash::of(&i.to_le_bytes())).collect();
        for count in [0, 1, 255, 256, 257, 511, 512, 513, 600] {
            let mut hasher = blake3::Hasher::new_keyed(&RANGE_KEY);
            for chunk in &chunks[..count] {
                hasher.update(chunk.as_bytes());
            }
            let expected = hasher.finalize();
            assert_eq!(RangeHash::over(&chunks[..count]).as_bytes(), expected.as_bytes());
        }
    }

    #[test]
    fn sha256_in_a_shard_has_its_groups_reversed() {
        let digest: Sha256 = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"
            .parse()
            .expect("valid");
        let field = digest.to_field();
        assert_eq!(
            Sha256::from_bytes(field).to_string(),
            "083e4d93b9274db9faab7ddad7522ea5ee80537ae3ef84c4e9cdefe2acf78890"
        );
        assert_eq!(Sha256::from_field(field), digest);
    }

    #[test]
    fn text_of_a_wrong_length_or_alphabet_is_refused() {
        let right = "0".repeat(64);
        assert!(right.parse::<ChunkHash>().is_ok());
        for wrong in ["", "0", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64)] {
            assert!(wrong.parse::<ChunkHash>().is_err(), "{wrong}");
            assert!(wrong.parse::<Sha256>().is_err(), "{wrong}");
        }
        // Two bytes for each of 32 letters: the length in bytes is right, the digits are not.
        assert!("é".repeat(32).parse::<ChunkHash>().is_err());
        assert!("+0".repeat(32).parse::<ChunkHash>().is_err());
    }

    proptest! {
        #[test]
        fn text_and_bytes_round_trip(bytes: [u8; 32]) {
            let xet = XorbHash::from_bytes(bytes);
            prop_assert_eq!(xet.to_string().parse::<XorbHash>().expect("own text"), xet);
            let plain = Sha256::from_bytes(bytes);
            prop_assert_eq!(plain.to_string().parse::<Sha256>().expect("own text"), plain);
            prop_assert_eq!(Sha256::from_field(plain.to_field()), plain);
        }

        #[test]
        fn order_is_the_order_of_the_text(a: [u8; 32], b: [u8; 32]) {
            let (a, b) = (FileHash::from_bytes(a), FileHash::from_bytes(b));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text: String) {
            drop(text.parse::<ChunkHash>());
        }
    }
}
