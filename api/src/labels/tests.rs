//! Expectations from upstream's documentation of label selectors.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn queries_match_as_documented() {
    let set = labels(&[("app", "web"), ("tier", "front"), ("rev", "7"), ("empty", "")]);
    for (query, expected) in [
        ("", true),
        ("app=web", true),
        ("app==web,tier=front", true),
        ("app=db", false),
        ("app!=db", true),
        ("missing!=x", true),
        ("app", true),
        ("!app", false),
        ("!missing", true),
        ("app in (web, db)", true),
        ("app in (db)", false),
        ("app notin (db)", true),
        ("missing notin (db)", true),
        ("empty in (,x)", true),
        ("empty=", true),
        ("rev>6", true),
        ("rev<7", false),
        ("app>6", false),
        ("x in (in,notin)", false),
        (" app = web , tier in ( front ) ", true),
    ] {
        assert_eq!(Selector::parse(query).unwrap().matches(&set), expected, "{query}");
    }
}

#[test]
fn printed_form_is_sorted_by_key() {
    for (query, printed) in [
        ("x in (foo,,baz),y,z notin ()", "x in (,baz,foo),y,z notin ()"),
        ("b=2,a==1,!c", "a==1,b=2,!c"),
        ("a>1", "a>1"),
    ] {
        assert_eq!(Selector::parse(query).unwrap().to_string(), printed);
    }
}

#[test]
fn mistakes_are_named() {
    for (query, message) in [
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a=b,,", "found ',', expected: identifier after ','"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("(", "found '(', expected: !, identifier, or 'end of string'"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        (
            "a>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": \
             for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ] {
        assert_eq!(Selector::parse(query).unwrap_err().to_string(), message, "{query}");
    }
    for query in ["a in (x", "!", "a/b/c=d", "-a=b", "a=b_", "a=!b", "a!!=b", "a in (x y)"] {
        assert!(Selector::parse(query).is_err(), "{query}");
    }
}

#[test]
fn object_selectors_distinguish_absent_and_empty() {
    let set = labels(&[("app", "web")]);
    assert!(!Selector::from_json(None).unwrap().matches(&set));
    assert!(Selector::from_json(Some(&json!({}))).unwrap().matches(&set));
    let both = json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "old", "operator": "DoesNotExist"}],
    });
    let from_json = Selector::from_json(Some(&both)).unwrap();
    let typed: LabelSelector = serde_json::from_value(both).unwrap();
    assert_eq!(from_json, Selector::from_label_selector(Some(&typed)).unwrap());
    assert_eq!(from_json.to_string(), "app=web,!old");
    let wrong = json!({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]});
    let error = Selector::from_json(Some(&wrong)).unwrap_err().to_string();
    assert_eq!(error, "\"Gt\" is not a valid label selector operator");
}

proptest! {
    #[test]
    fn any_query_is_parsed_or_refused(query in "[a-c!=<>(), \\t./-]{0,24}|\\PC{0,12}") {
        if let Ok(selector) = Selector::parse(&query) {
            prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
        }
    }
}
