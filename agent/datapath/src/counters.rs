//! What the programs refused or could not do, by reason.
//!
//! In: the per-CPU counters. Out: their sums.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use xebec_ebpf_common::{CounterValue, Plain, Reason, names};

use crate::error::{Error, Result};
use crate::sys;

/// Packets and bytes of one reason since the maps were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drops {
    /// Name of the reason, as metrics carry it.
    pub reason: &'static str,
    pub packets: u64,
    pub bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Counters {
    fd: OwnedFd,
    cpus: usize,
}

impl Counters {
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let failed = |call| move |source| Error::Syscall { call, object: "map COUNTERS".to_owned(), source };
        let fd = sys::obj_get(&folder.join(names::COUNTERS)).map_err(failed("BPF_OBJ_GET"))?;
        let cpus = aya::util::nr_cpus().map_err(|(path, source)| Error::Syscall {
            call: "read",
            object: path.to_owned(),
            source,
        })?;
        Ok(Self { fd, cpus })
    }

    /// One entry per reason, in the order of their numbers, those at zero too.
    pub(crate) fn read(&self) -> Result<Vec<Drops>> {
        Reason::ALL.iter().map(|reason| self.read_one(*reason)).collect()
    }

    fn read_one(&self, reason: Reason) -> Result<Drops> {
        // The kernel rounds each CPU's value up to 8 bytes; this one is a multiple already.
        let size = size_of::<CounterValue>();
        let mut values = vec![0_u8; size * self.cpus];
        sys::lookup(self.fd.as_fd(), (reason as u32).as_bytes(), &mut values).map_err(|source| {
            Error::Syscall { call: "BPF_MAP_LOOKUP_ELEM", object: "map COUNTERS".to_owned(), source }
        })?;
        let sum = values
            .chunks_exact(size)
            .filter_map(CounterValue::from_bytes)
            .fold((0, 0), |sum, value| (sum.0 + value.packets, sum.1 + value.bytes));
        Ok(Drops { reason: reason.name(), packets: sum.0, bytes: sum.1 })
    }
}
