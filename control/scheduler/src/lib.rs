//! The scheduler: finds a node for every pod that has none.
//!
//! In: a client (its transport may be in-process) and [`SchedulerConfig`]. Out: bindings through the `pods/binding`
//! sub-resource, the PodScheduled condition, Events. Absent: the store; any state that a restart could not read back
//! from the API.
//!
//! ```text
//! watches ──► scheduler { cache, queue } ──► framework: filter, score ──► assume ──► bind
//! ```

mod budgets;
mod cache;
mod columns;
mod config;
mod diagnosis;
mod error;
mod events;
#[cfg(test)]
mod fixtures;
mod framework;
mod listing;
mod namespaces;
mod node_set;
mod node_table;
mod nominations;
mod outbox;
mod plugins;
mod pod_affinity;
mod pod_info;
mod ports;
mod preemption;
mod queue;
mod resources;
mod run;
mod scheduler;
mod spread;
mod term_counts;
mod victims;
mod watches;

pub use config::SchedulerConfig;
pub use run::run;
