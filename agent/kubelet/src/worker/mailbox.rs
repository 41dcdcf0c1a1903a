//! What the sync loop tells a worker: the newest of each thing, so that it never grows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Notify;
use xebec_runtime::types::{Container, ContainerId};

/// Everything that came since the last look.
#[derive(Debug, Default)]
pub struct Mail {
    pub pod: Option<Arc<Pod>>,
    pub gone: bool,
    pub containers: BTreeMap<ContainerId, Container>,
    /// Events may have been missed: compare with the runtime.
    pub compare: bool,
}

/// Coalescing mailbox of one worker.
#[derive(Debug, Default)]
pub struct Mailbox {
    mail: Mutex<Mail>,
    notify: Notify,
}

impl Mailbox {
    fn with(&self, change: impl FnOnce(&mut Mail)) {
        change(&mut self.mail.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        self.notify.notify_one();
    }

    pub fn pod(&self, pod: Arc<Pod>) {
        self.with(|mail| mail.pod = Some(pod));
    }

    pub fn gone(&self, last: Option<Arc<Pod>>) {
        self.with(|mail| {
            mail.gone = true;
            if let Some(last) = last {
                mail.pod = Some(last);
            }
        });
    }

    pub fn container(&self, container: Container) {
        self.with(|mail| {
            mail.containers.insert(container.id.clone(), container);
        });
    }

    pub fn compare(&self) {
        self.with(|mail| mail.compare = true);
    }

    pub(super) fn take(&self) -> Mail {
        std::mem::take(&mut self.mail.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub(super) async fn wait(&self) {
        self.notify.notified().await;
    }
}
