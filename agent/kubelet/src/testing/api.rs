//! An API server in memory: list, watch, status patches, deletes, events, tokens; as much as a kubelet asks for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

/// How long a test waits for something, in tokio's time.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Clone)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct State {
    revision: u64,
    /// `pods/ns/name` → object.
    objects: BTreeMap<String, Value>,
    watchers: Vec<Watcher>,
    events: Vec<String>,
    deletes: Vec<String>,
    status_delay: Duration,
}

struct Watcher {
    prefix: String,
    selector: Vec<(String, String)>,
    sender: mpsc::UnboundedSender<Bytes>,
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl FakeApi {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), changed: Arc::new(watch::channel(0).0) }
    }

    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "default")
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let result = f(&mut self.state.lock().unwrap());
        self.changed.send_modify(|n| *n += 1);
        result
    }

    pub(crate) fn put(&self, kind: &str, mut object: Value) {
        let meta = &object["metadata"];
        let key =
            format!("{kind}/{}/{}", meta["namespace"].as_str().unwrap(), meta["name"].as_str().unwrap());
        self.with(|state| {
            let type_ = if state.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
            state.revision += 1;
            object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
            state.objects.insert(key.clone(), object.clone());
            state.tell(&key, type_, &object);
        });
    }

    pub(crate) fn change(&self, key: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(key).unwrap();
        change(&mut object);
        self.put(key.split('/').next().unwrap(), object);
    }

    pub(crate) fn get(&self, key: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(key).cloned()
    }

    pub(crate) fn remove(&self, key: &str) {
        self.with(|state| state.remove(key));
    }

    /// From now on a status takes so long to be written.
    pub(crate) fn delay_statuses(&self, delay: Duration) {
        self.with(|state| state.status_delay = delay);
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.state.lock().unwrap().events.clone()
    }

    pub(crate) fn deletes(&self) -> Vec<String> {
        self.state.lock().unwrap().deletes.clone()
    }

    /// Waits until `holds` for the object (`Null` while it is not there) and returns it.
    pub(crate) async fn wait(&self, key: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.wait_for(what, || {
            let object = self.get(key).unwrap_or_default();
            holds(&object).then_some(object)
        })
        .await
    }

    /// Waits until `found` finds something, asked after every change of the API.
    pub(crate) async fn wait_for<T>(&self, what: &str, found: impl Fn() -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            changed.mark_unchanged();
            if let Some(value) = found() {
                return value;
            }
            // Not everything that is waited for is a change of the API.
            let tick = tokio::time::sleep(Duration::from_millis(100));
            tokio::select! {
                _ = changed.changed() => {}
                () = tick => {}
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{what}: {:#?}",
                self.state.lock().unwrap().objects
            );
        }
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let query: BTreeMap<String, String> = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.replace("%3D", "=").replace("%2C", ",")))
            .collect();
        let path: Vec<&str> = parts.uri.path().trim_start_matches("/api/v1/").split('/').collect();
        match (&parts.method, path.as_slice()) {
            (&Method::GET, ["namespaces", ns, kind]) => self.read(&format!("{kind}/{ns}/"), &query),
            (&Method::GET, [kind]) => self.read(&format!("{kind}/"), &query),
            // Cluster-wide objects are kept in the namespace `-`.
            (&Method::GET, ["", "apis", "node.k8s.io", "v1", kind @ "runtimeclasses", name]) => {
                match self.get(&format!("{kind}/-/{name}")) {
                    Some(object) => json_answer(StatusCode::OK, &object),
                    None => not_found(),
                }
            }
            (&Method::POST, ["namespaces", _, "events"]) => {
                let text =
                    format!("{}: {}", body["reason"].as_str().unwrap(), body["message"].as_str().unwrap());
                self.with(|state| state.events.push(text));
                json_answer(StatusCode::CREATED, &body)
            }
            (&Method::PATCH, ["namespaces", _, "events", _]) => json_answer(
                StatusCode::OK,
                &json!({
                    "metadata": {}, "involvedObject": {}
                }),
            ),
            (&Method::POST, ["namespaces", _, "serviceaccounts", _, "token"]) => {
                let mut answer = body.clone();
                answer["status"] = json!({"token": "tok", "expirationTimestamp": "2100-01-01T00:00:00Z"});
                json_answer(StatusCode::CREATED, &answer)
            }
            (&Method::PATCH, ["namespaces", ns, "pods", name, "status"]) => {
                let delay = self.state.lock().unwrap().status_delay;
                tokio::time::sleep(delay).await;
                self.patch_status(&format!("pods/{ns}/{name}"), &body)
            }
            (&Method::DELETE, ["namespaces", ns, "pods", name]) => {
                let key = format!("pods/{ns}/{name}");
                self.with(|state| {
                    let status = &state.objects.get(&key).cloned().unwrap_or_default()["status"];
                    let phase = status["phase"].as_str().unwrap_or("none").to_owned();
                    state.deletes.push(format!("{name} {phase} {}", body["gracePeriodSeconds"]));
                    state.remove(&key);
                });
                json_answer(StatusCode::OK, &json!({"kind": "Status", "status": "Success"}))
            }
            other => panic!("not served: {other:?}"),
        }
    }

    fn read(&self, prefix: &str, query: &BTreeMap<String, String>) -> Answer {
        let selector: Vec<(String, String)> = query
            .get("fieldSelector")
            .into_iter()
            .flat_map(|s| s.split(','))
            .filter_map(|term| term.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        if query.get("watch").is_some_and(|w| w == "true") {
            let since: u64 = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
            let (sender, receiver) = mpsc::unbounded_channel();
            self.with(|state| {
                // The list came just before: only what changed in between is sent on.
                for (key, object) in &state.objects {
                    let newer =
                        object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap()
                            > since;
                    if key.starts_with(prefix) && newer && selected(object, &selector) {
                        let _closed = sender.send(line("MODIFIED", object));
                    }
                }
                state.watchers.push(Watcher { prefix: prefix.to_owned(), selector, sender });
            });
            let stream = futures::stream::unfold(receiver, |mut receiver| async {
                let bytes = receiver.recv().await?;
                Some((Ok(http_body::Frame::data(bytes)), receiver))
            });
            return Response::new(StreamBody::new(stream).boxed_unsync());
        }
        let state = self.state.lock().unwrap();
        let items: Vec<&Value> = state
            .objects
            .iter()
            .filter(|(key, object)| key.starts_with(prefix) && selected(object, &selector))
            .map(|(_, object)| object)
            .collect();
        json_answer(
            StatusCode::OK,
            &json!({"metadata": {"resourceVersion": state.revision.to_string()}, "items": items}),
        )
    }

    fn patch_status(&self, key: &str, patch: &Value) -> Answer {
        let Some(mut object) = self.get(key) else { return not_found() };
        assert_eq!(patch["metadata"]["uid"], object["metadata"]["uid"]);
        let status = object["status"].as_object_mut().unwrap();
        for (field, value) in patch["status"].as_object().unwrap() {
            if value.is_null() {
                status.remove(field);
            } else if field == "conditions" {
                let list = status.entry("conditions").or_insert(json!([])).as_array_mut().unwrap();
                for condition in value.as_array().unwrap() {
                    list.retain(|c| c["type"] != condition["type"]);
                    list.push(condition.clone());
                }
            } else {
                status.insert(field.clone(), value.clone());
            }
        }
        self.put("pods", object);
        json_answer(StatusCode::OK, &self.get(key).unwrap())
    }
}

impl State {
    fn remove(&mut self, key: &str) {
        if let Some(mut object) = self.objects.remove(key) {
            self.revision += 1;
            object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
            self.tell(key, "DELETED", &object);
        }
    }

    fn tell(&mut self, key: &str, type_: &str, object: &Value) {
        self.watchers.retain(|w| {
            !key.starts_with(&w.prefix)
                || !selected(object, &w.selector)
                || w.sender.send(line(type_, object)).is_ok()
        });
    }
}

fn line(type_: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": type_, "object": object})))
}

fn selected(object: &Value, selector: &[(String, String)]) -> bool {
    selector.iter().all(|(field, value)| {
        let found = field.split('.').fold(object, |at, part| &at[part]);
        found == value.as_str()
    })
}

fn json_answer(status: StatusCode, body: &Value) -> Answer {
    let body = Full::new(Bytes::from(body.to_string())).boxed_unsync();
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

fn not_found() -> Answer {
    let status = json!({
        "kind": "Status", "status": "Failure", "message": "not found", "reason": "NotFound", "code": 404
    });
    json_answer(StatusCode::NOT_FOUND, &status)
}
