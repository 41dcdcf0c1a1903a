//! Byte order ends here: `std::net` addresses to and from the ABI's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xebec_ebpf_common::{Addr, V4, V6};

/// A family of the ABI as `std::net` knows it.
pub(crate) trait Address: Addr {
    fn to_ip(self) -> IpAddr;
}

impl Address for V4 {
    fn to_ip(self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(self.octets()))
    }
}

impl Address for V6 {
    fn to_ip(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(self.octets()))
    }
}

/// An address of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Either {
    V4(V4),
    V6(V6),
}

impl From<IpAddr> for Either {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(V4::from_octets(address.octets())),
            IpAddr::V6(address) => Self::V6(V6::from_octets(address.octets())),
        }
    }
}
