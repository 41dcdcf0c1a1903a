//! What is counted of certificates, under upstream's names.
//!
//! In: ends of certificates, renewals. Out: samples of `/metrics`.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::schedule;

/// No certificate yet.
const NONE: i64 = i64::MIN;

/// Counts of one certificate. Clones are the same counts.
#[derive(Clone, Debug)]
pub struct Counts {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Upstream's word for whose it is.
    kind: Kind,
    ends: AtomicI64,
    errors: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Client,
    Server,
}

// === impl Counts ===

impl Counts {
    pub fn of_client() -> Self {
        Self::new(Kind::Client)
    }

    pub fn of_server() -> Self {
        Self::new(Kind::Server)
    }

    fn new(kind: Kind) -> Self {
        let inner = Inner { kind, ends: AtomicI64::new(NONE), errors: AtomicU64::new(0) };
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn holds(&self, not_after: i64) {
        self.inner.ends.store(not_after, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.inner.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Text of `/metrics`.
    pub fn text(&self) -> String {
        let Inner { kind, ends, errors, .. } = &*self.inner;
        let (ttl, failures) = match kind {
            Kind::Client => (
                "kubelet_certificate_manager_client_ttl_seconds",
                "kubelet_certificate_manager_client_expiration_renew_errors",
            ),
            Kind::Server => {
                ("kubelet_certificate_manager_server_ttl_seconds", "kubelet_server_expiration_renew_errors")
            }
        };
        let mut text = String::new();
        let whose = if *kind == Kind::Client { "client" } else { "serving" };
        let _ =
            writeln!(text, "# HELP {ttl} Seconds until the {whose} certificate ends; negative when it has.");
        let _ = writeln!(text, "# TYPE {ttl} gauge");
        let ends = ends.load(Ordering::Relaxed);
        if ends == NONE {
            // As upstream says that there is none.
            let _ = writeln!(text, "{ttl} +Inf");
        } else {
            let _ = writeln!(text, "{ttl} {}", ends.saturating_sub(schedule::now()));
        }
        let errors = errors.load(Ordering::Relaxed);
        let _ = writeln!(text, "# HELP {failures} Renewals of the {whose} certificate that failed.");
        let _ = writeln!(text, "# TYPE {failures} counter\n{failures} {errors}");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_failures_are_told_under_upstreams_names() {
        let counts = Counts::of_client();
        assert!(counts.text().contains("\nkubelet_certificate_manager_client_ttl_seconds +Inf\n"));
        counts.holds(schedule::now() - 10);
        counts.failed();
        let text = counts.text();
        assert!(text.contains("\nkubelet_certificate_manager_client_ttl_seconds -1"), "{text}");
        assert!(text.contains("\nkubelet_certificate_manager_client_expiration_renew_errors 1\n"), "{text}");
        assert!(Counts::of_server().text().contains("\nkubelet_server_expiration_renew_errors 0\n"));
    }
}
