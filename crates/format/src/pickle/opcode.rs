//! The instructions of protocols 0 to 5, and what follows each in the stream.

/// What stands behind an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Argument {
    /// Nothing.
    None,
    /// So many bytes.
    Fixed(usize),
    /// So many lines.
    Lines(usize),
    /// A length of so many bytes, little end first, and so much content.
    Counted(usize),
    /// The same with four bytes that may be a negative number, which is an error.
    Signed,
}

/// What follows an instruction; `None`: there is no such instruction.
pub(super) fn argument(opcode: u8) -> Option<Argument> {
    Some(match opcode {
        b'(' | b'.' | b'0' | b'1' | b'2' | b'N' | b'Q' | b'R' | b'a' | b'b' | b'd' | b'}'
        | b'e' | b'l' | b']' | b'o' | b's' | b't' | b')' | b'u' => Argument::None,
        // NEWOBJ, TUPLE1 to TUPLE3, NEWTRUE, NEWFALSE.
        0x81 | 0x85..=0x89 => Argument::None,
        // EMPTY_SET, ADDITEMS, FROZENSET, NEWOBJ_EX, STACK_GLOBAL, MEMOIZE.
        0x8f..=0x94 => Argument::None,
        // NEXT_BUFFER, READONLY_BUFFER.
        0x97 | 0x98 => Argument::None,
        // PROTO, EXT1, EXT2, EXT4.
        0x80 | 0x82 => Argument::Fixed(1),
        0x83 => Argument::Fixed(2),
        0x84 => Argument::Fixed(4),
        b'G' => Argument::Fixed(8),
        b'J' | b'j' | b'r' => Argument::Fixed(4),
        b'K' | b'h' | b'q' => Argument::Fixed(1),
        b'M' => Argument::Fixed(2),
        // FRAME: a hint of how much comes; the bytes are the same without it.
        0x95 => Argument::Fixed(8),
        b'F' | b'I' | b'L' | b'P' | b'S' | b'V' | b'g' | b'p' => Argument::Lines(1),
        b'c' | b'i' => Argument::Lines(2),
        b'U' | b'C' | 0x8a | 0x8c => Argument::Counted(1),
        b'X' | b'B' => Argument::Counted(4),
        b'T' | 0x8b => Argument::Signed,
        // BINUNICODE8, BINBYTES8, BYTEARRAY8.
        0x8d | 0x8e | 0x96 => Argument::Counted(8),
        _ => return None,
    })
}
