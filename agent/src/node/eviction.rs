//! When a resource runs short.
//!
//! In: `--eviction-hard` in the kubelet's own notation. Out: [`Thresholds`]. Below one the node says that it is under
//! pressure, and takes no more pods.

use std::str::FromStr;

use xebec_api::Quantity;

/// Thresholds by signal. The defaults are upstream's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    pub memory_available: Amount,
    /// Of the file system that holds pods' folders, as all of these.
    pub nodefs_available: Amount,
    pub nodefs_inodes_free: Amount,
    pub pid_available: Amount,
}

/// How much has to be left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Bytes, inodes or processes.
    Absolute(u64),
    /// Of all there is.
    Percent(f64),
}

// === impl Amount ===

impl Amount {
    /// Whether less than this is left.
    pub fn exceeds(self, left: u64, all: u64) -> bool {
        match self {
            Self::Absolute(amount) => left < amount,
            Self::Percent(percent) => all > 0 && (left as f64) * 100.0 < (all as f64) * percent,
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither a quantity such as 1Gi nor a percentage such as 10%");
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_| wrong())?;
            return (0.0..=100.0).contains(&percent).then_some(Self::Percent(percent)).ok_or_else(wrong);
        }
        let quantity = Quantity::parse(text).map_err(|_| wrong())?;
        u64::try_from(quantity.value()).map(Self::Absolute).map_err(|_| wrong())
    }
}

// === impl Thresholds ===

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            memory_available: Amount::Absolute(100 << 20),
            nodefs_available: Amount::Percent(10.0),
            nodefs_inodes_free: Amount::Percent(5.0),
            pid_available: Amount::Percent(10.0),
        }
    }
}

/// `signal<amount`, separated by commas. What is not named keeps its default.
impl FromStr for Thresholds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut thresholds = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (signal, amount) =
                part.split_once('<').ok_or_else(|| format!("{part:?}: write SIGNAL<AMOUNT"))?;
            let slot = match signal {
                "memory.available" => &mut thresholds.memory_available,
                "nodefs.available" => &mut thresholds.nodefs_available,
                "nodefs.inodesFree" => &mut thresholds.nodefs_inodes_free,
                "pid.available" => &mut thresholds.pid_available,
                _ => {
                    return Err(format!(
                        "unknown signal {signal:?}; known: memory.available, nodefs.available, nodefs.inodesFree, \
                         pid.available"
                    ));
                }
            };
            *slot = amount.parse()?;
        }
        Ok(thresholds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_as_the_kubelet_reads_them() {
        let read: Thresholds = "nodefs.available<1Gi,memory.available<5%".parse().unwrap();
        assert_eq!(read.nodefs_available, Amount::Absolute(1 << 30));
        assert_eq!(read.memory_available, Amount::Percent(5.0));
        assert_eq!(read.pid_available, Thresholds::default().pid_available);
        for bad in ["nodefs.available", "imagefs<1", "nodefs.available<1x", "nodefs.available<101%"] {
            assert!(bad.parse::<Thresholds>().is_err(), "{bad}");
        }
    }

    #[test]
    fn less_than_the_amount_is_too_little() {
        assert!(Amount::Absolute(10).exceeds(9, 1000) && !Amount::Absolute(10).exceeds(10, 1000));
        assert!(Amount::Percent(10.0).exceeds(99, 1000) && !Amount::Percent(10.0).exceeds(100, 1000));
        assert!(!Amount::Percent(10.0).exceeds(0, 0), "file systems without inodes are not short of them");
    }
}
