//! Hexadecimal text of fixed-size byte arrays.
//!
//! Reads both cases and writes lower case. It does no more than `hash` and `id` need.

use std::fmt;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Why a text is not the hexadecimal form of so many bytes.
pub(crate) fn reason(bytes: usize) -> String {
    format!("expected {} hexadecimal digits", 2 * bytes)
}

/// Reads exactly `2 * N` digits.
pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// The two digits of each byte.
pub(crate) fn digits(bytes: &[u8; 32]) -> [u8; 64] {
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// Writes two digits for each of at most 32 bytes.
pub(crate) fn write(bytes: &[u8], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut padded = [0; 32];
    padded[..bytes.len()].copy_from_slice(bytes);
    let text = digits(&padded);
    out.write_str(str::from_utf8(&text[..2 * bytes.len()]).expect("hexadecimal digits are ASCII"))
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
