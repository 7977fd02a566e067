//! Layers: each takes an object store and is one. Which are used, and in what order, is decided in
//! one place by the program.

pub mod deadline;
pub mod limit;
pub mod retry;
pub mod trace;
