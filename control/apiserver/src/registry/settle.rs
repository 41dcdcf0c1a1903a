//! The end of a write: what was taken for it is kept or given back by what became of it, whether its client still
//! waits or not.
//!
//! In: a write, what was reserved for it. Out: what the store says. A write that was queued happens even if the request
//! behind it is dropped (its client left, its time was up): only who waits for the store knows the outcome.

use xebec_store::{Store, StoreError, Write, Written};

use crate::admission::quota;
use crate::strategy::Reservation;

/// What is held until a write's outcome is known.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) reservation: Option<Box<dyn Reservation>>,
    pub(crate) charge: Option<quota::Guard>,
}

/// A write that did not happen, with what was held for it, so that it can be tried again.
pub(crate) struct Refused {
    pub(crate) error: StoreError,
    pub(crate) held: Held,
}

/// Writes, and then commits what was reserved. Runs to its end even when the caller does not.
pub(crate) async fn write(store: &Store, write: Write, held: Held) -> Result<Written, Refused> {
    if held.reservation.is_none() && held.charge.is_none() {
        return store.write(write).await.map_err(|error| Refused { error, held });
    }
    let store = store.clone();
    let settled = tokio::spawn(async move {
        match store.write(write).await {
            Ok(written) => {
                if let Some(reservation) = held.reservation {
                    reservation.commit();
                }
                Ok(written)
            }
            Err(error) => Err(Refused { error, held }),
        }
    });
    settled.await.unwrap_or_else(|error| {
        let error = StoreError::Unavailable { reason: error.to_string() };
        Err(Refused { error, held: Held::default() })
    })
}
