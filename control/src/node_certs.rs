//! `xebec-control node-certs`: what a node's kubelet API shows to its clients.
//!
//! In: the node's name and addresses, the CA. Out: `kubelet.crt`, `kubelet.key` and the CA's certificate in a folder.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;

use anyhow::{Context, Result, bail};
use xebec_api::names;
use xebec_apiserver::authn::{NODE_USER_PREFIX, NODES_GROUP};

use crate::cli::NodeCertsArgs;
use crate::data_dir;
use crate::files::{self, Access};
use crate::pki::{Authority, LIFE, Subject, Usage};

pub fn write(arguments: &NodeCertsArgs) -> Result<()> {
    check_name(&arguments.node)?;
    let authority = Authority::load(&data_dir::pki(&arguments.data_dir))?;
    let subject = Subject {
        name: format!("{NODE_USER_PREFIX}{}", arguments.node),
        groups: vec![NODES_GROUP.into()],
        usage: Usage::Server { names: vec![arguments.node.clone()], addresses: arguments.address.clone() },
    };
    let pair = authority.issue(&subject, LIFE)?;
    let out = &arguments.out;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(out)
        .with_context(|| format!("cannot make the folder {}", out.display()))?;
    files::write(&out.join("ca.crt"), authority.certificate().as_bytes(), Access::All)?;
    files::write(&out.join("kubelet.key"), pair.key.as_bytes(), Access::Owner)?;
    files::write(&out.join("kubelet.crt"), pair.certificate.as_bytes(), Access::All)
}

/// A node's name is part of certificates and URLs: refused here rather than by the API server later.
pub fn check_name(node: &str) -> Result<()> {
    let complaints = names::dns1123_subdomain(node);
    if !complaints.is_empty() {
        bail!("{node:?} is no name of a node: {}", complaints.join("; "));
    }
    Ok(())
}
