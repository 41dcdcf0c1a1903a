//! The controllers: they bring what is to what is asked for, through the API alone.
//!
//! In: a client (its transport may be in-process) and [`ControllersConfig`]. Out: API writes. Absent: the store; any
//! state that is not in an API object. Each controller is level-triggered: a reconcile computes a plan from the objects
//! as they are now (a pure function) and applies it; whatever was missed before is made good by the next one.
//!
//! One control process runs them. Leader election belongs in front of [`run`]: its caller starts it when it leads and
//! cancels `shutdown` when it does not.

mod cache;
mod config;
mod context;
mod cron_job;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod endpointslice;
mod error;
mod expectations;
mod garbage_collector;
mod history;
mod informer;
mod inventory;
mod job;
mod key;
mod metadata_watch;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod owner;
mod patch;
mod pod;
mod pod_control;
mod pod_disruption_budget;
mod pod_gc;
mod pod_owner;
mod pod_template;
mod recorder;
mod replicaset;
mod revisions;
mod root_ca;
mod run;
mod service_account;
mod stale_disruption;
mod statefulset;
mod taint_eviction;
mod ttl_after_finished;
mod workqueue;

pub use config::{ConfigError, ControllersConfig};
pub use run::{RunError, run};
