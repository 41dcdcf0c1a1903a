//! A server in this process and a client that speaks to it.
//!
//! In: method, path and body. Out: the answer, or a watch to read events from.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use xebec_apiserver::authn::{InProcess, UserInfo};
use xebec_apiserver::token::{SigningKey, TokenIssuer, TokenVerifier, issuer_url};
use xebec_apiserver::{ApiServer, ApiServerConfig, Body, RequestLimits, Tokens, full};
use xebec_store::{EngineConfig, Store};

pub(crate) const JSON: &str = "application/json";
pub(crate) const YAML: &str = "application/yaml";
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";

pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";
pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const SERVICES: &str = "/api/v1/namespaces/default/services";
pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server and its store.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) server: ApiServer,
    pub(crate) store: Store,
    /// Who asks; `None` shows no credentials.
    user: Option<UserInfo>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

/// A stream of watch events.
pub(crate) struct Watch {
    body: Body,
    buffer: Vec<u8>,
}

// === impl Api ===

impl Api {
    pub(crate) async fn new() -> Self {
        Self::over(Store::open(EngineConfig::Memory).expect("a store in memory")).await
    }

    /// A server over a store that may have been written by another one: what a restart is.
    pub(crate) async fn over(store: Store) -> Self {
        let server = ApiServer::new(config(), store.clone()).expect("a valid configuration");
        server.bootstrap().await.expect("the first objects are made");
        let user = Some(UserInfo::authenticated("tester", ["system:masters"]));
        let api = Self { server, store, user };
        let account = json!({"metadata": {"name": "default"}});
        let made = api.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
        assert!(matches!(made.code, 201 | 409), "{made:?}");
        api
    }

    /// The same server, asked by somebody else.
    pub(crate) fn by(&self, name: &str, groups: &[&str]) -> Self {
        let user = UserInfo::authenticated(name, groups.iter().copied());
        Self { user: Some(user), ..self.clone() }
    }

    pub(crate) fn by_node(&self, node: &str) -> Self {
        self.by(&format!("system:node:{node}"), &["system:nodes"])
    }

    pub(crate) fn by_nobody(&self) -> Self {
        Self { user: None, ..self.clone() }
    }

    pub(crate) async fn send(&self, method: Method, path: &str, content_type: &str, body: Vec<u8>) -> Answer {
        self.request(method, path, &[(header::CONTENT_TYPE.as_str(), content_type)], body).await
    }

    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let (parts, body) = self.open(method, path, headers, body).await.into_parts();
        let collected = tokio::time::timeout(PATIENCE, body.collect()).await.expect("the body ends");
        let bytes = collected.expect("the body can be read").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        Answer { code: parts.status.as_u16(), headers: parts.headers, text }
    }

    async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> http::Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let mut request = request.body(full(body)).expect("a request");
        if let Some(user) = &self.user {
            request.extensions_mut().insert(InProcess(user.clone()));
        }
        tokio::time::timeout(PATIENCE, self.server.handle(request)).await.expect("an answer in time")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "", Vec::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, JSON, body.to_string().into()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, JSON, body.to_string().into()).await
    }

    pub(crate) async fn patch(&self, path: &str, content_type: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, content_type, body.to_string().into()).await
    }

    pub(crate) async fn delete(&self, path: &str, options: &Value) -> Answer {
        let body = if options.is_null() { Vec::new() } else { options.to_string().into() };
        self.send(Method::DELETE, path, JSON, body).await
    }

    /// A ConfigMap by name.
    pub(crate) async fn make_map(&self, name: &str) -> Value {
        self.post(MAPS, &json!({"metadata": {"name": name, "labels": {"n": name}}})).await.ok(201)
    }

    pub(crate) async fn watch(&self, path: &str) -> Watch {
        let response = self.open(Method::GET, path, &[], Vec::new()).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        Watch { body: response.into_body(), buffer: Vec::new() }
    }
}

fn config() -> ApiServerConfig {
    let issuer = issuer_url("cluster.local");
    let pem = SigningKey::generate_pem().expect("a key");
    let key = SigningKey::from_pem(&pem).expect("the key just made");
    let verifier = TokenVerifier::new(issuer.clone(), vec![key.public().clone()]);
    ApiServerConfig {
        service_cidrs: vec![
            "10.96.0.0/16".parse().expect("valid"),
            "fd00:10:96::/108".parse().expect("valid"),
        ],
        node_ports: 30000..=32767,
        advertise_addresses: vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))],
        advertise_port: 6443,
        dns_addresses: vec!["10.96.0.10".parse().expect("valid"), "fd00:10:96::a".parse().expect("valid")],
        cluster_domain: "cluster.local".into(),
        tokens: Arc::new(Tokens { issuer: TokenIssuer::new(issuer, key), verifier }),
        service_external_ips: false,
        kubelet_tls: None,
        requests: RequestLimits::default(),
    }
}

// === impl Answer ===

impl Answer {
    /// The body, of an answer with this code.
    pub(crate) fn ok(&self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text);
        self.json()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The `Status` of a failure, which must say the same as the HTTP status.
    pub(crate) fn failure(&self, code: u16, reason: &str) -> Value {
        let status = self.ok(code);
        assert_eq!(status["kind"], "Status", "{status}");
        assert_eq!(status["status"], "Failure", "{status}");
        assert_eq!(status["code"], code, "{status}");
        assert_eq!(status["reason"], reason, "{status}");
        status
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        let values = self.headers.get_all(header::WARNING).iter();
        values.map(|value| value.to_str().expect("text").to_owned()).collect()
    }
}

// === impl Watch ===

impl Watch {
    /// The next event; `None` when the stream ends.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("one event a line"));
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("an event in time");
            let data = frame?.expect("the stream goes on").into_data().expect("data");
            self.buffer.extend_from_slice(&data);
        }
    }

    /// Type and name of the next event.
    pub(crate) async fn change(&mut self) -> (String, String) {
        let event = self.next().await.expect("an event");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

// === reading objects ===

pub(crate) fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().expect("a resource version").to_owned()
}

pub(crate) fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}
