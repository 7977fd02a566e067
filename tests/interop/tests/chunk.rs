//! Chunk boundaries, and every hash made from chunks.

use ballast_format::chunk::split;
use ballast_format::hash::{ChunkHash, RangeHash};
use ballast_format::hash_tree::{file_hash, xorb_hash};
use ballast_testkit::content::{bf16_weights, repetitive, splitmix};
use proptest::prelude::*;
use xet_core_structures::merklehash::{self, MerkleHash, compute_data_hash};
use xet_core_structures::metadata_shard::chunk_verification::range_hash_from_chunks;
use xet_core_structures::metadata_shard::hash_is_global_dedup_eligible;
use xet_data::deduplication::Chunker;

fn check(content: &[u8]) {
    let ours: Vec<_> = split(content).collect();
    let theirs = Chunker::new(65_536).next_block(content, true);
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours.len(), theirs.data.len());
        assert_eq!(ChunkHash::of(ours).to_string(), theirs.hash.hex());
        assert_eq!(ChunkHash::of(ours).as_bytes(), theirs.hash.as_bytes());
    }

    let their_list: Vec<_> =
        theirs.iter().map(|chunk| (chunk.hash, chunk.data.len() as u64)).collect();
    let our_list: Vec<_> =
        ours.iter().map(|chunk| (ChunkHash::of(chunk), chunk.len() as u64)).collect();
    let our_list = || our_list.iter().copied();
    assert_eq!(xorb_hash(our_list()).to_string(), merklehash::xorb_hash(&their_list).hex());
    assert_eq!(file_hash(our_list()).to_string(), merklehash::file_hash(&their_list).hex());

    let their_hashes: Vec<_> = theirs.iter().map(|chunk| chunk.hash).collect();
    let our_hashes: Vec<_> = our_list().map(|(hash, _)| hash).collect();
    let theirs = range_hash_from_chunks(&their_hashes);
    assert_eq!(RangeHash::over(&our_hashes).to_string(), theirs.hex());
}

#[test]
fn long_files_are_cut_alike() {
    for content in [
        Vec::new(),
        vec![0; 5 << 20],
        splitmix(1, 20 << 20),
        bf16_weights(2, 20 << 20),
        repetitive(3, 20 << 20),
    ] {
        check(&content);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_file_is_cut_alike(seed: u64, length in 0_usize..600_000, kind in 0..3) {
        check(&match kind {
            0 => splitmix(seed, length),
            1 => bf16_weights(seed, length),
            _ => repetitive(seed, length),
        });
    }

    #[test]
    fn hashes_are_keyed_and_compared_alike(chunk: Vec<u8>, other: Vec<u8>, key: [u8; 32]) {
        let (ours, theirs) = (ChunkHash::of(&chunk), compute_data_hash(&chunk));
        let their_key = MerkleHash::from(key);
        prop_assert_eq!(ours.keyed(&key).to_string(), theirs.hmac(their_key).hex());
        prop_assert_eq!(ours.modulo(1024), theirs % 1024);
        prop_assert_eq!(ours.modulo(1024) == 0, hash_is_global_dedup_eligible(&theirs));
        let (our_other, their_other) = (ChunkHash::of(&other), compute_data_hash(&other));
        prop_assert_eq!(ours.cmp(&our_other), theirs.cmp(&their_other));
    }
}
