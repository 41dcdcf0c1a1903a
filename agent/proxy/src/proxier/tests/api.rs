//! The proxy against an API server: lists, watches, and what happens when they break.

use std::collections::VecDeque;
use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::{Request, Response};
use serde_json::{Value, json};
use tower::service_fn;

use super::*;

/// Answers to come, for Services and for EndpointSlices. When they are used up, watches stay open and say nothing.
#[derive(Clone, Default)]
struct Script {
    services: Arc<Mutex<VecDeque<Answer>>>,
    slices: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
enum Answer {
    /// A list.
    List(Vec<Value>),
    /// A watch that tells these events and ends.
    Watch(Vec<Value>),
    /// The request fails.
    Fail(u16),
}

type Body = BoxBody<Bytes, Infallible>;

impl Script {
    fn client(&self) -> Client {
        let script = self.clone();
        let service = service_fn(move |request: Request<kube::client::Body>| {
            let response = script.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        Client::new(service, "default")
    }

    fn answer(&self, request: &Request<kube::client::Body>) -> Response<Body> {
        let uri = request.uri();
        self.asked.lock().unwrap().push(uri.to_string());
        let watches = uri.query().unwrap_or_default().contains("watch=true");
        let (script, kind) = match uri.path() {
            "/api/v1/services" => (&self.services, "ServiceList"),
            _ => (&self.slices, "EndpointSliceList"),
        };
        let mut script = script.lock().unwrap();
        match script.front() {
            Some(Answer::List(_)) if watches => silent(),
            None => silent(),
            Some(_) => respond(script.pop_front().unwrap(), kind),
        }
    }
}

/// A watch that stays open.
fn silent() -> Response<Body> {
    Response::new(BodyExt::boxed(StreamBody::new(futures::stream::pending::<
        std::result::Result<Frame<Bytes>, Infallible>,
    >())))
}

fn respond(answer: Answer, kind: &str) -> Response<Body> {
    let full = |text: String| BodyExt::boxed(Full::new(Bytes::from(text)));
    match answer {
        Answer::List(items) => {
            let list = json!({"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": items});
            Response::new(full(list.to_string()))
        }
        Answer::Watch(events) => {
            Response::new(full(events.iter().map(|event| format!("{event}\n")).collect()))
        }
        Answer::Fail(code) => {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no"});
            Response::builder().status(code).body(full(status.to_string())).unwrap()
        }
    }
}

fn value(object: impl serde::Serialize) -> Value {
    let mut value = serde_json::to_value(object).unwrap();
    value["metadata"]["resourceVersion"] = json!("5");
    value
}

/// The answers' watch is told that its revision is gone.
fn gone() -> Value {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired",
                        "message": "too old"});
    json!({"type": "ERROR", "object": status})
}

#[tokio::test(start_paused = true)]
async fn watch_that_breaks_is_listed_anew_and_what_went_meanwhile_goes() {
    let (web, api) = (value(service("web", "10.96.0.1")), value(service("api", "10.96.0.2")));
    let script = Script::default();
    script.services.lock().unwrap().extend([
        Answer::Fail(503),
        Answer::List(vec![web.clone(), api]),
        Answer::Watch(vec![gone()]),
        Answer::Fail(500),
        Answer::List(vec![web]),
    ]);
    script.slices.lock().unwrap().extend([
        Answer::List(vec![value(slice("web", &["10.1.0.1"]))]),
        Answer::Watch(vec![
            json!({"type": "MODIFIED", "object": value(slice("web", &["10.1.0.1", "10.1.0.2"]))}),
        ]),
    ]);
    let model = Arc::new(Model::new(100, 100));
    let (config, mut reports, _node) = config();
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(script.client(), config, Arc::clone(&model), stop.clone()));
    let reach = |address: &str| model.reach(address, 80, Scope::Internal).map(|backends| backends.len());
    while (reach("10.96.0.1"), reach("10.96.0.2")) != (Some(2), None) {
        let report = tokio::time::timeout(Duration::from_secs(300), reports.next()).await;
        let report = report.expect("the proxy recovers").unwrap();
        assert!(report.error.is_none(), "{report:?}");
    }
    let asked = script.asked.lock().unwrap().clone();
    let selector =
        "labelSelector=%21service.kubernetes.io%2Fservice-proxy-name%2C%21service.kubernetes.io%2Fheadless";
    assert!(asked.iter().all(|uri| uri.contains(selector)), "{asked:?}");
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn api_server_that_is_away_is_asked_ever_less_often_and_the_tables_stay() {
    let model = Arc::new(Model::new(100, 100));
    let mut bench = start(&model);
    bench.list_services(&[service("web", "10.96.0.1")]);
    bench.list_slices(&[slice("web", &["10.1.0.1"])]);
    bench.synced().await;
    bench.stop().await;
    let before = model.tables().clone();

    let script = Script::default();
    script.services.lock().unwrap().extend(vec![Answer::Fail(503); 10_000]);
    let (config, _reports, _node) = config();
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(script.client(), config, Arc::clone(&model), stop.clone()));
    tokio::time::sleep(Duration::from_secs(600)).await;
    let asked = script.asked.lock().unwrap().iter().filter(|uri| uri.starts_with("/api/v1/services")).count();
    assert!((60..200).contains(&asked), "asked {asked} times in ten minutes");
    assert_eq!(*model.tables(), before);
    stop.cancel();
    running.await.unwrap().unwrap();
}
