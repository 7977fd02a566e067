//! The two headers of an entry.

use super::{Entry, Method};

/// How much of a file to read for the header in front of an entry: its fixed part, its name, and
/// as much padding as tools put there.
pub const MAX_LOCAL_BYTES: u64 = 30 + 1024 + 4096;

/// An entry as the header in front of its content has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Its name.
    pub name: String,
    /// How it is packed.
    pub method: Method,
    /// The checksum of its content.
    pub crc32: u32,
    /// Bytes of its packed content.
    pub packed: u64,
    /// Bytes of its content.
    pub size: u64,
    /// Whether sizes and checksum stand behind the content.
    pub has_descriptor: bool,
    /// Whether it is encrypted.
    pub is_encrypted: bool,
    /// The length of this header.
    pub header_bytes: u64,
}

impl Local {
    /// Reads a header at the beginning of these bytes.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        if fields.u32()? != u32::from_le_bytes(*b"PK\x03\x04") {
            return None;
        }
        fields.skip(2)?;
        let flags = fields.u16()?;
        let method = method(fields.u16()?);
        fields.skip(4)?;
        let crc32 = fields.u32()?;
        let (mut packed, mut size) = (u64::from(fields.u32()?), u64::from(fields.u32()?));
        let (name, extra) = (usize::from(fields.u16()?), usize::from(fields.u16()?));
        let name = String::from_utf8(fields.take(name)?.to_vec()).ok()?;
        let extra_bytes = fields.take(extra)?;
        widen(extra_bytes, [&mut size, &mut packed])?;
        Some(Self {
            header_bytes: 30 + name.len() as u64 + extra as u64,
            name,
            method,
            crc32,
            packed,
            size,
            has_descriptor: flags & DESCRIPTOR != 0,
            is_encrypted: flags & ENCRYPTED != 0,
        })
    }
}

const ENCRYPTED: u16 = 0x2041;
const DESCRIPTOR: u16 = 0x8;
/// What stands where a number does not fit.
const MOST: u64 = 0xffff_ffff;

/// The next entry of the directory, and whether its name was plain text.
pub(super) fn central(fields: &mut Fields<'_>) -> Option<(Entry, bool)> {
    if fields.u32()? != u32::from_le_bytes(*b"PK\x01\x02") {
        return None;
    }
    fields.skip(2 + 2)?;
    let flags = fields.u16()?;
    let method = method(fields.u16()?);
    fields.skip(4)?;
    let crc32 = fields.u32()?;
    let (mut packed, mut size) = (u64::from(fields.u32()?), u64::from(fields.u32()?));
    let (name, extra) = (usize::from(fields.u16()?), usize::from(fields.u16()?));
    let comment = usize::from(fields.u16()?);
    let disk = fields.u16()?;
    fields.skip(2 + 4)?;
    let mut offset = u64::from(fields.u32()?);
    let name = fields.take(name)?;
    let extra = fields.take(extra)?;
    fields.skip(comment)?;
    widen(extra, [&mut size, &mut packed, &mut offset])?;
    let text = String::from_utf8_lossy(name).into_owned();
    let is_plain = disk == 0 && text.bytes().eq(name.iter().copied());
    let entry = Entry {
        name: text,
        method,
        crc32,
        packed,
        size,
        offset,
        has_descriptor: flags & DESCRIPTOR != 0,
        is_encrypted: flags & ENCRYPTED != 0,
    };
    Some((entry, is_plain))
}

fn method(number: u16) -> Method {
    match number {
        0 => Method::Stored,
        8 => Method::Deflated,
        other => Method::Other(other),
    }
}

/// Reads those of the numbers that do not fit from the extra field that has them.
fn widen<const N: usize>(extra: &[u8], numbers: [&mut u64; N]) -> Option<()> {
    if numbers.iter().all(|number| **number != MOST) {
        return Some(());
    }
    let mut fields = Fields::new(extra);
    while !fields.is_empty() {
        let (id, length) = (fields.u16()?, usize::from(fields.u16()?));
        let field = fields.take(length)?;
        if id == 1 {
            let mut large = Fields::new(field);
            for number in numbers {
                if *number == MOST {
                    *number = large.u64()?;
                }
            }
            return Some(());
        }
    }
    // They were exactly so large, or nobody knows: not what a tool writes.
    None
}

/// Numbers, little end first, taken from the front.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(|_| ())
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}
