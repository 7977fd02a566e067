//! Shards of real clients byte by byte, round trips, and shards that lie.

use bytes::Bytes;
use proptest::prelude::*;
use sha2::Digest as _;

use super::*;
use crate::chunk::split;
use crate::content::splitmix;
use crate::hash::{ChunkHash, RangeHash, Sha256};
use crate::limits::{MAX_SHARD_BYTES, MAX_SHARD_FILES};
use crate::xorb::{XorbFooter, XorbWriter};
use crate::{Error, Result};

const HEADER: &str = "48465265706f4d6574614461746100556967456a7b815783a5bdd95ccdd14aa9";
const END_RECORD: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
                          00000000000000000000000000000000";

/// The shard of the file `hello world` as a client posts it.
fn hello_shard() -> Vec<u8> {
    let mut text = format!("{HEADER}02000000000000000000000000000000");
    text += "fd5ce8b743dd5ef19fb913fe8f75e225f6d9e817a8df09dd7fdb26a1a7228754";
    text += "000000c0010000000000000000000000";
    text += "119f359d8b37394e0213441f7a559081d97ba0cf5f4ea519b151e66f460bf56c";
    text += "000000000b0000000000000001000000";
    text += "30ea5cffdc2fef220c8aed157ead426e5846c32e7d9e785eda47689458270dc1";
    text += "00000000000000000000000000000000";
    text += "083e4d93b9274db9faab7ddad7522ea5ee80537ae3ef84c4e9cdefe2acf78890";
    text += "00000000000000000000000000000000";
    text += END_RECORD;
    text += "119f359d8b37394e0213441f7a559081d97ba0cf5f4ea519b151e66f460bf56c";
    text += "00000000010000000b00000000000000";
    text += "119f359d8b37394e0213441f7a559081d97ba0cf5f4ea519b151e66f460bf56c";
    text += "000000000b0000000000000000000000";
    text += END_RECORD;
    let bytes = from_hex(&text);
    let digest = "e524ecb3f186ce5c28bb5d63338fa0f2f5d8b5311069ab23de7b4ea2c59ee11e";
    assert_eq!(sha256_of(&bytes), digest.parse().expect("valid"));
    bytes
}

/// The same with tables and footer.
fn hello_shard_with_footer() -> Vec<u8> {
    let mut bytes = hello_shard();
    bytes[40] = 200;
    bytes.extend(from_hex("fd5ce8b743dd5ef100000000119f359d8b37394e00000000"));
    bytes.extend(from_hex("119f359d8b37394e0000000000000000"));
    for number in [1_u64, 48, 288, 432, 1, 444, 1, 456, 1] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend([0; 32]);
    for number in [0_u64, u64::MAX, 0, 0, 0, 0, 0, 0, 0, 11, 11, 472] {
        bytes.extend(number.to_le_bytes());
    }
    assert_eq!(bytes.len(), 672);
    bytes
}

fn from_hex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a hexadecimal digit");
    let byte = |pair: &[u8]| u8::try_from(digit(pair[0]) << 4 | digit(pair[1])).expect("a byte");
    text.as_bytes().chunks_exact(2).map(byte).collect()
}

fn sha256_of(bytes: &[u8]) -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(bytes).into())
}

fn parse(bytes: Vec<u8>) -> Result<UploadShard> {
    UploadShard::parse(Bytes::from(bytes))
}

fn hello_footer() -> XorbFooter {
    let mut writer = XorbWriter::new();
    writer.push(b"hello world", ChunkHash::of(b"hello world"));
    writer.finish().1
}

fn check_hello(shard: &UploadShard) {
    let files: Vec<_> = shard.files().collect();
    assert_eq!((files.len(), shard.file_count()), (1, 1));
    let file = files[0];
    assert_eq!(
        file.hash.to_string(),
        "f15edd43b7e85cfd25e2758ffe13b99fdd09dfa817e8d9f6548722a7a126db7f"
    );
    assert_eq!(file.sha256, Some(sha256_of(b"hello world")));
    assert_eq!((file.segment_count(), file.size()), (1, 11));
    let xorb = hello_footer();
    let segments: Vec<_> = file.segments().collect();
    assert_eq!(segments, [Segment { xorb: xorb.hash(), chunks: 0..1, length: 11 }]);
    let hashes: Vec<_> = file.range_hashes().expect("there are").collect();
    assert_eq!(hashes, [RangeHash::over(&[ChunkHash::of(b"hello world")])]);

    let xorbs: Vec<_> = shard.xorbs().collect();
    assert_eq!((xorbs.len(), shard.xorb_count()), (1, 1));
    assert_eq!((xorbs[0].hash, xorbs[0].length, xorbs[0].chunk_count()), (xorb.hash(), 11, 1));
    let chunk = UploadChunk {
        hash: ChunkHash::of(b"hello world"),
        start: 0,
        length: 11,
        is_eligible: false,
    };
    assert_eq!(xorbs[0].chunks().collect::<Vec<_>>(), [chunk]);
}

