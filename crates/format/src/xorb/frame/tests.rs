//! Frames of the reference encoder in all its settings, and frames that lie.

use std::io::{Read as _, Write as _};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use proptest::prelude::*;

use super::*;
use crate::content::{repetitive, splitmix};

fn encoded(info: FrameInfo, content: &[u8]) -> Vec<u8> {
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(content).expect("a `Vec` takes all");
    encoder.finish().expect("a `Vec` takes all")
}

fn plain_info() -> FrameInfo {
    FrameInfo::new().block_size(BlockSize::Max64KB)
}

fn decoded(frame: &[u8], length: usize) -> Result<Vec<u8>> {
    let mut content = vec![0; length];
    decode(frame, &mut content)?;
    Ok(content)
}

fn own(content: &[u8]) -> Vec<u8> {
    let mut buffer = Vec::new();
    let length = encode(content, &mut buffer, &mut CompressTable::large());
    buffer.truncate(length);
    buffer
}

/// A frame of these blocks, each with the word before it, without checksums.
fn frame_of(blocks: &[(u32, &[u8])]) -> Vec<u8> {
    let mut frame = SMALL_HEADER.to_vec();
    for (word, block) in blocks {
        frame.extend_from_slice(&word.to_le_bytes());
        frame.extend_from_slice(block);
    }
    frame.extend_from_slice(&END_MARK);
    frame
}

#[test]
fn frames_of_clients_are_decoded() {
    let frame = [
        0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82, 0x0f, 0, 0, 0, 0x1f, 0x61, 1, 0, 0xff, 0xff,
        0xff, 0xd1, 0x60, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0, 0, 0, 0,
    ];
    assert_eq!(decoded(&frame, 1000).expect("valid"), [b'a'; 1000]);
}

#[test]
fn own_headers_are_those_of_clients() {
    for size in [1, 65_535, 65_536, 65_537, 131_072] {
        let theirs = encoded(FrameInfo::new(), &vec![7; size]);
        assert_eq!(own(&vec![7; size])[..7], theirs[..7], "{size}");
    }
}

#[test]
fn frames_of_all_settings_are_decoded() {
    let contents =
        [repetitive(1, 131_072), splitmix(2, 131_072), repetitive(3, 70_000), vec![5; 131_072]];
    for content in &contents {
        for setting in 0..32 {
            let is_set = |bit: u32| setting >> bit & 1 == 1;
            let info = FrameInfo::new()
                .block_mode(if is_set(0) { BlockMode::Linked } else { BlockMode::Independent })
                .block_checksums(is_set(1))
                .content_checksum(is_set(2))
                .content_size(is_set(3).then_some(content.len() as u64))
                .block_size(if is_set(4) { BlockSize::Max64KB } else { BlockSize::Max4MB });
            let frame = encoded(info, content);
            assert_eq!(decoded(&frame, content.len()).expect("valid"), *content, "{setting}");
        }
    }
}

#[test]
fn linked_blocks_reach_into_earlier_ones() {
    let mut content = splitmix(4, 60_000);
    content.extend_from_within(..);
    let linked = encoded(plain_info().block_mode(BlockMode::Linked), &content);
    assert!(linked.len() < 70_000, "the second half repeats the first");
    assert_eq!(decoded(&linked, content.len()).expect("valid"), content);
}

#[test]
fn checksums_are_verified() {
    let content = repetitive(5, 70_000);
    let with_blocks = encoded(plain_info().block_checksums(true), &content);
    let with_content = encoded(plain_info().content_checksum(true), &content);
    for (frame, why) in [(with_blocks, "block"), (with_content, "content")] {
        // The last checksum stands before or behind the end mark.
        for at in [frame.len() - 1, frame.len() - 5] {
            let mut wrong = frame.clone();
            wrong[at] ^= 1;
            assert!(decoded(&wrong, content.len()).is_err(), "{why} {at}");
        }
    }
    let mut header = own(b"hello hello hello hello hello hello");
    header[6] ^= 1;
    assert!(decoded(&header, 35).is_err());
}

#[test]
fn content_of_another_length_is_refused() {
    let content = repetitive(6, 100_000);
    for frame in [own(&content), encoded(plain_info(), &content)] {
        assert!(decoded(&frame, 100_000).is_ok());
        for length in [0, 1, 65_536, 99_999, 100_001, 131_072] {
            assert!(decoded(&frame, length).is_err(), "{length}");
        }
    }
    // It claims the right size and has another, or the other way round.
    let sized = |size| encoded_with_size(&content, size);
    assert!(decoded(&sized(100_000), 100_000).is_ok());
    assert!(decoded(&sized(99_999), 100_000).is_err());
    assert!(decoded(&sized(99_999), 99_999).is_err());
}

/// The encoder refuses to lie about the size, so the header is made by hand.
fn encoded_with_size(content: &[u8], size: u64) -> Vec<u8> {
    let mut descriptor = vec![0x68, 0x50];
    descriptor.extend_from_slice(&size.to_le_bytes());
    let [_, check, ..] = checksum(&descriptor).to_le_bytes();
    descriptor.push(check);
    [&MAGIC, descriptor.as_slice(), &own(content)[SMALL_HEADER.len()..]].concat()
}

