//! The hash of a sequence of hashes, by which xorbs and files are named.
//!
//! Leaves are grouped where their hashes say so, three to nine in a group, the groups are hashed
//! and grouped again, until one is left. A sequence may be of any length: what is kept grows with
//! the height of the tree only.

use crate::hash::{ChunkHash, FileHash, XorbHash, modulo, node_hash, salted_root};
use crate::hex;

/// A group of fewer goes on, whatever its last hash.
const MIN_GROUP: usize = 3;
/// A group of so many ends, whatever its last hash.
const MAX_GROUP: usize = 9;
/// A group ends with a hash that is a multiple of this.
const MEAN_GROUP: u64 = 4;
/// 64 digits, a space, a colon, a space, at most 20 digits and the end of the line.
const MAX_LINE_BYTES: usize = 64 + 3 + 20 + 1;

/// A hash tree over leaves that arrive one by one.
#[derive(Clone, Debug, Default)]
pub struct HashTree {
    /// The open group of each level, leaves first.
    levels: Vec<Group>,
}

/// The members, at one level, of a node that is not closed yet.
#[derive(Clone, Debug)]
struct Group {
    /// What the node will be the hash of.
    text: Vec<u8>,
    /// The sum over the members.
    length: u64,
    members: usize,
    /// The latest member.
    last: [u8; 32],
}

impl HashTree {
    /// A tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there are no leaves yet.
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// Adds a leaf of so many bytes. The sum of all lengths wraps at 2^64.
    pub fn push(&mut self, hash: &[u8; 32], length: u64) {
        let (mut hash, mut length) = (*hash, length);
        for level in 0.. {
            if level == self.levels.len() {
                self.levels.push(Group::new());
            }
            let group = &mut self.levels[level];
            group.push(&hash, length);
            if !group.is_complete() {
                break;
            }
            (hash, length) = group.close();
        }
    }

    /// The root: zero without leaves, the leaf itself if there is but one.
    pub fn finish(mut self) -> [u8; 32] {
        // Sequences end in groups of any size; these go up level by level.
        let mut below = None;
        let mut level = 0;
        loop {
            if level == self.levels.len() {
                // This level has no member but the one that comes from below.
                return below.map_or([0; 32], |(hash, _)| hash);
            }
            let is_top = level + 1 == self.levels.len();
            let group = &mut self.levels[level];
            if let Some((hash, length)) = below {
                group.push(&hash, length);
            }
            // Nothing was closed at the top level, so its open group is all of it.
            if is_top && group.members == 1 {
                return group.last;
            }
            below = (group.members > 0).then(|| group.close());
            level += 1;
        }
    }
}

impl Group {
    fn new() -> Self {
        let text = Vec::with_capacity(MAX_GROUP * MAX_LINE_BYTES);
        Self { text, length: 0, members: 0, last: [0; 32] }
    }

    fn push(&mut self, hash: &[u8; 32], length: u64) {
        self.text.extend_from_slice(&hex::digits(&crate::hash::reverse_groups(*hash)));
        self.text.extend_from_slice(b" : ");
        push_decimal(&mut self.text, length);
        self.text.push(b'\n');
        self.length = self.length.wrapping_add(length);
        self.members += 1;
        self.last = *hash;
    }

    fn is_complete(&self) -> bool {
        self.members == MAX_GROUP
            || self.members >= MIN_GROUP && modulo(&self.last, MEAN_GROUP) == 0
    }

    /// The node that the group becomes; it is empty again afterwards.
    fn close(&mut self) -> ([u8; 32], u64) {
        let node = (node_hash(&self.text), self.length);
        self.text.clear();
        (self.length, self.members) = (0, 0);
        node
    }
}

/// The hash of a file over its chunks, which arrive one by one.
#[derive(Clone, Debug, Default)]
pub struct FileHasher {
    tree: HashTree,
}

impl FileHasher {
    /// A file without chunks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next chunk, of so many bytes.
    pub fn push(&mut self, chunk: &ChunkHash, length: u64) {
        self.tree.push(chunk.as_bytes(), length);
    }

    /// The hash of the file; zero if it is empty.
    pub fn finish(self) -> FileHash {
        if self.tree.is_empty() {
            return FileHash::ZERO;
        }
        FileHash::from_bytes(salted_root(&self.tree.finish()))
    }
}

/// The hash of a file that has these chunks, each with its length.
pub fn file_hash(chunks: impl IntoIterator<Item = (ChunkHash, u64)>) -> FileHash {
    let mut hasher = FileHasher::new();
    for (chunk, length) in chunks {
        hasher.push(&chunk, length);
    }
    hasher.finish()
}

