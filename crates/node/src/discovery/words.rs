//! The words of a text, each once: what is searched of a card.
//!
//! Words of a query hold no spaces, so a word that is found in a text is found in the list of its
//! words, and a long card takes a fraction of its length in memory.

use std::collections::HashSet;

/// What the words of one repo may take.
const MAX_BYTES: usize = 64 << 10;
/// Longer ones are addresses and pictures in letters; nobody types them.
const MAX_WORD_BYTES: usize = 200;

/// The words of all texts in lower case, in the order in which they first occur.
pub fn each_once<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut seen: HashSet<String> = HashSet::new();
    let mut words = String::new();
    for text in texts {
        for word in text.split_whitespace() {
            let word = cut(word, MAX_WORD_BYTES).to_lowercase();
            if seen.contains(&word) {
                continue;
            }
            if words.len() + word.len() >= MAX_BYTES {
                return words;
            }
            words.push_str(&word);
            words.push(' ');
            seen.insert(word);
        }
    }
    words
}

/// Text up to a number of bytes, cut between letters.
pub fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_cut_between_letters() {
        assert_eq!(cut("grün", 3), "gr");
        assert_eq!(cut("grün", 99), "grün");
    }

    #[test]
    fn a_word_stands_once_in_lower_case() {
        let words = each_once(["The  cat\nsaw THE", "Cat"].into_iter());
        assert_eq!(words, "the cat saw ");
    }

    #[test]
    fn the_end_of_a_long_card_is_found_and_memory_is_bounded() {
        let long = format!("{} needle", "hay stack ".repeat(100_000));
        assert_eq!(each_once([&*long].into_iter()), "hay stack needle ");
        let many: Vec<String> = (0..100_000).map(|n| format!("w{n} ")).collect();
        let many = many.concat();
        assert!(each_once([&*many].into_iter()).len() <= MAX_BYTES);
        let picture = "x".repeat(1 << 20);
        assert!(each_once([&*picture].into_iter()).len() <= MAX_WORD_BYTES + 1);
    }

    proptest! {
        #[test]
        fn whatever_is_in_a_word_of_the_text_is_found(text in "[a-z ]{0,200}", at in 0_usize..100) {
            let words = each_once([&*text].into_iter());
            for word in text.split_whitespace() {
                prop_assert!(words.contains(&word[at.min(word.len() - 1)..]));
            }
        }
    }
}
