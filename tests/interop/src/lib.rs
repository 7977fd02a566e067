//! Holds nothing but tests: what this program writes is read by the crates of the reference
//! client, and what they write is read by this program.
//!
//! It is a package of its own so that the formats' own tests need not build those crates.