#[test]
fn a_clients_shard_is_read() {
    check_hello(&parse(hello_shard()).expect("valid"));
}

#[test]
fn a_shard_with_tables_and_footer_is_read_too() {
    check_hello(&parse(hello_shard_with_footer()).expect("valid"));
}

#[test]
fn a_shard_without_files_and_xorbs_is_read() {
    let text = format!("{HEADER}02000000000000000000000000000000{END_RECORD}{END_RECORD}");
    let shard = parse(from_hex(&text)).expect("valid");
    assert_eq!((shard.files().count(), shard.xorbs().count()), (0, 0));
}

#[test]
fn an_empty_file_is_read() {
    let mut text = format!("{HEADER}02000000000000000000000000000000");
    text += &"00".repeat(32);
    text += "00000040000000000000000000000000";
    text += &"00".repeat(48);
    text += END_RECORD;
    text += END_RECORD;
    let shard = parse(from_hex(&text)).expect("valid");
    let file = shard.files().next().expect("there is one");
    assert_eq!((file.segment_count(), file.size(), file.hash), (0, 0, crate::hash::FileHash::ZERO));
    assert_eq!(file.sha256, Some(Sha256::ZERO));
}

#[test]
fn more_files_than_the_limit_are_refused() {
    let hello = hello_shard();
    let (head, file, rest) = (&hello[..48], &hello[48..240], &hello[240..]);
    let of = |files: usize| UploadShard::parse([head, &file.repeat(files), rest].concat().into());
    assert_eq!(of(MAX_SHARD_FILES).expect("as many as may be").file_count(), MAX_SHARD_FILES);
    assert!(matches!(of(MAX_SHARD_FILES + 1), Err(Error::TooLarge { .. })));
}

#[test]
fn counts_beyond_the_shard_are_refused() {
    // 96 bytes that claim four thousand million records.
    let mut text = format!("{HEADER}02000000000000000000000000000000");
    text += &"11".repeat(32);
    let head = text.clone();
    for flags in ["00000000", "00000080", "00000040", "000000c0"] {
        for count in ["ffffffff", "feffffff", "ffffff7f", "01000000"] {
            let text = format!("{head}{flags}{count}0000000000000000");
            assert_eq!(text.len(), 2 * 96);
            let error = parse(from_hex(&text)).expect_err("it lies");
            assert!(matches!(error, Error::Truncated { .. }), "{error}");
        }
    }
    let xorb = format!("{HEADER}02000000000000000000000000000000{END_RECORD}{}", "11".repeat(32));
    let text = format!("{xorb}00000000ffffffff0b00000000000000");
    let error = parse(from_hex(&text)).expect_err("it lies");
    assert!(matches!(error, Error::Truncated { .. }), "{error}");
}

#[test]
fn a_shard_that_is_cut_short_is_refused() {
    for whole in [hello_shard(), hello_shard_with_footer()] {
        for length in 0..whole.len() {
            assert!(parse(whole[..length].to_vec()).is_err(), "{length}");
        }
    }
}

#[test]
fn bytes_behind_the_end_are_refused() {
    for behind in [1, 47, 48, 200] {
        let mut bytes = hello_shard();
        bytes.resize(bytes.len() + behind, 0);
        assert!(parse(bytes).is_err(), "{behind}");
    }
}

