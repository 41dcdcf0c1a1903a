//! What users do to Services, from API objects to tables.

use std::net::IpAddr;

use serde_json::{Value, json};
use xebec_datapath::lb::{Frontend, Protocol};

use super::*;

/// A cluster of one node, whose Services and slices are given as the API gives them.
struct Cluster(Bench);

impl Cluster {
    async fn start(services: &[Value], slices: &[Value]) -> Self {
        let mut bench = start(&Arc::new(Model::new(200, 200)));
        let node = NodeView { addresses: vec![ip("172.30.0.1"), ip("fd01::1")], zone: Some("z1".into()) };
        bench.node.send(node).unwrap();
        bench.list_services(&services.iter().map(service_of).collect::<Vec<_>>());
        bench.list_slices(&slices.iter().map(slice_of).collect::<Vec<_>>());
        bench.synced().await;
        Self(bench)
    }

    async fn apply_service(&mut self, json: &Value) -> SyncReport {
        self.0.services.unbounded_send(Ok(Event::Apply(service_of(json)))).unwrap();
        self.0.synced().await
    }

    async fn delete_service(&mut self, json: &Value) -> SyncReport {
        self.0.services.unbounded_send(Ok(Event::Delete(service_of(json)))).unwrap();
        self.0.synced().await
    }

    async fn apply_slice(&mut self, json: &Value) -> SyncReport {
        self.0.slices.unbounded_send(Ok(Event::Apply(slice_of(json)))).unwrap();
        self.0.synced().await
    }

    async fn delete_slice(&mut self, json: &Value) -> SyncReport {
        self.0.slices.unbounded_send(Ok(Event::Delete(slice_of(json)))).unwrap();
        self.0.synced().await
    }

    /// `address:port`s behind a frontend such as `10.96.0.1:80/tcp`, or `from outside` with a trailing `!`; `None` where
    /// there is no such frontend.
    fn reach(&self, frontend: &str) -> Option<Vec<String>> {
        let (rest, scope) = match frontend.strip_suffix('!') {
            Some(rest) => (rest, Scope::External),
            None => (frontend, Scope::Internal),
        };
        let (address, protocol) = rest.split_once('/').unwrap();
        let address: std::net::SocketAddr = address.parse().unwrap();
        let protocol = if protocol == "udp" { Protocol::Udp } else { Protocol::Tcp };
        let wanted = Frontend { address: address.ip(), port: address.port(), protocol, scope };
        let tables = self.0.model.tables();
        let entry = tables.services.get(&wanted)?;
        let run = tables.run(entry).into_iter().inspect(|backend| assert_eq!(backend.protocol, protocol));
        Some(
            run.map(|backend| std::net::SocketAddr::new(backend.address, backend.port).to_string()).collect(),
        )
    }

