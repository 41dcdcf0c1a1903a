//! Who owns whom, as far as deletion needs to know.
//!
//! In: metadata of every object, as watches tell it. Out: the objects worth a look after each change; dependents by
//! owner. Pure.
//!
//! Only objects that have owners or wait for their dependents are kept; of all others the UID alone, to tell an owner
//! that exists from one that may not.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use uuid::Uuid;
use xebec_api::wellknown::finalizers::{FOREGROUND_DELETION, ORPHAN};

use crate::inventory::Kind;

/// What an object that is being deleted waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Its dependents are to lose it as their owner.
    Orphan,
    /// Its dependents go first.
    Foreground,
}

impl Waits {
    pub(crate) fn of(meta: &ObjectMeta) -> Option<Self> {
        meta.deletion_timestamp.as_ref()?;
        let has = |name: &str| meta.finalizers.iter().flatten().any(|finalizer| finalizer == name);
        if has(ORPHAN) { Some(Self::Orphan) } else { has(FOREGROUND_DELETION).then_some(Self::Foreground) }
    }

    pub(crate) fn finalizer(self) -> &'static str {
        match self {
            Self::Orphan => ORPHAN,
            Self::Foreground => FOREGROUND_DELETION,
        }
    }
}

/// An object that has owners or waits for its dependents.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Arc<Kind>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) owners: Vec<OwnerReference>,
    pub(crate) waits: Option<Waits>,
}

/// Ownership among all objects.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// Every object seen, by the place of its kind in `kinds`.
    alive: HashMap<Uuid, u16>,
    kinds: Vec<Kindred>,
    nodes: HashMap<Uuid, Node>,
    /// Nodes by the UID of an owner they name.
    dependents: HashMap<Uuid, HashSet<Uuid>>,
}

#[derive(Debug)]
struct Kindred {
    title: String,
    /// UIDs of a list that is not complete yet.
    listing: Option<HashSet<Uuid>>,
}

impl Graph {
    pub(crate) fn node(&self, uid: &Uuid) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub(crate) fn dependents(&self, owner: &Uuid) -> Vec<(Uuid, &Node)> {
        let uids = self.dependents.get(owner).into_iter().flatten();
        uids.filter_map(|uid| Some((*uid, self.nodes.get(uid)?))).collect()
    }

    /// Takes in how an object is; what is worth a look because of it.
    pub(crate) fn present(&mut self, kind: &Arc<Kind>, meta: &ObjectMeta) -> Vec<Uuid> {
        let Some(uid) = uid_of(meta) else {
            return Vec::new();
        };
        let slot = self.slot(kind);
        self.alive.insert(uid, slot);
        if let Some(listing) = &mut self.kinds[usize::from(slot)].listing {
            listing.insert(uid);
        }
        let old = self.unlink(&uid);
        let node = Node {
            kind: kind.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            waits: Waits::of(meta),
        };
        let mut look = Vec::new();
        let before = old.as_ref().map_or(&[][..], |old| &old.owners);
        if node.owners != before {
            look.extend(self.waiting(before));
            if self.is_suspect(&node) {
                look.push(uid);
            }
        }
        if node.waits.is_some() && old.is_none_or(|old| old.waits != node.waits) {
            look.push(uid);
            look.extend(self.dependents.get(&uid).into_iter().flatten());
        }
        if !node.owners.is_empty() || node.waits.is_some() {
            self.link(uid, node);
        }
        look
    }

    /// An object is no more; what is worth a look because of it.
    pub(crate) fn gone(&mut self, uid: &Uuid) -> Vec<Uuid> {
        self.alive.remove(uid);
        let mut look: Vec<Uuid> = self.dependents.get(uid).into_iter().flatten().copied().collect();
        if let Some(node) = self.unlink(uid) {
            look.extend(self.waiting(&node.owners));
        }
        look
    }

    pub(crate) fn list_begins(&mut self, kind: &Arc<Kind>) {
        let slot = self.slot(kind);
        self.kinds[usize::from(slot)].listing = Some(HashSet::new());
    }

    /// The kind's list is complete: what it did not name is gone.
    pub(crate) fn list_ends(&mut self, kind: &Arc<Kind>) -> Vec<Uuid> {
        let slot = self.slot(kind);
        let Some(listed) = self.kinds[usize::from(slot)].listing.take() else {
            return Vec::new();
        };
        let of_kind = self.alive.iter().filter(|(_, known)| **known == slot).map(|(uid, _)| *uid);
        let gone: Vec<Uuid> = of_kind.filter(|uid| !listed.contains(uid)).collect();
        gone.iter().flat_map(|uid| self.gone(uid)).collect()
    }

    /// The kind is not served any more. What its objects owned stays: nobody can tell whether they are gone for good.
    pub(crate) fn forget_kind(&mut self, kind: &Arc<Kind>) {
        let slot = self.slot(kind);
        let uids: Vec<Uuid> =
            self.alive.iter().filter(|(_, known)| **known == slot).map(|(uid, _)| *uid).collect();
        for uid in uids {
            self.alive.remove(&uid);
            self.unlink(&uid);
        }
    }

    /// Everything worth a look once all kinds have been listed.
    pub(crate) fn suspects(&self) -> Vec<Uuid> {
        let worth = |node: &Node| node.waits.is_some() || self.is_suspect(node);
        self.nodes.iter().filter(|(_, node)| worth(node)).map(|(uid, _)| *uid).collect()
    }

    /// An owner may be missing, or goes and takes the object with it.
    fn is_suspect(&self, node: &Node) -> bool {
        node.owners.iter().any(|owner| {
            parse(&owner.uid).is_none_or(|uid| {
                !self.alive.contains_key(&uid) || self.nodes.get(&uid).is_some_and(|o| o.waits.is_some())
            })
        })
    }

    /// Those of the owners that wait for their dependents.
    fn waiting(&self, owners: &[OwnerReference]) -> Vec<Uuid> {
        let uids = owners.iter().filter_map(|owner| parse(&owner.uid));
        uids.filter(|uid| self.nodes.get(uid).is_some_and(|owner| owner.waits.is_some())).collect()
    }

    fn link(&mut self, uid: Uuid, node: Node) {
        for owner in node.owners.iter().filter_map(|owner| parse(&owner.uid)) {
            self.dependents.entry(owner).or_default().insert(uid);
        }
        self.nodes.insert(uid, node);
    }

    fn unlink(&mut self, uid: &Uuid) -> Option<Node> {
        let node = self.nodes.remove(uid)?;
        for owner in node.owners.iter().filter_map(|owner| parse(&owner.uid)) {
            if let Some(dependents) = self.dependents.get_mut(&owner) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner);
                }
            }
        }
        Some(node)
    }

    /// Kinds are few and never forgotten: a custom kind that comes back takes its old place.
    fn slot(&mut self, kind: &Arc<Kind>) -> u16 {
        let title = kind.title();
        let place = self.kinds.iter().position(|known| known.title == title).unwrap_or_else(|| {
            self.kinds.push(Kindred { title, listing: None });
            self.kinds.len() - 1
        });
        u16::try_from(place).unwrap_or(u16::MAX)
    }
}

/// The API makes UIDs, and makes UUIDs: a reference that names something else names nothing that exists.
pub(crate) fn parse(uid: &str) -> Option<Uuid> {
    Uuid::parse_str(uid).ok()
}

pub(crate) fn uid_of(meta: &ObjectMeta) -> Option<Uuid> {
    parse(meta.uid.as_deref()?)
}
