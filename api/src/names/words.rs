//! Label keys and values, port names, keys of ConfigMaps, environment variables, header names, path segments.
//!
//! In: a string. Out: what is wrong with it.

use super::charset::{alphanumeric, bounded, dash_dot_underscore};
use super::dns::dns1123_subdomain;
use super::{LABEL_MAX, SUBDOMAIN_MAX, max_bytes, max_characters, pattern};

const LABEL_KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_KEY_MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const HTTP_PATH: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";

/// A label key: a name of at most 63 characters, optionally after a DNS subdomain and a slash.
pub fn label_key(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let examples = ["MyName", "my.name", "123-abc"];
    let name = match value.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                problems.push("prefix part must be non-empty".to_owned());
            } else {
                problems.extend(dns1123_subdomain(prefix).iter().map(|problem| {
                    // The label rules count bytes where the plain DNS rule counts characters.
                    format!(
                        "prefix part {}",
                        problem.replace("no more than 253 characters", "no more than 253 bytes")
                    )
                }));
            }
            name
        }
        _ => {
            let shape = pattern(LABEL_KEY_MESSAGE, LABEL_KEY, &examples);
            let prefix = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a valid label key {shape} {prefix}")];
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        problems.push(format!("name part {}", max_bytes(LABEL_MAX)));
    }
    if !bounded(name, alphanumeric, dash_dot_underscore) {
        problems.push(format!("name part {}", pattern(LABEL_KEY_MESSAGE, LABEL_KEY, &examples)));
    }
    problems
}

/// A qualified name: the rule of label keys under its older name (resource names, finalizers, conditions).
pub fn qualified_name(value: &str) -> Vec<String> {
    label_key(value)
}

/// A label value: at most 63 characters, possibly none.
pub fn label_value(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > LABEL_MAX {
        problems.push(max_bytes(LABEL_MAX));
    }
    if !value.is_empty() && !bounded(value, alphanumeric, dash_dot_underscore) {
        let message = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
                       and must start and end with an alphanumeric character";
        problems.push(pattern(
            message,
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    problems
}

/// A string that can be one segment of a URL path.
pub fn path_segment(value: &str) -> Vec<String> {
    if matches!(value, "." | "..") {
        return vec![format!("may not be '{value}'")];
    }
    let forbidden = ["/", "%"].into_iter().filter(|part| value.contains(part));
    forbidden.map(|part| format!("may not contain '{part}'")).collect()
}

/// An IANA service name: names of ports.
pub fn port_name(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut check = |wrong: bool, sentence: &str| {
        if wrong {
            problems.push(sentence.to_owned());
        }
    };
    let bytes = value.as_bytes();
    let charset = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    check(value.len() > 15, &max_characters(15));
    check(
        value.is_empty() || !bytes.iter().all(charset),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    check(!bytes.iter().any(u8::is_ascii_lowercase), "must contain at least one letter (a-z)");
    check(value.contains("--"), "must not contain consecutive hyphens");
    check(value.starts_with('-') || value.ends_with('-'), "must not begin or end with a hyphen");
    problems
}

/// `[0-9]+%`
pub fn percent(value: &str) -> Vec<String> {
    let number = value.strip_suffix('%').unwrap_or_default();
    if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Vec::new();
    }
    let message = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![pattern(message, "[0-9]+%", &["1%", "93%"])]
}

/// The name of an HTTP header.
pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Vec::new();
    }
    let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![pattern(message, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// The strict rule of environment variable names.
pub fn env_var_name(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || dash_dot_underscore(byte);
    let digit_first = value.starts_with(|c: char| c.is_ascii_digit());
    if value.is_empty() || digit_first || !value.bytes().all(allowed) {
        let message = "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or \
                       '.', and must not start with a digit";
        let examples = ["my.env-name", "MY_ENV.NAME", "MyEnvName1"];
        problems.push(pattern(message, "[-._a-zA-Z][-._a-zA-Z0-9]*", &examples));
    }
    problems.extend(parent_directory(value));
    problems
}

/// The relaxed rule of environment variable names: printable ASCII without `=`.
pub fn relaxed_env_var_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=') {
        return Vec::new();
    }
    let message =
        "a valid environment variable name must consist only of printable ASCII characters other than '='";
    vec![message.to_owned()]
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        problems.push(max_characters(SUBDOMAIN_MAX));
    }
    if value.is_empty()
        || !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || dash_dot_underscore(byte))
    {
        let message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        problems.push(pattern(message, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    problems.extend(parent_directory(value));
    problems
}

/// An identifier of the C language.
pub fn c_identifier(value: &str) -> Vec<String> {
    let first = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if first && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Vec::new();
    }
    let message = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
                   alphanumeric characters or '_'";
    vec![pattern(message, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])]
}

/// A DNS subdomain, a slash and a path, such as `acme.io/foo`.
pub fn domain_prefixed_path(value: &str) -> Vec<String> {
    let Some((host, path)) =
        value.split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty())
    else {
        return vec!["must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned()];
    };
    let mut problems = dns1123_subdomain(host);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    if !path.bytes().all(allowed) {
        problems.push(pattern("Invalid path", HTTP_PATH, &[]));
    }
    problems
}

fn parent_directory(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ => value.starts_with("..").then(|| "must not start with '..'".to_owned()),
    }
}
