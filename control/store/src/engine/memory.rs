//! An engine that forgets: for tests and for throw-away control planes.
//!
//! In: records. Out: nothing after a restart. The map above it holds all that is read, so there is nothing to keep.

use super::{Bounds, Engine, EngineError, FIRST_BOUNDS, Record, Visit};
use crate::types::Revision;

#[derive(Default)]
pub struct MemoryEngine {}

impl Engine for MemoryEngine {
    fn bounds(&mut self) -> Result<Bounds, EngineError> {
        Ok(FIRST_BOUNDS)
    }

    fn scan(&mut self, _from: Revision, _visit: &mut Visit<'_>) -> Result<(), EngineError> {
        Ok(())
    }

    fn corrupt(&self, reason: String) -> EngineError {
        EngineError::Corrupt { path: "memory".into(), reason }
    }

    fn commit(&mut self, _batch: &[Record]) -> Result<(), EngineError> {
        Ok(())
    }

    fn compact(&mut self, _bounds: Bounds, _obsolete: &[Revision]) -> Result<(), EngineError> {
        Ok(())
    }

    fn recover(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
}
