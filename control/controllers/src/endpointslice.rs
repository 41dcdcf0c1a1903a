//! Lists the endpoints of every Service that has a selector.
//!
//! In: Services, Pods, Nodes, EndpointSlices. Out: the slices of each Service, with as few writes as will do.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use xebec_api::wellknown::labels::SERVICE_NAME;

/// Index of the slice cache: `namespace/service`.
pub(crate) fn service_of_slice(slice: &EndpointSlice) -> Option<String> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(format!("{}/{service}", slice.metadata.namespace.as_deref()?))
}