#[test]
fn a_shard_over_the_limit_is_refused() {
    let mut bytes = hello_shard();
    bytes.resize(MAX_SHARD_BYTES + 1, 0);
    let error = parse(bytes).expect_err("too large");
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    let with = |at: usize, number: u32| {
        let mut bytes = hello_shard();
        bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        parse(bytes)
    };
    assert!(with(80, 0xc000_0000).is_ok(), "as it is");
    assert!(with(0, 0).is_err(), "tag");
    assert!(matches!(with(32, 3), Err(Error::UnknownVersion { version: 3, .. })));
    assert!(with(40, 199).is_err(), "size of the footer");
    assert!(with(40, 200).is_err(), "a footer that is not there");
    assert!(with(80, 0xe000_0000).is_err(), "unknown flag of a file");
    assert!(with(80, 0x8000_0000).is_err(), "the records behind do not fit the flags");
    assert!(with(84, 2).is_err(), "number of segments");
    assert!(with(84, 0).is_err(), "a file without segments that has a hash");
    let segment = 96;
    assert!(with(segment + 36, 0).is_err(), "a segment without bytes");
    assert!(with(segment + 36, 67_108_865).is_err(), "a segment larger than any xorb");
    assert!(with(segment + 40, 1).is_err(), "a segment without chunks");
    assert!(with(segment + 44, 8193).is_err(), "a segment of more chunks than a xorb has");
    let xorb = 288;
    assert!(with(xorb + 36, 0).is_err(), "a xorb without chunks");
    assert!(with(xorb + 40, 12).is_err(), "a xorb longer than its chunks");
    let chunk = xorb + 48;
    assert!(with(chunk + 32, 1).is_err(), "a gap before a chunk");
    assert!(with(chunk + 36, 0).is_err(), "a chunk without bytes");
    assert!(with(chunk + 36, 131_073).is_err(), "a chunk over the limit");
}

#[test]
fn a_footer_that_contradicts_the_sections_is_refused() {
    let footer = 472;
    for (at, why) in [
        (footer, "version"),
        (footer + 8, "place of the files"),
        (footer + 16, "place of the xorbs"),
        (footer + 72, "keyed"),
        (footer + 103, "keyed"),
        (footer + 192, "place of the footer"),
    ] {
        let mut bytes = hello_shard_with_footer();
        bytes[at] ^= 4;
        assert!(parse(bytes).is_err(), "{why}");
    }
}

#[test]
fn range_hashes_of_only_some_files_are_refused() {
    let hello = hello_shard();
    let (header, file, rest) = (&hello[..48], &hello[48..240], &hello[240..]);
    // The same file, its metadata but not its range hashes.
    let mut bare = file.to_vec();
    bare.drain(96..144);
    bare[35] = 0x40;
    let shard = |files: &[&[u8]]| parse([header, &files.concat(), rest].concat());
    assert!(shard(&[file, file]).is_ok());
    let without = shard(&[&bare, &bare]).expect("none has any");
    assert!(without.files().all(|file| file.range_hashes().is_none()));
    assert!(shard(&[file, &bare]).is_err());
    assert!(shard(&[&bare, file]).is_err());
}

#[test]
fn the_answer_about_a_chunk_is_that_of_the_specification() {
    let key = std::array::from_fn(|i| u8::try_from(i).expect("under 32"));
    let answer = encode_dedup_answer(&[&hello_footer()], &key, 1_700_000_000, 1_700_086_400);

    // The specified answer has no table of chunks, ours has one line; the places that follow
    // from it differ.
    let mut expected = from_hex(&format!("{HEADER}0200000000000000c800000000000000{END_RECORD}"));
    expected.extend(from_hex(
        "119f359d8b37394e0213441f7a559081d97ba0cf5f4ea519b151e66f460bf56c\
         00000000010000000b00000000000000\
         284dab8ea574d701db1addeb59a931ea16a3514b544069fbb4d0fd3d59cd7adb\
         000000000b0000000000000000000000",
    ));
    expected.extend(from_hex(END_RECORD));
    let table_start = expected.len();
    assert_eq!(table_start, 240);
    let footer = |lines: u64, place: u64| {
        let mut footer = Vec::new();
        for number in [1, 48, 96, 240, 0, 240, 0, 240, lines] {
            footer.extend(number.to_le_bytes());
        }
        footer.extend(key);
        for number in [1_700_000_000, 1_700_086_400, 0, 0, 0, 0, 0, 0, 0, 0, 11, place] {
            footer.extend(number.to_le_bytes());
        }
        footer
    };
    let specified = [expected.as_slice(), &footer(0, 240)].concat();
    let digest = "851c6a22622464a331ff392be10def1afeb2d1dc80911d9f7faf7f02b97889bc";
    assert_eq!((specified.len(), sha256_of(&specified).to_string().as_str()), (440, digest));

    let line = from_hex("284dab8ea574d7010000000000000000");
    assert_eq!(answer, [expected.as_slice(), &line, &footer(1, 256)].concat());
}

