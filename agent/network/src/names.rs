//! Names and addresses derived from a pod's uid: interface name, MAC addresses, file names.
//!
//! In: uids. Out: names that are stable over restarts. Pure.

use crate::error::{Error, Result};

/// Host ends of pod interfaces start with this; links so named belong to this crate.
pub(crate) const INTERFACE_PREFIX: &str = "xeb";

/// The interface inside a pod.
pub(crate) const POD_INTERFACE: &str = "eth0";

/// Longest file name a uid may become.
const MAX_UID: usize = 128;

/// Which end of a pair a MAC address is for.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Pod,
    Host,
}

/// Refuses uids that are empty, long, hidden or would leave their folder: uids of static pods are the user's.
pub(crate) fn check_uid(uid: &str) -> Result<()> {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if uid.is_empty() || uid.len() > MAX_UID || uid.starts_with('.') || !uid.chars().all(safe) {
        return Err(Error::Uid(uid.to_owned()));
    }
    Ok(())
}

/// Name of the host end: 15 characters, the kernel's limit. `taken` tells names that other pods hold.
pub(crate) fn host_interface(uid: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut hash = fnv1a(uid.as_bytes(), 0);
    loop {
        let name = format!("{INTERFACE_PREFIX}{:012x}", hash & 0xffff_ffff_ffff);
        if !taken(&name) {
            return name;
        }
        hash = hash.wrapping_add(1);
    }
}

/// A locally administered unicast MAC address. Given explicitly so that no udev policy replaces it later.
pub(crate) fn mac(uid: &str, end: End) -> [u8; 6] {
    let seed = match end {
        End::Pod => 1,
        End::Host => 2,
    };
    let [_, _, a, b, c, d, e, f] = fnv1a(uid.as_bytes(), seed).to_be_bytes();
    [(a & 0xfc) | 0x02, b, c, d, e, f]
}

fn fnv1a(bytes: &[u8], seed: u8) -> u64 {
    [seed].iter().chain(bytes).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";

    #[test]
    fn interface_name_fits_the_kernel_and_avoids_taken_ones() {
        let name = host_interface(UID, |_| false);
        assert_eq!(name.len(), 15);
        assert_eq!(name, host_interface(UID, |_| false));
        assert_ne!(name, host_interface(UID, |other| other == name));
    }

    #[test]
    fn mac_is_local_unicast_and_differs_per_end() {
        for end in [End::Pod, End::Host] {
            assert_eq!(mac(UID, end)[0] & 0x03, 0x02);
        }
        assert_ne!(mac(UID, End::Pod), mac(UID, End::Host));
    }

    #[test]
    fn uids_that_would_leave_the_folder_are_refused() {
        for bad in ["", ".", "..", "a/b", "../x", "a b", "a\0b", &"x".repeat(129)] {
            assert!(check_uid(bad).is_err(), "{bad:?}");
        }
        for good in [UID, "d41d8cd98f00b204e9800998ecf8427e", "web.1_x"] {
            assert!(check_uid(good).is_ok(), "{good:?}");
        }
    }
}
