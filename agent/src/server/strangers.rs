//! Connections whose sender is not known yet.
//!
//! In: the address of a peer. Out: a place for its connection, which it keeps until a request of it was answered by
//! something else than 401. Without credentials nobody can take the places of those who have some: each address has a
//! few, for a short time.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Strangers from one address; whoever has an IPv6 address has its whole /64.
const SHARE: usize = 64;
/// How long a connection may stay without a sender who is known. A token review may take half of it.
pub const PATIENCE: Duration = Duration::from_secs(20);

type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// How many there are, by address.
#[derive(Clone, Default)]
pub struct Strangers(Counts);

/// The place of one of them.
pub struct Place {
    counts: Counts,
    peer: IpAddr,
}

// === impl Strangers ===

impl Strangers {
    /// `None` when the address has its share.
    pub fn admit(&self, peer: IpAddr) -> Option<Place> {
        let peer = network_of(peer);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        if *count >= SHARE {
            return None;
        }
        *count += 1;
        Some(Place { counts: Arc::clone(&self.0), peer })
    }
}

// === impl Place ===

impl Place {
    /// Resolves when the sender did not become known in time; never when it did.
    pub async fn expired(self, known: &CancellationToken) {
        if tokio::time::timeout(PATIENCE, known.cancelled()).await.is_ok() {
            drop(self);
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_no_more() {
        let strangers = Strangers::default();
        let admit = |peer: &str| strangers.admit(peer.parse().unwrap());
        let mut places: Vec<Place> = (0..SHARE).map(|_| admit("192.0.2.1").unwrap()).collect();
        assert!(admit("::ffff:192.0.2.1").is_none(), "the same address by another name");
        assert!(admit("192.0.2.2").is_some());
        places.pop();
        assert!(admit("192.0.2.1").is_some());
        drop(places);
        assert!(strangers.0.lock().unwrap().is_empty(), "nothing is kept of who left");
        let places: Vec<Place> = (0..SHARE).map(|i| admit(&format!("2001:db8::{i:x}")).unwrap()).collect();
        assert!(admit("2001:db8::ffff:1").is_none(), "one host has many addresses");
        assert!(admit("2001:db8:0:1::1").is_some());
        drop(places);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_is_shown_out_and_somebody_known_is_not() {
        let strangers = Strangers::default();
        let peer = "192.0.2.1".parse().unwrap();
        let known = CancellationToken::new();
        let expired = strangers.admit(peer).unwrap();
        tokio::time::timeout(2 * PATIENCE, expired.expired(&known)).await.expect("nobody knows it");
        let stays = strangers.admit(peer).unwrap();
        known.cancel();
        tokio::time::timeout(2 * PATIENCE, stays.expired(&known)).await.expect_err("it may stay");
        assert!(strangers.0.lock().unwrap().is_empty(), "a known one takes no stranger's place");
    }
}
