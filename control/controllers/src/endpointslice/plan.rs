//! Which slices a Service needs, and the fewest writes that get there.
//!
//! In: the Service, the pods its selector matches, the slices that exist. Out: slices to create, change and delete.
//! Every write of a slice goes to every node, so a slice without change is not touched, changed slices are filled before
//! others, and a slice that is not needed any more becomes one that is. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use xebec_api::wellknown::labels::{
    ENDPOINT_SLICE_CONTROLLER, ENDPOINT_SLICE_MANAGED_BY, HEADLESS, SERVICE_NAME,
};

use crate::endpointslice::endpoint::{self, NodeFacts};
use crate::owner::{controller_of, controller_reference};

/// Endpoints in one slice at most.
const SLICE_CAPACITY: usize = 100;

/// Writes that bring a Service's slices up to date.
#[derive(Debug, Default)]
pub(crate) struct SlicePlan {
    pub(crate) create: Vec<EndpointSlice>,
    /// Before, after.
    pub(crate) update: Vec<(Arc<EndpointSlice>, EndpointSlice)>,
    pub(crate) delete: Vec<Arc<EndpointSlice>>,
}

/// A slice that exists and what it should hold.
struct Draft {
    slice: Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

/// Slices by what they share: a slice has one list of ports.
type PortKey = String;

/// The plan for all families. `node` tells of a node that exists.
pub(crate) fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    slices: Vec<Arc<EndpointSlice>>,
    node: impl Fn(&str) -> Option<NodeFacts>,
) -> SlicePlan {
    let mut plan = SlicePlan::default();
    let families = families(service);
    let mut by_type: HashMap<String, Vec<Arc<EndpointSlice>>> = HashMap::new();
    for slice in slices.into_iter().filter(|slice| slice.metadata.deletion_timestamp.is_none()) {
        by_type.entry(slice.address_type.clone()).or_default().push(slice);
    }
    for (address_type, ipv6) in families {
        let existing = by_type.remove(address_type).unwrap_or_default();
        family(service, pods, existing, address_type, ipv6, &node, &mut plan);
    }
    // Of a family the Service does not have any more.
    plan.delete.extend(by_type.into_values().flatten());
    plan
}

/// Address types of a Service, and whether they are IPv6.
pub(crate) fn families(service: &Service) -> Vec<(&'static str, bool)> {
    let listed = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    let is_v6 = |ip: &String| ip.contains(':');
    let addresses = service.spec.as_ref().and_then(|spec| spec.cluster_ips.clone()).unwrap_or_default();
    let ipv6: Vec<bool> = if !listed.is_empty() {
        listed.iter().map(|family| family == "IPv6").collect()
    } else if addresses.iter().any(is_v6) {
        addresses.iter().map(is_v6).collect()
    } else {
        vec![false]
    };
    ipv6.into_iter().map(|ipv6| if ipv6 { ("IPv6", true) } else { ("IPv4", false) }).collect()
}

fn family(
    service: &Service,
    pods: &[Arc<Pod>],
    existing: Vec<Arc<EndpointSlice>>,
    address_type: &'static str,
    ipv6: bool,
    node: &impl Fn(&str) -> Option<NodeFacts>,
    plan: &mut SlicePlan,
) {
    let mut groups: BTreeMap<PortKey, Group> = BTreeMap::new();
    for slice in existing {
        let ports = slice.ports.clone().unwrap_or_default();
        groups.entry(port_key(&ports)).or_insert_with(|| Group::new(ports)).slices.push(slice);
    }
    for (ports, endpoint) in desired(service, pods, ipv6, node) {
        let group = groups.entry(port_key(&ports)).or_insert_with(|| Group::new(ports));
        group.desired.push(endpoint);
    }
    let (mut created, mut deleted, mut kept) = (Vec::new(), Vec::new(), 0);
    for group in groups.into_values() {
        let outcome = group.settle(service, address_type);
        kept += outcome.kept;
        created.extend(outcome.create);
        deleted.extend(outcome.delete);
        plan.update.extend(outcome.update);
    }
    if kept == 0 && created.is_empty() {
        // Watchers shall see that the Service is known and has nobody: one slice without endpoints.
        let placeholder = slice(service, address_type, Vec::new(), Vec::new());
        match deleted.iter().position(|slice| is_placeholder(slice)) {
            Some(position) => {
                let known = deleted.remove(position);
                let desired = change(service, &known, Vec::new(), Vec::new());
                if *known != desired {
                    plan.update.push((known, desired));
                }
            }
            None => created.push(placeholder),
        }
    }
    recycle(service, &mut created, &mut deleted, plan);
    plan.create.extend(created);
    plan.delete.extend(deleted);
}

