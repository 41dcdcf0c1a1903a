//! One rule of a role: verbs on resources, or on paths that are no resources.
//!
//! In: the JSON of a rule, what is asked for, other rules. Out: whether it allows, and which parts of a rule a set of
//! others does not cover.

use std::fmt;

use serde_json::{Map, Value};

use super::Attributes;
use crate::meta;

const ALL: &str = "*";

/// A `PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule {
    pub(super) verbs: Vec<String>,
    pub(super) api_groups: Vec<String>,
    pub(super) resources: Vec<String>,
    pub(super) resource_names: Vec<String>,
    pub(super) urls: Vec<String>,
}

// === impl Rule ===

impl Rule {
    pub(crate) fn from_json(rule: &Value) -> Self {
        let strings = |field: &str| {
            let items = rule.get(field).and_then(Value::as_array).into_iter().flatten();
            items.filter_map(Value::as_str).map(ToOwned::to_owned).collect()
        };
        Self {
            verbs: strings("verbs"),
            api_groups: strings("apiGroups"),
            resources: strings("resources"),
            resource_names: strings("resourceNames"),
            urls: strings("nonResourceURLs"),
        }
    }

    /// The rules of a role.
    pub(crate) fn all_of(role: &Value) -> Vec<Self> {
        meta::items(role, &["rules"]).map(Self::from_json).collect()
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut out = Map::new();
        for (field, list) in [
            ("verbs", &self.verbs),
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.urls),
        ] {
            if !list.is_empty() {
                out.insert(field.into(), list.clone().into());
            }
        }
        out.into()
    }

    pub(crate) fn is_of_urls(&self) -> bool {
        !self.urls.is_empty()
    }

    pub(super) fn allows(&self, asked: &Attributes<'_>) -> bool {
        if !has(&self.verbs, asked.verb) {
            return false;
        }
        if let Some(path) = asked.path {
            return self.urls.iter().any(|url| url_matches(url, path));
        }
        has(&self.api_groups, asked.group)
            && self.resources.iter().any(|resource| resource_matches(resource, asked))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|name| name == asked.name))
    }

    /// The smallest rules this one is made of.
    fn atoms(&self) -> Vec<Self> {
        let one = |text: &String| vec![text.clone()];
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            for url in &self.urls {
                atoms.push(Self { verbs: one(verb), urls: one(url), ..Self::default() });
            }
            for group in &self.api_groups {
                for resource in &self.resources {
                    let whole = Self {
                        verbs: one(verb),
                        api_groups: one(group),
                        resources: one(resource),
                        ..Self::default()
                    };
                    if self.resource_names.is_empty() {
                        atoms.push(whole);
                        continue;
                    }
                    for name in &self.resource_names {
                        atoms.push(Self { resource_names: one(name), ..whole.clone() });
                    }
                }
            }
        }
        atoms
    }

    /// Whether everything an atom allows is allowed by this rule alone.
    fn covers(&self, atom: &Self) -> bool {
        has_all(&self.verbs, &atom.verbs)
            && has_all(&self.api_groups, &atom.api_groups)
            && atom
                .resources
                .iter()
                .all(|wanted| self.resources.iter().any(|own| resource_covers(own, wanted)))
            && atom.urls.iter().all(|wanted| self.urls.iter().any(|own| url_matches(own, wanted)))
            && (self.resource_names.is_empty()
                || (!atom.resource_names.is_empty()
                    && atom.resource_names.iter().all(|name| self.resource_names.contains(name))))
    }
}

/// What of `wanted` is not covered by `held`, in as few rules as it can be said.
pub(crate) fn missing(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let atoms = wanted.iter().flat_map(Rule::atoms);
    let mut left: Vec<Rule> = Vec::new();
    for atom in atoms.filter(|atom| !held.iter().any(|rule| rule.covers(atom))) {
        // Atoms that differ in the verb only are told together, as upstream tells them.
        let same = |rule: &&mut Rule| {
            rule.api_groups == atom.api_groups
                && rule.resources == atom.resources
                && rule.resource_names == atom.resource_names
                && rule.urls == atom.urls
        };
        match left.iter_mut().find(same) {
            Some(rule) if !rule.verbs.contains(&atom.verbs[0]) => rule.verbs.extend(atom.verbs),
            Some(_) => {}
            None => left.push(atom),
        }
    }
    left.sort_by_key(ToString::to_string);
    left
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|own| own == ALL || own == wanted)
}

fn has_all(list: &[String], wanted: &[String]) -> bool {
    list.iter().any(|own| own == ALL) || wanted.iter().all(|one| list.contains(one))
}

