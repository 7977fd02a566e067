//! hash_tree.
