//! Git's trees and commits, and git-lfs pointers.
#![no_main]

use ballast_format::object::{Commit, Pointer, Tree};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tree) = Tree::decode(bytes) {
        // Modes of old are written as those of today, so the bytes may differ.
        assert_eq!(Tree::decode(&tree.encode()).expect("our own tree"), tree);
        let mut other = Tree::default();
        for entry in &tree.entries {
            assert_eq!(tree.get(&entry.name), Some(entry));
            other.insert(entry.clone());
        }
        assert_eq!(other, tree);
        for entry in &tree.entries {
            assert_eq!(other.remove(&entry.name).as_ref(), Some(entry));
        }
        assert_eq!(other, Tree::default());
    }
    if let Ok(commit) = Commit::decode(bytes) {
        let again = Commit::decode(&commit.encode()).expect("our own commit");
        assert_eq!((again.tree, &again.parents), (commit.tree, &commit.parents));
        assert_eq!(
            Commit::decode(&again.encode()).expect("our own commit"),
            again
        );
    }
    if let Some(pointer) = Pointer::parse(bytes) {
        assert_eq!(Pointer::parse(pointer.encode().as_bytes()), Some(pointer));
    }
});
