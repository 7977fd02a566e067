//! What a file is, by its first bytes and its name, and what a scan of it finds.

use std::ops::Range;

use ballast_format::pickle::Problem;

use super::archive;
use super::config;
use super::name::Class;
use super::source::{Budget, Source};
use super::stream::{Found, pickles};
use super::verdict::{Scan, Status};
use crate::error::Result;

/// The first bytes of a file, by which it is told what it is.
pub(super) const HEAD_BYTES: u64 = 512;
/// How large a configuration may be that is looked into.
pub(super) const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// The longest header of an array.
const MAX_ARRAY_HEADER: u64 = 1 << 20;
/// How far a file is followed that is probably no pickle.
const GUESS_BYTES: u64 = 1 << 20;

/// What content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Zip,
    Array,
    /// An archive, or something compressed, of a kind that is not looked into.
    Packed(&'static str),
    /// What Keras and others keep arrays in, and perhaps a configuration.
    Hdf5,
    /// One for certain: what can't be followed is not trusted.
    Pickle,
    /// Perhaps one: it counts if it imports something.
    Perhaps,
    /// None.
    Other,
}

/// How archives and compressed files begin that are not looked into; a tar file says it later.
const PACKED: [(&[u8], &str); 6] = [
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
];
const TAR: (Range<usize>, &[u8]) = (257..262, b"ustar");

fn packed(head: &[u8]) -> Option<&'static str> {
    if head.get(TAR.0) == Some(TAR.1) {
        return Some("tar");
    }
    PACKED.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, kind)| *kind)
}

/// What content is that begins so and has such a name.
pub(super) fn form(class: Class, head: &[u8]) -> Form {
    let has_protocol = matches!(head, [0x80, 0..=5, ..]);
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        Form::Zip
    } else if head.starts_with(b"\x93NUMPY") {
        Form::Array
    } else if head.starts_with(b"\x89HDF\r\n\x1a\n") {
        Form::Hdf5
    } else if let Some(kind) = packed(head) {
        Form::Packed(kind)
    } else {
        match class {
            Class::Pickle | Class::Array => Form::Pickle,
            Class::Unknown if has_protocol => Form::Pickle,
            // The length in front of other formats may look like a protocol.
            Class::Inert | Class::Config if has_protocol => Form::Perhaps,
            Class::Unknown => Form::Perhaps,
            Class::Inert | Class::Config => Form::Other,
        }
    }
}

/// Scans a file.
pub(super) async fn scan(source: &Source, class: Class) -> Result<Scan> {
    let mut scan = Scan::default();
    let mut budget = Budget::new();
    let size = source.size();
    if size == 0 {
        return Ok(scan);
    }
    let head = source.read(0..HEAD_BYTES.min(size)).await?;
    match form(class, &head) {
        Form::Zip => archive::scan(source, &mut scan, &mut budget).await?,
        Form::Array => array(source, 0..size, &mut scan, &mut budget).await?,
        Form::Packed(kind) => {
            scan.kind(kind);
            // Whoever unpickles a file by its name gets to see something else than we do.
            let is_pickle = class == Class::Pickle;
            let status = if is_pickle { Status::Suspicious } else { Status::Caution };
            scan.note(status, format!("not scanned: it is {kind}, which is not looked into"));
        }
        Form::Hdf5 => {
            scan.kind("hdf5");
            let problem = "not scanned: it is HDF5, in which Keras keeps models with their code";
            scan.note(Status::Caution, problem);
        }
        Form::Pickle => {
            let found = pickles(source, 0..size, &mut budget).await?;
            found.reports.into_iter().for_each(|report| scan.add(report));
        }
        Form::Perhaps => {
            let found = pickles(source, 0..size.min(GUESS_BYTES), &mut budget).await?;
            add_guess(found, size, class, &mut scan);
        }
        Form::Other => {}
    }
    if class == Class::Config && size <= MAX_CONFIG_BYTES {
        let text = source.read(0..size).await?;
        config::look(&text, &mut scan);
    }
    Ok(scan)
}

/// A file that nobody said is a pickle: one if it imports something before it breaks off, as far
/// as any program would have run it.
pub(super) fn add_guess(found: Found, size: u64, class: Class, scan: &mut Scan) {
    let is_name = |text: &str| {
        !text.is_empty()
            && text.split('.').all(|part| {
                part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                    && !part.is_empty()
                    && !part.as_bytes()[0].is_ascii_digit()
            })
    };
    let imports = found.reports.iter().flat_map(|report| &report.imports);
    let is_real = imports.clone().any(|import| is_name(&import.module) && is_name(&import.name));
    let is_inert = matches!(class, Class::Inert | Class::Config);
    if is_real && (found.is_whole || !is_inert) {
        found.reports.into_iter().for_each(|report| scan.add(report));
    } else if found.is_whole && imports.count() == 0 && size > 16 && !is_inert {
        // A pickle of plain values: what is behind it may be another that was not read.
        found.reports.into_iter().for_each(|report| scan.add(report));
    }
}

/// An array file: its header, and a pickle if its elements are objects.
pub(super) async fn array(
    source: &Source,
    range: Range<u64>,
    scan: &mut Scan,
    budget: &mut Budget,
) -> Result<()> {
    scan.kind("numpy");
    let end = range.end.min(range.start + MAX_ARRAY_HEADER);
    let head = source.read(range.start..end).await?;
    match objects(&head) {
        Objects::None => {}
        Objects::From(at) => {
            let found = pickles(source, range.start + at..range.end, budget).await?;
            found.reports.into_iter().for_each(|report| scan.add(report));
        }
        Objects::Unclear => {
            scan.kind("pickle");
            scan.note(Status::Suspicious, "the array's header can't be read");
        }
    }
    Ok(())
}

/// Whether an array's elements are objects, which stand in a pickle behind the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Objects {
    None,
    /// From this byte on.
    From(u64),
    Unclear,
}

pub(super) fn objects(head: &[u8]) -> Objects {
    let length = match head {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, low, high, ..] => {
            (10, usize::from(u16::from_le_bytes([*low, *high])))
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d, ..] => {
            let length = u32::from_le_bytes([*a, *b, *c, *d]);
            (12, usize::try_from(length).unwrap_or(usize::MAX))
        }
        _ => return Objects::Unclear,
    };
    let (start, length): (usize, usize) = length;
    let text = start.checked_add(length).and_then(|end| head.get(start..end));
    let Some(text) = text.and_then(|text| std::str::from_utf8(text).ok()) else {
        return Objects::Unclear;
    };
    // Python evaluates the header; only the one way in which it is written is believed.
    let plain = |c: char| (c.is_ascii_graphic() || c.is_ascii_whitespace()) && c != '\\';
    if !text.contains("'descr': ") || !text.chars().all(plain) {
        return Objects::Unclear;
    }
    // The last three as older versions wrote it.
    let said = ["|O", "O", "|O4", "|O8"].map(|element| format!("'descr': '{element}',"));
    let is_object = said.iter().any(|said| text.contains(said));
    match (text.contains('O'), is_object) {
        (false, _) => Objects::None,
        (true, true) => Objects::From((start + length) as u64),
        // A record with objects, or a name with this letter.
        (true, false) => Objects::Unclear,
    }
}

/// The problem of a file that is not followed as far as it goes.
pub(super) fn too_large(scan: &mut Scan) {
    scan.note(Status::Suspicious, Problem::TooLarge);
}
