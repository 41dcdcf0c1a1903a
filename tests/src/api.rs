//! Requests of a test's own making to a running control plane, and what they cost it.
//!
//! In: a [`Control`], requests that no client library would send. Out: answers, with the time and the memory they took.

use std::time::{Duration, Instant};

use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::control::Control;

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
pub const JSON_PATCH: &str = "application/json-patch+json";
pub const MERGE_PATCH: &str = "application/merge-patch+json";
pub const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
pub const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// No answer takes longer, whatever is asked, on a machine that others use, too.
const PATIENCE: Duration = Duration::from_secs(60);

/// An administrator who sends anything.
pub struct Sender<'a> {
    control: &'a Control,
    client: kube::Client,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub text: String,
    pub took: Duration,
    /// MiB by which the server's memory was above its start while it was at it.
    pub grown: u64,
}

// === impl Sender ===

impl<'a> Sender<'a> {
    pub async fn new(control: &'a Control) -> Self {
        Self { control, client: control.client().await }
    }

    /// # Panics
    /// When there is no answer at all.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        media_type: &str,
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !media_type.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, media_type);
        }
        self.request(request.body(body.into()).expect("a request")).await
    }

    /// # Panics
    /// When there is no answer at all.
    pub async fn request(&self, request: Request<Vec<u8>>) -> Answer {
        let what = format!("{} {:.200}", request.method(), request.uri().to_string());
        self.control.forget_peak();
        let before = self.control.memory().resident;
        let began = Instant::now();
        let sent = self.client.send(request.map(kube::client::Body::from));
        let response = tokio::time::timeout(PATIENCE, sent).await.expect(&what).expect(&what);
        let (head, body) = response.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await.expect(&what).expect(&what);
        let took = began.elapsed();
        let grown = self.control.memory().peak.saturating_sub(before) / 1024;
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        Answer { code: head.status.as_u16(), headers: head.headers, text, took, grown }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "", Vec::new()).await
    }

    pub async fn post(&self, path: &str, media_type: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.send(Method::POST, path, media_type, body).await
    }

    pub async fn patch(&self, path: &str, media_type: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.send(Method::PATCH, path, media_type, body).await
    }

    /// Names of what is there.
    ///
    /// # Panics
    /// When it is not a list.
    pub async fn names(&self, path: &str) -> Vec<String> {
        let list = self.get(path).await.json();
        let items = list["items"].as_array().expect("a list").iter();
        items.map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
    }
}

// === impl Answer ===

impl Answer {
    /// # Panics
    /// When it is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A refusal that is a whole `Status` of one of these codes, short, given soon and for little memory.
    ///
    /// # Panics
    /// When it is not.
    pub fn refused(&self, what: &str, codes: &[u16]) -> String {
        assert!(codes.contains(&self.code), "{what}: {} {:.600}", self.code, self.text);
        let status = self.json();
        assert_eq!((&status["kind"], &status["status"]), (&"Status".into(), &"Failure".into()), "{what}");
        assert_eq!(status["code"], self.code, "{what}");
        let message = status["message"].as_str().unwrap_or_default().to_owned();
        assert!(!message.is_empty() && !status["reason"].as_str().unwrap_or_default().is_empty(), "{what}");
        assert!(self.text.len() < 64 << 10, "{what}: {} bytes of complaint", self.text.len());
        self.cheap(what);
        message
    }

    /// # Panics
    /// When it took too long or too much.
    pub fn cheap(&self, what: &str) {
        // Debug builds on busy machines; what is looked for is not slow but without end.
        assert!(self.took < Duration::from_secs(10), "{what}: {:?}", self.took);
        assert!(self.grown < 192, "{what}: {} MiB", self.grown);
    }
}
