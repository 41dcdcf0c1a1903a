//! `xebec-control kubeconfig`: access for someone, signed offline.
//!
//! In: who, where the API server is, the CA. Out: a kubeconfig with everything in it.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use xebec_apiserver::authn::{MASTERS_GROUP, NODE_USER_PREFIX, NODES_GROUP};

use crate::cli::{KubeconfigArgs, Who};
use crate::data_dir;
use crate::files::{self, Access};
use crate::node_certs;
use crate::pki::{Authority, LIFE, Pair, Subject, Usage};

const CLUSTER: &str = "xebec";

pub fn write(arguments: &KubeconfigArgs) -> Result<()> {
    let subject = subject(&arguments.who, &arguments.group)?;
    let authority = Authority::load(&data_dir::pki(&arguments.data_dir))?;
    let pair = authority.issue(&subject, LIFE)?;
    let config = kubeconfig(&arguments.server, authority.certificate(), &subject.name, &pair);
    let text = serde_saphyr::to_string(&config).context("cannot write YAML")?;
    files::write(&arguments.out, text.as_bytes(), Access::Owner)
}

fn subject(who: &Who, groups: &[String]) -> Result<Subject> {
    let (name, groups) = match who {
        Who { node: Some(node), .. } => {
            node_certs::check_name(node)?;
            (format!("{NODE_USER_PREFIX}{node}"), vec![NODES_GROUP.to_owned()])
        }
        Who { user: Some(user), .. } => (user.clone(), groups.to_vec()),
        Who { .. } => ("kubernetes-admin".to_owned(), vec![MASTERS_GROUP.to_owned()]),
    };
    anyhow::ensure!(!name.is_empty(), "--user needs a name");
    Ok(Subject { name, groups, usage: Usage::Client })
}

fn kubeconfig(server: &str, ca: &str, user: &str, pair: &Pair) -> Value {
    let context = format!("{user}@{CLUSTER}");
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": CLUSTER,
            "cluster": { "server": server, "certificate-authority-data": STANDARD.encode(ca) },
        }],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": STANDARD.encode(&pair.certificate),
                "client-key-data": STANDARD.encode(&pair.key),
            },
        }],
        "contexts": [{ "name": context, "context": { "cluster": CLUSTER, "user": user } }],
        "current-context": context,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::pki;

    fn arguments(folder: &Path, who: Who) -> KubeconfigArgs {
        KubeconfigArgs {
            who,
            group: Vec::new(),
            server: "https://192.0.2.1:6443".into(),
            data_dir: folder.to_owned(),
            out: folder.join("config"),
        }
    }

    #[test]
    fn kubeconfig_can_be_read_by_clients() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(data_dir::pki(folder.path())).unwrap();
        let serving = pki::serving_subject("cluster.local", []);
        pki::prepare(&data_dir::pki(folder.path()), serving, LIFE).unwrap();
        write(&arguments(folder.path(), Who { admin: true, node: None, user: None })).unwrap();
        let config = kube::config::Kubeconfig::read_from(folder.path().join("config")).unwrap();
        assert_eq!(config.current_context.as_deref(), Some("kubernetes-admin@xebec"));
        let cluster = config.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://192.0.2.1:6443"));
    }

    #[test]
    fn nodes_are_in_their_group() {
        let who = Who { admin: false, node: Some("n1".into()), user: None };
        let subject = subject(&who, &[]).unwrap();
        assert_eq!((&*subject.name, &*subject.groups), ("system:node:n1", &["system:nodes".to_owned()][..]));
        let who = Who { admin: false, node: Some("N_1".into()), user: None };
        assert!(super::subject(&who, &[]).is_err());
    }
}
