//! This node's certificates: what it shows to the API server, and what its kubelet API shows to others.
//!
//! In: credentials that may ask, the node's name and addresses. Out: pairs of certificate and key, signed by the cluster
//! (CertificateSigningRequest) and renewed before they end, without a restart: who uses a pair looks whether its file
//! has changed ([`crate::stamp`]).
//!
//! ```text
//! Pair (files) → schedule (when) → request (CSR, wait) → files → next handshake or request
//! ```

mod counts;
mod pair;
mod renewal;
mod request;
mod schedule;

pub use counts::Counts;
pub use pair::{Pair, generate};
pub use renewal::{ClientFile, ServingFile, keep_fresh};
pub use request::{Subject, Unsigned, request};
pub use schedule::now;

#[cfg(test)]
pub fn made(node: &str, years: (i32, i32)) -> Pair {
    pair::tests::made(node, years).0
}
