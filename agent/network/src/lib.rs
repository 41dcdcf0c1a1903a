//! Pod networking of one node: addresses, namespaces, veth pairs, routes.
//!
//! In: attach/detach requests from `kubelet`, peers' pod CIDRs from `agent`. Out: netlink state, pinned namespace
//! files, pod entries in `datapath`. Absent: Kubernetes types; any executed binary; netfilter.

pub mod types;
