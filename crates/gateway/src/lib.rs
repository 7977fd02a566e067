//! The dialects that clients speak over HTTP: the hub API, Xet, LFS and operations.
//!
//! One folder for each dialect; no rule of the domain lives here.
