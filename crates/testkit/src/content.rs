//! Content for tests and benches, the same on every machine and in every run.
//!
//! It imitates what a hub holds: bytes that do not compress, weights in bfloat16, and text that
//! repeats itself. Nothing here is random beyond its seed.

/// `length` bytes that look random, from the generator `SplitMix64`. The test vectors of the Xet
/// formats are stated over these.
pub fn splitmix(seed: u64, length: usize) -> Vec<u8> {
    let mut numbers = Splitmix { state: seed };
    let mut content = Vec::with_capacity(length.next_multiple_of(8));
    while content.len() < length {
        content.extend_from_slice(&numbers.next().to_le_bytes());
    }
    content.truncate(length);
    content
}

/// `length` bytes of weights in bfloat16, as a trained layer has them: normally distributed around
/// zero with a deviation of 0.02. Their exponents repeat and their mantissas do not, so that only
/// compression that groups bytes gains anything.
pub fn bf16_weights(seed: u64, length: usize) -> Vec<u8> {
    let mut numbers = Splitmix { state: seed };
    let mut content = Vec::with_capacity(length.next_multiple_of(2));
    while content.len() < length {
        let weight = numbers.next_normal() * 0.02;
        let [_, _, low, high] = weight.to_le_bytes();
        content.extend_from_slice(&[low, high]);
    }
    content.truncate(length);
    content
}

/// `length` bytes of weights in float32, distributed as those of [`bf16_weights`].
pub fn f32_weights(seed: u64, length: usize) -> Vec<u8> {
    let mut numbers = Splitmix { state: seed };
    let mut content = Vec::with_capacity(length.next_multiple_of(4));
    while content.len() < length {
        let weight = numbers.next_normal() * 0.02;
        content.extend_from_slice(&weight.to_le_bytes());
    }
    content.truncate(length);
    content
}

/// `length` bytes of lines that differ a little from each other, as a vocabulary or a log does:
/// they compress well, and chunks of them are cut at content, not at the maximum.
pub fn repetitive(seed: u64, length: usize) -> Vec<u8> {
    let mut numbers = Splitmix { state: seed };
    let mut content = Vec::with_capacity(length + 64);
    while content.len() < length {
        let number = numbers.next();
        let line = format!("  \"token-{:04}\": {},\n", number % 5000, number >> 40);
        content.extend_from_slice(line.as_bytes());
    }
    content.truncate(length);
    content
}

/// Eight uniform numbers of width 65,536 have this deviation together.
const SUM_DEVIATION: f32 = 65_536.0 * 0.816_496_6;

struct Splitmix {
    state: u64,
}

impl Splitmix {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = self.state;
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Close to a standard normal distribution, with integers up to the last step so that no
    /// machine rounds differently: the sum of 8 numbers of 16 bits, centred.
    fn next_normal(&mut self) -> f32 {
        let mut sum = -4 * 65_535;
        for number in [self.next(), self.next()] {
            for part in number.to_le_bytes().chunks_exact(2) {
                sum += i32::from(u16::from_le_bytes([part[0], part[1]]));
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "the sum has 20 bits, the mantissa 24")]
        let sum = sum as f32;
        sum / SUM_DEVIATION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_starts_as_the_format_states() {
        let expected = [
            0x95, 0x6e, 0xeb, 0x2f, 0x26, 0x32, 0xd7, 0xbd, 0x03, 0xf1, 0x66, 0xb2, 0x33, 0xe3,
            0xef, 0x28,
        ];
        assert_eq!(splitmix(42, 16), expected);
        assert_eq!(splitmix(42, 11), expected[..11]);
    }

    #[test]
    fn lengths_are_exact_and_seeds_matter() {
        for generate in [splitmix, bf16_weights, f32_weights, repetitive] {
            for length in [0, 1, 7, 1001] {
                assert_eq!(generate(1, length).len(), length);
            }
            assert_ne!(generate(1, 1000), generate(2, 1000));
            assert_eq!(generate(1, 1000), generate(1, 2000)[..1000]);
        }
    }

    #[test]
    fn weights_have_the_deviation_they_claim() {
        let content = f32_weights(5, 400_000);
        let weights = content
            .chunks_exact(4)
            .map(|bytes| f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])));
        let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
        for weight in weights {
            sum += weight;
            squares += weight * weight;
            count += 1.0;
        }
        assert!((sum / count).abs() < 0.001);
        assert!(((squares / count).sqrt() - 0.02).abs() < 0.001);
    }
}
