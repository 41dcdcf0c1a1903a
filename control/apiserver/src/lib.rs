//! The Kubernetes API over the store: the only door to it.
//!
//! In: HTTP requests with an identity. Out: `metav1` answers, watch streams. Absent: scheduling, reconciling; TLS
//! and sockets (`control` accepts connections and hands requests over).

pub mod authn;
pub mod defaults;
pub mod kinds;
pub mod schema;
pub mod strategic;
pub mod table;
pub mod token;
