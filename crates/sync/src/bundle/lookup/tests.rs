use ballast_format::chunk::split;
use ballast_format::hash::{FileHash, Sha256};
use ballast_format::manifest::Term;
use ballast_format::xorb::XorbWriter;
use ballast_testkit::content::splitmix;

use super::*;

/// A xorb of these bytes, cut as clients do.
fn xorb(content: &[u8]) -> XorbFooter {
    let mut writer = XorbWriter::new();
    for chunk in split(content) {
        writer.push(chunk, ChunkHash::of(chunk));
    }
    writer.finish().1
}

/// A file of runs of xorbs.
fn file(terms: &[(&XorbFooter, Range<u32>)]) -> Manifest {
    let term = |(footer, chunks): &(&XorbFooter, Range<u32>)| {
        let length = footer.uncompressed_length(chunks.clone()).expect("inside");
        let length = u32::try_from(length).expect("small");
        Term { xorb: footer.hash(), chunks: chunks.clone(), length }
    };
    let terms: Vec<Term> = terms.iter().map(term).collect();
    let size = terms.iter().map(|term| u64::from(term.length)).sum();
    let (hash, sha256) = (FileHash::from_bytes([1; 32]), Sha256::ZERO);
    Manifest::new(hash, sha256, size, terms, Vec::new()).expect("it fits")
}

/// As `Lookup::place` does it, with footers at hand.
fn place(lookup: &mut Lookup, footers: &[&XorbFooter], most: u64) -> Vec<ChunkRecord> {
    let footer = |hash: &XorbHash| {
        *footers.iter().find(|footer| footer.hash() == *hash).expect("it was made")
    };
    let mut seats = Seats::new();
    for wanted in &mut lookup.wanted {
        merge(&mut wanted.chunks);
        place_by_runs(wanted, lookup.base.get(&wanted.hash));
        for chunk in left(wanted).flatten() {
            seats.entry(prefix(&footer(&wanted.hash).chunk_hash(chunk))).or_insert(None);
        }
    }
    for (hash, runs) in &lookup.base {
        for run in runs {
            note_base(run, footer(hash), &mut seats);
        }
    }
    let mut packer = Packer { seats, records: Vec::new(), open: None, first_record: 0 };
    for wanted in &mut lookup.wanted {
        let footer = footer(&wanted.hash);
        packer.pack(wanted, footer, most).expect("it has room");
    }
    packer.close();
    packer.records
}

/// The chunks of a file, from its terms.
fn chunks_of(manifest: &Manifest, footers: &[&XorbFooter]) -> Vec<ChunkHash> {
    let chunks = manifest.terms.iter().flat_map(|term| {
        let footer = footers.iter().find(|footer| footer.hash() == term.xorb);
        let footer = footer.expect("it was made");
        term.chunks.clone().map(|chunk| footer.chunk_hash(chunk))
    });
    chunks.collect()
}

/// The chunks of a file, as whoever takes the bundle in puts it together.
fn rebuilt(
    runs: &[Run],
    records: &[ChunkRecord],
    bases: &[Vec<ChunkHash>],
    footers: &[&XorbFooter],
) -> Vec<ChunkHash> {
    let in_record = |record: &ChunkRecord| {
        let sources = record.sources.iter().flat_map(|(xorb, chunks)| {
            let footer = footers.iter().find(|footer| footer.hash() == *xorb);
            let footer = footer.expect("it was made");
            chunks.clone().map(|chunk| footer.chunk_hash(chunk))
        });
        sources.collect::<Vec<_>>()
    };
    let mut chunks = Vec::new();
    for run in runs {
        let (found, range) = match run {
            Run::Record(record, range) => (in_record(&records[*record as usize]), range),
            Run::Base(base, range) => (bases[*base as usize].clone(), range),
        };
        chunks.extend_from_slice(&found[range.start as usize..range.end as usize]);
    }
    chunks
}

#[test]
fn every_wanted_chunk_travels_once_and_no_other_does() {
    let (one, two) = (xorb(&splitmix(1, 2_000_000)), xorb(&splitmix(2, 2_000_000)));
    // Some of the first's chunks again, in another xorb, behind others.
    let again = splitmix(3, 500_000);
    let mixed = xorb(&[&again[..], &splitmix(1, 2_000_000)].concat());
    let footers = [&one, &two, &mixed];
    let count = one.chunk_count();
    let files = [
        file(&[(&one, 0..count), (&two, 3..9), (&one, 2..5)]),
        file(&[(&mixed, 0..mixed.chunk_count()), (&two, 5..12)]),
    ];
    let mut lookup = Lookup::default();
    for file in &files {
        lookup.add_wanted(file);
    }
    let records = place(&mut lookup, &footers, u64::MAX);
    let mut carried = Vec::new();
    for record in &records {
        let chunks: u32 = record.sources.iter().map(|(_, chunks)| chunks.end - chunks.start).sum();
        let at = records.iter().position(|other| other == record).expect("it is one");
        let all = Run::Record(u32::try_from(at).expect("few"), 0..chunks);
        carried.extend(rebuilt(&[all], &records, &[], &footers));
    }
    let wanted: std::collections::HashSet<ChunkHash> =
        files.iter().flat_map(|file| chunks_of(file, &footers)).collect();
    assert_eq!(carried.len(), wanted.len());
    assert!(carried.iter().all(|chunk| wanted.contains(chunk)));
    assert_eq!(records[0].hash, one.hash(), "all of it is wanted, so it stays as it is");
    for file in &files {
        let runs = lookup.runs_of(file).expect("each has a place");
        assert_eq!(rebuilt(&runs, &records, &[], &footers), chunks_of(file, &footers));
    }
}

#[test]
fn what_is_there_is_told_by_its_file_however_it_is_packed() {
    let content = splitmix(1, 2_000_000);
    let there = xorb(&content);
    // The new version is packed anew, with a change in the middle.
    let mut changed = content.clone();
    changed[1_000_000..1_100_000].copy_from_slice(&splitmix(9, 100_000));
    let new = xorb(&changed);
    let footers = [&there, &new];
    let base = file(&[(&there, 0..there.chunk_count())]);
    let wanted = file(&[(&new, 0..new.chunk_count())]);
    let mut lookup = Lookup::default();
    lookup.add_base(0, &base);
    lookup.add_wanted(&wanted);
    let records = place(&mut lookup, &footers, u64::MAX);
    let bytes: u64 = records.iter().map(|record| record.bytes).sum();
    assert!((1..500_000).contains(&bytes), "{bytes}");
    let runs = lookup.runs_of(&wanted).expect("each has a place");
    let bases = [chunks_of(&base, &footers)];
    assert_eq!(rebuilt(&runs, &records, &bases, &footers), chunks_of(&wanted, &footers));
    // The same file brings nothing at all.
    let mut lookup = Lookup::default();
    lookup.add_base(0, &base);
    lookup.add_wanted(&base);
    assert!(place(&mut lookup, &footers, u64::MAX).is_empty());
}

#[test]
fn no_record_is_longer_than_a_volume_has_room_for() {
    let one = xorb(&splitmix(4, 3_000_000));
    let wanted = file(&[(&one, 0..one.chunk_count())]);
    let mut lookup = Lookup::default();
    lookup.add_wanted(&wanted);
    let records = place(&mut lookup, &[&one], 700_000);
    assert!(records.len() > 4 && records.iter().all(|record| record.bytes <= 700_000));
    let runs = lookup.runs_of(&wanted).expect("each has a place");
    assert_eq!(rebuilt(&runs, &records, &[], &[&one]), chunks_of(&wanted, &[&one]));
}
