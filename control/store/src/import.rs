//! A new store out of what another one held.
//!
//! In: live values with their revisions, the revision to go on from. Out: an engine that opens as a store whose whole
//! history up to that revision is compacted, so that readers of the old one are told to list again.

use bytes::Bytes;

use crate::engine::{Bounds, EngineConfig, EngineError, FIRST_BOUNDS, Record};
use crate::error::StoreError;
use crate::types::{KeyValue, Revision};

/// Values written by one commit.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 4 << 20;

/// Fills an engine that holds nothing yet and closes it. Values may come in any order; a fault of their source ends it,
/// and what was made by then is no store. Blocks on the disk.
///
/// # Errors
/// [`StoreError::Open`] when the engine is not empty or fails, `E` when the source does, or when a value was written
/// after `revision`.
pub fn import<E: From<StoreError>>(
    config: EngineConfig,
    revision: Revision,
    values: impl Iterator<Item = Result<KeyValue, E>>,
) -> Result<u64, E> {
    let mut engine = config.open().map_err(StoreError::from)?;
    let bounds = engine.bounds().map_err(StoreError::from)?;
    if bounds != FIRST_BOUNDS {
        return Err(StoreError::from(engine.corrupt("it already holds a store".into())).into());
    }
    let (mut batch, mut bytes, mut count) = (Vec::new(), 0, 0);
    let mut commit = |batch: &mut Vec<Record>| -> Result<(), EngineError> {
        engine.commit(batch)?;
        batch.clear();
        Ok(())
    };
    for value in values {
        let record = record(value?);
        if record.revision > revision {
            let reason = format!("a value of revision {} in a store of {revision}", record.revision);
            return Err(StoreError::Unavailable { reason }.into());
        }
        bytes += record.value.as_ref().map_or(0, Bytes::len);
        batch.push(record);
        count += 1;
        if batch.len() >= BATCH || bytes >= BATCH_BYTES {
            commit(&mut batch).map_err(StoreError::from)?;
            bytes = 0;
        }
    }
    commit(&mut batch).map_err(StoreError::from)?;
    engine.compact(Bounds { compacted: revision, revision }, &[]).map_err(StoreError::from)?;
    Ok(count)
}

fn record(value: KeyValue) -> Record {
    Record {
        revision: value.mod_revision,
        create_revision: value.create_revision,
        key: value.key,
        value: Some(value.value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Precondition, Store, Write};

    fn put(key: &'static str, precondition: Precondition) -> Write {
        Write::Put { key: Bytes::from_static(key.as_bytes()), value: Bytes::from_static(b"v"), precondition }
    }

    #[tokio::test]
    async fn an_imported_store_has_the_same_values_and_a_history_that_begins_later() {
        let folder = tempfile::tempdir().unwrap();
        let old = Store::open(EngineConfig::Memory).unwrap();
        for key in ["/a", "/b", "/c"] {
            old.write(put(key, Precondition::Absent)).await.unwrap();
        }
        let b = old.get(b"/b").unwrap().mod_revision;
        old.write(put("/b", Precondition::Unchanged(b))).await.unwrap();
        let items = old.list(b"", None, 0, None).unwrap().items;

        let config = EngineConfig::Embedded { path: folder.path().join("store.redb") };
        let later = Revision(1_000_000);
        let values = items.iter().cloned().map(Ok::<_, StoreError>);
        assert_eq!(import(config.clone(), later, values).unwrap(), 3);

        let new = Store::open(config.clone()).unwrap();
        assert_eq!(new.list(b"", None, 0, None).unwrap().items, items);
        assert_eq!(new.revision(), later);
        let refused = new.watch(b"", old.revision()).err();
        assert_eq!(refused, Some(StoreError::Compacted { oldest: later }));
        let written = new.write(put("/d", Precondition::Absent)).await.unwrap();
        assert_eq!(written.revision, later.next());
        new.close().await;

        let again = import(config.clone(), later, std::iter::empty::<Result<_, StoreError>>());
        assert!(again.unwrap_err().to_string().contains("already holds a store"));
        assert_eq!(Store::open(config).unwrap().stats().keys, 4);
    }

    #[test]
    fn a_value_from_the_future_is_refused() {
        let value = KeyValue {
            key: Bytes::from_static(b"/a"),
            value: Bytes::new(),
            create_revision: Revision(2),
            mod_revision: Revision(9),
        };
        let refused = import(EngineConfig::Memory, Revision(8), [Ok::<_, StoreError>(value)].into_iter());
        assert!(refused.unwrap_err().to_string().contains("a value of revision 9 in a store of 8"));
    }
}
