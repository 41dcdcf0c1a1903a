//! What this crate asks of the datapath.
//!
//! In: interface names and pod entries. Out: attached programs and map entries. A trait so that namespaces, links and
//! addresses can be tested where no program is loaded.

use std::net::IpAddr;

use xebec_datapath::pod::PodEntry;

use crate::error::DatapathError;

/// Pod side of the datapath. Every call is idempotent; removing what is not there succeeds.
pub trait PodDatapath: Send + Sync + 'static {
    /// Attaches the pod programs to the host end of a veth.
    fn attach(&self, interface: &str) -> Result<(), DatapathError>;
    /// Detaches them and removes their pins.
    fn detach(&self, interface: &str) -> Result<(), DatapathError>;
    /// Makes an address known as a local pod's.
    fn put(&self, entry: PodEntry) -> Result<(), DatapathError>;
    /// Forgets an address.
    fn remove(&self, address: IpAddr) -> Result<(), DatapathError>;
}
