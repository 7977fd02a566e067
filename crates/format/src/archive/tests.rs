//! Archives as tools write them, and as those do who want two readers to see two things.

use proptest::prelude::*;

use super::*;

/// What an archive is made of; changed by a test before it is written.
#[derive(Clone)]
struct Part {
    name: &'static str,
    local_name: &'static str,
    content: &'static [u8],
    method: u16,
    flags: u16,
    crc: u32,
    gap: usize,
    local_size: Option<u32>,
}

fn part(name: &'static str) -> Part {
    let (content, crc) = (&b"content"[..], 0x1234_5678);
    let (method, flags, gap, local_size) = (0, 0, 0, None);
    Part { name, local_name: name, content, method, flags, crc, gap, local_size }
}

fn zip(parts: &[Part]) -> Vec<u8> {
    let (mut file, mut central) = (Vec::new(), Vec::new());
    for part in parts {
        file.extend(vec![0; part.gap]);
        let offset = u32::try_from(file.len()).expect("small");
        let size = u32::try_from(part.content.len()).expect("small");
        let left_out = part.flags & 8 != 0;
        let header = |crc: u32, size: u32, name: &str| {
            let mut bytes = Vec::new();
            bytes.extend(20_u16.to_le_bytes());
            bytes.extend(part.flags.to_le_bytes());
            bytes.extend(part.method.to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(crc.to_le_bytes());
            bytes.extend(size.to_le_bytes());
            bytes.extend(size.to_le_bytes());
            bytes.extend(u16::try_from(name.len()).expect("short").to_le_bytes());
            bytes.extend([0; 2]);
            bytes
        };
        let (crc, local) = if left_out { (0, 0) } else { (part.crc, size) };
        file.extend(b"PK\x03\x04");
        file.extend(header(crc, part.local_size.unwrap_or(local), part.local_name));
        file.extend(part.local_name.as_bytes());
        file.extend(part.content);
        if left_out {
            file.extend(b"PK\x07\x08");
            file.extend([part.crc, size, size].map(u32::to_le_bytes).concat());
        }
        central.extend(b"PK\x01\x02\0\0");
        central.extend(header(part.crc, size, part.name));
        central.extend([0; 10]);
        central.extend(offset.to_le_bytes());
        central.extend(part.name.as_bytes());
    }
    let (offset, length) = (file.len(), central.len());
    file.extend(central);
    end(&mut file, parts.len(), length, offset);
    file
}

fn end(file: &mut Vec<u8>, entries: usize, length: usize, offset: usize) {
    let count = u16::try_from(entries).expect("few").to_le_bytes();
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([count, count].concat());
    file.extend(u32::try_from(length).expect("small").to_le_bytes());
    file.extend(u32::try_from(offset).expect("small").to_le_bytes());
    file.extend([0; 2]);
}

/// Everything that a scan does with an archive, but for the contents.
fn look(file: &[u8]) -> Directory {
    let mut directory = Directory::default();
    let most = usize::try_from(TAIL_BYTES).expect("small");
    let tail = &file[file.len().saturating_sub(most)..];
    let Some(end) = find(tail, file.len() as u64, &mut directory) else { return directory };
    let start = usize::try_from(end.offset).expect("it is in the file");
    let bytes = &file[start..start + usize::try_from(end.length).expect("so is its length")];
    read(bytes, &end, &mut directory);
    let entries = directory.entries.clone();
    let mut next = 0;
    for (number, entry) in entries.iter().enumerate() {
        let at = usize::try_from(entry.offset).unwrap_or(usize::MAX);
        let local = file.get(at..).and_then(Local::read);
        let place = compare(entry, local.as_ref(), &mut directory);
        let before = number.checked_sub(1).map(|before| &entries[before]);
        let fits = before.map_or(entry.offset == 0, |b| follows(b, next, entry.offset));
        if !fits {
            directory.note(Flaw::Gap);
        }
        next = place.map_or(next, |place| place.end);
    }
    if entries.last().is_some_and(|last| !follows(last, next, end.offset)) {
        directory.note(Flaw::Gap);
    }
    directory
}

#[track_caller]
fn check(file: &[u8], flaws: &[Flaw]) {
    assert_eq!(look(file).flaws, flaws);
}

#[test]
fn what_tools_write_has_no_flaws() {
    check(&zip(&[part("a/data.pkl"), part("a/data/0")]), &[]);
    check(&zip(&[]), &[]);
    check(&zip(&[Part { flags: 8, ..part("a") }, Part { flags: 8, ..part("b") }]), &[]);
    let file = zip(&[part("a"), Part { method: 8, ..part("b") }]);
    let found = look(&file);
    assert_eq!(found.entries[1].method, Method::Deflated);
    assert_eq!(found.entries[1].offset, 30 + 1 + 7);
}

#[test]
fn large_archives_have_their_own_records() {
    let mut file = zip(&[part("a"), part("b")]);
    let record = file.split_off(file.len() - 22);
    let number = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().expect("four"));
    let (length, offset) = (u64::from(number(12)), u64::from(number(16)));
    let at = file.len() as u64;
    file.extend(b"PK\x06\x06");
    file.extend(44_u64.to_le_bytes());
    file.extend([0; 12]);
    file.extend([2, 2, length, offset].map(u64::to_le_bytes).concat());
    file.extend(b"PK\x06\x07\0\0\0\0");
    file.extend(at.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    let mut short = record.clone();
    short[8..20].fill(0xff);
    check(&[&file[..], &short].concat(), &[]);
    check(&[&file[..], &record].concat(), &[]);
    short[16] = 1;
    check(&[&file[..], &short].concat(), &[Flaw::HeadersDiffer]);
}

#[test]
fn what_readers_see_differently_is_a_flaw() {
    check(&zip(&[part("data.pkl"), part("data.pkl")]), &[Flaw::DuplicateName]);
    check(&zip(&[part("data.pkl"), part("DATA.pkl")]), &[Flaw::DuplicateName]);
    check(&zip(&[Part { local_name: "b", ..part("a") }]), &[Flaw::HeadersDiffer]);
    let lying = Part { local_size: Some(3), ..part("a") };
    check(&zip(&[lying]), &[Flaw::HeadersDiffer]);
    check(&zip(&[part("a"), Part { gap: 5, ..part("b") }]), &[Flaw::Gap]);
    check(&zip(&[Part { gap: 5, ..part("b") }]), &[Flaw::Gap]);
    for name in ["../a", "/a", "a/../b", "c:a", "a\\b"] {
        check(&zip(&[part(name)]), &[Flaw::BadName]);
    }
    check(&zip(&[Part { flags: 1, ..part("a") }]), &[Flaw::Unreadable]);
    check(&zip(&[Part { method: 14, ..part("a") }]), &[Flaw::Unreadable]);
}

#[test]
fn what_stands_around_an_archive_is_a_flaw() {
    let file = zip(&[part("a")]);
    check(&[b"#!/bin/sh\n", &file[..]].concat(), &[Flaw::Gap]);
    check(&[&file[..], b"x"].concat(), &[Flaw::Comment]);
    // An archive within the comment of another: the last end counts for some, the first for others.
    let other = zip(&[part("b")]);
    assert!(!look(&[&file[..], &other].concat()).flaws.is_empty());
    // An entry that the directory does not have.
    let mut hidden = zip(&[part("a"), part("b")]);
    let directory = hidden.len() - 22 - 2 * (46 + 1);
    hidden.drain(directory..=directory + 46);
    hidden.truncate(hidden.len() - 22);
    end(&mut hidden, 1, 46 + 1, directory);
    check(&hidden, &[Flaw::Gap]);
}

#[test]
fn what_has_no_directory_is_none() {
    for file in [&b""[..], b"PK\x03\x04", b"PK\x05\x06", &[0; 100]] {
        check(file, &[Flaw::NoDirectory]);
    }
    let mut cut = zip(&[part("a")]);
    let at = cut.len() - 22 - 20;
    cut[at..at + 20].fill(7);
    assert!(look(&cut).flaws.contains(&Flaw::NoDirectory));
}

proptest! {
    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = look(&noise);
        let _ = Local::read(&noise);
    }

    #[test]
    fn a_changed_archive_never_panics_and_bytes_around_it_are_seen(
        changes in prop::collection::vec((0_usize..250, any::<u8>()), 0..6),
        around in prop::collection::vec(any::<u8>(), 1..60),
    ) {
        let whole = zip(&[part("a/data.pkl"), Part { flags: 8, ..part("a/data/0") }]);
        let mut file = whole.clone();
        for (at, byte) in changes {
            let at = at % file.len();
            file[at] = byte;
        }
        let _ = look(&file);
        prop_assert!(!look(&[&whole[..], &around].concat()).flaws.is_empty());
        prop_assert!(!look(&[&around[..], &whole].concat()).flaws.is_empty());
    }
}
