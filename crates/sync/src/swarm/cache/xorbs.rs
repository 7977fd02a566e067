//! Which files of the cache have chunks of a xorb.

use std::collections::HashMap;
use std::sync::Arc;

use ballast_format::cached_file::CachedHead;
use ballast_format::hash::XorbHash;

/// Xorbs, and the files that have chunks of them.
#[derive(Default)]
pub(super) struct Xorbs(HashMap<XorbHash, Vec<Arc<CachedHead>>>);

impl Xorbs {
    pub(super) fn add(&mut self, head: &Arc<CachedHead>) {
        for term in &head.terms {
            let files = self.0.entry(term.xorb).or_default();
            if !files.iter().any(|file| Arc::ptr_eq(file, head)) {
                files.push(Arc::clone(head));
            }
        }
    }

    pub(super) fn remove(&mut self, head: &Arc<CachedHead>) {
        for term in &head.terms {
            if let Some(files) = self.0.get_mut(&term.xorb) {
                files.retain(|file| !Arc::ptr_eq(file, head));
                if files.is_empty() {
                    self.0.remove(&term.xorb);
                }
            }
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &XorbHash> {
        self.0.keys()
    }

    pub(super) fn files_of(&self, xorb: &XorbHash) -> impl Iterator<Item = &Arc<CachedHead>> {
        self.0.get(xorb).into_iter().flatten()
    }
}
