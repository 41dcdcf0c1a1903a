//! Which endpoints get traffic.
//!
//! In: the endpoints of one service port and family, which pools the service uses, this node. Out: the pool for
//! traffic that may leave the node, the pool for traffic that may not, and whether any endpoint exists at all. The
//! rules are those of kube-proxy (KEP-1669, KEP-2086, KEP-2433, KEP-3015): the two pools are computed independently,
//! each prefers ready endpoints and falls back to draining ones, and hints apply to the first pool only. Pure.

use crate::endpoints::Endpoint;

/// Indexes of the chosen endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pools {
    /// For the policy `Cluster`.
    pub(crate) cluster: Vec<usize>,
    /// For the policy `Local`.
    pub(crate) local: Vec<usize>,
    /// Somewhere in the cluster an endpoint could serve: tells drop from reject.
    pub(crate) any: bool,
}

/// Chooses the endpoints of both pools.
pub(crate) fn choose(endpoints: &[Endpoint], node: &str, zone: Option<&str>) -> Pools {
    let scope = hinted(endpoints, node, zone);
    let cluster = prefer_ready(endpoints, |endpoint| allows(&scope, endpoint), |_| true);
    let local = prefer_ready(endpoints, |endpoint| endpoint.local, |endpoint| endpoint.local);
    let any = endpoints.iter().any(|endpoint| endpoint.ready || endpoint.drains());
    Pools { cluster, local, any }
}

/// How narrowly hints bind this node's traffic.
enum Scope<'a> {
    All,
    Zone(&'a str),
    Node(&'a str),
}

/// Hints count only if every ready endpoint has them and one of them is for us; nodes before zones.
fn hinted<'a>(endpoints: &[Endpoint], node: &'a str, zone: Option<&'a str>) -> Scope<'a> {
    let ready = || endpoints.iter().filter(|endpoint| endpoint.ready);
    let agree = |names: fn(&Endpoint) -> &[Box<str>], own: &str| {
        ready().all(|endpoint| !names(endpoint).is_empty())
            && ready().any(|endpoint| names(endpoint).iter().any(|name| **name == *own))
    };
    if agree(|endpoint| &endpoint.hints.nodes, node) {
        return Scope::Node(node);
    }
    match zone {
        Some(zone) if agree(|endpoint| &endpoint.hints.zones, zone) => Scope::Zone(zone),
        _ => Scope::All,
    }
}

fn allows(scope: &Scope<'_>, endpoint: &Endpoint) -> bool {
    match scope {
        Scope::All => true,
        Scope::Zone(zone) => endpoint.hints.zones.iter().any(|name| **name == **zone),
        Scope::Node(node) => endpoint.hints.nodes.iter().any(|name| **name == **node),
    }
}

fn prefer_ready(
    endpoints: &[Endpoint],
    ready_too: impl Fn(&Endpoint) -> bool,
    draining_too: impl Fn(&Endpoint) -> bool,
) -> Vec<usize> {
    let pick = |wanted: &dyn Fn(&Endpoint) -> bool| -> Vec<usize> {
        (0..endpoints.len()).filter(|index| wanted(&endpoints[*index])).collect()
    };
    let ready = pick(&|endpoint| endpoint.ready && ready_too(endpoint));
    if ready.is_empty() { pick(&|endpoint| endpoint.drains() && draining_too(endpoint)) } else { ready }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::Hints;

    const HERE: &str = "here";

    fn endpoint(state: &str, local: bool) -> Endpoint {
        let (ready, serving, terminating) = match state {
            "ready" => (true, true, false),
            "draining" => (false, true, true),
            "terminating" => (false, false, true),
            _ => (false, false, false),
        };
        let address = "10.0.0.1".parse().unwrap();
        Endpoint { address, local, ready, serving, terminating, hints: Hints::default() }
    }

    fn hints(nodes: &[&str], zones: &[&str]) -> Endpoint {
        let boxed = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
        Endpoint { hints: Hints { nodes: boxed(nodes), zones: boxed(zones) }, ..endpoint("ready", false) }
    }

    fn pools(endpoints: &[Endpoint]) -> (Vec<usize>, Vec<usize>, bool) {
        let pools = choose(endpoints, HERE, Some("z1"));
        (pools.cluster, pools.local, pools.any)
    }

    #[test]
    fn pools_are_chosen_independently() {
        type Case<'a> = (&'a [(&'a str, bool)], &'a [usize], &'a [usize], bool);
        let table: &[Case<'_>] = &[
            (&[], &[], &[], false),
            (&[("ready", true), ("ready", false)], &[0, 1], &[0], true),
            (&[("ready", false)], &[0], &[], true),
            (&[("down", true), ("down", false)], &[], &[], false),
            (&[("draining", true), ("ready", false)], &[1], &[0], true),
            (&[("draining", true), ("draining", false)], &[0, 1], &[0], true),
            (&[("terminating", true)], &[], &[], false),
            (&[("terminating", true), ("ready", true), ("draining", true)], &[1], &[1], true),
        ];
        for (endpoints, cluster, local, any) in table {
            let built: Vec<_> = endpoints.iter().map(|(state, local)| endpoint(state, *local)).collect();
            assert_eq!(pools(&built), (cluster.to_vec(), local.to_vec(), *any), "{endpoints:?}");
        }
    }

    #[test]
    fn hints_bind_only_when_every_ready_endpoint_has_them_and_one_is_ours() {
        assert_eq!(pools(&[hints(&[], &["z1"]), hints(&[], &["z2"])]).0, [0]);
        assert_eq!(pools(&[hints(&[], &["z1"]), hints(&[], &[])]).0, [0, 1], "one has none");
        assert_eq!(pools(&[hints(&[], &["z2"]), hints(&[], &["z3"])]).0, [0, 1], "none is ours");
        assert_eq!(pools(&[hints(&[HERE], &["z2"]), hints(&["b"], &["z1"])]).0, [0], "node before zone");
        assert_eq!(
            pools(&[hints(&[HERE], &["z2"]), hints(&[], &["z1"])]).0,
            [1],
            "node hints are incomplete"
        );
        let unzoned = choose(&[hints(&[], &["z1"]), hints(&[], &["z2"])], HERE, None);
        assert_eq!(unzoned.cluster, [0, 1], "this node has no zone");
    }

    #[test]
    fn hints_of_endpoints_that_are_not_ready_are_ignored_and_local_pools_ignore_all() {
        let idle = endpoint("down", false);
        assert_eq!(pools(&[hints(&[], &["z1"]), hints(&[], &["z2"]), idle]).0, [0]);
        let local = Endpoint { local: true, ..hints(&["b"], &["z2"]) };
        assert_eq!(pools(&[hints(&[HERE], &["z1"]), local]), (vec![0], vec![1], true));
    }
}
