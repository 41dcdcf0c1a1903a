//! `/healthz`, `/livez` and `/readyz`.
//!
//! In: the path, perhaps with the name of one check. Out: `ok`, or 500 with the checks that failed; `?verbose` lists all.

use http::{HeaderValue, Response, StatusCode, header};

use crate::body::{self, Body};
use crate::options::Query;
use crate::server::ApiServer;

/// One check and whether it holds.
struct Check {
    name: &'static str,
    holds: bool,
}

/// Whether the path is one of health: the only ones that are answered to those who show no credentials.
pub(crate) fn is_health(path: &str) -> bool {
    matches!(path.trim_end_matches('/'), "/healthz" | "/livez" | "/readyz")
}

/// Answers a health path; `None` if it is none.
pub(crate) fn respond(server: &ApiServer, path: &str, query: &Query) -> Option<Response<Body>> {
    let mut segments = path.trim_matches('/').splitn(2, '/');
    let endpoint = segments.next().unwrap_or_default();
    let one = segments.next();
    let mut checks = vec![Check { name: "ping", holds: true }];
    match endpoint {
        "livez" | "healthz" => {}
        "readyz" => checks.push(Check { name: "poststarthook/bootstrap", holds: server.is_ready() }),
        _ => return None,
    }
    if let Some(name) = one {
        checks.retain(|check| check.name == name);
        if checks.is_empty() {
            return Some(text(StatusCode::NOT_FOUND, "404 page not found\n".into()));
        }
    }
    let healthy = checks.iter().all(|check| check.holds);
    if healthy && !query.flag("verbose") {
        return Some(text(StatusCode::OK, "ok".into()));
    }
    let mut report = String::new();
    for check in &checks {
        let (sign, word) = if check.holds { ('+', "ok") } else { ('-', "failed: reason withheld") };
        report.push_str(&format!("[{sign}]{} {word}\n", check.name));
    }
    let verdict = if healthy { "passed" } else { "failed" };
    report.push_str(&format!("{endpoint} check {verdict}\n"));
    let code = if healthy { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    Some(text(code, report))
}

pub(crate) fn text(code: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
