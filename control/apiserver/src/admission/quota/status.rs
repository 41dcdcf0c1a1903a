//! `status` of ResourceQuotas: what is allowed and what is used, kept right as objects come and go.
//!
//! In: changes of anything in a namespace that has quotas. Out: their status, where it is another one.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value, json};
use xebec_api::wellknown::names;

use super::{amounts, of_namespace, used};
use crate::authn::UserInfo;
use crate::kinds::Verb;
use crate::meta;
use crate::options::WriteOptions;
use crate::registry::Cx;
use crate::registry::update::{self, Door, Edit};
use crate::server::ApiServer;
use crate::status::ApiError;

const AGENT: &str = "resource-quota";
const ALL: &str = "/registry/";
const QUOTAS: &str = "/registry/core/resourcequotas/";
const RETRY: Duration = Duration::from_secs(1);

impl ApiServer {
    /// Keeps the status of quotas right, until dropped.
    pub(crate) async fn keep_quota_status(&self) {
        loop {
            let store = &self.registry().store;
            let Ok(mut watch) = store.watch(ALL.as_bytes(), store.revision()) else { return };
            self.tell(&self.with_quotas()).await;
            while let Ok(batch) = watch.next().await {
                let limited = self.with_quotas();
                if limited.is_empty() {
                    continue;
                }
                let touched = batch.events.iter().filter_map(|event| {
                    let key = String::from_utf8_lossy(event.key()).into_owned();
                    namespace_of(&key).map(ToOwned::to_owned)
                });
                let touched: BTreeSet<String> =
                    touched.filter(|namespace| limited.contains(namespace)).collect();
                self.tell(&touched).await;
            }
            // Too far behind, or the store is closed: then this is dropped in a moment.
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Namespaces with quotas.
    fn with_quotas(&self) -> BTreeSet<String> {
        let page = self.registry().store.list(QUOTAS.as_bytes(), None, 0, None);
        let items = page.map(|page| page.items).unwrap_or_default();
        let namespaces = items.iter().filter_map(|kv| {
            let key = String::from_utf8_lossy(&kv.key[QUOTAS.len()..]).into_owned();
            key.split_once('/').map(|(namespace, _)| namespace.to_owned())
        });
        namespaces.collect()
    }

    async fn tell(&self, namespaces: &BTreeSet<String>) {
        for namespace in namespaces {
            for quota in of_namespace(self.registry(), namespace) {
                if let Err(error) = self.tell_one(&quota).await {
                    tracing::debug!(%error, namespace, name = meta::name(&quota), "the usage is not told yet");
                }
            }
        }
    }

    async fn tell_one(&self, quota: &Value) -> Result<(), ApiError> {
        let shown = |amounts: &super::Usage| -> Value {
            let entries = amounts.iter().map(|(name, amount)| (name.clone(), amount.to_string().into()));
            entries.collect::<Map<_, _>>().into()
        };
        let status = json!({
            "hard": shown(&amounts(&quota["spec"]["hard"])), "used": shown(&used(self.registry(), quota)),
        });
        if quota["status"] == status {
            return Ok(());
        }
        let served = self.registry().kinds.core("resourcequotas");
        let user = UserInfo::authenticated(names::USER_APISERVER, [names::GROUP_MASTERS]);
        let cx = Cx::new(self.registry(), &user, AGENT, "status");
        let options = WriteOptions::default();
        let edit = Edit {
            served,
            namespace: Some(meta::namespace(quota)),
            name: meta::name(quota),
            door: Door::Status,
            verb: Verb::Patch,
            options: &options,
            records: false,
        };
        let updated = update::update(&cx, edit, |mut current| {
            meta::set(&mut current, &["status"], Some(status.clone()));
            Ok(current)
        });
        updated.await.map(drop)
    }
}

/// The namespace in `/registry/<group>/<plural>/<namespace>/<name>`.
fn namespace_of(key: &str) -> Option<&str> {
    let mut parts = key.strip_prefix(ALL)?.split('/');
    let (namespace, name) = (parts.nth(2)?, parts.next());
    name.map(|_| namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_the_namespace() {
        assert_eq!(namespace_of("/registry/core/pods/a/b"), Some("a"));
        assert_eq!(namespace_of("/registry/core/nodes/n1"), None);
    }
}
