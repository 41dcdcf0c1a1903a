//! Roles: those every cluster has, and those that are made of others.
//!
//! In: the defaults of `authz`, stored ClusterRoles. Out: default roles and bindings that are complete (what somebody
//! added to them stays), and the rules of roles that aggregate.

use std::time::Duration;

use futures::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};
use xebec_api::labels::Selector;
use xebec_api::wellknown::annotations::RBAC_AUTOUPDATE;
use xebec_api::wellknown::names;

use crate::authn::UserInfo;
use crate::authz::defaults::{self, DefaultObject};
use crate::authz::rule::{self, Rule};
use crate::kinds::Verb;
use crate::meta;
use crate::options::WriteOptions;
use crate::registry::create::{self, Ownership};
use crate::registry::update::{self, Door, Edit};
use crate::registry::{Cx, Served};
use crate::server::ApiServer;
use crate::status::ApiError;
use crate::stored::{self, Stored};

const GROUP: &str = "rbac.authorization.k8s.io";
const AGENT: &str = "clusterrole-aggregation-controller";
/// Roles that are made of roles that are made of roles: more deeply nested ones follow with the next change.
const MAX_PASSES: usize = 8;
const RETRY: Duration = Duration::from_secs(1);

impl ApiServer {
    /// Makes the default roles and bindings, or adds what they lack, and aggregates.
    pub(super) async fn ensure_roles(&self) -> Result<(), ApiError> {
        // All at once: the store makes many durable together.
        let outcomes =
            join_all(defaults::all().into_iter().map(|default| self.ensure_default(default))).await;
        outcomes.into_iter().collect::<Result<(), _>>()?;
        self.aggregate().await
    }

    async fn ensure_default(&self, default: DefaultObject) -> Result<(), ApiError> {
        let DefaultObject { plural, namespace, object } = default;
        let Some(served) = self.registry().kinds.get(GROUP, "v1", plural) else { return Ok(()) };
        let name = meta::name(&object).to_owned();
        let user = writer();
        let cx = Cx::new(self.registry(), &user, super::AGENT, "");
        if self.registry().find(served, namespace, &name).is_none() {
            let options = WriteOptions::default();
            match create::insert(&cx, served, namespace, object.clone(), Ownership::Writer(&options)).await {
                Err(error) if error.code() == StatusCode::CONFLICT => {}
                other => return other.map(drop),
            }
        }
        self.change(&cx, served, namespace, &name, |current| complete(current, &object)).await
    }

    /// Writes an object as `wanted` makes it of what is there.
    async fn change(
        &self,
        cx: &Cx<'_>,
        served: &Served,
        namespace: Option<&str>,
        name: &str,
        wanted: impl Fn(Value) -> Value,
    ) -> Result<(), ApiError> {
        let options = WriteOptions::default();
        let (door, verb) = (Door::Main, Verb::Patch);
        let edit = Edit { served, namespace, name, door, verb, options: &options, records: false };
        update::update(cx, edit, |current| Ok(wanted(current))).await.map(drop)
    }

