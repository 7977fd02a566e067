//! manifest.
use std::sync::Arc;
use crate::Gateway;
use crate::call::Call;
use crate::error::{Answer, Failure};
/// a
pub(super) async fn answer(_: &Arc<Gateway>, _: Call, _: [&str; 2], _: &[&str]) -> Answer { Err(Failure::no_route()) }
