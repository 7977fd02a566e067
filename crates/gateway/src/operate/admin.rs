//! Administration.
use crate::call::Call;
use crate::error::{Answer, Failure};
pub(crate) async fn route(_call: Call, _segments: &[&str]) -> Answer { Err(Failure::no_route()) }
