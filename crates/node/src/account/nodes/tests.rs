use super::*;
use crate::rig::Rig;

const KEY: [u8; 32] = [1; 32];
const OTHER_KEY: [u8; 32] = [2; 32];

fn new(name: &str) -> NewNode<'_> {
    NewNode { name, role: NodeRole::Node, user: None }
}

async fn invite(rig: &Rig, name: &str) -> Invitation {
    rig.hub.invite_node(&rig.admin, &new(name)).await.expect("an invitation")
}

fn is_refused<T: fmt::Debug>(done: Result<T>, reason: &str) {
    let error = done.expect_err("it must be refused").to_string();
    assert!(error.contains(reason), "{error}");
}

#[tokio::test]
async fn a_node_joins_once_and_reads_with_the_rights_of_its_user() {
    let rig = Rig::start().await;
    rig.user("anna").await;
    let asked = NewNode { user: Some("anna"), role: NodeRole::Region, ..new("eu") };
    let invitation = rig.hub.invite_node(&rig.admin, &asked).await.expect("an invitation");
    assert!(rig.hub.node_of_key(&KEY).is_none());
    let welcome = rig.hub.join_node(&invitation.secret, KEY).await.expect("it joins");
    let NodeView { node, user } = rig.hub.node_of_key(&KEY).expect("it is known");
    assert_eq!(
        (node.name.as_str(), node.role, user.name.as_str()),
        ("eu", NodeRole::Region, "anna")
    );
    let caller = rig.hub.authenticate(&welcome.token).expect("it may read");
    let by = caller.user().expect("a user");
    assert_eq!((by.name.as_str(), &by.role), ("anna", &TokenRole::Read));
    assert_eq!(rig.hub.caller_of_node(&node).expect("the same").user_id(), caller.user_id());
    is_refused(rig.hub.join_node(&invitation.secret, OTHER_KEY).await, "was used");
    assert!(rig.hub.authenticate(&welcome.token).is_ok(), "who comes late changes nothing");
    assert!(!format!("{invitation:?} {welcome:?}").contains("token"));
}

#[tokio::test]
async fn who_did_not_get_the_answer_may_ask_again_with_the_same_key() {
    let rig = Rig::start().await;
    let secret = invite(&rig, "gpu-1").await.secret;
    let lost = rig.hub.join_node(&secret, KEY).await.expect("it joins");
    let heard = rig.hub.join_node(&secret, KEY).await.expect("again");
    assert!(rig.hub.authenticate(&lost.token).is_err(), "nobody has the first token");
    assert!(rig.hub.authenticate(&heard.token).is_ok());
    assert_eq!(rig.hub.list_nodes(&rig.admin).expect("a list").len(), 1);
    rig.env.advance(INVITATION_LIFE);
    is_refused(rig.hub.join_node(&secret, KEY).await, "has ended");
}

#[tokio::test]
async fn an_invitation_ends_and_gives_way_to_the_next() {
    let rig = Rig::start().await;
    let first = invite(&rig, "gpu-1").await;
    let second = invite(&rig, "gpu-1").await;
    is_refused(rig.hub.join_node(&first.secret, KEY).await, "is not known");
    rig.env.advance(INVITATION_LIFE - Duration::from_millis(1));
    rig.hub.join_node(&second.secret, KEY).await.expect("just in time");
    let third = invite(&rig, "gpu-2").await;
    is_refused(rig.hub.join_node(&third.secret, KEY).await, "another node has joined");
    rig.env.advance(INVITATION_LIFE);
    is_refused(rig.hub.join_node(&third.secret, OTHER_KEY).await, "has ended");
    invite(&rig, "gpu-3").await;
    let names = rig.hub.list_nodes(&rig.admin).expect("a list");
    let names: Vec<_> = names.iter().map(|view| view.node.name.as_str()).collect();
    assert_eq!(names, ["gpu-1", "gpu-3"], "who never came is forgotten");
}

#[tokio::test]
async fn a_spent_secret_is_spent_for_every_process_and_after_a_restart() {
    let rig = Rig::start().await;
    let secret = invite(&rig, "gpu-1").await.secret;
    let other = rig.another().await;
    other.join_node(&secret, KEY).await.expect("made by one, used at the other");
    is_refused(rig.another().await.join_node(&secret, OTHER_KEY).await, "was used");
}

#[tokio::test]
async fn a_revoked_node_is_known_no_more_and_its_key_is_remembered_for_a_day() {
    let rig = Rig::start().await;
    let secret = invite(&rig, "gpu-1").await.secret;
    let welcome = rig.hub.join_node(&secret, KEY).await.expect("it joins");
    is_refused(rig.hub.invite_node(&rig.admin, &new("gpu-1")).await, "revoke gpu-1");
    rig.hub.revoke_node(&rig.admin, "gpu-1").await.expect("revoked");
    assert!(rig.hub.node_of_key(&KEY).is_none());
    assert!(rig.hub.authenticate(&welcome.token).is_err());
    assert_eq!(rig.hub.revoked_keys(), [KEY]);
    is_refused(rig.hub.join_node(&secret, KEY).await, "is not known");
    is_refused(rig.hub.revoke_node(&rig.admin, "gpu-1").await, "not found");
    // Its host may join again, with another key.
    let secret = invite(&rig, "gpu-1").await.secret;
    rig.hub.join_node(&secret, OTHER_KEY).await.expect("it joins");
    assert_eq!(rig.another().await.revoked_keys(), [KEY]);
    rig.env.advance(Duration::from_hours(25));
    assert_eq!(rig.hub.revoked_keys(), [[0; 32]; 0]);
}

#[tokio::test]
async fn a_node_whose_user_is_shut_out_is_out_until_they_are_let_in_again() {
    let rig = Rig::start().await;
    rig.user("anna").await;
    let asked = NewNode { user: Some("anna"), ..new("gpu-1") };
    let secret = rig.hub.invite_node(&rig.admin, &asked).await.expect("an invitation").secret;
    rig.hub.join_node(&secret, KEY).await.expect("it joins");
    rig.hub.set_disabled(&rig.admin, "anna", true).await.expect("shut out");
    assert!(rig.hub.node_of_key(&KEY).is_none());
    assert_eq!(rig.hub.revoked_keys(), [KEY]);
    is_refused(rig.hub.join_node(&secret, KEY).await, "is not known");
    rig.hub.set_disabled(&rig.admin, "anna", false).await.expect("let in");
    assert!(rig.hub.node_of_key(&KEY).is_some());
    assert_eq!(rig.hub.revoked_keys(), [[0; 32]; 0]);
}

#[tokio::test]
async fn only_administrators_have_to_do_with_nodes_and_names_are_checked() {
    let rig = Rig::start().await;
    let anna = rig.user("anna").await;
    for caller in [&anna, &Caller::Anonymous] {
        assert!(rig.hub.invite_node(caller, &new("gpu-1")).await.is_err());
        assert!(rig.hub.list_nodes(caller).is_err());
        assert!(rig.hub.revoke_node(caller, "gpu-1").await.is_err());
    }
    is_refused(rig.hub.invite_node(&rig.admin, &new("GPU 1")).await, "must be 1 to 63");
    let asked = NewNode { user: Some("nobody"), ..new("gpu-1") };
    is_refused(rig.hub.invite_node(&rig.admin, &asked).await, "the user `nobody` not found");
}