#[test]
fn an_answer_names_all_chunks_of_its_xorbs_keyed_and_in_order() {
    let contents = [splitmix(1, 900_000), splitmix(2, 400_000)];
    let footers: Vec<_> = contents.iter().map(|content| footer_of(content)).collect();
    let key = [7; 32];
    let answer = encode_dedup_answer(&[&footers[0], &footers[1]], &key, 1, 2);

    // Apart from its keys it has the form of an upload.
    let mut as_upload = answer.clone();
    let footer = answer.len() - 200;
    as_upload[footer + 72..footer + 104].fill(0);
    let shard = parse(as_upload).expect("the same form");
    assert_eq!(shard.file_count(), 0, "whose files these are is nobody's business");
    for (xorb, footer) in shard.xorbs().zip(&footers) {
        assert_eq!(xorb.hash, footer.hash());
        let keyed: Vec<_> = footer.chunk_hashes().map(|chunk| chunk.keyed(&key)).collect();
        assert_eq!(xorb.chunks().map(|chunk| chunk.hash).collect::<Vec<_>>(), keyed);
    }
    assert_eq!(shard.xorb_count(), 2);

    let records =
        RECORD_BYTES * (4 + footers.iter().map(|f| f.chunk_count() as usize).sum::<usize>());
    let lookup = &answer[records + RECORD_BYTES..footer];
    let keys: Vec<_> = lookup
        .chunks_exact(16)
        .map(|line| u64::from_le_bytes(*line.first_chunk().expect("16 bytes")))
        .collect();
    assert!(keys.is_sorted());
    assert_eq!(keys.len(), footers.iter().map(|f| f.chunk_count() as usize).sum::<usize>());
}

#[test]
fn what_is_hidden_in_an_answer_keeps_its_place_and_shows_nothing() {
    let footer = footer_of(&splitmix(1, 900_000));
    let count = footer.chunk_count();
    let offer = Offer { xorb: &footer, hidden: vec![0..2, 4..count - 1] };
    let (key, veil) = ([7; 32], [8; 32]);
    let mut answer = encode_offers(&[offer], &key, &veil, 1, 2);
    let end = answer.len() - 200;
    answer[end + 72..end + 104].fill(0);
    let shard = parse(answer).expect("the lengths of what is hidden add up too");
    let xorb = shard.xorbs().next().expect("one xorb");
    assert_eq!((xorb.hash, xorb.length), (footer.hash(), footer.total_length()));
    let is_shown = |index| matches!(index, 2 | 3) || index == count - 1;
    for (index, chunk) in (0..).zip(xorb.chunks()) {
        let keyed = footer.chunk_hash(index).keyed(&key);
        assert_eq!(chunk.hash == keyed, is_shown(index), "{index}");
        if is_shown(index) {
            assert_eq!(chunk.start, footer.uncompressed_start(index));
            assert_eq!(chunk.length, footer.chunk_length(index));
        }
    }
    let lengths: Vec<_> = xorb.chunks().map(|chunk| chunk.length).collect();
    assert_eq!(lengths[0], lengths[1] - footer.uncompressed_start(2) % 2);
    assert_eq!(lengths[4], lengths[5]);
}

fn footer_of(content: &[u8]) -> XorbFooter {
    let mut writer = XorbWriter::new();
    for chunk in split(content) {
        writer.push(chunk, ChunkHash::of(chunk));
    }
    writer.finish().1
}

/// What a client would post, made from plain values.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    files: Vec<ModelFile>,
    xorbs: Vec<ModelXorb>,
}

#[derive(Clone, Debug, PartialEq)]
struct ModelFile {
    hash: [u8; 32],
    sha256: Option<[u8; 32]>,
    /// Xorb, first chunk, length.
    segments: Vec<([u8; 32], u32, u32)>,
    range_hashes: Option<Vec<[u8; 32]>>,
}

#[derive(Clone, Debug, PartialEq)]
struct ModelXorb {
    hash: [u8; 32],
    /// Hash, length, whether it is eligible.
    chunks: Vec<([u8; 32], u32, bool)>,
}