#[test]
fn bytes_behind_the_frame_are_refused() {
    let content = repetitive(7, 5000);
    let frame = own(&content);
    for behind in [vec![0], vec![0; 4], frame.clone()] {
        assert!(decoded(&[frame.as_slice(), &behind].concat(), 5000).is_err());
    }
}

#[test]
fn a_frame_that_is_cut_short_is_refused() {
    let content = repetitive(8, 5000);
    let frame = encoded(plain_info().content_checksum(true).block_checksums(true), &content);
    for length in 0..frame.len() {
        assert!(decoded(&frame[..length], 5000).is_err(), "{length}");
    }
    // Without its end mark too, although the content is all there.
    let frame = own(&content);
    assert!(decoded(&frame[..frame.len() - 4], 5000).is_err());
}

#[test]
fn blocks_without_content_are_refused() {
    let whole = frame_of(&[(STORED | 2, b"ab"), (STORED | 3, b"cde")]);
    assert_eq!(decoded(&whole, 5).expect("valid"), b"abcde");
    for empty in [(STORED, b"".as_slice()), (1, &[0])] {
        let frame = frame_of(&[(STORED | 2, b"ab"), empty, (STORED | 3, b"cde")]);
        assert!(decoded(&frame, 5).is_err());
        // Clients take it for the end, so they would get too little.
        let mut theirs = Vec::new();
        drop(FrameDecoder::new(frame.as_slice()).read_to_end(&mut theirs));
        assert_eq!(theirs, b"ab");
    }
}

#[test]
fn blocks_over_the_size_of_the_frame_are_refused() {
    let content = vec![1; 100_000];
    let large = own(&content);
    assert_eq!(large[5], 0x50);
    let blocks = &large[SMALL_HEADER.len()..];
    let small = [SMALL_HEADER.as_slice(), blocks].concat();
    assert!(decoded(&small, 100_000).is_err(), "it decompresses to more than 64 KiB");
    let stored = frame_of(&[(STORED | 0x1_1000, &content[..0x1_1000])]);
    assert!(decoded(&stored, 0x1_1000).is_err());
    let claimed = frame_of(&[(0x7fff_ffff, b"")]);
    assert!(decoded(&claimed, 70_000).is_err());
}

#[test]
fn other_frames_than_those_of_lz4_are_refused() {
    let right = own(b"some content");
    let with = |at: usize, byte: u8| {
        let mut frame = right.clone();
        frame[at] = byte;
        let [_, check, ..] = checksum(&frame[4..6]).to_le_bytes();
        frame[6] = check;
        frame
    };
    assert!(decoded(&with(4, 0x60), 12).is_ok());
    for (at, byte, why) in [
        (0, 5, "magic"),
        (4, 0x20, "version"),
        (4, 0xe0, "version"),
        (4, 0x62, "reserved"),
        (4, 0x61, "dictionary"),
        (5, 0x30, "block size"),
        (5, 0x41, "reserved"),
        (5, 0xc0, "reserved"),
    ] {
        assert!(decoded(&with(at, byte), 12).is_err(), "{why}");
    }
    let legacy = [[0x02, 0x21, 0x4c, 0x18].as_slice(), &right[SMALL_HEADER.len()..]].concat();
    assert!(decoded(&legacy, 12).is_err());
}

proptest! {
    #[test]
    fn own_frames_round_trip(seed: u64, size in 0_usize..140_000, repeats: bool) {
        let content = if repeats { repetitive(seed, size) } else { splitmix(seed, size) };
        let frame = own(&content);
        if size > 0 {
            prop_assert!(frame.len() <= size + 15);
            prop_assert_eq!(&decoded(&frame, size).expect("own frame"), &content);
        }
        let mut theirs = Vec::new();
        FrameDecoder::new(frame.as_slice()).read_to_end(&mut theirs).expect("own frame");
        prop_assert_eq!(theirs, content);
    }

    #[test]
    fn noise_is_refused_or_decoded(
        mut noise in prop::collection::vec(any::<u8>(), 0..600),
        length in 0_usize..3000,
        header in 0_usize..4,
    ) {
        let flags = [None, Some(0x60), Some(0x40), Some(0x7c)][header];
        if let Some(flags) = flags {
            let mut frame = MAGIC.to_vec();
            frame.extend_from_slice(&[flags, 0x40]);
            if flags & CONTENT_SIZE != 0 {
                frame.extend_from_slice(&(length as u64).to_le_bytes());
            }
            let [_, check, ..] = checksum(&frame[4..]).to_le_bytes();
            frame.push(check);
            // A plausible length of the first block lets the noise in it be decompressed.
            let block = u32::try_from(noise.len().saturating_sub(8)).expect("short");
            frame.extend_from_slice(&block.to_le_bytes());
            frame.append(&mut noise);
            noise = frame;
        }
        drop(decoded(&noise, length));
    }

    #[test]
    fn one_flipped_bit_never_panics(seed: u64, at: usize, bit in 0_u8..8, linked: bool) {
        let content = repetitive(seed, 80_000);
        let mode = if linked { BlockMode::Linked } else { BlockMode::Independent };
        let mut frame = encoded(plain_info().block_mode(mode), &content);
        let at = at % frame.len();
        frame[at] ^= 1 << bit;
        drop(decoded(&frame, content.len()));
    }
}
