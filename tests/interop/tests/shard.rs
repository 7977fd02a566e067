//! Shards: theirs are read by us, our answers by them.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use ballast_format::chunk::split;
use ballast_format::hash::{ChunkHash, FileHash, Sha256, XorbHash};
use ballast_format::hash_tree::file_hash;
use ballast_format::shard::{UploadShard, encode_dedup_answer};
use ballast_format::xorb::{XorbFooter, XorbWriter};
use ballast_testkit::content::{repetitive, splitmix};
use bytes::Bytes;
use sha2::Digest as _;
use xet_core_structures::merklehash::MerkleHash;
use xet_core_structures::metadata_shard::MDBShardInfo;
use xet_core_structures::metadata_shard::chunk_verification::range_hash_from_chunks;
use xet_core_structures::metadata_shard::file_structs::{
    FileDataSequenceEntry, FileDataSequenceHeader, FileMetadataExt, FileVerificationEntry,
    MDBFileInfo,
};
use xet_core_structures::metadata_shard::shard_in_memory::MDBInMemoryShard;
use xet_core_structures::metadata_shard::xorb_structs::{
    MDBXorbInfo, XorbChunkSequenceEntry, XorbChunkSequenceHeader,
};

/// One file that fills one xorb, in the client's own types.
struct Uploaded {
    content: Vec<u8>,
    footer: XorbFooter,
    xorb: MDBXorbInfo,
    file: MDBFileInfo,
}

fn their_hash(text: &impl ToString) -> MerkleHash {
    MerkleHash::from_hex(&text.to_string()).expect("the same form")
}

/// The file has two segments and is marked as the client does.
fn upload(content: Vec<u8>) -> Uploaded {
    let mut writer = XorbWriter::new();
    let mut records = Vec::new();
    let mut start = 0;
    for chunk in split(&content) {
        let hash = ChunkHash::of(chunk);
        let index = writer.push(chunk, hash);
        let record = XorbChunkSequenceEntry::new(their_hash(&hash), chunk.len(), start);
        records.push(record.with_global_dedup_flag(index == 0));
        start += chunk.len();
    }
    let (_, footer) = writer.finish();
    let hash = their_hash(&footer.hash());
    let xorb = MDBXorbInfo {
        metadata: XorbChunkSequenceHeader::new(hash, records.len(), start),
        chunks: records,
    };

    let count = footer.chunk_count();
    let segments: Vec<_> = [0..count / 2, count / 2..count]
        .map(|chunks| {
            let length = footer.uncompressed_length(chunks.clone()).expect("in range");
            let length = u32::try_from(length).expect("short");
            FileDataSequenceEntry::new(hash, length, chunks.start, chunks.end)
        })
        .into();
    let verification = segments.iter().map(|segment| {
        let chunks = segment.chunk_index_start as usize..segment.chunk_index_end as usize;
        let hashes: Vec<_> = xorb.chunks[chunks].iter().map(|chunk| chunk.chunk_hash).collect();
        FileVerificationEntry::new(range_hash_from_chunks(&hashes))
    });
    let name = their_hash(&our_file_hash(&content));
    let file = MDBFileInfo {
        metadata: FileDataSequenceHeader::new(name, segments.len(), true, true),
        verification: verification.collect(),
        segments,
        metadata_ext: Some(FileMetadataExt::new(their_hash(&our_sha256(&content)))),
    };
    Uploaded { content, footer, xorb, file }
}

fn our_file_hash(content: &[u8]) -> FileHash {
    file_hash(split(content).map(|chunk| (ChunkHash::of(chunk), chunk.len() as u64)))
}

fn our_sha256(content: &[u8]) -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(content).into())
}

fn uploads() -> Vec<Uploaded> {
    vec![upload(splitmix(1, 2 << 20)), upload(splitmix(2, 900_000)), upload(repetitive(3, 1 << 20))]
}

fn their_shard(uploads: &[Uploaded]) -> MDBInMemoryShard {
    let mut shard = MDBInMemoryShard::default();
    for upload in uploads {
        shard.add_xorb_block(Arc::new(upload.xorb.clone())).expect("valid");
        shard.add_file_reconstruction_info(upload.file.clone()).expect("valid");
    }
    shard
}

fn check_shard(bytes: Vec<u8>, uploads: &[Uploaded]) {
    let shard = UploadShard::parse(Bytes::from(bytes)).expect("their own shard");
    assert_eq!((shard.file_count(), shard.xorb_count()), (uploads.len(), uploads.len()));
    for upload in uploads {
        let name = our_file_hash(&upload.content);
        let file = shard.files().find(|file| file.hash == name).expect("it is in there");
        assert_eq!(file.sha256, Some(our_sha256(&upload.content)));
        assert_eq!(file.size(), upload.content.len() as u64);
        let hashes = file.range_hashes().expect("there are");
        assert_eq!((file.segment_count(), hashes.len()), (2, 2));
        for (segment, hash) in file.segments().zip(hashes) {
            assert_eq!(segment.xorb, upload.footer.hash());
            let length = upload.footer.uncompressed_length(segment.chunks.clone());
            assert_eq!(length.expect("in range"), u64::from(segment.length));
            assert_eq!(upload.footer.range_hash(segment.chunks).expect("in range"), hash);
        }

        let hash: XorbHash = upload.footer.hash();
        let xorb = shard.xorbs().find(|xorb| xorb.hash == hash).expect("it is in there");
        assert_eq!(xorb.length, upload.footer.total_length());
        assert_eq!(xorb.chunk_count(), upload.footer.chunk_hashes().len());
        for (index, chunk) in (0..).zip(xorb.chunks()) {
            assert_eq!(chunk.hash, upload.footer.chunk_hash(index));
            assert_eq!(chunk.length, upload.footer.chunk_length(index));
            assert_eq!(chunk.start, upload.footer.uncompressed_start(index));
            assert_eq!(chunk.is_eligible, index == 0);
        }
    }
}

