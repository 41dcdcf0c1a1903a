//! Requests whose clients left while the store was writing.
//!
//! In: writes of services over an engine that can be held up. Out: addresses that follow what was written, not who waited.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};
use xebec_store::engine::{Bounds, Engine, EngineError, MemoryEngine, Record, Visit};
use xebec_store::{Revision, Store};

use crate::harness::{Api, SERVICES};

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
