//! Attaching a pod as one transaction, and detaching it.
//!
//! In: [`PodRequest`]s and uids. Out: [`PodNetwork`]s. The record is on disk before anything is built and says ready
//! only when all is: whatever a crash leaves between is found by its record and undone by the next call for the uid.

use tracing::{debug, warn};

use crate::checkpoint::Record;
use crate::error::{Error, Result};
use crate::names::{self, End};
use crate::namespaces::Kind;
use crate::network::Network;
use crate::types::{PodNetwork, PodRequest};
use crate::wire;

impl Network {
    /// Gives a pod its namespaces, addresses and interface. The same uid again gets the same answer; an error leaves
    /// nothing behind that a later attach or detach would not mend.
    pub async fn attach(&self, request: &PodRequest) -> Result<PodNetwork> {
        names::check_uid(&request.uid)?;
        let uid = request.uid.as_str();
        let _turn = self.inner.turns.take(uid).await;
        let held = self.book().pods.get(uid).cloned();
        match held {
            Some(record) if record.ready => return Ok(self.describe(uid, &record)),
            Some(_) => {
                debug!(uid, "pod network is half made: starting over");
                self.undo(uid).await?;
            }
            None => {}
        }
        let record = self.reserve(request)?;
        match self.build(request, record).await {
            Ok(record) => Ok(self.describe(uid, &record)),
            Err(error) => {
                if let Err(left) = self.undo(uid).await {
                    warn!(uid, %left, "could not undo a failed attach; the next one tries again");
                }
                Err(error)
            }
        }
    }

    /// Takes everything from a pod. Goes on past failing steps; an error means that calling it again is needed.
    pub async fn detach(&self, uid: &str) -> Result<()> {
        names::check_uid(uid)?;
        let _turn = self.inner.turns.take(uid).await;
        self.undo(uid).await
    }

    /// Takes addresses and an interface name, durably, before anything exists that would carry them.
    fn reserve(&self, request: &PodRequest) -> Result<Record> {
        let uid = request.uid.as_str();
        let mut book = self.book();
        let addresses = if request.host_network { Vec::new() } else { book.ipam.allocate()? };
        let taken = |name: &str| book.pods.values().any(|record| record.interface == name);
        let record = Record {
            namespace: request.namespace.clone(),
            name: request.name.clone(),
            host_network: request.host_network,
            host_ipc: request.host_ipc,
            interface: names::host_interface(uid, taken),
            addresses,
            mac: names::mac(uid, End::Pod),
            host_mac: names::mac(uid, End::Host),
            netns_cookie: 0,
            ready: false,
        };
        book.pods.insert(uid.to_owned(), record.clone());
        if let Err(error) = book.save() {
            book.pods.remove(uid);
            book.ipam.release(&record.addresses);
            return Err(error);
        }
        Ok(record)
    }

    async fn build(&self, request: &PodRequest, mut record: Record) -> Result<Record> {
        let uid = request.uid.as_str();
        let kinds = record.kinds();
        if !kinds.is_empty() {
            let netns = self.inner.pins.make(uid, &request.hostname, kinds).await?;
            if let Some(netns) = netns {
                record.netns_cookie = netns.cookie;
                wire::connect(&self.inner.host, &*self.inner.datapath, &record, &netns).await?;
            }
        }
        record.ready = true;
        let mut book = self.book();
        book.pods.insert(uid.to_owned(), record.clone());
        book.save()?;
        Ok(record)
    }

    /// Undoes an attach in reverse, however far it came. Steps that find nothing succeed.
    pub(crate) async fn undo(&self, uid: &str) -> Result<()> {
        let Some(record) = self.unready(uid)? else { return self.release_pins(uid) };
        let mut errors = Vec::new();
        for address in &record.addresses {
            let removed = self.inner.datapath.remove(*address);
            errors.extend(
                removed.err().map(|source| Error::Datapath {
                    action: format!("removing pod address {address}"),
                    source,
                }),
            );
        }
        if !record.host_network {
            let detached = self.inner.datapath.detach(&record.interface);
            errors.extend(detached.err().map(|source| Error::Datapath {
                action: format!("detaching programs from {}", record.interface),
                source,
            }));
            // Addresses, routes and neighbours go with the link.
            errors.extend(self.inner.host.netlink.delete_link(&record.interface).await.err());
        }
        errors.extend(self.release_pins(uid).err());
        if !errors.is_empty() {
            return Err(Error::Detach { uid: uid.to_owned(), errors });
        }
        let mut book = self.book();
        book.pods.remove(uid);
        book.ipam.release(&record.addresses);
        book.save()
    }

    /// From here on the pod is no longer whole, whatever happens.
    fn unready(&self, uid: &str) -> Result<Option<Record>> {
        let mut book = self.book();
        let Some(record) = book.pods.get_mut(uid) else { return Ok(None) };
        let was_ready = std::mem::replace(&mut record.ready, false);
        let record = record.clone();
        if was_ready {
            book.save()?;
        }
        Ok(Some(record))
    }

    fn release_pins(&self, uid: &str) -> Result<()> {
        let errors: Vec<_> =
            Kind::ALL.into_iter().rev().filter_map(|kind| self.inner.pins.release(kind, uid).err()).collect();
        if errors.is_empty() { Ok(()) } else { Err(Error::Detach { uid: uid.to_owned(), errors }) }
    }
}
