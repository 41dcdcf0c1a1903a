//! Where plans go.
//!
//! In: ordered operations. Out: tables. A trait so that plans can be checked against a model.

use xebec_datapath::lb::{LbOp, LbSnapshot};

/// Errors of the datapath as this crate passes them on.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// Load-balancing tables with this crate as their only writer.
pub trait LbSink: Send + Sync + 'static {
    /// Everything the tables hold.
    fn snapshot(&self) -> Result<LbSnapshot, SinkError>;
    /// Applies operations in order. An error may leave a prefix applied.
    fn apply(&self, ops: &[LbOp]) -> Result<(), SinkError>;
    /// How much the tables can hold.
    fn limits(&self) -> LbLimits;
}

/// Sizes of the tables that ids index. Index 0 of the backend table is never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LbLimits {
    /// One past the highest backend id.
    pub backends: u32,
    /// Length of the slot array.
    pub slots: u32,
}

impl<S: LbSink> LbSink for std::sync::Arc<S> {
    fn snapshot(&self) -> Result<LbSnapshot, SinkError> {
        (**self).snapshot()
    }

    fn apply(&self, ops: &[LbOp]) -> Result<(), SinkError> {
        (**self).apply(ops)
    }

    fn limits(&self) -> LbLimits {
        (**self).limits()
    }
}
