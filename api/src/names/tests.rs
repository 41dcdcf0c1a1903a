//! Expectations from upstream's documented name rules and messages.

use super::*;

#[test]
fn dns_names_follow_their_rfc() {
    for good in ["a", "0", "a-b", "123-abc", &"a".repeat(63)] {
        assert!(dns1123_label(good).is_empty(), "{good}");
    }
    for bad in ["", "-a", "a-", "A", "a_b", "a b", "é", &"a".repeat(64)] {
        assert!(!dns1123_label(bad).is_empty(), "{bad}");
    }
    assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
    assert!(dns1123_subdomain("a.b-c.0").is_empty());
    for bad in ["", ".", "a..b", "a.", ".a", "a.-b", "A.b"] {
        assert!(!dns1123_subdomain(bad).is_empty(), "{bad}");
    }
    assert!(dns1035_label("a-1").is_empty());
    assert!(!dns1035_label("1-a").is_empty());
    assert!(wildcard_dns1123_subdomain("*.bar.com").is_empty());
    for bad in ["*", "*.*.com", "*bar.com", "bar.com"] {
        assert!(!wildcard_dns1123_subdomain(bad).is_empty(), "{bad}");
    }
}

#[test]
fn a_bad_object_name_gets_the_well_known_sentence() {
    assert_eq!(
        dns1123_subdomain("Bad_Name"),
        [
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
          start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
          '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        ]
    );
    assert_eq!(
        dns1123_label("Bad"),
        [
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
          end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
          '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        ]
    );
}

#[test]
fn label_keys_and_values() {
    for good in ["a", "a.b/c", "A_b-c.d", "example.com/MyName", "0"] {
        assert!(label_key(good).is_empty(), "{good}");
    }
    for bad in ["", "/a", "a/", "a/b/c", "-a", "a-", "A.b/c", "a b"] {
        assert!(!label_key(bad).is_empty(), "{bad}");
    }
    assert_eq!(label_key(&"a".repeat(64)), ["name part must be no more than 63 bytes"]);
    assert!(label_value("").is_empty());
    assert!(!label_value("-").is_empty());
    assert_eq!(label_value(&"a".repeat(64)), ["must be no more than 63 bytes"]);
}

#[test]
fn words_of_single_fields() {
    assert!(port_name("http-2").is_empty());
    assert_eq!(port_name("80"), ["must contain at least one letter (a-z)"]);
    assert_eq!(port_name("a--b"), ["must not contain consecutive hyphens"]);
    assert_eq!(port_name("a-"), ["must not begin or end with a hyphen"]);
    assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
    assert!(config_map_key("a.b_C-0").is_empty());
    assert_eq!(config_map_key(".."), ["must not be '..'"]);
    assert_eq!(config_map_key("..a"), ["must not start with '..'"]);
    assert!(!config_map_key("a/b").is_empty());
    assert!(env_var_name("_A.b-1").is_empty());
    assert!(!env_var_name("1A").is_empty());
    assert!(relaxed_env_var_name("1 A!").is_empty());
    assert!(!relaxed_env_var_name("A=B").is_empty());
    assert!(percent("10%").is_empty());
    assert!(!percent("%").is_empty());
    assert_eq!(path_segment("a/b%"), ["may not contain '/'", "may not contain '%'"]);
    assert_eq!(path_segment(".."), ["may not be '..'"]);
    assert!(c_identifier("_a1").is_empty());
    assert!(!c_identifier("1a").is_empty());
    assert!(domain_prefixed_path("acme.io/foo").is_empty());
    assert!(!domain_prefixed_path("acme.io").is_empty());
}
