//! Discussions, as far as pull requests by commit need them.

use ballast_format::log::PullRequestStatus;
use ballast_format::name::RefName;
use ballast_node::repo::NewPull;
use ballast_node::state::repo::{Comment, Pull};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::commits::date_of;
use super::place::Context;
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

const BODY_BYTES: u64 = 1_000_000;
const PAGE: usize = 50;

/// `…/discussions[/…]`.
pub(super) async fn answer(at: &Context<'_>, call: Call, segments: &[&str]) -> Answer {
    match (segments, &call.method) {
        ([], &Method::GET) => list(at, &call).await,
        ([], &Method::POST) => open(at, call).await,
        ([number], &Method::GET) => details(at, &call, number_of(number)?).await,
        ([number, "comment"], &Method::POST) => {
            let number = number_of(number)?;
            comment(at, call, number).await
        }
        ([number, "status"], &Method::POST) => {
            let number = number_of(number)?;
            status(at, call, number).await
        }
        ([_, "title" | "merge" | "comment", ..], &Method::POST) => {
            let message = "discussions can't be edited or merged here";
            Err(Failure::new(StatusCode::NOT_IMPLEMENTED, message))
        }
        _ => Err(Failure::no_route()),
    }
}

fn number_of(text: &str) -> Result<u32, Failure> {
    text.parse().map_err(|_| Failure::new(StatusCode::NOT_FOUND, "discussion not found"))
}

fn word(status: PullRequestStatus) -> &'static str {
    match status {
        PullRequestStatus::Draft => "draft",
        PullRequestStatus::Open => "open",
        PullRequestStatus::Closed => "closed",
        PullRequestStatus::Merged => "merged",
    }
}

fn person(at: &Context<'_>, id: ballast_format::id::UserId) -> Value {
    match at.hub().user_of_id(id) {
        Some(user) => json!({"name": user.name.as_str(), "fullname": user.fullname}),
        None => Value::Null,
    }
}

fn view(at: &Context<'_>, pull: &Pull) -> Value {
    let repo = at.repo();
    let mut view = json!({
        "num": pull.number,
        "title": pull.title,
        "repo": {"name": repo.name().to_string(), "type": repo.kind().singular()},
        "status": word(pull.status),
        "isPullRequest": true,
        "createdAt": date_of(pull.created_ms),
    });
    let author = person(at, pull.author);
    if !author.is_null() {
        view["author"] = author;
    }
    view
}

async fn list(at: &Context<'_>, call: &Call) -> Answer {
    let pulls = at.hub().pulls(at.repo()).await;
    let pulls = pulls.map_err(|error| Failure::of(error, &call.caller))?;
    let wanted = |pull: &&Pull| {
        let kind = call.query.first("type").unwrap_or("all") != "discussion";
        let is_open = matches!(pull.status, PullRequestStatus::Draft | PullRequestStatus::Open);
        let status = match call.query.first("status") {
            Some("open") => is_open,
            Some("closed") => !is_open,
            _ => true,
        };
        let author = call.query.first("author").is_none_or(|author| {
            let found = at.hub().user_of_id(pull.author);
            found.is_some_and(|user| user.name.as_str().eq_ignore_ascii_case(author))
        });
        kind && status && author
    };
    let all: Vec<&Pull> = pulls.iter().filter(wanted).collect();
    let page = call.query.first("p").and_then(|page| page.parse::<usize>().ok()).unwrap_or(0);
    let start = page.saturating_mul(PAGE);
    let shown: Vec<Value> = all.iter().skip(start).take(PAGE).map(|pull| view(at, pull)).collect();
    reply::json(&json!({"discussions": shown, "count": all.len(), "start": start}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Open {
    title: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    pull_request: bool,
}

async fn open(at: &Context<'_>, mut call: Call) -> Answer {
    call.caller.user().map_err(|error| Failure::of(error, &call.caller))?;
    let body: Open = call.json(BODY_BYTES).await?;
    if !body.pull_request {
        let message = "only discussions that are pull requests can be opened here";
        return Err(Failure::new(StatusCode::NOT_IMPLEMENTED, message));
    }
    let new = NewPull { title: &body.title, description: &body.description };
    let opened = at.hub().open_pull(&call.caller, at.repo(), new).await;
    let pull = opened.map_err(|error| Failure::of(error, &call.caller))?;
    let mut answer = view(at, &pull);
    let url = format!("{}/discussions/{}", at.url(&call), pull.number);
    answer["url"] = json!(url);
    answer["pullRequestUrl"] = json!(url);
    reply::json(&answer)
}

async fn details(at: &Context<'_>, call: &Call, number: u32) -> Answer {
    let found = at.hub().pull(at.repo(), number).await;
    let (pull, state) = found.map_err(|error| Failure::of(error, &call.caller))?;
    let mut answer = view(at, &pull);
    let first = event(
        at,
        &Comment {
            id: ballast_format::id::OperationId::from_bytes([0; 16]),
            author: pull.author,
            text: pull.description.clone(),
            time_ms: pull.created_ms,
        },
    );
    let mut events = vec![first];
    events.extend(pull.comments.iter().map(|comment| event(at, comment)));
    answer["events"] = json!(events);
    answer["changes"] = json!({"base": RefName::main().as_str()});
    answer["filesWithConflicts"] = json!([]);
    if let Some(tip) = state.refs.get(&RefName::pull(number)) {
        answer["targetCommit"] = json!(tip.to_string());
    }
    reply::json(&answer)
}

fn event(at: &Context<'_>, comment: &Comment) -> Value {
    let date = date_of(comment.time_ms);
    let author = person(at, comment.author);
    json!({
        "id": comment.id.to_string(),
        "type": "comment",
        "createdAt": date,
        "author": author,
        "data": {
            "edited": false,
            "hidden": false,
            "latest": {
                "raw": comment.text,
                "html": "",
                "updatedAt": date,
                "author": author,
            },
            "history": [],
            "numEdits": 0,
        },
    })
}

#[derive(Deserialize)]
struct Said {
    comment: String,
}

async fn comment(at: &Context<'_>, mut call: Call, number: u32) -> Answer {
    let body: Said = call.json(BODY_BYTES).await?;
    let said = at.hub().comment(&call.caller, at.repo(), number, &body.comment).await;
    let said = said.map_err(|error| Failure::of(error, &call.caller))?;
    reply::json(&json!({"newMessage": event(at, &said)}))
}

#[derive(Deserialize)]
struct NewStatus {
    status: String,
    comment: Option<String>,
}

async fn status(at: &Context<'_>, mut call: Call, number: u32) -> Answer {
    let body: NewStatus = call.json(BODY_BYTES).await?;
    let status = match body.status.as_str() {
        "open" => PullRequestStatus::Open,
        "closed" => PullRequestStatus::Closed,
        "draft" => PullRequestStatus::Draft,
        other => return Err(Failure::invalid(format!("`{other}` is no status"))),
    };
    let of = |error| Failure::of(error, &call.caller);
    at.hub().set_pull_status(&call.caller, at.repo(), number, status).await.map_err(of)?;
    if let Some(text) = body.comment.filter(|text| !text.is_empty()) {
        at.hub().comment(&call.caller, at.repo(), number, &text).await.map_err(of)?;
    }
    let author = call.caller.user().map_err(of)?.user;
    reply::json(&json!({"newStatus": {
        "id": number.to_string(),
        "type": "status-change",
        "createdAt": date_of(at.hub().env().now_ms()),
        "author": person(at, author),
        "data": {"status": word(status)},
    }}))
}
