//! The directory of a zip archive, read so that no two readers can disagree about it.
//!
//! Programs that unpack zips differ: some believe the directory at the end, some the headers in
//! front of the contents, some search for the end, some add what stands before the beginning. An
//! archive that says the same to all of them is what the tools of this trade write: entries one
//! behind the other from the first byte on, the directory right behind them, the end record right
//! behind that and nothing else, each name once, both headers of an entry equal. Everything else is
//! reported as a [`Flaw`]; what can be read is read all the same. Nothing is unpacked here.

use std::collections::HashSet;
use std::fmt;

mod header;
#[cfg(test)]
mod tests;

pub use header::{Local, MAX_LOCAL_BYTES};

use header::Fields;

/// Entries of one archive that are looked at.
pub const MAX_ENTRIES: usize = 100_000;
/// The longest directory that is read.
pub const MAX_DIRECTORY_BYTES: u64 = 32 << 20;
/// How much of a file's end is looked at for the end record: as much as its comment may have, and
/// the records themselves.
pub const TAIL_BYTES: u64 = 22 + 65_535 + 20 + 56;

/// How the content of an entry is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// As it is.
    Stored,
    /// By `deflate`.
    Deflated,
    /// In a way that is not read.
    Other(u16),
}

/// An entry as the directory has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, as it is written.
    pub name: String,
    /// How it is packed.
    pub method: Method,
    /// The checksum of its content.
    pub crc32: u32,
    /// Bytes of its packed content.
    pub packed: u64,
    /// Bytes of its content.
    pub size: u64,
    /// Where its header begins in the file.
    pub offset: u64,
    /// Whether sizes and checksum stand behind the content.
    pub has_descriptor: bool,
    /// Whether it is encrypted.
    pub is_encrypted: bool,
}

/// Why readers may disagree about an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// There is no end record, or the directory is cut short or malformed.
    NoDirectory,
    /// Something stands before the first entry, between entries, or behind the last.
    Gap,
    /// It has a comment, in which another archive may hide, or something stands behind its end.
    Comment,
    /// A name occurs twice, also if only in upper and lower case.
    DuplicateName,
    /// A name leads outside, or is not plain text.
    BadName,
    /// The two headers of an entry differ.
    HeadersDiffer,
    /// An entry is encrypted or packed in a way that is not read.
    Unreadable,
    /// A checksum or a size is wrong.
    WrongContent,
    /// It is in parts, or has more entries than are looked at.
    TooLarge,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoDirectory => "the archive has no directory that can be read",
            Self::Gap => "the archive has bytes that belong to no entry",
            Self::Comment => "the archive does not end where its directory does",
            Self::DuplicateName => "the archive has a name twice",
            Self::BadName => "the archive has a name that leads elsewhere",
            Self::HeadersDiffer => "the archive says two things of one entry",
            Self::Unreadable => "the archive has an entry that can't be read",
            Self::WrongContent => "an entry of the archive is not what its header says",
            Self::TooLarge => "the archive is larger than is looked at",
        })
    }
}

/// Where the directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// How many entries it has.
    pub entries: u64,
    /// How many bytes stand before the archive: all offsets in it are less by so many.
    pub prefix: u64,
}

/// The entries of an archive with what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// In the order of their contents.
    pub entries: Vec<Entry>,
    /// Each flaw once, in order.
    pub flaws: Vec<Flaw>,
}

impl Directory {
    /// Notes a flaw, once.
    pub fn note(&mut self, flaw: Flaw) {
        if let Err(at) = self.flaws.binary_search(&flaw) {
            self.flaws.insert(at, flaw);
        }
    }
}

/// Finds the directory by the end of a file: its last [`TAIL_BYTES`], or all of a shorter one.
/// What is wrong with the end is noted.
pub fn find(tail: &[u8], file_bytes: u64, directory: &mut Directory) -> Option<End> {
    let found = find_end(tail, file_bytes, directory);
    if found.is_none() {
        directory.note(Flaw::NoDirectory);
    }
    found
}

fn find_end(tail: &[u8], file_bytes: u64, directory: &mut Directory) -> Option<End> {
    const END: &[u8] = b"PK\x05\x06";
    let last = tail.windows(END.len()).rposition(|window| window == END)?;
    let record = tail.get(last..last.checked_add(22)?)?;
    if tail.len() - last != 22 {
        directory.note(Flaw::Comment);
    }
    let mut fields = Fields::new(&record[4..]);
    let disks = (fields.u16()?, fields.u16()?);
    let here = u64::from(fields.u16()?);
    let all = u64::from(fields.u16()?);
    let (length, offset) = (u64::from(fields.u32()?), u64::from(fields.u32()?));
    let mut end = End { offset, length, entries: all, prefix: 0 };
    let start = file_bytes.checked_sub(tail.len() as u64)?.checked_add(last as u64)?;
    let mut directory_end = start;
    if disks != (0, 0) || here != all {
        directory.note(Flaw::TooLarge);
    }
    if let Some(large) = find_large(tail, last)? {
        let saturated = |value: u64, most: u64, large: u64| value == most || value == large;
        let agree = saturated(all, 0xffff, large.entries)
            && saturated(length, 0xffff_ffff, large.length)
            && saturated(offset, 0xffff_ffff, large.offset);
        if !agree {
            directory.note(Flaw::HeadersDiffer);
        }
        end = large;
        directory_end = start.checked_sub(20 + 56)?;
    }
    // The directory ends where the records begin; if its offset says otherwise, something was put
    // in front, and readers differ in whether they mind.
    let real = directory_end.checked_sub(end.length)?;
    end.prefix = real.saturating_sub(end.offset);
    if real != end.offset {
        directory.note(Flaw::Gap);
    }
    end.offset = real;
    if end.length > MAX_DIRECTORY_BYTES || end.entries > MAX_ENTRIES as u64 {
        directory.note(Flaw::TooLarge);
        return None;
    }
    Some(end)
}

