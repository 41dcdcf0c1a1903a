//! What this node shows to the API server: where it comes from.
//!
//! In: flags, the state folder, the environment of a pod. Out: access to the API. A kubeconfig that can be used comes
//! first; then what there is to join with; then a pod's service account.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::Uri;

use crate::certificates::{Pair, now};
use crate::cluster::{self, Access};
use crate::join::{self, JoinArgs};
use crate::kubeconfig;

/// Where flags say that credentials are.
pub struct Credentials<'a> {
    pub kubeconfig: PathBuf,
    pub join: &'a JoinArgs,
    pub state_dir: &'a Path,
}

/// Access, and whether its certificate is this node's own, to be renewed.
pub struct Obtained {
    pub access: Access,
    pub renewed: bool,
}

/// What a kubeconfig file is worth.
#[derive(Debug, PartialEq, Eq)]
enum Worth {
    Missing,
    /// Its certificate has ended.
    Over,
    Usable {
        of_node: bool,
    },
}

// === impl Credentials ===

impl Credentials<'_> {
    /// Where the API server is; nobody is asked.
    ///
    /// # Errors
    /// When nothing says it.
    pub fn server(&self) -> Result<Uri> {
        if self.kubeconfig.exists() {
            return cluster::server_of(&self.kubeconfig);
        }
        if let Some(server) = self.join.server()? {
            return Ok(server);
        }
        if cluster::in_pod() {
            return cluster::server_of_pod();
        }
        bail!("{}", self.nothing());
    }

    /// Joins the cluster if need be.
    ///
    /// # Errors
    /// When there is nothing that can be used.
    pub async fn obtain(&self, node: &str) -> Result<Obtained> {
        let worth = worth(&self.kubeconfig, node)?;
        let of_node = match worth {
            Worth::Usable { of_node } => of_node,
            Worth::Missing | Worth::Over if self.join.is_given() => {
                join::join(self.join, node, self.state_dir, &self.kubeconfig).await?;
                true
            }
            Worth::Missing if cluster::in_pod() => {
                return Ok(Obtained { access: cluster::access_of_pod()?, renewed: false });
            }
            Worth::Missing => bail!("{}", self.nothing()),
            Worth::Over => bail!(
                "the certificate in {} has ended: join again with --server and --token",
                self.kubeconfig.display()
            ),
        };
        Ok(Obtained { access: cluster::access(&self.kubeconfig).await?, renewed: of_node })
    }

    fn nothing(&self) -> String {
        format!(
            "there is no kubeconfig {}: give --server, --token and --ca-cert-hash as `xebec-control token create` \
             prints them, or --kubeconfig",
            self.kubeconfig.display()
        )
    }
}

/// Waits for a kubeconfig that another process makes.
///
/// # Errors
/// When it does not come in time.
pub async fn wait_for(kubeconfig: &Path, limit: Duration) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(500);
    let appears = async {
        while !kubeconfig.exists() {
            // Made once in a node's life, and by a process that may not have been started yet.
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(limit, appears)
        .await
        .with_context(|| format!("there is no {}: does `xebec-agent run` run?", kubeconfig.display()))
}

fn worth(path: &Path, node: &str) -> Result<Worth> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Worth::Missing),
        Err(error) => return Err(error).with_context(|| format!("--kubeconfig {}", path.display())),
    };
    let pair: Option<Pair> =
        kubeconfig::pair(&text).with_context(|| format!("--kubeconfig {}", path.display()))?;
    let Some(pair) = pair else { return Ok(Worth::Usable { of_node: false }) };
    if pair.validity().with_context(|| format!("--kubeconfig {}", path.display()))?.is_over(now()) {
        return Ok(Worth::Over);
    }
    Ok(Worth::Usable { of_node: pair.is_of_node(node) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::made;

    #[test]
    fn a_kubeconfig_is_worth_what_its_certificate_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        assert_eq!(worth(&path, "n1").unwrap(), Worth::Missing);
        for (years, node, found) in [
            ((2020, 2021), "n1", Worth::Over),
            ((2020, 2200), "n1", Worth::Usable { of_node: true }),
            ((2020, 2200), "n2", Worth::Usable { of_node: false }),
        ] {
            let text = kubeconfig::of_node("https://192.0.2.1", "ca", "u", &made(node, years)).unwrap();
            std::fs::write(&path, text).unwrap();
            assert_eq!(worth(&path, "n1").unwrap(), found, "{years:?} {node}");
        }
        std::fs::write(&path, "nonsense").unwrap();
        assert!(worth(&path, "n1").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("kubeconfig");
        let refused = wait_for(&missing, Duration::from_secs(5)).await.unwrap_err().to_string();
        assert!(refused.contains("does `xebec-agent run` run?"), "{refused}");
        std::fs::write(&missing, "").unwrap();
        wait_for(&missing, Duration::from_secs(5)).await.unwrap();
    }
}
