//! The API as its clients see it: whole requests through the whole server, over a store in memory.
//!
//! In: HTTP requests. Out: status codes, bodies and streams, compared with what upstream answers. One module a subject.

mod abandoned;
mod applies;
mod bodies;
mod conflicts;
mod custom;
mod deletions;
mod discovery;
mod harness;
mod identity;
mod limits;
mod lists;
mod nodes;
mod patches;
mod pods;
mod roles;
mod services;
mod watches;
mod workloads;
mod writes;
