//! Limits of the process.
//!
//! In: nothing. Out: as many descriptors as the system allows, and how many of them clients may have.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More connections than this are not useful on one machine.
const MOST: u64 = 16 * 1024;
/// Descriptors for the store, the other ends of tunnels, proxied requests.
const RESERVED: u64 = 4 * 1024;

/// Raises the limit of open files; each connection is one. Answers how many clients may be connected at once.
pub fn connections() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| {
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        Ok(most)
    });
    let limit = limit.or_else(|error| {
        tracing::warn!(%error, "the limit of open files stays as it is");
        getrlimit(Resource::RLIMIT_NOFILE).map(|(now, _)| now)
    });
    within(limit.unwrap_or(MOST))
}

/// At least half of a small limit is for clients.
fn within(descriptors: u64) -> usize {
    let free = descriptors.saturating_sub(RESERVED).max(descriptors / 2);
    usize::try_from(free.clamp(1, MOST)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn descriptors_are_left_for_the_rest() {
        assert_eq!((within(1 << 20), within(20_000), within(1024), within(0)), (16_384, 15_904, 512, 1));
    }
}
