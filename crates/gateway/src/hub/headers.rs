//! The headers of a model's safetensors files, all in one answer.
//!
//! They are checked and passed on as the text that they are: as values they would take several
//! times as much memory. What all of them may take together has a limit, too.

use ballast_format::hash::ObjectHash;
use ballast_format::name::FilePath;
use ballast_node::discovery::safetensors::shards;
use futures_util::StreamExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::place::{Context, whole};
use crate::body::Body;
use crate::call::Call;
use crate::error::{Answer, Failure};

const INDEX_BYTES: u64 = 10 << 20;
const MOST_SHARDS: usize = 500;
/// All headers of one answer. Models of 90,000 tensors have about 15 MB of them.
const MOST_BYTES: usize = 32 << 20;

#[derive(Deserialize)]
struct Index {
    metadata: Option<Value>,
}

/// `GET …/safetensors-metadata/{index file}`: the headers of all shards that an index names, or
/// of one file.
pub(super) async fn answer(at: &Context<'_>, call: &Call, path: &[&str]) -> Answer {
    let of = |error| Failure::of(error, &call.caller);
    let name = whole(path)?;
    let revision = call.query.first("revision").unwrap_or("main");
    let commit = at.hub().resolve(at.repo(), revision).await.map_err(of)?.commit;
    at.hub().may_read_files(&call.caller, at.repo()).map_err(of)?;
    let path = FilePath::parse(&name).map_err(|error| of(error.into()))?;
    let mut files = vec![name.clone()];
    let mut index = None;
    if name.ends_with(".json") {
        let item = at.hub().item(at.repo(), commit, &path).await.map_err(of)?;
        let text = at.hub().raw_blob(at.repo(), &item, INDEX_BYTES).await.map_err(of)?;
        let bad = || Failure::invalid(format!("`{name}` is no index of safetensors files"));
        let folder = path.parent().map_or_else(String::new, |parent| format!("{parent}/"));
        let names = shards(&text).ok_or_else(bad)?;
        files = names.iter().map(|name| format!("{folder}{name}")).collect();
        index = Some(serde_json::from_slice::<Index>(&text).map_err(|_| bad())?);
    }
    if files.len() > MOST_SHARDS {
        return Err(Failure::invalid(format!("more than {MOST_SHARDS} shards")));
    }
    let mut text = "{\"headers\":{".to_owned();
    for (number, file) in files.iter().enumerate() {
        let room = MOST_BYTES.saturating_sub(text.len());
        let header = header(at, call, commit, file, room).await?;
        let comma = if number == 0 { "" } else { "," };
        text.push_str(&format!("{comma}{}:", json!(file)));
        text.push_str(&header);
    }
    text.push('}');
    if let Some(Index { metadata }) = index {
        text.push_str(&format!(",\"index\":{}", json!({"metadata": metadata})));
    }
    text.push('}');
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The header of one file, of at most so many bytes.
async fn header(
    at: &Context<'_>,
    call: &Call,
    commit: ObjectHash,
    file: &str,
    room: usize,
) -> Result<String, Failure> {
    let of = |error| Failure::of(error, &call.caller);
    let bad = || Failure::invalid(format!("`{file}` has no safetensors header"));
    let path = FilePath::parse(file).map_err(|error| of(error.into()))?;
    let item = at.hub().item(at.repo(), commit, &path).await.map_err(of)?;
    let mut stream = at.hub().open_item(at.repo(), &item, 0..item.size).await.map_err(of)?;
    let mut bytes: Vec<u8> = Vec::new();
    let mut wanted = 8;
    while bytes.len() < wanted {
        let Some(piece) = stream.next().await else { return Err(bad()) };
        bytes.extend_from_slice(&piece.map_err(of)?);
        if wanted == 8 && bytes.len() >= 8 {
            let length = bytes.first_chunk().copied().map_or(0, u64::from_le_bytes);
            if length > item.size {
                return Err(bad());
            }
            let length = usize::try_from(length).map_err(|_| bad())?;
            if length > room {
                let message = format!(
                    "the headers of these files have more than {MOST_BYTES} bytes; read them by \
                     ranges of the files"
                );
                return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message));
            }
            wanted = 8 + length;
        }
    }
    bytes.truncate(wanted);
    bytes.drain(..8);
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    let is_json = serde_json::from_str::<IgnoredAny>(&text).is_ok();
    if !is_json || !text.trim_start().starts_with('{') {
        return Err(bad());
    }
    Ok(text)
}
