//! `/healthz`, `/livez` and `/readyz`.
//!
//! In: the path, perhaps with the name of one check. Out: `ok`, or 500 with the checks that failed; `?verbose` lists all,
//! `?exclude=` leaves some out. `/readyz` fails from the moment the server is told to stop: who sends requests by it turns
//! away while they are still answered.

use futures::FutureExt;
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
    let mut checks = vec![
        Check { name: "ping", holds: true },
        Check { name: "log", holds: true },
        // The store says that it is closed as soon as it is.
        Check { name: "etcd", holds: server.registry().store.closed().now_or_never().is_none() },
    ];
    match endpoint {
        "livez" | "healthz" => {}
        "readyz" => {
            checks.push(Check { name: "poststarthook/bootstrap", holds: server.is_ready() });
            checks.push(Check { name: "shutdown", holds: !server.is_stopping() });
        }
        _ => return None,
    }
    if let Some(name) = one {
        let Some(check) = checks.iter().find(|check| check.name == name) else {
            return Some(text(StatusCode::NOT_FOUND, "404 page not found\n".into()));
        };
        return Some(if check.holds {
            text(StatusCode::OK, "ok".into())
        } else {
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {name} failed\n"))
        });
    }
    let excluded: Vec<&str> = query.all("exclude").collect();
    Some(report(endpoint, &checks, &excluded, query.flag("verbose")))
}

/// All checks of an endpoint.
fn report(endpoint: &str, checks: &[Check], excluded: &[&str], verbose: bool) -> Response<Body> {
    let mut report = String::new();
    let mut healthy = true;
    for check in checks {
        let line = if excluded.contains(&check.name) {
            format!("[+]{} excluded: ok\n", check.name)
        } else if check.holds {
            format!("[+]{} ok\n", check.name)
        } else {
            healthy = false;
            format!("[-]{} failed: reason withheld\n", check.name)
        };
        report.push_str(&line);
    }
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| !checks.iter().any(|check| check.name == **name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        let list = unknown.join(",");
        report.push_str(&format!("warn: some health checks cannot be excluded: no matches for {list}\n"));
    }
    let verdict = if healthy { "passed" } else { "failed" };
    report.push_str(&format!("{endpoint} check {verdict}\n"));
    match (healthy, verbose) {
        (true, false) => text(StatusCode::OK, "ok".into()),
        (true, true) => text(StatusCode::OK, report),
        (false, _) => text(StatusCode::INTERNAL_SERVER_ERROR, report),
    }
}

pub(crate) fn text(code: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn told(checks: &[Check], excluded: &[&str], verbose: bool) -> (u16, String) {
        let response = report("readyz", checks, excluded, verbose);
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (code, String::from_utf8(bytes.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn a_failed_check_can_be_left_out() {
        let checks = [Check { name: "ping", holds: true }, Check { name: "etcd", holds: false }];
        let failed = "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n";
        assert_eq!(told(&checks, &[], false).await, (500, failed.to_owned()));
        assert_eq!(told(&checks, &["etcd"], false).await, (200, "ok".to_owned()));
        let listed = "[+]ping ok\n[+]etcd excluded: ok\nreadyz check passed\n";
        assert_eq!(told(&checks, &["etcd"], true).await, (200, listed.to_owned()));
        let (code, text) = told(&checks, &["etcd", "moon"], true).await;
        assert!(code == 200 && text.contains("no matches for \"moon\""), "{text}");
    }
}
