//! The scheduler: finds a node for every pod that has none.
//!
//! In: a client (its transport may be in-process) and [`SchedulerConfig`]. Out: bindings through the `pods/binding`
//! sub-resource, the PodScheduled condition, Events. Absent: the store; any state that a restart could not read back
//! from the API.
//!
//! ```text
//! watches ──► scheduler { cache, queue } ──► framework: filter, score ──► assume ──► bind
//! ```

mod cache;
mod columns;
mod config;
mod diagnosis;
mod error;
mod events;
#[cfg(test)]
mod fixtures;
mod framework;
mod node_set;
mod node_table;
mod outbox;
mod plugins;
mod pod_info;
mod ports;
mod queue;
mod resources;
mod run;
mod scheduler;
mod spread;
mod watches;

pub use config::SchedulerConfig;
pub use run::run;