/// The records of large archives, which stand right before the end record. The outer nothing:
/// there is a locator, and not what it leads to.
fn find_large(tail: &[u8], end: usize) -> Option<Option<End>> {
    let locator = end.checked_sub(20).map(|at| &tail[at..end]);
    if !locator.is_some_and(|locator| locator.starts_with(b"PK\x06\x07")) {
        return Some(None);
    }
    let record = tail.get(end.checked_sub(20 + 56)?..end - 20)?;
    if !record.starts_with(b"PK\x06\x06") {
        return None;
    }
    let mut fields = Fields::new(&record[4..]);
    // The length of the rest of the record: longer ones have parts that nobody writes.
    if fields.u64()? != 44 {
        return None;
    }
    fields.skip(2 + 2)?;
    if (fields.u32()?, fields.u32()?) != (0, 0) {
        return None;
    }
    let (here, all) = (fields.u64()?, fields.u64()?);
    let (length, offset) = (fields.u64()?, fields.u64()?);
    (here == all).then_some(Some(End { offset, length, entries: all, prefix: 0 }))
}

/// Reads the directory itself.
pub fn read(bytes: &[u8], end: &End, directory: &mut Directory) {
    let mut fields = Fields::new(bytes);
    for _ in 0..end.entries {
        let Some((mut entry, is_plain)) = header::central(&mut fields) else {
            directory.note(Flaw::NoDirectory);
            break;
        };
        if !is_plain {
            directory.note(Flaw::BadName);
        }
        if entry.is_encrypted || matches!(entry.method, Method::Other(_)) {
            directory.note(Flaw::Unreadable);
        }
        entry.offset = entry.offset.saturating_add(end.prefix);
        directory.entries.push(entry);
    }
    if !fields.is_empty() {
        directory.note(Flaw::NoDirectory);
    }
    check_names(directory);
    directory.entries.sort_by_key(|entry| entry.offset);
}

fn check_names(directory: &mut Directory) {
    let mut seen = HashSet::new();
    let is_duplicate =
        !directory.entries.iter().all(|entry| seen.insert(entry.name.to_ascii_lowercase()));
    let leads_out = |entry: &Entry| {
        let name = &entry.name;
        name.is_empty()
            || name.starts_with('/')
            || name.contains(['\\', '\0', ':'])
            || name.split('/').any(|part| part == "..")
    };
    if directory.entries.iter().any(leads_out) {
        directory.note(Flaw::BadName);
    }
    if is_duplicate {
        directory.note(Flaw::DuplicateName);
    }
}

/// Compares an entry with the header in front of its content. Where the content begins, and where
/// what follows it must begin; nothing if there is no header.
pub fn compare(entry: &Entry, local: Option<&Local>, directory: &mut Directory) -> Option<Place> {
    let Some(local) = local else {
        directory.note(Flaw::HeadersDiffer);
        return None;
    };
    // With a descriptor, the header may leave sizes and checksum out.
    let left_out = entry.has_descriptor && (local.crc32, local.packed, local.size) == (0, 0, 0);
    let same = (local.crc32, local.packed, local.size) == (entry.crc32, entry.packed, entry.size);
    if local.name != entry.name
        || local.method != entry.method
        || local.has_descriptor != entry.has_descriptor
        || local.is_encrypted != entry.is_encrypted
        || !(same || left_out)
    {
        directory.note(Flaw::HeadersDiffer);
    }
    if entry.method == Method::Stored && entry.packed != entry.size {
        directory.note(Flaw::HeadersDiffer);
    }
    let start = entry.offset.checked_add(local.header_bytes)?;
    let end = start.checked_add(entry.packed)?;
    Some(Place { start, end })
}

/// Where the content of an entry is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its first byte.
    pub start: u64,
    /// Behind its last byte.
    pub end: u64,
}

/// Whether what begins at `next` may follow content that ends at `end`: at once, or behind a
/// descriptor of one of the four lengths that there are.
pub fn follows(entry: &Entry, end: u64, next: u64) -> bool {
    match next.checked_sub(end) {
        Some(0) => !entry.has_descriptor,
        Some(12 | 16 | 20 | 24) => entry.has_descriptor,
        _ => false,
    }
}
