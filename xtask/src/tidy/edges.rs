//! Which crate may name which: the edges of ARCHITECTURE.md, and the rooms of libraries that have one user.
//!
//! In: direct dependencies of each package. Out: the edges that should not be there.

use super::Tree;

/// Package → workspace packages it may depend on. `xebec-api` goes without saying, except where it is absent.
const EDGES: &[(&str, &[&str])] = &[
    ("xebec-api", &[]),
    ("xebec-ebpf-common", &[]),
    ("xebec-ebpf", &["xebec-ebpf-common"]),
    ("xebec-datapath", &["xebec-api", "xebec-ebpf-common"]),
    ("xebec-network", &["xebec-api", "xebec-datapath"]),
    ("xebec-proxy", &["xebec-api", "xebec-datapath"]),
    ("xebec-runtime", &["xebec-api"]),
    ("xebec-dns", &["xebec-api"]),
    ("xebec-kubelet", &["xebec-api", "xebec-runtime", "xebec-network"]),
    (
        "xebec-agent",
        &[
            "xebec-api",
            "xebec-datapath",
            "xebec-network",
            "xebec-proxy",
            "xebec-runtime",
            "xebec-dns",
            "xebec-kubelet",
        ],
    ),
    ("xebec-store", &[]),
    ("xebec-apiserver", &["xebec-api", "xebec-store"]),
    ("xebec-scheduler", &["xebec-api"]),
    ("xebec-controllers", &["xebec-api"]),
    (
        "xebec-control",
        &["xebec-api", "xebec-store", "xebec-apiserver", "xebec-scheduler", "xebec-controllers"],
    ),
    ("xtask", &[]),
];

/// Libraries with one room in the product.
const ROOMS: &[(&str, &[&str])] = &[
    ("aya", &["xebec-datapath"]),
    ("aya-ebpf", &["xebec-ebpf"]),
    ("containerd-client", &["xebec-runtime"]),
    ("oci-client", &["xtask"]),
    ("reqwest", &["xebec-runtime"]),
    ("rtnetlink", &["xebec-network"]),
    ("netlink-packet-route", &["xebec-network"]),
    ("redb", &["xebec-store"]),
    ("hickory-server", &["xebec-dns"]),
];

/// May name anything: it tests everything.
const TESTS: &str = "xebec-tests";

pub fn check(tree: &Tree) -> Vec<String> {
    let mut breaches = Vec::new();
    for (package, dependencies) in &tree.dependencies {
        if package == TESTS {
            continue;
        }
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| name == package) else {
            breaches.push(format!(
                "{package}: a new package; add its edges to ARCHITECTURE.md and xtask/src/tidy/edges.rs"
            ));
            continue;
        };
        for dependency in dependencies {
            if tree.dependencies.contains_key(dependency) && !allowed.contains(&dependency.as_str()) {
                breaches.push(format!(
                    "{package} may not depend on {dependency}: no such edge in ARCHITECTURE.md"
                ));
            }
            let room = ROOMS.iter().find(|(library, _)| library == dependency);
            if let Some((library, users)) = room.filter(|(_, users)| !users.contains(&package.as_str())) {
                breaches.push(format!("{package} may not use {library}: only {} does", users.join(", ")));
            }
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(edges: &[(&str, &[&str])]) -> Tree {
        let dependencies = edges
            .iter()
            .map(|(package, deps)| ((*package).to_owned(), deps.iter().map(|d| (*d).to_owned()).collect()))
            .collect();
        Tree { dependencies, ..Tree::default() }
    }

    #[test]
    fn a_planted_edge_is_found() {
        let planted = tree(&[
            ("xebec-scheduler", &["xebec-api", "xebec-store"]),
            ("xebec-store", &[]),
            ("xebec-api", &[]),
        ]);
        assert_eq!(
            check(&planted),
            ["xebec-scheduler may not depend on xebec-store: no such edge in ARCHITECTURE.md"]
        );
    }

    #[test]
    fn a_planted_library_outside_its_room_is_found() {
        let planted = tree(&[("xebec-kubelet", &["containerd-client"])]);
        assert_eq!(check(&planted), ["xebec-kubelet may not use containerd-client: only xebec-runtime does"]);
    }

    #[test]
    fn a_package_without_edges_is_found() {
        assert_eq!(check(&tree(&[("xebec-new", &[])])).len(), 1);
    }
}
