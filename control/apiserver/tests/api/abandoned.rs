//! Requests that wait for the store: what becomes of them when their clients leave, and who is served meanwhile.
//!
//! In: writes over an engine that can be held up. Out: addresses that follow what was written, not who waited; nodes that
//! are served beside any crowd.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};
use xebec_apiserver::RequestLimits;
use xebec_store::engine::{Bounds, Engine, EngineError, MemoryEngine, Record, Visit};
use xebec_store::{Revision, Store};

use crate::harness::{Api, MAPS, SERVICES};

/// An engine that lets a batch through only while nobody holds its gate.
struct Gated {
    inner: MemoryEngine,
    gate: Arc<Mutex<()>>,
    arrived: mpsc::UnboundedSender<()>,
}

impl Engine for Gated {
    fn bounds(&mut self) -> Result<Bounds, EngineError> {
        self.inner.bounds()
    }

    fn scan(&mut self, from: Revision, visit: &mut Visit<'_>) -> Result<(), EngineError> {
        self.inner.scan(from, visit)
    }

    fn corrupt(&self, reason: String) -> EngineError {
        self.inner.corrupt(reason)
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), EngineError> {
        let _ = self.arrived.send(());
        drop(self.gate.blocking_lock());
        self.inner.commit(batch)
    }

    fn compact(&mut self, bounds: Bounds, obsolete: &[Revision]) -> Result<(), EngineError> {
        self.inner.compact(bounds, obsolete)
    }

    fn recover(&mut self) -> Result<(), EngineError> {
        self.inner.recover()
    }
}

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"clusterIP": "10.96.5.5", "ports": [{"port": 80}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_neither_frees_nor_keeps_what_its_write_decides() {
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let gate = Arc::new(Mutex::new(()));
    let engine = Gated { inner: MemoryEngine::default(), gate: gate.clone(), arrived };
    let api = Api::over(Store::with_engine(Box::new(engine)).expect("a store")).await;
    while arrivals.try_recv().is_ok() {}
    let first = service("a");
    let path = format!("{SERVICES}/a");

    let mut events = api.watch(&format!("{SERVICES}?watch=true&fieldSelector=metadata.name=a")).await;
    let closed = gate.lock().await;
    tokio::select! {
        answer = api.post(SERVICES, &first) => panic!("answered although it is not stored: {answer:?}"),
        _ = arrivals.recv() => {}
    }
    drop(closed);
    assert_eq!(events.change().await.0, "ADDED");
    api.get(&path).await.ok(200);
    let second = service("b");
    api.post(SERVICES, &second).await.failure(422, "Invalid");

    while arrivals.try_recv().is_ok() {}
    let closed = gate.lock().await;
    tokio::select! {
        answer = api.delete(&path, &Value::Null) => panic!("answered although it is not stored: {answer:?}"),
        _ = arrivals.recv() => {}
    }
    drop(closed);
    assert_eq!(events.change().await.0, "DELETED");
    // The write is visible a moment before what it held is given back.
    let mut again = api.post(SERVICES, &second).await;
    for _ in 0..1000 {
        if again.code == 201 {
            break;
        }
        tokio::task::yield_now().await;
        again = api.post(SERVICES, &second).await;
    }
    again.ok(201);
}

#[tokio::test]
async fn no_crowd_keeps_a_node_from_renewing_its_lease() {
    let (arrived, _arrivals) = mpsc::unbounded_channel();
    let gate = Arc::new(Mutex::new(()));
    let engine = Gated { inner: MemoryEngine::default(), gate: gate.clone(), arrived };
    let api = Api::over(Store::with_engine(Box::new(engine)).expect("a store")).await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": "makes"}, "rules": [
        {"verbs": ["create"], "apiGroups": [""], "resources": ["configmaps"]},
    ]});
    api.post(&format!("{rbac}/clusterroles"), &role).await.ok(201);
    let binding = json!({
        "metadata": {"name": "makes"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "makes"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    });
    api.post(&format!("{rbac}/clusterrolebindings"), &binding).await.ok(201);
    let jane = api.by("jane", &[]);
    let make = |index: usize| {
        let jane = jane.clone();
        tokio::task::unconstrained(Box::pin(async move {
            jane.post(MAPS, &json!({"metadata": {"name": format!("m{index}")}})).await
        }))
    };
    let closed = gate.lock().await;
    let places = RequestLimits::default().writing;
    let mut crowd: Vec<_> = (0..places).map(make).collect();
    for one in &mut crowd {
        assert!(futures::poll!(one).is_pending(), "waits for the store");
    }
    make(places).await.failure(429, "TooManyRequests");
    let lease = json!({"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}});
    let node = api.by_node("n1");
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let mut renewal = std::pin::pin!(tokio::task::unconstrained(node.post(leases, &lease)));
    assert!(futures::poll!(renewal.as_mut()).is_pending(), "not refused");
    drop(closed);
    renewal.await.ok(201);
    for one in crowd {
        one.await.ok(201);
    }
}
