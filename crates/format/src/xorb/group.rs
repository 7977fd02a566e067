//! Byte grouping by four: the first bytes of all groups of four, then the second ones, and so on.
//!
//! Weights gain from it, since the bytes that hold exponents come to lie side by side. The loops
//! go through whole words, which the compiler turns into vector code.

/// The four lanes that so many bytes are grouped into: the first of them take one more each for
/// what is left over.
fn lane_lengths(length: usize) -> [usize; 4] {
    std::array::from_fn(|lane| (length + 3 - lane) / 4)
}

/// Groups the bytes of `plain` into `grouped`, which is as long.
pub(super) fn split(plain: &[u8], grouped: &mut [u8]) {
    assert_eq!(plain.len(), grouped.len());
    let [first, second, third, _] = lane_lengths(plain.len());
    let (a, rest) = grouped.split_at_mut(first);
    let (b, rest) = rest.split_at_mut(second);
    let (c, d) = rest.split_at_mut(third);

    let (words, over) = plain.as_chunks();
    for (lane, byte) in [&mut *a, &mut *b, &mut *c].into_iter().zip(over) {
        lane[words.len()] = *byte;
    }
    let count = words.len();
    let (a, b, c, d) = (&mut a[..count], &mut b[..count], &mut c[..count], &mut d[..count]);
    for i in 0..count {
        [a[i], b[i], c[i], d[i]] = u32::from_le_bytes(words[i]).to_le_bytes();
    }
}

/// Puts the bytes of `grouped` back into their order, into `plain`, which is as long.
pub(super) fn join(grouped: &[u8], plain: &mut [u8]) {
    assert_eq!(grouped.len(), plain.len());
    let [first, second, third, _] = lane_lengths(plain.len());
    let (a, rest) = grouped.split_at(first);
    let (b, rest) = rest.split_at(second);
    let (c, d) = rest.split_at(third);

    let (words, over) = plain.as_chunks_mut();
    for (lane, byte) in [a, b, c].into_iter().zip(over) {
        *byte = lane[words.len()];
    }
    let count = words.len();
    let (a, b, c, d) = (&a[..count], &b[..count], &c[..count], &d[..count]);
    for i in 0..count {
        let word =
            u32::from(a[i]) | u32::from(b[i]) << 8 | u32::from(c[i]) << 16 | u32::from(d[i]) << 24;
        words[i] = word.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grouped(plain: &[u8]) -> Vec<u8> {
        let mut grouped = vec![0; plain.len()];
        split(plain, &mut grouped);
        grouped
    }

    #[test]
    fn order_is_that_of_clients() {
        assert_eq!(grouped(&[0, 1, 2, 3, 4]), [0, 4, 1, 2, 3]);
        assert_eq!(grouped(&[0, 1, 2, 3, 4, 5, 6]), [0, 4, 1, 5, 2, 6, 3]);
        assert_eq!(grouped(&[]), []);
        assert_eq!(grouped(&[0, 1]), [0, 1]);
    }

    proptest! {
        #[test]
        fn joining_undoes_splitting(plain: Vec<u8>) {
            let grouped = grouped(&plain);
            let expected: Vec<_> =
                (0..4).flat_map(|lane| plain.iter().skip(lane).step_by(4).copied()).collect();
            prop_assert_eq!(&grouped, &expected);
            let mut joined = vec![0; plain.len()];
            join(&grouped, &mut joined);
            prop_assert_eq!(joined, plain);
        }
    }
}
