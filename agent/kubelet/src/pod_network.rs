//! The pod network as the kubelet uses it; a fake implements it in tests.

use std::future::Future;
use std::net::IpAddr;

use xebec_network::types::{PodNetwork, PodRequest};

/// Namespaces and addresses for pods. Every call is idempotent and bounded in time.
pub trait PodNetworking: Clone + Send + Sync + 'static {
    /// The same uid gets the same network again.
    fn attach(&self, request: &PodRequest) -> impl Future<Output = Result<PodNetwork, String>> + Send;
    /// Gives back what a pod got; no error when it has nothing.
    fn detach(&self, uid: &str) -> impl Future<Output = Result<(), String>> + Send;
    /// Uids that have a network.
    fn attached(&self) -> impl Future<Output = Result<Vec<String>, String>> + Send;
    /// Waits until no node sends new connections through a Service to a pod that is being deleted. The caller bounds
    /// the wait and goes on without an answer; who cannot tell answers at once.
    fn drained(&self, _uid: &str, _addresses: &[IpAddr]) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}
