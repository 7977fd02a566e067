//! info.
use super::place::Context;
use crate::call::Call;
use crate::error::{Answer, Failure};
/// a
pub(super) async fn answer(_: &Context<'_>, _: Call, _: &[&str]) -> Answer { Err(Failure::no_route()) }
