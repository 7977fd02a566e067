//! listing.
use std::sync::Arc;
use ballast_format::name::RepoKind;
use crate::Gateway;
use crate::call::Call;
use crate::error::{Answer, Failure};
/// a
pub(super) async fn answer(_: &Arc<Gateway>, _: &Call, _: RepoKind) -> Answer { Err(Failure::no_route()) }
