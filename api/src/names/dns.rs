//! DNS names: labels, subdomains, wildcards.
//!
//! In: a string. Out: what is wrong with it.

use super::charset::{bounded, dash, lower_or_digit};
use super::{LABEL_MAX, SUBDOMAIN_MAX, max_characters, pattern};

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const WILDCARD: &str = r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";

/// A label as of RFC 1123: names of namespaces, containers, volumes.
pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > LABEL_MAX {
        problems.push(max_characters(LABEL_MAX));
    }
    if !is_label(value) {
        if is_subdomain(value) {
            problems.push("must not contain dots".to_owned());
        } else {
            let message = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
                           and must start and end with an alphanumeric character";
            problems.push(pattern(message, LABEL, &["my-name", "123-abc"]));
        }
    }
    problems
}

/// A subdomain as of RFC 1123: names of most objects.
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        problems.push(max_characters(SUBDOMAIN_MAX));
    }
    if !is_subdomain(value) {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
                       '.', and must start and end with an alphanumeric character";
        problems.push(pattern(message, SUBDOMAIN, &["example.com"]));
    }
    problems
}

/// A label as of RFC 1035: names of Services before their rule was relaxed.
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > LABEL_MAX {
        problems.push(max_characters(LABEL_MAX));
    }
    if !(is_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase())) {
        let message = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                       alphabetic character, and end with an alphanumeric character";
        problems.push(pattern(message, LABEL_1035, &["my-name", "abc-123"]));
    }
    problems
}

/// `*.example.com`: hosts of an Ingress.
pub fn wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        problems.push(max_characters(SUBDOMAIN_MAX));
    }
    if !value.strip_prefix("*.").is_some_and(is_subdomain) {
        let message = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which \
                       must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric \
                       character";
        problems.push(pattern(message, WILDCARD, &["*.example.com"]));
    }
    problems
}

/// A subdomain of at least three labels: names of signers, API groups of extensions.
pub fn fully_qualified_name(value: &str) -> Vec<String> {
    let problems = dns1123_subdomain(value);
    if !problems.is_empty() {
        return vec![problems.join(",")];
    }
    if value.split('.').count() < 3 {
        return vec!["should be a domain with at least three segments separated by dots".to_owned()];
    }
    Vec::new()
}

fn is_label(value: &str) -> bool {
    bounded(value, lower_or_digit, dash)
}

fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_label)
}
