//! Slices and Endpoints of Services of every sort.

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::wait::{until, until_gone, until_object};

const ADDRESSES: &str = "10.1";

/// A pod on no real node, with an address of its own.
async fn pod(plane: &ControlPlane, number: usize, port: i32, ready: bool) {
    let name = format!("pod-{number}");
    plane
        .create::<Pod>(json!({
            "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {"containers": [{
                "name": "c", "image": "nginx", "ports": [{"name": "http", "containerPort": port}],
            }]},
        }))
        .await;
    let ip = format!("{ADDRESSES}.{}.{}", number / 250, number % 250 + 1);
    let status = json!({"status": {
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
    }});
    let pods = plane.api::<Pod>();
    pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&status)).await.unwrap();
}

async fn service(plane: &ControlPlane, spec: &Value) {
    let mut service = json!({"metadata": {"name": "web"}, "spec": {
        "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
    }});
    for (field, value) in spec.as_object().unwrap() {
        service["spec"][field] = value.clone();
    }
    plane.create::<Service>(service).await;
}

/// Ports and number of endpoints that are ready and that are not, by slice.
fn shape(slices: &[EndpointSlice]) -> Vec<(Option<i32>, usize, usize)> {
    let mut shape: Vec<_> = slices
        .iter()
        .map(|slice| {
            let port = slice.ports.as_ref().and_then(|ports| ports.first()).and_then(|port| port.port);
            let (ready, not): (Vec<_>, Vec<_>) = slice
                .endpoints
                .iter()
                .flatten()
                .partition(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true));
            (port, ready.len(), not.len())
        })
        .collect();
    shape.sort_unstable();
    shape
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pods_fill_slices_of_a_hundred() {
    let plane = ControlPlane::start(0).await;
    for number in 0..230 {
        pod(&plane, number, 80, true).await;
    }
    service(&plane, &json!({})).await;
    until("three slices", &plane.api::<EndpointSlice>(), |slices| {
        let all = slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len));
        assert!(all.clone().all(|count| count <= 100), "too many in one slice");
        slices.len() == 3 && all.sum::<usize>() == 230
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn named_port_is_resolved_in_each_pod() {
    let plane = ControlPlane::start(0).await;
    pod(&plane, 0, 80, true).await;
    pod(&plane, 1, 8080, true).await;
    pod(&plane, 2, 8080, false).await;
    service(&plane, &json!({})).await;
    let expected = [(Some(80), 1, 0), (Some(8080), 1, 1)];
    until("one slice for each number", &plane.api::<EndpointSlice>(), |slices| shape(slices) == expected)
        .await;
    let endpoints = until_object("the older object", &plane.api::<Endpoints>(), "web", |endpoints| {
        endpoints.subsets.as_ref().is_some_and(|subsets| subsets.len() == 2)
    })
    .await;
    let subsets = endpoints.subsets.unwrap();
    let mut counts: Vec<(i32, usize, usize)> = subsets
        .iter()
        .map(|subset| {
            (
                subset.ports.as_ref().unwrap()[0].port,
                subset.addresses.as_ref().map_or(0, Vec::len),
                subset.not_ready_addresses.as_ref().map_or(0, Vec::len),
            )
        })
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [(80, 1, 0), (8080, 1, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn headless_service_may_publish_pods_that_are_not_ready() {
    let plane = ControlPlane::start(0).await;
    pod(&plane, 0, 80, true).await;
    pod(&plane, 1, 80, false).await;
    service(&plane, &json!({"clusterIP": "None", "publishNotReadyAddresses": true})).await;
    let slices =
        until("both ready", &plane.api::<EndpointSlice>(), |slices| shape(slices) == [(Some(80), 2, 0)])
            .await;
    let labels = slices[0].metadata.labels.as_ref().unwrap();
    assert!(labels.contains_key("service.kubernetes.io/headless"), "{labels:?}");
    let serving: Vec<_> =
        slices[0].endpoints.iter().flatten().map(|e| e.conditions.as_ref().unwrap().serving).collect();
    assert!(serving.contains(&Some(false)), "what is published is not said to serve: {serving:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn service_without_selector_keeps_what_was_made_by_hand() {
    let plane = ControlPlane::start(0).await;
    service(&plane, &json!({"selector": null})).await;
    plane
        .create::<EndpointSlice>(json!({
            "metadata": {"name": "by-hand", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 80}],
            "endpoints": [{"addresses": ["192.0.2.10"]}],
        }))
        .await;
    pod(&plane, 0, 80, true).await;
    // A second Service shows when the controller has looked at all of this.
    plane
        .create::<Service>(json!({
            "metadata": {"name": "other"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
        }))
        .await;
    let of = |slice: &EndpointSlice| {
        slice.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name")).cloned()
    };
    let slices = until("the other has its slice", &plane.api::<EndpointSlice>(), |slices| {
        slices.iter().any(|slice| of(slice).as_deref() == Some("other"))
    })
    .await;
    let web: Vec<&EndpointSlice> =
        slices.iter().filter(|slice| of(slice).as_deref() == Some("web")).collect();
    assert_eq!(web.len(), 1);
    assert_eq!(web[0].endpoints.as_ref().unwrap()[0].addresses, ["192.0.2.10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn service_without_pods_has_one_empty_slice_and_takes_it_along() {
    let plane = ControlPlane::start(0).await;
    service(&plane, &json!({})).await;
    let slices = plane.api::<EndpointSlice>();
    until("an empty slice", &slices, |slices| shape(slices) == [(None, 0, 0)]).await;
    until_object("empty endpoints", &plane.api::<Endpoints>(), "web", |e| e.subsets.is_none()).await;
    plane.api::<Service>().delete("web", &DeleteParams::default()).await.unwrap();
    until("no slice", &slices, <[EndpointSlice]>::is_empty).await;
    until_gone(&plane.api::<Endpoints>(), "web").await;
    let kept = plane.all::<EndpointSlice>().list(&ListParams::default()).await.unwrap().items;
    assert!(kept.iter().any(|slice| slice.metadata.name.as_deref() == Some("kubernetes")), "{kept:?}");
}
