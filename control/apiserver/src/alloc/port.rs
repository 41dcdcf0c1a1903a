//! The range of node ports.
//!
//! In: the configured range. Out: ports, each given out once. The lower band is left to static assignments as long as
//! the rest has room (KEP-3668).

use std::collections::HashSet;
use std::ops::RangeInclusive;

use super::AllocError;

#[derive(Debug)]
pub(crate) struct PortRange {
    range: RangeInclusive<u16>,
    /// Ports below this one are given out last.
    dynamic_from: u16,
    taken: HashSet<u16>,
}

impl PortRange {
    pub(crate) fn new(range: RangeInclusive<u16>) -> Self {
        let size = u32::from(*range.end()) + 1 - u32::from(*range.start()).min(u32::from(*range.end()));
        let band = if size <= 16 { 0 } else { (size / 32).clamp(16, 128) };
        let band = u16::try_from(band).unwrap_or(0);
        Self { dynamic_from: range.start().saturating_add(band), range, taken: HashSet::new() }
    }

    pub(crate) fn allocate(&mut self, port: u16) -> Result<(), AllocError> {
        if !self.range.contains(&port) {
            return Err(AllocError::PortOutside(format!("{}-{}", self.range.start(), self.range.end())));
        }
        if self.taken.insert(port) { Ok(()) } else { Err(AllocError::PortTaken) }
    }

    pub(crate) fn allocate_next(&mut self) -> Result<u16, AllocError> {
        let (start, end) = (*self.range.start(), *self.range.end());
        let port = self
            .free(self.dynamic_from..=end)
            .or_else(|| self.free(start..=self.dynamic_from.saturating_sub(1)))
            .ok_or(AllocError::Full)?;
        self.taken.insert(port);
        Ok(port)
    }

    pub(crate) fn release(&mut self, port: u16) {
        self.taken.remove(&port);
    }

    fn free(&self, ports: RangeInclusive<u16>) -> Option<u16> {
        if ports.is_empty() {
            return None;
        }
        let start = rand::random_range(ports.clone());
        (start..=*ports.end()).chain(*ports.start()..start).find(|port| !self.taken.contains(port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_static_band_is_given_out_last() {
        let mut ports = PortRange::new(30000..=32767);
        let all: Vec<u16> = std::iter::from_fn(|| ports.allocate_next().ok()).collect();
        assert_eq!(all.len(), 2768);
        assert_eq!(all.iter().position(|port| *port < 30086), Some(2768 - 86));
        assert_eq!(ports.allocate_next(), Err(AllocError::Full));
        ports.release(30500);
        assert_eq!(ports.allocate_next(), Ok(30500));
    }

    #[test]
    fn named_ports_are_checked() {
        let mut ports = PortRange::new(30000..=30001);
        assert_eq!(ports.allocate(30000), Ok(()));
        assert_eq!(ports.allocate(30000), Err(AllocError::PortTaken));
        let outside = ports.allocate(80).expect_err("outside");
        assert_eq!(
            outside.to_string(),
            "provided port is not in the valid range. The range of valid ports is 30000-30001"
        );
        assert_eq!(ports.allocate_next(), Ok(30001));
    }
}
