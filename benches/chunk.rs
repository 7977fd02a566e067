//! Chunking and hashing, next to the crates that do the work: what we add should not be seen.
//!
//! Content of 64 MiB; `cargo bench --bench chunk`.

use ballast_format::chunk::{Chunker, split};
use ballast_format::hash::ChunkHash;
use ballast_format::hash_tree::FileHasher;
use ballast_testkit::content::{bf16_weights, repetitive, splitmix};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};

const LENGTH: usize = 64 << 20;

fn main() {
    divan::main();
}

const KINDS: [&str; 3] = ["random", "bf16", "text"];

fn content(kind: &str) -> Vec<u8> {
    match kind {
        "random" => splitmix(1, LENGTH),
        "bf16" => bf16_weights(1, LENGTH),
        _ => repetitive(1, LENGTH),
    }
}

#[divan::bench(args = KINDS)]
fn boundaries(bencher: Bencher, kind: &str) {
    let content = content(kind);
    bencher.counter(BytesCount::new(LENGTH)).bench_local(|| split(&content).count());
}

/// As content arrives from a socket.
#[divan::bench(args = KINDS)]
fn boundaries_in_pieces_of_16_kib(bencher: Bencher, kind: &str) {
    let content = content(kind);
    bencher.counter(BytesCount::new(LENGTH)).bench_local(|| {
        let mut chunker = Chunker::new();
        let mut count = 0;
        for mut piece in content.chunks(16 << 10) {
            while let Some(end) = chunker.next_boundary(piece) {
                count += 1;
                piece = &piece[end..];
            }
        }
        count
    });
}

/// The rolling hash alone: no minimum, no maximum, no bytes skipped.
#[divan::bench(args = KINDS)]
fn plain_gearhash(bencher: Bencher, kind: &str) {
    let content = content(kind);
    bencher.counter(BytesCount::new(LENGTH)).bench_local(|| {
        let mut hasher = gearhash::Hasher::default();
        let mut rest = content.as_slice();
        let mut count = 0;
        while let Some(end) = hasher.next_match(rest, 0xffff_0000_0000_0000) {
            count += 1;
            rest = &rest[end..];
        }
        count
    });
}

#[divan::bench]
fn chunk_hashes(bencher: Bencher) {
    let content = content("random");
    let chunks: Vec<_> = split(&content).collect();
    bencher.counter(BytesCount::new(LENGTH)).bench_local(|| {
        for chunk in &chunks {
            divan::black_box(ChunkHash::of(chunk));
        }
    });
}

#[divan::bench]
fn plain_blake3_of_chunks(bencher: Bencher) {
    let content = content("random");
    let chunks: Vec<_> = split(&content).collect();
    bencher.counter(BytesCount::new(LENGTH)).bench_local(|| {
        for chunk in &chunks {
            divan::black_box(blake3::hash(chunk));
        }
    });
}

#[divan::bench]
fn boundaries_and_hashes(bencher: Bencher) {
    let content = content("random");
    bencher.counter(BytesCount::new(LENGTH)).bench_local(|| {
        let mut file = FileHasher::new();
        for chunk in split(&content) {
            file.push(&ChunkHash::of(chunk), chunk.len() as u64);
        }
        file.finish()
    });
}

/// A file of 64 GiB.
#[divan::bench]
fn file_hash_of_a_million_chunks(bencher: Bencher) {
    let chunks: Vec<_> = (0..1_u32 << 20).map(|i| ChunkHash::of(&i.to_le_bytes())).collect();
    bencher.counter(ItemsCount::new(chunks.len())).bench_local(|| {
        let mut file = FileHasher::new();
        for chunk in &chunks {
            file.push(chunk, 65_536);
        }
        file.finish()
    });
}