impl Model {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = TAG.to_vec();
        bytes.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for file in &self.files {
            file.encode(&mut bytes);
        }
        push_record(&mut bytes, &END, [0; 4]);
        for xorb in &self.xorbs {
            xorb.encode(&mut bytes);
        }
        push_record(&mut bytes, &END, [0; 4]);
        bytes
    }

    /// What parsing gives, as a model again.
    fn of(shard: &UploadShard) -> Self {
        let files = shard.files().map(|file| ModelFile {
            hash: *file.hash.as_bytes(),
            sha256: file.sha256.map(|sha256| *sha256.as_bytes()),
            segments: file
                .segments()
                .map(|part| (*part.xorb.as_bytes(), part.chunks.start, part.length))
                .collect(),
            range_hashes: file
                .range_hashes()
                .map(|hashes| hashes.map(|hash| *hash.as_bytes()).collect()),
        });
        let xorbs = shard.xorbs().map(|xorb| ModelXorb {
            hash: *xorb.hash.as_bytes(),
            chunks: xorb
                .chunks()
                .map(|chunk| (*chunk.hash.as_bytes(), chunk.length, chunk.is_eligible))
                .collect(),
        });
        Self { files: files.collect(), xorbs: xorbs.collect() }
    }
}

impl ModelFile {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let flags =
            u32::from(self.range_hashes.is_some()) << 31 | u32::from(self.sha256.is_some()) << 30;
        let count = u32::try_from(self.segments.len()).expect("few");
        push_record(bytes, &self.hash, [flags, count, 0, 0]);
        for (xorb, start, length) in &self.segments {
            push_record(bytes, xorb, [0, *length, *start, start + 1]);
        }
        for hash in self.range_hashes.iter().flatten() {
            push_record(bytes, hash, [0; 4]);
        }
        if let Some(sha256) = self.sha256 {
            push_record(bytes, &Sha256::from_bytes(sha256).to_field(), [0; 4]);
        }
    }
}

impl ModelXorb {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let count = u32::try_from(self.chunks.len()).expect("few");
        let length = self.chunks.iter().map(|(_, length, _)| length).sum();
        push_record(bytes, &self.hash, [0, count, length, 0]);
        let mut start = 0;
        for (hash, length, is_eligible) in &self.chunks {
            push_record(bytes, hash, [start, *length, u32::from(*is_eligible) << 31, 0]);
            start += length;
        }
    }
}

fn push_record(bytes: &mut Vec<u8>, hash: &[u8; 32], numbers: [u32; 4]) {
    bytes.extend_from_slice(hash);
    for number in numbers {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
}

fn arbitrary_model() -> impl Strategy<Value = Model> {
    let segment = (any::<[u8; 32]>(), 0_u32..8192, 1_u32..=67_108_864);
    let file = (any::<[u8; 32]>(), any::<Option<[u8; 32]>>(), prop::collection::vec(segment, 0..5));
    let files = (prop::collection::vec(file, 0..5), any::<bool>()).prop_map(|(files, proven)| {
        let model = |(hash, sha256, segments): (_, _, Vec<([u8; 32], u32, u32)>)| ModelFile {
            hash: if segments.is_empty() { [0; 32] } else { hash },
            sha256,
            range_hashes: proven
                .then(|| segments.iter().map(|(xorb, ..)| xorb.map(|byte| !byte)).collect()),
            segments,
        };
        files.into_iter().map(model).collect()
    });
    let chunk = (any::<[u8; 32]>(), 1_u32..=131_072, any::<bool>());
    let xorb = (any::<[u8; 32]>(), prop::collection::vec(chunk, 1..5))
        .prop_map(|(hash, chunks)| ModelXorb { hash, chunks });
    (files, prop::collection::vec(xorb, 0..5)).prop_map(|(files, xorbs)| Model { files, xorbs })
}

proptest! {
    #[test]
    fn any_shard_of_a_client_round_trips(model in arbitrary_model()) {
        let shard = parse(model.encode()).expect("valid");
        prop_assert_eq!(&Model::of(&shard), &model);
        prop_assert_eq!(shard.file_count(), model.files.len());
        prop_assert_eq!(shard.xorb_count(), model.xorbs.len());
    }

    #[test]
    fn noise_is_refused_without_panic(
        noise in prop::collection::vec(any::<u8>(), 0..800),
        footer: bool,
    ) {
        prop_assert!(parse(noise.clone()).is_err());
        let mut bytes = TAG.to_vec();
        bytes.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, if footer { 200 } else { 0 }]);
        bytes.extend_from_slice(&[0; 7]);
        bytes.extend_from_slice(&noise);
        drop(parse(bytes));
    }

    #[test]
    fn a_flipped_bit_never_panics(model in arbitrary_model(), at: usize, bit in 0_u8..8) {
        let mut bytes = model.encode();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(shard) = parse(bytes) {
            drop(Model::of(&shard));
        }
    }
}
