//! Checking, reading and writing xorbs, next to the crates that do the work.
//!
//! Xorbs of 32 MiB of content, fed as a client sends them. Speeds are of uncompressed bytes;
//! `cargo bench --bench xorb`.

use std::io::Read as _;

use ballast_format::chunk::split;
use ballast_format::hash::ChunkHash;
use ballast_format::xorb::{
    ChunkDecoder, ChunkHeader, Compression, XorbFooter, XorbValidator, XorbWriter,
};
use ballast_testkit::content::{bf16_weights, f32_weights, repetitive, splitmix};
use divan::Bencher;
use divan::counter::BytesCount;
use lz4_flex::frame::FrameDecoder;

const LENGTH: usize = 32 << 20;
/// The pieces in which clients send a body.
const PIECE: usize = 512 << 10;

fn main() {
    divan::main();
}

/// Not compressed, byte-grouped twice, plain LZ4.
const KINDS: [&str; 4] = ["random", "bf16", "f32", "text"];

fn content(kind: &str) -> Vec<u8> {
    match kind {
        "random" => splitmix(1, LENGTH),
        "bf16" => bf16_weights(1, LENGTH),
        "f32" => f32_weights(1, LENGTH),
        _ => repetitive(1, LENGTH),
    }
}

fn chunks(content: &[u8]) -> Vec<(&[u8], ChunkHash)> {
    split(content).map(|chunk| (chunk, ChunkHash::of(chunk))).collect()
}

fn write(chunks: &[(&[u8], ChunkHash)]) -> (bytes::Bytes, XorbFooter) {
    let mut writer = XorbWriter::new();
    for (chunk, hash) in chunks {
        writer.push(chunk, *hash);
    }
    writer.finish()
}

#[divan::bench(args = KINDS)]
fn validate(bencher: Bencher, kind: &str) {
    let (body, footer) = write(&chunks(&content(kind)));
    bencher.counter(BytesCount::new(LENGTH)).bench_local(|| {
        let mut validator = XorbValidator::new();
        for piece in body.chunks(PIECE) {
            validator.feed(piece).expect("our own xorb");
        }
        validator.finish(footer.hash()).expect("our own xorb")
    });
}

/// The pieces of a slow socket: every chunk is put together first.
#[divan::bench(args = KINDS)]
fn validate_in_pieces_of_16_kib(bencher: Bencher, kind: &str) {
    let (body, footer) = write(&chunks(&content(kind)));
    bencher.counter(BytesCount::new(LENGTH)).bench_local(|| {
        let mut validator = XorbValidator::new();
        for piece in body.chunks(16 << 10) {
            validator.feed(piece).expect("our own xorb");
        }
        validator.finish(footer.hash()).expect("our own xorb")
    });
}

#[divan::bench(args = KINDS)]
fn read_and_verify(bencher: Bencher, kind: &str) {
    read(bencher, kind, true);
}

#[divan::bench(args = KINDS)]
fn read_only(bencher: Bencher, kind: &str) {
    read(bencher, kind, false);
}

fn read(bencher: Bencher, kind: &str, verify: bool) {
    let (body, footer) = write(&chunks(&content(kind)));
    let mut decoder = ChunkDecoder::new();
    bencher.counter(BytesCount::new(LENGTH)).bench_local(|| {
        let all = 0..footer.chunk_count();
        let sink = |chunk: &[u8]| {
            divan::black_box(chunk);
            Ok(())
        };
        decoder.decode_chunks(&body, &footer, all, verify, sink).expect("our own xorb");
    });
}

#[divan::bench(args = KINDS)]
fn write_from_hashed_chunks(bencher: Bencher, kind: &str) {
    let content = content(kind);
    let chunks = chunks(&content);
    bencher.counter(BytesCount::new(LENGTH)).bench_local(|| write(&chunks));
}

/// What hashing alone would cost.
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

/// What decompressing the same payloads by the frame reader of the crate would cost. The few chunks
/// that are not compressed are copied.
#[divan::bench(args = ["bf16", "f32", "text"])]
fn plain_lz4_frames(bencher: Bencher, kind: &str) {
    let (body, footer) = write(&chunks(&content(kind)));
    let mut rest = &*body;
    let mut payloads = Vec::new();
    for index in 0..footer.chunk_count() {
        let (chunk, behind) = rest.split_at(footer.serialized_chunk_length(index) as usize);
        let (header, payload) = chunk.split_first_chunk().expect("longer than its header");
        let header = ChunkHeader::decode(header).expect("our own header");
        payloads.push((header.compression, payload));
        rest = behind;
    }
    let mut plain = Vec::new();
    bencher.counter(BytesCount::new(LENGTH)).bench_local(|| {
        for (compression, payload) in &payloads {
            plain.clear();
            if *compression == Compression::None {
                plain.extend_from_slice(payload);
            } else {
                FrameDecoder::new(*payload).read_to_end(&mut plain).expect("our own frame");
            }
            divan::black_box(&plain);
        }
    });
}
