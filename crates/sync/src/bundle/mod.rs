//! Signed files that carry repos across an air gap, whole or as a difference.
