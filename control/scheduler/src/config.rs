//! Settings of the scheduler.
//!
//! In: what `control` was told. Out: [`SchedulerConfig`]. No I/O.

use xebec_api::wellknown::names::DEFAULT_SCHEDULER;

/// What [`crate::run`] needs to know.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// Pods that name this scheduler are its own.
    pub scheduler_name: String,
    /// Bind requests under way at once.
    pub parallel_binds: usize,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self { scheduler_name: DEFAULT_SCHEDULER.to_owned(), parallel_binds: 64 }
    }
}
