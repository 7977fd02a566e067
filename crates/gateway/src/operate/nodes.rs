//! `/api/ballast/v1/nodes`: who belongs to the hub, for its administrators.
//!
//! What a join token is, and when a node was seen, the gateway does not know: the program says who
//! does.

use std::fmt;
use std::sync::Arc;

use ballast_format::log::NodeRole;
use ballast_node::account::{NewNode, NodeView};
use ballast_node::hub::Hub;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::hub::commits::date_of;
use crate::reply;

const BODY_BYTES: u64 = 10_000;

/// When a node was heard of last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenNode {
    /// When, in unix milliseconds.
    pub at_ms: u64,
    /// Where its peers reach it.
    pub address: String,
}

/// Somebody who speaks to nodes.
pub trait MeetNodes: fmt::Debug + Send + Sync + 'static {
    /// All that a node needs to join, as one word: the secret, how to know the hub, and where it
    /// is, which is on the host that `url` names if nobody said.
    fn join_token(&self, secret: &[u8; 32], url: &str) -> String;

    /// When the node of this key was heard of last, by this process.
    fn seen(&self, key: &[u8; 32]) -> Option<SeenNode>;

    /// What nodes do at the moment.
    fn overview(&self) -> Value;

    /// A node was revoked: its connections end.
    fn look_again(&self, hub: &Hub);
}

fn role_of(text: &str) -> Result<NodeRole, Failure> {
    match text {
        "node" => Ok(NodeRole::Node),
        "region" => Ok(NodeRole::Region),
        other => Err(Failure::invalid(format!("`{other}` is no role: node or region"))),
    }
}

pub(super) fn node_role(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Node => "node",
        NodeRole::Region => "region",
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invite {
    name: String,
    role: Option<String>,
    user: Option<String>,
}

/// `POST …/nodes`: a token with which a node may join.
pub(super) async fn invite(mut call: Call) -> Answer {
    call.caller.user().map_err(|error| Failure::of(error, &call.caller))?;
    if !call.caller.is_admin() {
        let message = "only an administrator of the hub may let nodes join";
        return Err(Failure::new(StatusCode::FORBIDDEN, message));
    }
    let body: Invite = call.json(BODY_BYTES).await?;
    let meets =
        call.gateway.settings.nodes.clone().ok_or_else(|| {
            Failure::invalid("no node can join this hub\nhint: set `cluster.listen`")
        })?;
    let role = body.role.as_deref().map_or(Ok(NodeRole::Node), role_of)?;
    let new = NewNode { name: &body.name, role, user: body.user.as_deref() };
    let hub = &call.gateway.hub;
    let invited = hub.invite_node(&call.caller, &new).await;
    let invitation = invited.map_err(|error| Failure::of(error, &call.caller))?;
    let user = hub.user_of_id(invitation.node.user);
    let answer = json!({
        "name": body.name,
        "role": node_role(role),
        "user": user.map(|user| user.name.to_string()),
        "token": meets.join_token(&invitation.secret, &call.base()),
        "expiresAt": date_of(invitation.node.expires_ms),
    });
    reply::json_as(StatusCode::CREATED, "application/json", &answer)
}

/// `GET …/nodes`: everyone who joined, or may.
pub(super) fn list(call: &Call) -> Answer {
    let nodes = call.gateway.hub.list_nodes(&call.caller);
    let nodes = nodes.map_err(|error| Failure::of(error, &call.caller))?;
    let now_ms = call.gateway.hub.env().now_ms();
    let meets = call.gateway.settings.nodes.as_ref();
    let views = nodes.iter().map(|view| node_view(view, meets, now_ms));
    reply::json(&views.collect::<Vec<_>>())
}

fn node_view(view: &NodeView, meets: Option<&Arc<dyn MeetNodes>>, now_ms: u64) -> Value {
    let NodeView { node, user } = view;
    let seen = node.joined.and_then(|joined| meets?.seen(&joined.key));
    let state = match &node.joined {
        Some(_) => "joined",
        None if node.expires_ms > now_ms => "invited",
        None => "never joined",
    };
    json!({
        "name": node.name.as_str(),
        "role": node_role(node.role),
        "user": user.name.as_str(),
        "state": state,
        "joinedAt": node.joined.map(|joined| date_of(joined.joined_ms)),
        "seenAt": seen.as_ref().map(|seen| date_of(seen.at_ms)),
        "address": seen.map(|seen| seen.address),
    })
}

/// `DELETE …/nodes/{name}`: the node is not known any more.
pub(super) async fn revoke(call: &Call, name: &str) -> Answer {
    let revoked = call.gateway.hub.revoke_node(&call.caller, name).await;
    revoked.map_err(|error| Failure::of(error, &call.caller))?;
    if let Some(meets) = &call.gateway.settings.nodes {
        meets.look_again(&call.gateway.hub);
    }
    reply::json(&json!({"name": name, "revoked": true}))
}

/// `GET …/nodes/overview`: what they do at the moment.
pub(super) fn overview(call: &Call) -> Answer {
    let hub = &call.gateway.hub;
    hub.list_nodes(&call.caller).map_err(|error| Failure::of(error, &call.caller))?;
    let meets = call.gateway.settings.nodes.as_ref();
    reply::json(&meets.map_or_else(|| json!({"nodes": [], "swarms": []}), |meets| meets.overview()))
}
