//! What both sides of the Kubernetes API must agree on and no library has right.
//!
//! In: strings and `k8s-openapi` types from API objects. Out: quantities, selectors, name rules and the
//! well-known words (labels, taints, finalizers, condition types, event reasons). Absent: any I/O, any clock.

#![warn(missing_docs)]

pub mod cron;
pub mod fields;
pub mod int_or_string;
pub mod labels;
pub mod names;
pub mod node_affinity;
pub mod quantity;
pub mod tolerations;
pub mod wellknown;

pub use quantity::Quantity;
