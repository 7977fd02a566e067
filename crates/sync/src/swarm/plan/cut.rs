//! How a file is cut into pieces, and the pieces dealt to stripes.
//!
//! The file's size says it all, so nodes and tracker need not tell each other. Pieces have equal
//! lengths, and a chunk belongs to the piece in which it begins: a piece is whole chunks. Since no
//! chunk is as long as the shortest piece, only the last piece can be one in which none begins.

use std::ops::Range;

use ballast_format::limits::MAX_CHUNK_BYTES;

/// Stripes of a file that has as many pieces.
///
/// In eight trees eight hosts share the work of passing on, each in a tree of its own, and a
/// thousand hosts are four hops deep. With more trees each hop takes longer, with fewer one slow
/// host holds up more (`docs/adr/0052-a-swarm-is-a-forest.md` has the figures).
pub const STRIPES: u32 = 8;
/// The shortest piece: longer than any chunk.
pub const SHORTEST_PIECE: u64 = 256 << 10;
/// The longest piece.
pub const LONGEST_PIECE: u64 = 4 << 20;
/// Pieces of a file that is neither small nor large, at most; at least half as many. To have one at
/// the rate of a stripe, and pass it on, takes a host 1 to 2 % of the time that the file takes.
const PIECES: u64 = 1024;

const _: () = assert!(SHORTEST_PIECE > MAX_CHUNK_BYTES as u64, "a piece has a chunk");

/// How a file of some size is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    size: u64,
    piece_bytes: u64,
    stripes: u32,
}

impl Cut {
    /// The cut of a file of this size.
    pub fn of(size: u64) -> Self {
        let wanted = size.div_ceil(PIECES).next_power_of_two();
        let piece_bytes = wanted.clamp(SHORTEST_PIECE, LONGEST_PIECE);
        let pieces = size.div_ceil(piece_bytes);
        let stripes = u32::try_from(pieces).unwrap_or(STRIPES).clamp(1, STRIPES);
        Self { size, piece_bytes, stripes }
    }

    /// The size of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How long a piece is, but for the last and for what its first and last chunk stand out.
    pub fn piece_bytes(&self) -> u64 {
        self.piece_bytes
    }

    /// How many stripes there are: one at least.
    pub fn stripes(&self) -> u32 {
        self.stripes
    }

    /// How many pieces there are.
    pub fn pieces(&self) -> u64 {
        self.size.div_ceil(self.piece_bytes)
    }

    /// How many of them are of a stripe.
    pub fn pieces_of(&self, stripe: u32) -> u64 {
        self.pieces().saturating_sub(u64::from(stripe)).div_ceil(u64::from(self.stripes))
    }

    /// The piece of a chunk that begins at this byte of the file.
    pub fn piece_at(&self, start: u64) -> u64 {
        start / self.piece_bytes
    }

    /// The stripe of a piece.
    pub fn stripe_of(&self, piece: u64) -> u32 {
        u32::try_from(piece % u64::from(self.stripes)).unwrap_or(0)
    }

    /// The pieces of a stripe, in the file's order.
    pub fn stripe(&self, stripe: u32) -> impl Iterator<Item = u64> + use<> {
        (u64::from(stripe)..self.pieces()).step_by(self.stripes as usize)
    }

    /// Where chunks of a piece begin.
    pub fn starts(&self, piece: u64) -> Range<u64> {
        let start = piece.saturating_mul(self.piece_bytes).min(self.size);
        start..start.saturating_add(self.piece_bytes).min(self.size)
    }
}

#[cfg(test)]
mod tests {
    use ballast_format::limits::MAX_FILE_BYTES;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn files_of_all_sizes_have_pieces_of_a_good_size() {
        let shape = |size| {
            let cut = Cut::of(size);
            (cut.pieces(), cut.piece_bytes(), cut.stripes())
        };
        assert_eq!(shape(0), (0, SHORTEST_PIECE, 1));
        assert_eq!(shape(1), (1, SHORTEST_PIECE, 1));
        assert_eq!(shape(1 << 20), (4, SHORTEST_PIECE, 4));
        assert_eq!(shape(128 << 20), (512, SHORTEST_PIECE, STRIPES));
        assert_eq!(shape(1 << 30), (1024, 1 << 20, STRIPES));
        assert_eq!(shape(100 << 30), (25_600, LONGEST_PIECE, STRIPES));
    }

    proptest! {
        #[test]
        fn each_byte_is_in_one_piece_and_each_piece_in_one_stripe(
            size in prop_oneof![0..(64u64 << 20), 0..=MAX_FILE_BYTES],
            at in any::<u64>(),
        ) {
            let cut = Cut::of(size);
            let by_stripe = (0..cut.stripes()).map(|stripe| cut.pieces_of(stripe));
            prop_assert_eq!(by_stripe.sum::<u64>(), cut.pieces());
            prop_assert!(size < (64 << 20) || cut.pieces() >= 256);
            if let Some(start) = at.checked_rem(size) {
                let piece = cut.piece_at(start);
                prop_assert!(cut.starts(piece).contains(&start));
                prop_assert!(cut.stripe(cut.stripe_of(piece)).any(|other| other == piece));
            }
        }
    }
}
