//! What tests of the whole workspace share, so that each states its own case only.
//!
//! Never a dependency of anything that is shipped.

pub mod clock;
pub mod content;
pub mod fault;
pub mod hub;
pub mod rgw;
pub mod s3;
pub mod served;
pub mod sim;
pub mod xet;
