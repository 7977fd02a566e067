//! The store of xorbs: tokens, reconstructions, ranges of xorbs.

use ballast_format::hash::XorbHash;
use serde_json::{Value, json};

use super::answer::{Answer, Asked, json, page, refuse};
use super::files::{send, signed};
use super::troubles::Lie;

/// A token for reading xorbs.
pub(super) fn token(asked: &Asked) -> Answer {
    let host = asked.header("host").unwrap_or("localhost");
    let cas = format!("http://{host}/cas");
    json(&json!({ "accessToken": "cas-read", "exp": 4_000_000_000_u64, "casUrl": cas }))
}

/// `/cas/v1/reconstructions/{hash}`; there is no second version, as with older stores.
pub(super) fn answer(asked: &Asked) -> Answer {
    if asked.header("authorization") != Some("Bearer cas-read") {
        return refuse(401, "", "a token is needed");
    }
    let [_, version, verb, hash] = &asked.parts[..] else { return page(404) };
    if (version.as_str(), verb.as_str()) != ("v1", "reconstructions") {
        return refuse(404, "", "no such route");
    }
    let inner = asked.state.lock();
    let file = hash.parse().ok().and_then(|hash| inner.files.get(&hash).cloned());
    let Some(file) = file else {
        drop(inner);
        return refuse(404, "", "no such file");
    };
    let (first, last) = wanted(asked);
    let (mut terms, mut fetch) = (Vec::new(), serde_json::Map::new());
    let (mut at, mut skip) = (0, None);
    for (xorb, range) in &file.terms {
        let footer = &inner.xorbs[xorb].1;
        let (mut chunks, mut length) = (None, 0);
        for chunk in range.clone() {
            let end = at + u64::from(footer.chunk_length(chunk));
            if end > first && at <= last {
                skip.get_or_insert_with(|| first.saturating_sub(at));
                chunks =
                    Some(chunks.map_or(chunk, |(start, _)| start)).map(|start| (start, chunk + 1));
                length += end - at;
            }
            at = end;
        }
        let Some((start, end)) = chunks else { continue };
        let range = json!({ "start": start, "end": end });
        let key = xorb.to_string();
        let bytes = footer.byte_range(start..end).unwrap_or_default();
        terms.push(json!({ "hash": key, "unpacked_length": length, "range": range }));
        let url_range = json!({ "start": bytes.start, "end": bytes.end - 1 });
        let entry = json!({ "range": range, "url": key, "url_range": url_range });
        let entries = fetch.entry(key).or_insert_with(|| json!([]));
        entries.as_array_mut().expect("a list").push(entry);
    }
    drop(inner);
    let Some(skip) = skip else { return refuse(416, "", "past the end") };
    for (key, entries) in &mut fetch {
        let url = Value::from(signed(asked, &format!("xorb/{key}")));
        for entry in entries.as_array_mut().expect("a list") {
            entry["url"] = url.clone();
        }
    }
    if asked.lies(Lie::Terms) {
        terms.reverse();
    }
    json(&json!({ "offset_into_first_range": skip, "terms": terms, "fetch_info": fetch }))
}

/// The first and the last byte of the file that are asked for.
fn wanted(asked: &Asked) -> (u64, u64) {
    let range = asked.header("range").and_then(|range| range.strip_prefix("bytes="));
    let ends = range.and_then(|range| range.split_once('-'));
    ends.map_or((0, u64::MAX), |(first, last)| {
        (first.parse().unwrap_or(0), last.parse().unwrap_or(u64::MAX))
    })
}

/// A xorb's bytes.
pub(super) fn xorb(asked: &Asked, hash: &str) -> Answer {
    let hash: Option<XorbHash> = hash.parse().ok();
    let found = hash.and_then(|hash| asked.state.lock().xorbs.get(&hash).map(|x| x.0.clone()));
    let Some(bytes) = found else { return page(404) };
    let bytes = if asked.lies(Lie::Chunks) {
        let mut wrong = bytes.to_vec();
        let place = wrong.len() / 2;
        wrong[place] ^= 0x40;
        wrong.into()
    } else {
        bytes
    };
    send(
        asked,
        hyper::Response::builder(),
        &hash.map(|h| h.to_string()).unwrap_or_default(),
        &bytes,
    )
}