fn resource_matches(own: &str, asked: &Attributes<'_>) -> bool {
    if own == ALL {
        return true;
    }
    if asked.subresource.is_empty() {
        return own == asked.resource;
    }
    match own.split_once('/') {
        Some((resource, subresource)) => {
            (resource == ALL || resource == asked.resource) && subresource == asked.subresource
        }
        None => false,
    }
}

fn resource_covers(own: &str, wanted: &str) -> bool {
    own == ALL
        || own == wanted
        || matches!((own.split_once('/'), wanted.split_once('/')), (Some((ALL, mine)), Some((_, theirs))) if mine == theirs)
}

fn url_matches(own: &str, path: &str) -> bool {
    own == ALL || own == path || own.strip_suffix(ALL).is_some_and(|prefix| path.starts_with(prefix))
}

impl fmt::Display for Rule {
    /// As upstream's sentence about missing permissions has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name}:{}", go_list(list)))
        .collect();
        write!(f, "{{{}}}", parts.join(", "))
    }
}

/// A list of texts as Go prints it: `["a" "b"]`.
pub(crate) fn go_list(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[expect(clippy::needless_pass_by_value, reason = "a call reads as one literal")]
    fn rule(json: Value) -> Rule {
        Rule::from_json(&json)
    }

    fn asked<'a>(verb: &'a str, group: &'a str, resource: &'a str, name: &'a str) -> Attributes<'a> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes { verb, group, resource, subresource, name, ..Attributes::default() }
    }

    #[test]
    fn rules_allow_what_they_name() {
        let pods =
            rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]}));
        assert!(pods.allows(&asked("get", "", "pods", "a")));
        assert!(pods.allows(&asked("get", "", "pods/log", "a")));
        assert!(!pods.allows(&asked("get", "", "pods/exec", "a")));
        assert!(!pods.allows(&asked("get", "apps", "pods", "a")));
        assert!(!pods.allows(&asked("create", "", "pods", "")));
        let one = rule(json!({
            "verbs": ["*"], "apiGroups": ["*"], "resources": ["secrets"], "resourceNames": ["a"],
        }));
        assert!(one.allows(&asked("delete", "", "secrets", "a")));
        assert!(!one.allows(&asked("delete", "", "secrets", "b")));
        assert!(!one.allows(&asked("list", "", "secrets", "")), "a list names nothing");
        let scales = rule(json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["*/scale"]}));
        assert!(scales.allows(&asked("get", "apps", "deployments/scale", "a")));
        assert!(!scales.allows(&asked("get", "apps", "deployments", "a")));
        let all = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        assert!(all.allows(&asked("get", "apps", "deployments/scale", "a")));
        assert!(!all.allows(&Attributes { verb: "get", path: Some("/metrics"), ..Attributes::default() }));
    }

    #[test]
    fn paths_match_whole_or_by_their_beginning() {
        let urls = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/apis/*"]}));
        let path = |path| Attributes { verb: "get", path: Some(path), ..Attributes::default() };
        assert!(urls.allows(&path("/healthz")) && urls.allows(&path("/apis/apps/v1")));
        for refused in ["/healthz/", "/apis", "/metrics"] {
            assert!(!urls.allows(&path(refused)), "{refused}");
        }
    }

    #[test]
    fn what_is_not_covered_is_told_shortly() {
        let held = [
            rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]})),
            rule(
                json!({"verbs": ["*"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}),
            ),
            rule(json!({"verbs": ["get"], "nonResourceURLs": ["/a/*"]})),
        ];
        for covered in [
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["x"]}),
            json!({"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}),
            json!({"verbs": ["get"], "nonResourceURLs": ["/a/b", "/a/*"]}),
        ] {
            assert_eq!(missing(&held, &[rule(covered)]), []);
        }
        let wanted = rule(
            json!({"verbs": ["get", "list", "watch"], "apiGroups": ["", "apps"], "resources": ["pods"]}),
        );
        let told: Vec<String> = missing(&held, &[wanted]).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}"#,
                r#"{APIGroups:["apps"], Resources:["pods"], Verbs:["get" "list" "watch"]}"#,
            ]
        );
        let all = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        assert_eq!(missing(&held, std::slice::from_ref(&all)).len(), 1);
        let all = std::slice::from_ref(&all);
        assert_eq!(missing(all, all), []);
        let secrets = rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}));
        assert_eq!(missing(&held, &[secrets]).len(), 1, "a name does not cover all names");
    }
}
