//! Which requests are one download.
//!
//! Clients differ in what they send while they load one repo: some mark metadata calls, some ask
//! for bytes at once, some ask the hub for headers only and take the bytes by Xet or LFS; and what
//! they say of themselves changes from file to file. What stays the same is who they are and where
//! they call from, so that is the group.

use ballast_node::access::Repo;

use crate::call::Call;

/// Counts a request for content, once for all of its group.
pub(crate) fn download(call: &Call, repo: &Repo) {
    let user = call.caller.user_id().map_or_else(String::new, |user| user.to_string());
    call.gateway.hub.count_download(repo, &format!("{} {user}", call.peer));
}
