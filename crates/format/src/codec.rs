//! The one way in which our stored formats write numbers, text and lists.
//!
//! Little-endian, lengths before contents, no padding. A decoder never allocates because an input
//! says so: a count is compared with the bytes that are left first. [`Format`] is what each stored
//! value begins with, so that no program takes one for another or guesses at a later layout.

use crate::error::{Error, Result};

/// One kind of stored value: how it begins, how long it may be, and how it ends.
///
/// It begins with its magic (8 bytes), its version (2) and the number of bytes that follow (4). It
/// ends with a BLAKE3 checksum of all before it, unless its name is a hash of it.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// What errors call it.
    pub what: &'static str,
    /// What says that it is one.
    pub magic: [u8; 8],
    /// The layout of its fields.
    pub version: u16,
    /// The most bytes that all of it may take.
    pub limit: usize,
    /// Whether a checksum ends it.
    pub has_checksum: bool,
}

impl Format {
    /// Bytes in front of the fields.
    pub const FRONT_BYTES: usize = 8 + 2 + 4;
    /// Bytes of a checksum.
    pub const CHECKSUM_BYTES: usize = 32;

    /// The stored bytes of a value whose fields `write` writes.
    pub fn encode(&self, write: impl FnOnce(&mut Encoder)) -> Result<Vec<u8>> {
        let mut encoder = Encoder::new();
        encoder.array(&self.magic);
        encoder.u16(self.version);
        encoder.u32(0);
        write(&mut encoder);
        let mut bytes = encoder.finish();
        let size = bytes.len() + self.checksum_bytes();
        self.check(size)?;
        let follow = u32::try_from(size - Self::FRONT_BYTES);
        let follow = follow.map_err(|_| self.too_large(size))?;
        bytes[Self::FRONT_BYTES - 4..Self::FRONT_BYTES].copy_from_slice(&follow.to_le_bytes());
        if self.has_checksum {
            let checksum = blake3::hash(&bytes);
            bytes.extend_from_slice(checksum.as_bytes());
        }
        Ok(bytes)
    }

    /// How many bytes the value has that begins with `front`, at least
    /// [`FRONT_BYTES`](Self::FRONT_BYTES) long.
    pub fn length(&self, front: &[u8]) -> Result<usize> {
        let mut decoder = Decoder::new(self.what, front);
        if decoder.array()? != self.magic {
            return Err(decoder.malformed("it does not begin as one"));
        }
        let version = decoder.u16()?;
        if version != self.version {
            return Err(Error::UnknownVersion { what: self.what, version: u64::from(version) });
        }
        let length = Self::FRONT_BYTES.saturating_add(decoder.u32()? as usize);
        self.check(length)?;
        Ok(length)
    }

    /// Stands at the first field of `bytes`, which are exactly one value.
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Decoder<'a>> {
        let length = self.length(bytes)?;
        if bytes.len() < length {
            return Err(Error::Truncated { what: self.what });
        }
        let mut decoder = Decoder::new(self.what, bytes);
        if bytes.len() > length {
            return Err(decoder.malformed(format!("{} bytes follow its end", bytes.len() - length)));
        }
        if self.has_checksum {
            let end = length.checked_sub(Self::CHECKSUM_BYTES).filter(|e| *e >= Self::FRONT_BYTES);
            let end = end.ok_or(Error::Truncated { what: self.what })?;
            let (content, checksum) = bytes.split_at(end);
            if blake3::hash(content).as_bytes() != checksum {
                return Err(decoder.malformed("its checksum is wrong"));
            }
            decoder.rest = content;
        }
        decoder.take(Self::FRONT_BYTES)?;
        Ok(decoder)
    }

    /// The same for bytes of any version from the oldest one on; which it is.
    pub fn decode_since<'a>(&self, oldest: u16, bytes: &'a [u8]) -> Result<(u16, Decoder<'a>)> {
        let found = bytes.get(8..).and_then(|rest| rest.first_chunk()).copied();
        let found = found.map(u16::from_le_bytes);
        let version = found.filter(|version| (oldest..self.version).contains(version));
        let version = version.unwrap_or(self.version);
        Ok((version, Self { version, ..*self }.decode(bytes)?))
    }

    fn checksum_bytes(&self) -> usize {
        if self.has_checksum { Self::CHECKSUM_BYTES } else { 0 }
    }

    fn check(&self, size: usize) -> Result<()> {
        if size > self.limit { Err(self.too_large(size)) } else { Ok(()) }
    }

    fn too_large(&self, size: usize) -> Error {
        Error::TooLarge { what: self.what, size: size as u64, limit: self.limit as u64 }
    }
}

/// Writes a value's fields one after another.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// An encoder with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// One byte, 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// Bytes whose number both sides know.
    pub fn array(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    /// A length of four bytes, and the bytes.
    pub fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.array(value);
    }

    /// Text as UTF-8, as [`bytes`](Self::bytes).
    pub fn str(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// A byte that says whether a value follows, and the value.
    pub fn option<T>(&mut self, value: Option<&T>, encode: impl FnOnce(&mut Self, &T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            encode(self, value);
        }
    }

    /// A count of four bytes, and the items.
    pub fn list<T>(&mut self, items: &[T], mut encode: impl FnMut(&mut Self, &T)) {
        self.count(items.len());
        for item in items {
            encode(self, item);
        }
    }

    fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("nothing that we store has 2^32 of anything"));
    }

    /// What has been written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads what an [`Encoder`] wrote, and trusts none of it.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Reads `bytes`; errors call them `what`.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `length` bytes, as they are.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(Error::Truncated { what: self.what });
        };
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("`take` gave as many as were asked for"))
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// One byte, 0 or 1 and nothing else.
    pub fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.malformed(format!("{other} stands where 0 or 1 must"))),
        }
    }

    /// A length and as many bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    /// A length and as much UTF-8.
    pub fn str(&mut self) -> Result<&'a str> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.malformed("text is not UTF-8"))
    }

    /// A value, if one follows.
    pub fn option<T>(&mut self, decode: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        if self.bool()? { decode(self).map(Some) } else { Ok(None) }
    }

    /// A count, and as many items, each at least `smallest` bytes long.
    pub fn list<T>(
        &mut self,
        smallest: usize,
        mut decode: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let count = self.u32()? as usize;
        if count > self.rest.len() / smallest.max(1) {
            return Err(Error::Truncated { what: self.what });
        }
        (0..count).map(|_| decode(self)).collect()
    }

    /// The value is over: nothing may follow.
    pub fn finish(self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(self.malformed(format!("{} bytes follow its end", self.rest.len())))
    }

    /// An error about what is being read.
    pub fn malformed(&self, reason: impl Into<String>) -> Error {
        Error::malformed(self.what, reason)
    }
}

#[cfg(test)]
mod tests;