#[test]
fn their_shards_are_read() {
    let uploads = uploads();
    let with_footer = their_shard(&uploads).to_bytes().expect("their own");
    check_shard(with_footer.clone(), &uploads);

    // As it is posted: without tables and footer, which the header says.
    let info = MDBShardInfo::load_from_reader(&mut Cursor::new(&with_footer)).expect("their own");
    let end = usize::try_from(info.metadata.file_lookup_offset).expect("short");
    let mut posted = with_footer[..end].to_vec();
    posted[40..48].fill(0);
    check_shard(posted, &uploads);
}

#[test]
fn our_answers_are_searched_by_them() {
    let uploads = uploads();
    let footers: Vec<_> = uploads.iter().map(|upload| &upload.footer).collect();
    let key = [9; 32];
    let answer = encode_dedup_answer(&footers, &key, 1_700_000_000, 1_700_086_400);
    let mut reader = Cursor::new(&answer);
    let info = MDBShardInfo::load_from_reader(&mut reader).expect("our own answer");
    assert_eq!(info.chunk_hmac_key(), Some(MerkleHash::from(key)));
    assert_eq!(info.metadata.shard_creation_timestamp, 1_700_000_000);
    assert_eq!(info.metadata.shard_key_expiry, 1_700_086_400);
    assert_eq!(info.num_bytes(), answer.len() as u64);
    assert!(info.read_all_file_info_sections(&mut reader).expect("none").is_empty());

    let total: usize = footers.iter().map(|footer| footer.chunk_hashes().len()).sum();
    assert_eq!(info.total_num_chunks(), total);
    for upload in &uploads {
        let hashes: Vec<_> = upload.xorb.chunks.iter().map(|chunk| chunk.chunk_hash).collect();
        for start in [0, 1, hashes.len() / 2, hashes.len() - 1] {
            let (found, segment) = info
                .chunk_hash_dedup_query(&mut reader, &hashes[start..])
                .expect("our own answer")
                .expect("the chunk is in there");
            assert_eq!(found, hashes.len() - start, "the match goes on to the xorb's end");
            assert_eq!(segment.xorb_hash, their_hash(&upload.footer.hash()));
            let chunks = u32::try_from(start).expect("few")..upload.footer.chunk_count();
            assert_eq!(segment.chunk_index_start..segment.chunk_index_end, chunks);
            let length = upload.footer.uncompressed_length(chunks).expect("in range");
            assert_eq!(u64::from(segment.unpacked_segment_bytes), length);
        }
    }
    let stranger = [their_hash(&ChunkHash::of(b"never seen"))];
    let found = info.chunk_hash_dedup_query(&mut reader, &stranger).expect("our own answer");
    assert!(found.is_none());
}

#[test]
fn the_table_of_an_answer_is_what_they_find_without_it() {
    let uploads = uploads();
    let footers: Vec<_> = uploads.iter().map(|upload| &upload.footer).collect();
    let answer = encode_dedup_answer(&footers, &[9; 32], 1, 2);
    let mut reader = Cursor::new(&answer);
    let mut info = MDBShardInfo::load_from_reader(&mut reader).expect("our own answer");
    let table = info.read_all_truncated_hashes(&mut reader).expect("our own answer");
    info.metadata.chunk_lookup_num_entry = 0;
    let mut scanned = info.read_all_truncated_hashes(&mut reader).expect("our own answer");
    scanned.sort_unstable();
    assert_eq!(table, scanned);
}

#[test]
fn our_answer_is_their_keyed_shard() {
    let uploads = uploads();
    let stored = their_shard(&uploads).to_bytes().expect("their own");
    let mut reader = Cursor::new(&stored);
    let info = MDBShardInfo::load_from_reader(&mut reader).expect("their own");
    let key = [5; 32];
    let mut theirs = Vec::new();
    let hour = Duration::from_hours(1);
    reader.set_position(0);
    info.export_as_keyed_shard(&mut reader, &mut theirs, key.into(), hour, false, false, true)
        .expect("their own");

    let their_info = MDBShardInfo::load_from_reader(&mut Cursor::new(&theirs)).expect("their own");
    let created = their_info.metadata.shard_creation_timestamp;
    let expires = their_info.metadata.shard_key_expiry;
    // They keep xorbs in the order of their hashes.
    let mut footers: Vec<_> = uploads.iter().map(|upload| &upload.footer).collect();
    footers.sort_by_key(|footer| footer.hash());
    let mut ours = encode_dedup_answer(&footers, &key, created, expires);

    // They leave flags of chunks in, and sums of bytes that say more than we tell.
    let end = usize::try_from(their_info.metadata.file_lookup_offset).expect("short");
    for record in theirs[96..end].chunks_exact_mut(48) {
        record[43] &= 0x7f;
    }
    let sums = ours.len() - 32..ours.len() - 8;
    ours[sums.clone()].fill(0);
    theirs[sums].fill(0);
    assert_eq!(ours.len(), theirs.len());
    assert_eq!(ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs), None);
}
