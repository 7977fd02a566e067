//! The members of a cluster, for its tracker: with whose rights they read, and what they may have.

use ballast_format::hash::XorbHash;
use ballast_format::log::NodeRole;
use ballast_format::name::NodeName;
use ballast_node::access::Caller;
use ballast_store::env::SharedEnv;
use bytes::Bytes;

use super::cache::{CheckPermit, Permitted};
use super::tracker::Members;
use crate::cluster::{PeerKey, PeerName, PeerRole, Registry, check_permit, sign_permit};

impl Members for Registry {
    fn caller(&self, node: &PeerName) -> Option<Caller> {
        let role = match node.role() {
            PeerRole::Hub => return None,
            PeerRole::Node => NodeRole::Node,
            PeerRole::Region => NodeRole::Region,
        };
        self.hub().caller_of_member(role, &NodeName::parse(node.as_str()).ok()?)
    }

    fn permit(&self, node: &PeerName, xorbs: &[XorbHash], until_ms: u64) -> Bytes {
        let signed = sign_permit(self.authority().permits(), node, xorbs, until_ms);
        signed.unwrap_or_else(|error| {
            // It is good for nothing then, and whoever is shown it says so.
            tracing::error!(%error, "a permit could not be written");
            Bytes::new()
        })
    }
}

/// Believes permits that the owner of this key has signed.
pub fn signed_by(signer: PeerKey, env: &SharedEnv) -> CheckPermit {
    let env = SharedEnv::clone(env);
    Box::new(move |peer, permit| {
        let permit = check_permit(permit, &signer, peer, env.now_ms());
        let permit = permit.map_err(|error| error.to_string())?;
        Ok(Permitted { xorbs: permit.xorbs().to_vec(), until_ms: permit.until_ms })
    })
}
