//! xorb.
