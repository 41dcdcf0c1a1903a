//! The rules for names: DNS labels and subdomains, label keys and values, ports, keys, paths.
//!
//! In: a string. Out: the sentences that say what is wrong with it, worded as upstream words them; empty when it
//! is valid. Callers put the sentences behind a field path.

mod charset;
mod dns;
mod numbers;
mod words;

pub use dns::{
    dns1035_label, dns1123_label, dns1123_subdomain, fully_qualified_name, wildcard_dns1123_subdomain,
};
pub use numbers::{group_id, in_range, port_number, user_id};
pub use words::{
    c_identifier, config_map_key, domain_prefixed_path, env_var_name, http_header_name, label_key,
    label_value, path_segment, percent, port_name, qualified_name, relaxed_env_var_name,
};

/// Longest DNS label.
pub const LABEL_MAX: usize = 63;
/// Longest DNS subdomain, and so the longest name of most objects.
pub const SUBDOMAIN_MAX: usize = 253;

fn max_characters(length: usize) -> String {
    format!("must be no more than {length} characters")
}

fn max_bytes(length: usize) -> String {
    format!("must be no more than {length} bytes")
}

/// A sentence with examples and the pattern they follow.
fn pattern(message: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{regex}')");
    }
    let quoted: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{regex}')", quoted.join(" or "))
}

#[cfg(test)]
mod tests;