    /// Keeps the rules of roles that aggregate right, until dropped.
    pub(super) async fn keep_aggregated(&self) {
        loop {
            let Some(served) = self.registry().kinds.get(GROUP, "v1", "clusterroles") else { return };
            let (store, prefix) = (&self.registry().store, stored::prefix(&served.resource, None));
            // Watch first: what changes while we look is seen by the watch.
            let Ok(mut watch) = store.watch(prefix.as_bytes(), store.revision()) else { return };
            if let Err(error) = self.aggregate().await {
                tracing::warn!(%error, "roles are not aggregated");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            if watch.next().await.is_err() {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn aggregate(&self) -> Result<(), ApiError> {
        let Some(served) = self.registry().kinds.get(GROUP, "v1", "clusterroles") else { return Ok(()) };
        let user = writer();
        let cx = Cx::new(self.registry(), &user, AGENT, "");
        let prefix = stored::prefix(&served.resource, None);
        for _ in 0..MAX_PASSES {
            let page = self
                .registry()
                .store
                .list(prefix.as_bytes(), None, 0, None)
                .map_err(|error| crate::status::from_store(&error))?;
            let roles: Vec<Value> =
                page.items.iter().filter_map(|kv| Stored::from(kv).decode().ok()).collect();
            let changes = aggregated(&roles);
            if changes.is_empty() {
                return Ok(());
            }
            for (name, rules) in changes {
                let with_rules = |mut role: Value| {
                    role["rules"] = rules.clone();
                    role
                };
                match self.change(&cx, served, None, &name, with_rules).await {
                    Err(error) if error.code() == StatusCode::NOT_FOUND => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }
}

fn writer() -> UserInfo {
    UserInfo::authenticated(names::USER_APISERVER, [names::GROUP_MASTERS])
}

/// A default with what it lacks. What was added is left, and who says so keeps an object as it is.
fn complete(mut current: Value, default: &Value) -> Value {
    if meta::text(&current, &["metadata", "annotations", RBAC_AUTOUPDATE]) == "false" {
        return current;
    }
    if meta::at(default, &["aggregationRule"]).is_some() {
        return current;
    }
    if default.get("rules").is_some() {
        let held = Rule::all_of(&current);
        let lacks = |wanted: &Value| !rule::missing(&held, &[Rule::from_json(wanted)]).is_empty();
        let lacking: Vec<Value> =
            meta::items(default, &["rules"]).filter(|rule| lacks(rule)).cloned().collect();
        if !lacking.is_empty() {
            let mut rules: Vec<Value> = meta::items(&current, &["rules"]).cloned().collect();
            rules.extend(lacking);
            current["rules"] = rules.into();
        }
        return current;
    }
    let mut subjects: Vec<Value> = meta::items(&current, &["subjects"]).cloned().collect();
    let lacking: Vec<Value> =
        meta::items(default, &["subjects"]).filter(|subject| !subjects.contains(subject)).cloned().collect();
    if !lacking.is_empty() {
        subjects.extend(lacking);
        current["subjects"] = subjects.into();
    }
    current
}

/// Names and rules of the roles whose rules are not those of the roles they select.
fn aggregated(roles: &[Value]) -> Vec<(String, Value)> {
    let aggregating = roles.iter().filter(|role| meta::at(role, &["aggregationRule"]).is_some());
    aggregating
        .filter_map(|role| {
            let selectors: Vec<Selector> = meta::items(role, &["aggregationRule", "clusterRoleSelectors"])
                .filter_map(|selector| Selector::from_json(Some(selector)).ok())
                .collect();
            let mut rules: Vec<Value> = Vec::new();
            for other in roles.iter().filter(|other| meta::name(other) != meta::name(role)) {
                let labels = meta::at(other, &["metadata", "labels"]).cloned().unwrap_or_else(|| json!({}));
                if selectors.iter().any(|selector| selector.matches(&labels)) {
                    for rule in meta::items(other, &["rules"]) {
                        if !rules.contains(rule) {
                            rules.push(rule.clone());
                        }
                    }
                }
            }
            let held: Vec<Value> = meta::items(role, &["rules"]).cloned().collect();
            (held != rules).then(|| (meta::name(role).to_owned(), rules.into()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_made_of_those_they_select() {
        let rule = |resource: &str| json!({"verbs": ["get"], "apiGroups": [""], "resources": [resource]});
        let roles = [
            json!({"metadata": {"name": "a", "labels": {"to": "x"}}, "rules": [rule("pods"), rule("secrets")]}),
            json!({"metadata": {"name": "b", "labels": {"to": "x"}}, "rules": [rule("pods")]}),
            json!({"metadata": {"name": "c"}, "rules": [rule("nodes")]}),
            json!({
                "metadata": {"name": "x"}, "rules": [rule("nodes")],
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "x"}}]},
            }),
        ];
        assert_eq!(aggregated(&roles), [("x".to_owned(), json!([rule("pods"), rule("secrets")]))]);
    }

    #[test]
    fn defaults_are_completed_and_left_alone_where_that_is_said() {
        let default =
            json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "nodes"]}]});
        let held =
            json!({"metadata": {}, "rules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]}]});
        let completed = complete(held.clone(), &default);
        assert_eq!(completed["rules"].as_array().expect("rules").len(), 2);
        assert_eq!(complete(completed.clone(), &default), completed);
        let mut kept = held;
        kept["metadata"]["annotations"] = json!({ RBAC_AUTOUPDATE: "false" });
        assert_eq!(complete(kept.clone(), &default), kept);
        let binding = json!({"metadata": {}, "subjects": [{"kind": "User", "name": "jane"}]});
        let default = json!({"subjects": [{"kind": "Group", "name": "g"}]});
        assert_eq!(complete(binding, &default)["subjects"].as_array().expect("subjects").len(), 2);
    }
}
