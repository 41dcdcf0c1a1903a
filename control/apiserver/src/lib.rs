//! The Kubernetes API over the store: the only door to it.
//!
//! In: HTTP requests with an identity. Out: `metav1` answers, watch streams. Absent: scheduling, reconciling;
//! listening (`control` accepts connections and hands requests over; this crate connects to kubelets and pods alone).
//!
//! The way of a request, one room each: [`ApiServer::handle`] → `request` (what it is about) → [`authn`] → `authz` →
//! `dispatch` → `registry` (with `strategy`, `admission`, [`validation`], [`defaults`]) → store. The way back: `view` for objects and
//! lists, `watch` for streams, `status` for everything that went wrong.

pub mod authn;
pub mod defaults;
pub mod field_error;
pub mod kinds;
pub mod schema;
pub mod strategic;
pub mod table;
pub mod token;
pub mod validation;

mod admission;
mod alloc;
mod apply;
mod authz;
mod body;
mod bootstrap;
mod bound;
mod client;
mod codec;
mod config;
mod convert;
mod custom;
mod dial;
mod discovery;
mod dispatch;
mod facts;
mod follow;
mod health;
mod impersonation;
mod kubelet;
mod list;
mod meta;
mod metrics;
mod negotiate;
mod openapi;
mod options;
mod protobuf;
mod registry;
mod request;
mod review;
mod server;
mod status;
mod stored;
mod strategy;
mod subresource;
mod tunnel;
mod version;
mod view;
mod watch;

pub use body::{Body, BoxError, MAX_BODY, full};
pub use config::{ApiServerConfig, ConfigError, RequestLimits, Tokens};
pub use server::ApiServer;
pub use status::ApiError;
pub use version::GIT_VERSION;