    fn assert_empty(&self) {
        let tables = self.0.model.tables();
        assert!(tables.services.is_empty() && tables.backends.is_empty(), "{tables:?}");
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service_of(json: &Value) -> Service {
    serde_json::from_value(json.clone()).unwrap()
}

fn slice_of(json: &Value) -> EndpointSlice {
    serde_json::from_value(json.clone()).unwrap()
}

fn web(ips: &[&str], ports: &Value) -> Value {
    let spec = json!({"type": "NodePort", "clusterIP": ips[0], "clusterIPs": ips, "ports": ports});
    json!({"metadata": {"namespace": "a", "name": "web"}, "spec": spec})
}

fn slice_named(name: &str, ports: &Value, endpoints: &[Value]) -> Value {
    let first = endpoints.iter().find_map(|e| e["addresses"][0].as_str()).unwrap_or("10.1.0.1");
    let family = if first.contains(':') { "IPv6" } else { "IPv4" };
    json!({
        "metadata": {"namespace": "a", "name": name, "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": family, "ports": ports, "endpoints": endpoints,
    })
}

fn endpoint(address: &str) -> Value {
    json!({"addresses": [address], "nodeName": "there"})
}

fn with(mut endpoint: Value, ready: bool, serving: bool, terminating: bool) -> Value {
    endpoint["conditions"] = json!({"ready": ready, "serving": serving, "terminating": terminating});
    endpoint
}

fn here(address: &str) -> Value {
    json!({"addresses": [address], "nodeName": "here"})
}

fn some(backends: &[&str]) -> Option<Vec<String>> {
    Some(backends.iter().map(|backend| (*backend).to_owned()).collect())
}

fn http() -> Value {
    json!([{"name": "http", "port": 80, "nodePort": 30080}])
}

fn http_at(port: u16) -> Value {
    json!([{"name": "http", "port": port}])
}

#[tokio::test(start_paused = true)]
async fn one_port_number_for_tcp_and_udp_has_two_frontends_with_backends_of_their_own() {
    let ports = json!([
        {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "nodePort": 30053},
    ]);
    let targets =
        json!([{"name": "dns", "port": 5353, "protocol": "UDP"}, {"name": "dns-tcp", "port": 5354}]);
    let slice = slice_named("web-1", &targets, &[endpoint("10.1.0.1")]);
    let cluster = Cluster::start(&[web(&["10.96.0.1"], &ports)], &[slice]).await;
    assert_eq!(cluster.reach("10.96.0.1:53/udp"), some(&["10.1.0.1:5353"]));
    assert_eq!(cluster.reach("10.96.0.1:53/tcp"), some(&["10.1.0.1:5354"]));
    assert_eq!(cluster.reach("172.30.0.1:30053/udp!"), some(&["10.1.0.1:5353"]));
    assert_eq!(cluster.reach("172.30.0.1:30053/tcp!"), some(&["10.1.0.1:5354"]));
}

#[tokio::test(start_paused = true)]
async fn slices_of_one_service_add_up_and_each_may_go() {
    let one = slice_named("web-1", &http_at(8080), &[endpoint("10.1.0.1"), endpoint("10.1.0.2")]);
    let two = slice_named("web-2", &http_at(9090), &[endpoint("10.1.0.3")]);
    let mut cluster = Cluster::start(&[web(&["10.96.0.1"], &http())], &[one.clone(), two]).await;
    assert_eq!(cluster.reach("10.96.0.1:80/tcp"), some(&["10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.3:9090"]));
    cluster.delete_slice(&one).await;
    assert_eq!(cluster.reach("10.96.0.1:80/tcp"), some(&["10.1.0.3:9090"]));
    let three = slice_named("web-3", &http_at(8080), &[endpoint("10.1.0.4")]);
    cluster.apply_slice(&three).await;
    assert_eq!(cluster.reach("10.96.0.1:80/tcp"), some(&["10.1.0.3:9090", "10.1.0.4:8080"]));
}

#[tokio::test(start_paused = true)]
async fn service_is_served_at_every_address_of_both_families() {
    let four = slice_named("web-4", &http_at(8080), &[endpoint("10.1.0.1")]);
    let six = slice_named("web-6", &http_at(8080), &[endpoint("fd10::1")]);
    let cluster = Cluster::start(&[web(&["10.96.0.1", "fd00::1"], &http())], &[four, six]).await;
    for frontend in ["10.96.0.1:80/tcp", "172.30.0.1:30080/tcp", "172.30.0.1:30080/tcp!"] {
        assert_eq!(cluster.reach(frontend), some(&["10.1.0.1:8080"]), "{frontend}");
    }
    for frontend in ["[fd00::1]:80/tcp", "[fd01::1]:30080/tcp", "[fd01::1]:30080/tcp!"] {
        assert_eq!(cluster.reach(frontend), some(&["[fd10::1]:8080"]), "{frontend}");
    }
    assert_eq!(cluster.reach("10.96.0.1:80/tcp!"), None, "a cluster IP is not served to the outside");
}

#[tokio::test(start_paused = true)]
async fn service_that_changes_ports_and_addresses_leaves_nothing_behind() {
    let slice = slice_named("web-1", &http_at(8080), &[endpoint("10.1.0.1")]);
    let mut cluster = Cluster::start(&[web(&["10.96.0.1"], &http())], &[slice]).await;
    let ports = json!([{"name": "http", "port": 81, "nodePort": 30081}]);
    cluster.apply_service(&web(&["10.96.0.1"], &ports)).await;
    assert_eq!(cluster.reach("10.96.0.1:81/tcp"), some(&["10.1.0.1:8080"]));
    assert_eq!((cluster.reach("10.96.0.1:80/tcp"), cluster.reach("172.30.0.1:30080/tcp!")), (None, None));
    // Deleted and made again with another address, seen as one change.
    cluster.apply_service(&web(&["10.96.0.2"], &ports)).await;
    assert_eq!(cluster.reach("10.96.0.1:81/tcp"), None);
    assert_eq!(cluster.reach("10.96.0.2:81/tcp"), some(&["10.1.0.1:8080"]));
    let mut cluster_ip = web(&["10.96.0.2"], &json!([{"name": "http", "port": 81}]));
    cluster_ip["spec"]["type"] = json!("ClusterIP");
    cluster.apply_service(&cluster_ip).await;
    assert_eq!(cluster.0.model.tables().services.len(), 1);
    cluster.delete_service(&cluster_ip).await;
    cluster.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn service_that_turns_headless_or_external_name_has_no_tables() {
    let slice = slice_named("web-1", &http_at(8080), &[endpoint("10.1.0.1")]);
    let plain = web(&["10.96.0.1"], &http());
    let mut headless = web(&["None"], &http());
    headless["spec"]["type"] = json!("ClusterIP");
    let external = json!({
        "metadata": {"namespace": "a", "name": "web"}, "spec": {"type": "ExternalName", "externalName": "x.y"},
    });
    let mut cluster = Cluster::start(std::slice::from_ref(&plain), &[slice]).await;
    for other in [headless, external] {
        cluster.apply_service(&other).await;
        cluster.assert_empty();
        cluster.apply_service(&plain).await;
        assert_eq!(cluster.reach("10.96.0.1:80/tcp"), some(&["10.1.0.1:8080"]));
    }
}

#[tokio::test(start_paused = true)]
async fn rollout_moves_traffic_to_ready_endpoints_and_falls_back_to_ending_ones() {
    let (old, new) = (endpoint("10.1.0.1"), endpoint("10.1.0.2"));
    let slice = |old: Value, new: Value| slice_named("web-1", &http_at(8080), &[old, new]);
    let (ready, starting) = ((true, true, false), (false, false, false));
    let (ending, ended) = ((false, true, true), (false, false, true));
    let state = |e: &Value, (r, s, t): (bool, bool, bool)| with(e.clone(), r, s, t);
    let first = slice(state(&old, ready), state(&new, starting));
    let mut cluster = Cluster::start(&[web(&["10.96.0.1"], &http())], &[first]).await;
    for (step, old_state, new_state, expected) in [
        ("the new one is ready", ready, ready, vec!["10.1.0.1:8080", "10.1.0.2:8080"]),
        ("the old one ends", ending, ready, vec!["10.1.0.2:8080"]),
        ("the new one fails: rather an ending one than none", ending, starting, vec!["10.1.0.1:8080"]),
        ("both end", ending, ending, vec!["10.1.0.1:8080", "10.1.0.2:8080"]),
        ("the old one has ended", ended, ending, vec!["10.1.0.2:8080"]),
        ("both have", ended, ended, vec![]),
    ] {
        cluster.apply_slice(&slice(state(&old, old_state), state(&new, new_state))).await;
        assert_eq!(cluster.reach("10.96.0.1:80/tcp"), some(&expected), "{step}");
        assert_eq!(
            cluster.0.model.tables().backends.len(),
            2,
            "{step}: flows go on while an endpoint is listed"
        );
    }
    cluster.apply_slice(&slice_named("web-1", &http_at(8080), &[])).await;
    assert!(cluster.0.model.tables().backends.is_empty());
}

#[tokio::test(start_paused = true)]
async fn endpoints_published_before_they_are_ready_are_used() {
    // publishNotReadyAddresses: the slice says ready though the pod does not serve, even while it ends.
    let endpoints =
        [with(endpoint("10.1.0.1"), true, false, false), with(endpoint("10.1.0.2"), true, false, true)];
    let slice = slice_named("web-1", &http_at(8080), &endpoints);
    let cluster = Cluster::start(&[web(&["10.96.0.1"], &http())], &[slice]).await;
    assert_eq!(cluster.reach("10.96.0.1:80/tcp"), some(&["10.1.0.1:8080", "10.1.0.2:8080"]));
}

#[tokio::test(start_paused = true)]
async fn local_policies_keep_their_traffic_on_the_node() {
    let endpoints = [here("10.1.0.1"), endpoint("10.1.0.2")];
    let slice = slice_named("web-1", &http_at(8080), &endpoints);
    let both = some(&["10.1.0.1:8080", "10.1.0.2:8080"]);
    let local = some(&["10.1.0.1:8080"]);
    let mut service = web(&["10.96.0.1"], &http());
    let mut cluster = Cluster::start(std::slice::from_ref(&service), &[slice]).await;
    for (internal, external, cluster_ip, inside, outside) in [
        ("Local", "Cluster", &local, &both, &both),
        ("Cluster", "Local", &both, &both, &local),
        ("Local", "Local", &local, &both, &local),
        ("Cluster", "Cluster", &both, &both, &both),
    ] {
        service["spec"]["internalTrafficPolicy"] = json!(internal);
        service["spec"]["externalTrafficPolicy"] = json!(external);
        cluster.apply_service(&service).await;
        let found =
            ["10.96.0.1:80/tcp", "172.30.0.1:30080/tcp", "172.30.0.1:30080/tcp!"].map(|f| cluster.reach(f));
        assert_eq!(found, [cluster_ip, inside, outside].map(Clone::clone), "{internal} {external}");
    }
}

#[tokio::test(start_paused = true)]
async fn drops_where_only_other_nodes_have_endpoints_and_rejects_where_none_has() {
    let mut service = web(&["10.96.0.1"], &http());
    service["spec"]["externalTrafficPolicy"] = json!("Local");
    let elsewhere = slice_named("web-1", &http_at(8080), &[endpoint("10.1.0.2")]);
    let mut cluster = Cluster::start(&[service], std::slice::from_ref(&elsewhere)).await;
    let drops = |cluster: &Cluster| {
        let tables = cluster.0.model.tables();
        tables
            .services
            .iter()
            .filter(|(_, e)| e.count == 0 && e.drop_when_empty)
            .map(|(f, _)| f.scope)
            .collect::<Vec<_>>()
    };
    assert_eq!(drops(&cluster), [Scope::External]);
    cluster.delete_slice(&elsewhere).await;
    assert_eq!(drops(&cluster), []);
    assert_eq!(cluster.reach("172.30.0.1:30080/tcp!"), some(&[]));
}

#[tokio::test(start_paused = true)]
async fn affinity_is_switched_without_moving_a_backend() {
    let slice = slice_named("web-1", &http_at(8080), &[endpoint("10.1.0.1")]);
    let mut service = web(&["10.96.0.1"], &http());
    let mut cluster = Cluster::start(std::slice::from_ref(&service), &[slice]).await;
    let before = cluster.0.model.tables().clone();
    service["spec"]["sessionAffinity"] = json!("ClientIP");
    service["spec"]["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 90}});
    let report = cluster.apply_service(&service).await;
    assert_eq!(report.operations, 3, "the three entries and nothing else");
    let after = cluster.0.model.tables().clone();
    assert_eq!((&after.backends, &after.slots), (&before.backends, &before.slots));
    for (frontend, entry) in &after.services {
        let old = before.services[frontend];
        assert_eq!((entry.id, entry.base, entry.generation), (old.id, old.base, old.generation));
        assert_eq!(entry.affinity, Some(Duration::from_secs(90)));
    }
}

#[tokio::test(start_paused = true)]
async fn traffic_stays_in_the_zone_while_every_ready_endpoint_is_hinted() {
    let hinted = |address: &str, zone: &str| {
        let mut endpoint = endpoint(address);
        endpoint["hints"] = json!({"forZones": [{"name": zone}]});
        endpoint
    };
    let endpoints = [hinted("10.1.0.1", "z1"), hinted("10.1.0.2", "z2")];
    let slice = slice_named("web-1", &http_at(8080), &endpoints);
    let mut cluster = Cluster::start(&[web(&["10.96.0.1"], &http())], &[slice]).await;
    assert_eq!(cluster.reach("10.96.0.1:80/tcp"), some(&["10.1.0.1:8080"]));
    let moved = NodeView { addresses: vec![ip("172.30.0.1")], zone: Some("z2".into()) };
    cluster.0.node.send(moved).unwrap();
    assert!(cluster.0.synced().await.full);
    assert_eq!(cluster.reach("10.96.0.1:80/tcp"), some(&["10.1.0.2:8080"]));
    let endpoints = [hinted("10.1.0.1", "z1"), endpoint("10.1.0.2")];
    cluster.apply_slice(&slice_named("web-1", &http_at(8080), &endpoints)).await;
    assert_eq!(cluster.reach("10.96.0.1:80/tcp"), some(&["10.1.0.1:8080", "10.1.0.2:8080"]));
}

#[tokio::test(start_paused = true)]
async fn load_balancer_is_short_circuited_except_where_it_is_a_proxy() {
    let slice = slice_named("web-1", &http_at(8080), &[endpoint("10.1.0.1")]);
    let mut service = web(&["10.96.0.1"], &http());
    service["spec"]["type"] = json!("LoadBalancer");
    service["status"] = json!({"loadBalancer": {"ingress": [
        {"ip": "203.0.113.1", "ipMode": "VIP"}, {"ip": "203.0.113.2", "ipMode": "Proxy"}, {"ip": "203.0.113.3"},
    ]}});
    let cluster = Cluster::start(&[service], &[slice]).await;
    for frontend in ["203.0.113.1:80/tcp", "203.0.113.1:80/tcp!", "203.0.113.3:80/tcp!"] {
        assert_eq!(cluster.reach(frontend), some(&["10.1.0.1:8080"]), "{frontend}");
    }
    assert_eq!(cluster.reach("203.0.113.2:80/tcp"), None);
}

#[tokio::test(start_paused = true)]
async fn restart_in_any_order_of_objects_writes_nothing() {
    let names: Vec<_> = (0..8).map(|n| format!("s{n}")).collect();
    let services: Vec<_> =
        (0u8..8).map(|n| service(&names[usize::from(n)], &format!("10.96.0.1{n}"))).collect();
    let slices: Vec<_> = (0u8..8)
        .map(|n| slice(&names[usize::from(n)], &[&format!("10.1.0.{n}"), "10.1.1.1", &format!("10.1.2.{n}")]))
        .collect();
    let services: Vec<_> = services
        .into_iter()
        .map(|mut service| {
            // Node ports must differ; these services have none.
            service.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].node_port = None;
            service
        })
        .collect();
    let model = Arc::new(Model::new(200, 200));
    let mut bench = start(&model);
    bench.list_services(&services);
    bench.list_slices(&slices);
    bench.synced().await;
    bench.stop().await;
    let before = model.tables().clone();
    let reversed = |n: usize| 7 - n;
    let mut bench = start(&model);
    bench.list_slices(&(0..8).map(|n| slices[reversed(n)].clone()).collect::<Vec<_>>());
    bench.list_services(&(0..8).map(|n| services[reversed(n)].clone()).collect::<Vec<_>>());
    assert_eq!(bench.synced().await.operations, 0);
    assert_eq!(*model.tables(), before);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn health_checks_are_told_when_endpoints_here_come_and_go() {
    let mut service = web(&["10.96.0.1"], &http());
    service["spec"]["type"] = json!("LoadBalancer");
    service["spec"]["externalTrafficPolicy"] = json!("Local");
    service["spec"]["healthCheckNodePort"] = json!(31_000);
    let slice = |endpoints: &[Value]| slice_named("web-1", &http_at(8080), endpoints);
    let first = slice(&[here("10.1.0.1"), endpoint("10.1.0.2")]);
    let mut cluster = Cluster::start(std::slice::from_ref(&service), &[first]).await;
    let told = |cluster: &Cluster| {
        let mut told = cluster.0.health_checks.lock().unwrap();
        std::mem::take(&mut *told).into_iter().map(|change| change.state).collect::<Vec<_>>()
    };
    let ready = |count: usize| Some(HealthCheck { port: 31_000, ready: [Some(count), None] });
    assert_eq!(told(&cluster), [ready(1)]);
    cluster.apply_slice(&slice(&[here("10.1.0.1"), here("10.1.0.3"), endpoint("10.1.0.2")])).await;
    cluster.apply_slice(&slice(&[here("10.1.0.1"), here("10.1.0.3")])).await;
    assert_eq!(told(&cluster), [ready(2)], "endpoints elsewhere do not matter");
    cluster.apply_slice(&slice(&[with(here("10.1.0.1"), false, true, true)])).await;
    assert_eq!(told(&cluster), [ready(0)], "an ending endpoint takes no new load");
    // Deleted while the tables cannot be written: told once they can.
    cluster.0.model.tables().fail_after = Some(0);
    assert!(cluster.delete_service(&service).await.error.is_some());
    assert_eq!(told(&cluster), []);
    assert!(cluster.0.synced().await.error.is_none());
    assert_eq!(told(&cluster), [None]);
    cluster.assert_empty();
}