/// Turns slices that are not needed into slices that are: one write where there would be two.
fn recycle(
    service: &Service,
    created: &mut Vec<EndpointSlice>,
    deleted: &mut Vec<Arc<EndpointSlice>>,
    plan: &mut SlicePlan,
) {
    while !created.is_empty()
        && let Some(old) = deleted.pop()
    {
        let new = created.remove(0);
        let desired = change(service, &old, new.ports.unwrap_or_default(), new.endpoints.unwrap_or_default());
        plan.update.push((old, desired));
    }
}

fn is_placeholder(slice: &EndpointSlice) -> bool {
    slice.endpoints.as_ref().is_none_or(Vec::is_empty) && slice.ports.as_ref().is_none_or(Vec::is_empty)
}

/// Every endpoint with its ports, in a stable order.
fn desired(
    service: &Service,
    pods: &[Arc<Pod>],
    ipv6: bool,
    node: &impl Fn(&str) -> Option<NodeFacts>,
) -> Vec<(Vec<EndpointPort>, Endpoint)> {
    let mut pods: Vec<&Arc<Pod>> = pods.iter().filter(|pod| endpoint::belongs(pod)).collect();
    pods.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut desired = Vec::new();
    for pod in pods {
        let known = crate::pod::bound_to(pod).map(node);
        let facts = match known {
            Some(None) if !endpoint::publishes_not_ready(service) => {
                // Its node is gone, and the pod with it; the pod's deletion may take a while.
                continue;
            }
            facts => facts.flatten().unwrap_or_default(),
        };
        if let Some(endpoint) = endpoint::endpoint(service, pod, &facts, ipv6) {
            desired.push((endpoint::ports(service, pod), endpoint));
        }
    }
    desired
}

fn port_key(ports: &[EndpointPort]) -> PortKey {
    let mut keys: Vec<String> = ports
        .iter()
        .map(|port| {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            format!(
                "{}/{}/{:?}/{}",
                text(&port.name),
                text(&port.protocol),
                port.port,
                text(&port.app_protocol)
            )
        })
        .collect();
    keys.sort();
    keys.join(",")
}

/// Slices of one list of ports, and the endpoints they should hold together.
struct Group {
    ports: Vec<EndpointPort>,
    slices: Vec<Arc<EndpointSlice>>,
    desired: Vec<Endpoint>,
}

#[derive(Default)]
struct Settled {
    create: Vec<EndpointSlice>,
    update: Vec<(Arc<EndpointSlice>, EndpointSlice)>,
    delete: Vec<Arc<EndpointSlice>>,
    /// Slices that stay, changed or not.
    kept: usize,
}

impl Group {
    fn new(ports: Vec<EndpointPort>) -> Self {
        Self { ports, slices: Vec::new(), desired: Vec::new() }
    }

