//! Changes in the cluster that may make room for a pod that found none.
//!
//! In: what changed. Out: a set that plugins name their hopes with. Pure.

/// Set of cluster changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClusterEvents(u16);

impl ClusterEvents {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const NODE_ADDED: Self = Self(1);
    pub(crate) const NODE_ALLOCATABLE: Self = Self(1 << 1);
    pub(crate) const NODE_LABEL: Self = Self(1 << 2);
    pub(crate) const NODE_TAINT: Self = Self(1 << 3);
    pub(crate) const POD_ADDED: Self = Self(1 << 4);
    pub(crate) const POD_DELETED: Self = Self(1 << 5);
    pub(crate) const POD_UPDATED: Self = Self(1 << 6);

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) const fn is_none(self) -> bool {
        self.0 == 0
    }
}
