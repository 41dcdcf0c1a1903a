//! A pod network that only keeps books.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use xebec_network::types::{PodNetwork, PodRequest};

use crate::pod_network::PodNetworking;

#[derive(Clone)]
pub(crate) struct FakeNetwork {
    attached: Arc<Mutex<BTreeMap<String, PodNetwork>>>,
    /// Some Service still sends to pods that are being deleted.
    in_use: Arc<watch::Sender<bool>>,
}

impl Default for FakeNetwork {
    fn default() -> Self {
        Self { attached: Arc::default(), in_use: Arc::new(watch::channel(false).0) }
    }
}

impl FakeNetwork {
    pub(crate) fn uids(&self) -> Vec<String> {
        self.attached.lock().unwrap().keys().cloned().collect()
    }

    /// Whether Services still send to pods that are being deleted.
    pub(crate) fn set_in_use(&self, in_use: bool) {
        self.in_use.send_replace(in_use);
    }

    pub(crate) fn put(&self, uid: &str) {
        let network = PodNetwork { addresses: vec![], netns: None, ipcns: None, utsns: None };
        self.attached.lock().unwrap().insert(uid.to_owned(), network);
    }
}

impl PodNetworking for FakeNetwork {
    async fn attach(&self, request: &PodRequest) -> Result<PodNetwork, String> {
        let mut attached = self.attached.lock().unwrap();
        let next = attached.len() + 2;
        let network = attached.entry(request.uid.clone()).or_insert_with(|| PodNetwork {
            addresses: vec![format!("10.1.0.{next}").parse().unwrap()],
            netns: Some("/run/netns/x".into()),
            ipcns: None,
            utsns: None,
        });
        Ok(network.clone())
    }

    async fn detach(&self, uid: &str) -> Result<(), String> {
        self.attached.lock().unwrap().remove(uid);
        Ok(())
    }

    async fn attached(&self) -> Result<Vec<String>, String> {
        Ok(self.uids())
    }

    async fn drained(&self, _uid: &str, _addresses: &[IpAddr]) {
        let mut in_use = self.in_use.subscribe();
        let _closed = in_use.wait_for(|in_use| !in_use).await;
    }
}
