//! upload/commit.
