//! The pod machine: what has to be done next for one pod. Pure: no I/O, no clock of its own.
//!
//! In: the Pod as desired, [`observed::Observed`] as seen, the time. Out: [`action::Action`]s.
//! The worker applies them and tells `Observed` what came of it; then the machine is asked again.

pub mod action;
pub mod backoff;
pub mod observed;
pub mod outcome;
mod plan;
pub(crate) mod stop;

pub use action::{Action, StopReason, TerminationReason};
pub use observed::Stage;
pub(crate) use plan::is_started;
pub use plan::plan;
