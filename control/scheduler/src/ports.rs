//! Host ports, and which of them exclude each other on one node.
//!
//! In: container ports. Out: [`HostPort`], conflicts. Pure.

use k8s_openapi::api::core::v1::ContainerPort;

const ANY_ADDRESS: &str = "0.0.0.0";

/// A port on the node itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HostPort {
    address: String,
    protocol: String,
    port: i32,
}

impl HostPort {
    /// The host port of a container port, if it has one.
    pub(crate) fn of(port: &ContainerPort) -> Option<Self> {
        let number = port.host_port.filter(|number| *number > 0)?;
        let address = port.host_ip.clone().filter(|ip| !ip.is_empty() && ip != "::");
        Some(Self {
            address: address.unwrap_or_else(|| ANY_ADDRESS.to_owned()),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: number,
        })
    }

    /// Both cannot be bound on one node.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || self.address == ANY_ADDRESS || other.address == ANY_ADDRESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: &str, protocol: &str, number: i32) -> Option<HostPort> {
        HostPort::of(&ContainerPort {
            host_ip: Some(address.to_owned()),
            host_port: Some(number),
            protocol: Some(protocol.to_owned()),
            ..ContainerPort::default()
        })
    }

    #[test]
    fn ports_conflict_by_protocol_number_and_address() {
        let one = port("10.0.0.1", "TCP", 80).unwrap();
        let cases = [
            ("10.0.0.1", "TCP", 80, true),
            ("", "TCP", 80, true),
            ("0.0.0.0", "TCP", 80, true),
            ("::", "TCP", 80, true),
            ("10.0.0.2", "TCP", 80, false),
            ("10.0.0.1", "UDP", 80, false),
            ("10.0.0.1", "TCP", 81, false),
        ];
        for (address, protocol, number, expected) in cases {
            let other = port(address, protocol, number).unwrap();
            assert_eq!(one.conflicts(&other), expected, "{other:?}");
            assert_eq!(other.conflicts(&one), expected, "{other:?}");
        }
        assert_eq!(port("", "TCP", 0), None);
    }
}
