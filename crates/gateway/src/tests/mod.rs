//! The gateway in one process: a hub in memory, a real listener on loopback, and raw HTTP.

mod client;
mod closed;
mod connections;
mod counts;
mod discovery;
mod encodings;
mod errors;
mod limits;
mod matrix;
mod quotas;
mod ranges;
mod repos;
mod rig;
mod routes;
mod secrets;
mod signed;
mod upload;
mod xet;