    fn settle(mut self, service: &Service, address_type: &str) -> Settled {
        let mut settled = Settled::default();
        let mut drafts = self.draft(service, &mut settled.delete);
        // What is left has no place yet: slices that change anyway take it first.
        let mut left = std::mem::take(&mut self.desired).into_iter().peekable();
        drafts.sort_by_key(|draft| std::cmp::Reverse((draft.changed, draft.endpoints.len())));
        for draft in drafts.iter_mut().filter(|draft| draft.changed) {
            let room = SLICE_CAPACITY.saturating_sub(draft.endpoints.len());
            draft.endpoints.extend(left.by_ref().take(room));
        }
        let mut rest: Vec<Endpoint> = left.collect();
        while !rest.is_empty() {
            // One slice more is written in any case: rather a known one that fits them all, the fullest of these.
            let fitting = drafts
                .iter_mut()
                .filter(|draft| !draft.changed && draft.endpoints.len() + rest.len() <= SLICE_CAPACITY)
                .max_by_key(|draft| draft.endpoints.len());
            if let Some(draft) = fitting {
                draft.endpoints.append(&mut rest);
                draft.changed = true;
            } else {
                let more = rest.split_off(rest.len().min(SLICE_CAPACITY));
                let full = std::mem::replace(&mut rest, more);
                settled.create.push(slice(service, address_type, self.ports.clone(), full));
            }
        }
        settled.kept = drafts.len();
        for draft in drafts.into_iter().filter(|draft| draft.changed) {
            let desired = change(service, &draft.slice, self.ports.clone(), draft.endpoints);
            settled.update.push((draft.slice, desired));
        }
        settled
    }

    /// Keeps in each slice the endpoints that are still wanted, in their new state; slices left empty are to go.
    fn draft(&mut self, service: &Service, delete: &mut Vec<Arc<EndpointSlice>>) -> Vec<Draft> {
        let mut wanted: HashMap<EndpointKey, Endpoint> =
            self.desired.iter().map(|endpoint| (EndpointKey::of(endpoint), endpoint.clone())).collect();
        let mut drafts = Vec::new();
        self.slices.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        for slice in std::mem::take(&mut self.slices) {
            let known = slice.endpoints.iter().flatten();
            let endpoints: Vec<Endpoint> = known.filter_map(|e| wanted.remove(&EndpointKey::of(e))).collect();
            if endpoints.is_empty() {
                delete.push(slice);
                continue;
            }
            let same = slice.endpoints.as_ref() == Some(&endpoints)
                && slice.metadata.labels.as_ref() == Some(&labels(service))
                && is_owned(service, &slice);
            drafts.push(Draft { slice, endpoints, changed: !same });
        }
        self.desired.retain(|endpoint| wanted.contains_key(&EndpointKey::of(endpoint)));
        drafts
    }
}

/// What makes an endpoint the same over changes of its state.
#[derive(PartialEq, Eq, Hash)]
struct EndpointKey {
    addresses: Vec<String>,
    uid: Option<String>,
}

impl EndpointKey {
    fn of(endpoint: &Endpoint) -> Self {
        let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
        Self { addresses: endpoint.addresses.clone(), uid }
    }
}

/// A new slice.
fn slice(
    service: &Service,
    address_type: &str,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.metadata.name.as_deref().unwrap_or_default())),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service)),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: address_type.to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports),
    }
}

/// An existing slice with other content.
fn change(
    service: &Service,
    current: &EndpointSlice,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let mut changed = current.clone();
    changed.metadata.labels = Some(labels(service));
    if !is_owned(service, current) {
        changed.metadata.owner_references = Some(vec![controller_reference(service)]);
    }
    changed.ports = Some(ports);
    changed.endpoints = Some(endpoints);
    changed
}

/// A Service that was deleted and made anew under its name finds slices of the former one.
fn is_owned(service: &Service, slice: &EndpointSlice) -> bool {
    controller_of(slice).is_some_and(|owner| Some(&owner.uid) == service.metadata.uid.as_ref())
}

/// The Service's labels and the system's own.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(ENDPOINT_SLICE_MANAGED_BY.to_owned(), ENDPOINT_SLICE_CONTROLLER.to_owned());
    if endpoint::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}
