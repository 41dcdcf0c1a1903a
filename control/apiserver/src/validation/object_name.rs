//! What an object of a kind may be called.
//!
//! In: a kind and a name, or a prefix of one. Out: what is wrong with it.

use xebec_api::names;

use crate::kinds::Gvk;

/// What is wrong with a name.
pub(super) fn problems(gvk: &Gvk, name: &str) -> Vec<String> {
    match (&*gvk.group, &*gvk.kind) {
        ("", "Namespace") | ("apps", "StatefulSet") => names::dns1123_label(name),
        ("", "Service") => names::dns1035_label(name),
        ("rbac.authorization.k8s.io", _) | ("apiregistration.k8s.io", "APIService") => {
            names::path_segment(name)
        }
        ("batch", "CronJob") => {
            let mut problems = names::dns1123_subdomain(name);
            // The names of its jobs are eleven characters longer.
            if name.len() > CRON_JOB_MAX {
                problems.push(format!("must be no more than {CRON_JOB_MAX} characters"));
            }
            problems
        }
        ("networking.k8s.io", "IPAddress") => match name.parse::<std::net::IpAddr>() {
            Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
            Ok(address) if address.to_string() != name => {
                vec![format!("must be in canonical form ({:?})", address.to_string())]
            }
            Ok(_) => Vec::new(),
        },
        ("certificates.k8s.io", "ClusterTrustBundle") => {
            // The prefix of a signer's bundle stands for the slash its name has.
            let plain = name.rsplit(':').next().unwrap_or_default();
            names::dns1123_subdomain(plain)
        }
        _ => names::dns1123_subdomain(name),
    }
}

/// What is wrong with a prefix that a generated part will follow: it may end in a dash.
pub(super) fn prefix_problems(gvk: &Gvk, prefix: &str) -> Vec<String> {
    match prefix.strip_suffix('-') {
        Some(stem) if !stem.is_empty() => problems(gvk, &format!("{stem}a")),
        _ => problems(gvk, prefix),
    }
}

const CRON_JOB_MAX: usize = 52;
