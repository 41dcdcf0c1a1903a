//! What this node asks of the API server, counted under client-go's name.
//!
//! In: methods and statuses of answers. Out: samples of `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use http::Method;

/// Clones count together.
#[derive(Clone, Debug, Default)]
pub struct ClientCounts {
    host: Arc<str>,
    requests: Arc<Mutex<BTreeMap<(String, String), u64>>>,
}

// === impl ClientCounts ===

impl ClientCounts {
    pub fn new(host: &str) -> Self {
        Self { host: host.into(), requests: Arc::default() }
    }

    /// An answer, or none.
    pub fn answered(&self, method: &Method, status: Option<u16>) {
        let code = status.map_or_else(|| "<error>".to_owned(), |status| status.to_string());
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((code, method.to_string())).or_default() += 1;
    }

    /// Text of `/metrics`.
    pub fn text(&self) -> String {
        let name = "rest_client_requests_total";
        let mut text =
            format!("# HELP {name} Number of HTTP requests, partitioned by status code, method, and host.\n");
        let _ = writeln!(text, "# TYPE {name} counter");
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((code, method), count) in requests.iter() {
            let host = &self.host;
            let _ = writeln!(text, "{name}{{code=\"{code}\",host=\"{host}\",method=\"{method}\"}} {count}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_code_and_method() {
        let counts = ClientCounts::new("192.0.2.1:6443");
        for status in [Some(200), Some(200), None] {
            counts.clone().answered(&Method::GET, status);
        }
        let text = counts.text();
        for line in [
            "rest_client_requests_total{code=\"200\",host=\"192.0.2.1:6443\",method=\"GET\"} 2",
            "rest_client_requests_total{code=\"<error>\",host=\"192.0.2.1:6443\",method=\"GET\"} 1",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
