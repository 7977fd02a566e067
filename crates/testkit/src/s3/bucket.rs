//! What the server stores: a map under one lock, so that each request happens at one moment.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// One object.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) bytes: Bytes,
    pub(super) etag: String,
    pub(super) modified_ms: u64,
}

/// A write in parts.
#[derive(Debug, Default)]
pub(super) struct Upload {
    pub(super) parts: BTreeMap<i32, Bytes>,
}

/// One page of a listing.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) objects: Vec<(String, Stored)>,
    pub(super) folders: Vec<String>,
    /// The last name on the page, if there are more.
    pub(super) next: Option<String>,
}

/// What a listing asks for.
#[derive(Debug)]
pub(super) struct Listing<'a> {
    pub(super) prefix: &'a str,
    pub(super) delimiter: Option<&'a str>,
    /// Everything up to this name is left out.
    pub(super) after: &'a str,
    pub(super) limit: usize,
}

#[derive(Debug, Default)]
struct Contents {
    objects: BTreeMap<String, Stored>,
    uploads: HashMap<String, Upload>,
    /// Grows with each change; makes tags and names of uploads.
    changes: u64,
}

/// The one bucket.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    contents: Mutex<Contents>,
}

impl Bucket {
    /// Puts an object; if only an absent one may be put, says whether it was.
    pub(super) fn put(
        &self,
        key: &str,
        bytes: Bytes,
        now_ms: u64,
        absent_only: bool,
    ) -> Option<String> {
        let contents = &mut *self.contents();
        if absent_only && contents.objects.contains_key(key) {
            return None;
        }
        let etag = contents.tag();
        let stored = Stored { bytes, etag: etag.clone(), modified_ms: now_ms };
        contents.objects.insert(key.to_owned(), stored);
        Some(etag)
    }

    pub(super) fn get(&self, key: &str) -> Option<Stored> {
        self.contents().objects.get(key).cloned()
    }

    pub(super) fn delete(&self, key: &str) {
        self.contents().objects.remove(key);
    }

    pub(super) fn list(&self, listing: &Listing<'_>) -> Page {
        let mut page = Page::default();
        let mut last = String::new();
        let contents = self.contents();
        let from = listing.prefix.max(listing.after).to_owned();
        for (key, stored) in contents.objects.range(from..) {
            let Some(rest) = key.strip_prefix(listing.prefix) else { break };
            let folder = listing.delimiter.and_then(|delimiter| {
                let (name, _) = rest.split_once(delimiter)?;
                Some(format!("{}{name}{delimiter}", listing.prefix))
            });
            let name = folder.as_ref().unwrap_or(key);
            if name.as_str() <= listing.after || *name == last {
                continue;
            }
            if page.objects.len() + page.folders.len() == listing.limit {
                page.next = Some(last);
                break;
            }
            last.clone_from(name);
            match folder {
                Some(folder) => page.folders.push(folder),
                None => page.objects.push((key.clone(), stored.clone())),
            }
        }
        page
    }

    pub(super) fn begin_upload(&self) -> String {
        let contents = &mut *self.contents();
        let id = contents.tag();
        contents.uploads.insert(id.clone(), Upload::default());
        id
    }

    /// A part's tag; `None` if there is no such upload.
    pub(super) fn put_part(&self, id: &str, number: i32, bytes: Bytes) -> Option<String> {
        let contents = &mut *self.contents();
        contents.uploads.get_mut(id)?.parts.insert(number, bytes);
        Some(contents.tag())
    }

    pub(super) fn end_upload(&self, id: &str) -> Option<Upload> {
        self.contents().uploads.remove(id)
    }

    pub(super) fn open_uploads(&self) -> usize {
        self.contents().uploads.len()
    }

    /// All objects, by name.
    pub(super) fn keys(&self) -> Vec<String> {
        self.contents().objects.keys().cloned().collect()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn tag(&mut self) -> String {
        self.changes += 1;
        format!("{:032x}", self.changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(keys: &[&str]) -> Bucket {
        let bucket = Bucket::default();
        for key in keys {
            bucket.put(key, Bytes::new(), 0, true).expect("it is new");
        }
        bucket
    }

    fn names(page: &Page) -> Vec<&str> {
        let objects = page.objects.iter().map(|(name, _)| name.as_str());
        objects.chain(page.folders.iter().map(String::as_str)).collect()
    }

    #[test]
    fn pages_follow_one_another_without_a_gap() {
        let bucket = bucket(&["a/1", "a/2", "a/3", "a/4", "b/1"]);
        let (mut after, mut found) = (String::new(), Vec::new());
        loop {
            let page =
                bucket.list(&Listing { prefix: "a/", delimiter: None, after: &after, limit: 3 });
            found.extend(names(&page).into_iter().map(str::to_owned));
            let Some(next) = page.next else { break };
            after = next;
        }
        assert_eq!(found, ["a/1", "a/2", "a/3", "a/4"]);
    }

    #[test]
    fn folders_are_listed_once_each() {
        let bucket = bucket(&["a/x/1", "a/x/2", "a/y", "a/z/1"]);
        let listing = Listing { prefix: "a/", delimiter: Some("/"), after: "", limit: 2 };
        let page = bucket.list(&listing);
        assert_eq!(names(&page), ["a/y", "a/x/"]);
        let after = page.next.expect("there is more");
        let page = bucket.list(&Listing { after: &after, ..listing });
        assert_eq!(names(&page), ["a/z/"]);
    }

    #[test]
    fn what_is_there_is_not_put_again_if_only_the_absent_may_be() {
        let bucket = bucket(&["a"]);
        assert!(bucket.put("a", Bytes::from_static(b"x"), 0, true).is_none());
        assert!(bucket.put("a", Bytes::from_static(b"x"), 0, false).is_some());
    }
}