/// The hash of a xorb that holds these chunks, each with its uncompressed length.
pub fn xorb_hash(chunks: impl IntoIterator<Item = (ChunkHash, u64)>) -> XorbHash {
    let mut tree = HashTree::new();
    for (chunk, length) in chunks {
        tree.push(chunk.as_bytes(), length);
    }
    XorbHash::from_bytes(tree.finish())
}

fn push_decimal(text: &mut Vec<u8>, mut number: u64) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] += (number % 10).to_le_bytes()[0];
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use crate::content::splitmix;
    use proptest::prelude::*;

    use super::*;
    use crate::chunk::split;
    use crate::hash::RangeHash;

    const VECTORS: [(u64, &str, &str); 8] = [
        (
            1,
            "10bb77c0c77ad7311e5235905cd4edc1f36641f3a2c9b9d4e5cd8b2c9694067a",
            "264e113f74142fe2156701c7515230dcd8d56625277a704eb675c5d3b169e592",
        ),
        (
            2,
            "4ec94eb271c4507f4da0417c1ef962069e09aab78c75880e07d8bbe4095975a7",
            "cfa1d7fa4dc4991d2ec8584d9300c3818d1143618e4eb3e8c5d99092f0c94c76",
        ),
        (
            3,
            "4add0dd55f5f441d489a69e3a27a1a2b6fda74a34c0c11844afceecb02bf60bf",
            "a8fb1a4bae55b1ca06d98abebb54c435299eb9611bc0e9222ed7fd970d2f9060",
        ),
        (
            4,
            "a28ed6d19acea288ad13e016a52be4c4db0c23a6278db07e1a24708201066acf",
            "13084c893b1497c57d088b6b685e6a4dbd785e4de51f8636f021f46b041a984a",
        ),
        (
            9,
            "d134142c6f95c801a1f9e4cbc5177dec72ac9f3a23a7896d667a9bc1ced92839",
            "2e5e3e7c06ac60faeae2466726f3892ef5198032398f3b6e0e435087e4bae7f1",
        ),
        (
            10,
            "658bd4282a2fd928ed82d79bacda3361527622601602df11b5920dc597dafd0d",
            "e3e1649f1aac0eb829768b62f2a5a6e3c2f0135c6bdd4efd0346ecfdab2efe89",
        ),
        (
            64,
            "d92ac7f6459ad4edfe4d8838fc8d5e56bf141506630015f73e655d1b6e852a43",
            "c198c736acde7b8a7d1e7906859ffc92be3f8ccedb4bca0621b80331343d34a1",
        ),
        (
            1000,
            "9ce82ca43dd406f908a8f92103c97d20df296ff6d89787e5f349ea5851a86729",
            "b04a504306ac94143d8fb4baaeefa19a8fa69095424ae944f479bb78f7aa97f0",
        ),
    ];

    /// Xorb, file and range hash.
    const FILES: [[&str; 3]; 4] = [
        [
            "8c15d5bfe292d5f8f3b992149581636a5c4078ce9c4349d43f1a762ba0609839",
            "1e671fe124cea35586b1d1c30b9d4fc6b4e05ee60c93406986444f7c23d54056",
            "4c8a43f586d304f6006c4a323671636fbb32ffc7d146b778ed91ddca10f80fce",
        ],
        [
            "b42e5f55b621d1bc456a8eea4ffd7602110b87a9687b90773fd9154ff88d2221",
            "84c2b49d1c134bd133fbb6b19de5e47c67e25f9e5d5b9f2bee2e9106799110fb",
            "8a7d2946dd372b3e9acc01309ade82f51b0dfab016073cc41841ea522a39e492",
        ],
        [
            "8e5558e2ae6bb2ef20b519563f4d4677a5684dd1d911994d70fab6c1593f9fe9",
            "a066082c12d206e42dc65e8270db6780ebf493396b7d3db412ecfc379ba5021e",
            "",
        ],
        [
            "f50f3ef6afb79b2c4e5f5be90c2e2c88b8746042a2c7bd75581bb0f295052933",
            "3c440047abf1ac3cae1d7a8c6a674d23ddf24c04ce4acabe8f45c323da077526",
            "3f5ede3f83feb3d2e2adb7c9b5e459e0b9fc72a57d4f044261bf19d0088f0882",
        ],
    ];

    fn leaves(count: u64) -> impl Iterator<Item = (ChunkHash, u64)> {
        (0..count).map(|i| (ChunkHash::of(&i.to_le_bytes()), 100 + i))
    }

    fn chunks(content: &[u8]) -> Vec<(ChunkHash, u64)> {
        split(content).map(|chunk| (ChunkHash::of(chunk), chunk.len() as u64)).collect()
    }

    /// The rules on whole lists, as they are written down.
    fn slow_root(mut nodes: Vec<([u8; 32], u64)>) -> [u8; 32] {
        while nodes.len() > 1 {
            let mut above = Vec::new();
            let mut rest = nodes.as_slice();
            while !rest.is_empty() {
                let size = if rest.len() <= 2 {
                    rest.len()
                } else {
                    let most = rest.len().min(9);
                    (2..most).find(|&p| rest[p].0[24].is_multiple_of(4)).map_or(most, |p| p + 1)
                };
                let (group, behind) = rest.split_at(size);
                let mut text = String::new();
                for (hash, length) in group {
                    writeln!(text, "{} : {length}", ChunkHash::from_bytes(*hash))
                        .expect("a `String` takes all");
                }
                let length = group.iter().map(|(_, length)| length).sum();
                above.push((node_hash(text.as_bytes()), length));
                rest = behind;
            }
            nodes = above;
        }
        nodes.first().map_or([0; 32], |(hash, _)| *hash)
    }

    #[test]
    fn roots_are_those_of_clients() {
        for (count, xorb, file) in VECTORS {
            assert_eq!(xorb_hash(leaves(count)).to_string(), xorb, "{count}");
            assert_eq!(file_hash(leaves(count)).to_string(), file, "{count}");
        }
    }

    #[test]
    fn no_leaves_give_zero() {
        assert_eq!(xorb_hash([]), XorbHash::ZERO);
        assert_eq!(file_hash([]), FileHash::ZERO);
    }

    #[test]
    fn one_chunk_is_its_own_xorb_hash() {
        let chunk = ChunkHash::of(b"hello world");
        assert_eq!(xorb_hash([(chunk, 11)]).as_bytes(), chunk.as_bytes());
        assert_eq!(
            file_hash([(chunk, 11)]).to_string(),
            "f15edd43b7e85cfd25e2758ffe13b99fdd09dfa817e8d9f6548722a7a126db7f"
        );
        let zero = ChunkHash::of(&[0]);
        assert_eq!(
            zero.to_string(),
            "df93298cdbf67cd507aed28d6290c0cf7f9aa0aa88dfa629cffcf98680659410"
        );
        assert_eq!(
            file_hash([(zero, 1)]).to_string(),
            "41f5539a8d8bdd7509fd9a319268aca47ea6d40b33394170182e09fa86345c7e"
        );
    }

    #[test]
    fn hashes_of_files_are_those_of_clients() {
        let mut inserted = b"INSERTED-PREFIX!".to_vec();
        inserted.extend(splitmix(42, 500_000));
        let files = [vec![0; 1 << 20], splitmix(42, 500_000), inserted, splitmix(7, 16 << 20)];
        for (content, [xorb, file, range]) in files.iter().zip(FILES) {
            let chunks = chunks(content);
            assert_eq!(xorb_hash(chunks.iter().copied()).to_string(), xorb);
            assert_eq!(file_hash(chunks.iter().copied()).to_string(), file);
            if !range.is_empty() {
                let over = RangeHash::over(chunks.iter().map(|(hash, _)| hash));
                assert_eq!(over.to_string(), range);
            }
        }
    }

    proptest! {
        #[test]
        fn streaming_gives_the_root_of_the_whole_list(count in 0_u64..3000, seed: u64) {
            let nodes: Vec<_> = (0..count)
                .map(|i| (*ChunkHash::of(&(i ^ seed).to_le_bytes()).as_bytes(), i * i))
                .collect();
            let mut tree = HashTree::new();
            for (hash, length) in &nodes {
                tree.push(hash, *length);
            }
            prop_assert_eq!(tree.finish(), slow_root(nodes));
        }

        #[test]
        fn lengths_of_any_size_are_taken(lengths: Vec<u64>) {
            let hash = [0; 32];
            let mut tree = HashTree::new();
            for length in &lengths {
                tree.push(&hash, *length);
            }
            tree.finish();
        }

        #[test]
        fn decimals_are_those_of_the_standard_library(number: u64) {
            let mut text = Vec::new();
            push_decimal(&mut text, number);
            prop_assert_eq!(text, number.to_string().into_bytes());
        }
    }
}
