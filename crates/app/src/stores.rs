//! The layers around an object store, in one place.

use std::sync::Arc;

use ballast_store::backend::Backend;
use ballast_store::env::SharedEnv;
use ballast_store::layer::deadline::{Deadline, PATIENCE};
use ballast_store::layer::limit::{Limit, Limits};
use ballast_store::layer::retry::Retry;
use ballast_store::layer::trace::Trace;
use ballast_store::objects::Store;

/// Reads and writes of the store at once: enough to keep a disk busy, few enough to bound memory.
const STORE_LIMITS: Limits = Limits { reads: 64, writes: 32 };

/// The stack below the store, outermost last.
pub(crate) fn layered(backend: &Backend, env: &SharedEnv) -> Store {
    let objects = Arc::clone(&backend.objects);
    let timed = Arc::new(Deadline::new(objects, Arc::clone(env), PATIENCE));
    let retried = Arc::new(Retry::new(timed, Arc::clone(env)));
    let limited = Arc::new(Limit::new(retried, STORE_LIMITS));
    let (traced, _counters) = Trace::new(limited, Arc::clone(env));
    let store = Store::new(Arc::new(traced), Arc::clone(env));
    store.with_writing(backend.writing).with_signer(backend.signer.clone())
}
