//! Keeping a certificate fresh.
//!
//! In: where a pair is kept, a client that may ask for the next one. Out: the file with a new pair, long before the old
//! one ends; a warning where that does not work.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::Client;
use tokio_util::sync::CancellationToken;

use super::counts::Counts;
use super::pair::{self, Pair};
use super::request::{Subject, request};
use super::schedule::{self, Validity};
use crate::{kubeconfig, private_file};

/// How long a request may wait for its signature before another one is made.
const SIGNED_WITHIN: Duration = Duration::from_secs(15 * 60);
/// Files and clocks are looked at again after this.
const LOOK: Duration = Duration::from_secs(600);
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(128);

/// A certificate that is kept in a file.
pub trait Kept: Send + Sync {
    /// What the file holds; `None` when there is no certificate yet, or one for other names.
    fn held(&self) -> Result<Option<Pair>>;
    fn keep(&self, pair: &Pair) -> Result<()>;
    fn subject(&self) -> Subject;
}

/// The node's client certificate, in its kubeconfig.
pub struct ClientFile {
    pub kubeconfig: PathBuf,
    pub node: String,
}

/// The kubelet API's certificate and key, in one file.
pub struct ServingFile {
    pub path: PathBuf,
    pub node: String,
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

// === impl ClientFile ===

impl Kept for ClientFile {
    fn held(&self) -> Result<Option<Pair>> {
        let why = || format!("reading {}", self.kubeconfig.display());
        let text = std::fs::read_to_string(&self.kubeconfig).with_context(why)?;
        kubeconfig::pair(&text).with_context(why)
    }

    fn keep(&self, pair: &Pair) -> Result<()> {
        let why = || format!("reading {}", self.kubeconfig.display());
        // Read again: somebody may have edited it meanwhile.
        let text = std::fs::read_to_string(&self.kubeconfig).with_context(why)?;
        let text = kubeconfig::with_pair(&text, pair).with_context(why)?;
        private_file::write(&self.kubeconfig, text.as_bytes())
    }

    fn subject(&self) -> Subject {
        Subject::Client { node: self.node.clone() }
    }
}

// === impl ServingFile ===

impl Kept for ServingFile {
    fn held(&self) -> Result<Option<Pair>> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", self.path.display())),
        };
        // A damaged file, or one for the addresses of before, is replaced.
        Ok(pair::of_text(&text).filter(|pair| pair.serves(&self.names, &self.addresses)))
    }

    fn keep(&self, pair: &Pair) -> Result<()> {
        private_file::write(&self.path, pair.text().as_bytes())
    }

    fn subject(&self) -> Subject {
        Subject::Serving {
            node: self.node.clone(),
            names: self.names.clone(),
            addresses: self.addresses.clone(),
        }
    }
}

/// Renews until shut down.
pub async fn keep_fresh(client: Client, file: impl Kept, counts: Counts, shutdown: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    loop {
        let wait = match due(&file, &counts) {
            Ok(Some(wait)) if !wait.is_zero() => wait,
            Ok(_) => match renew(&client, &file, &counts).await {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    // A signer whose certificates are born old is not asked without end.
                    FIRST_PAUSE
                }
                Err(error) => {
                    counts.failed();
                    tracing::warn!("a certificate is not renewed: {error:#}");
                    let wait = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    wait
                }
            },
            Err(error) => {
                counts.failed();
                tracing::warn!("a certificate cannot be looked at: {error:#}");
                LONGEST_PAUSE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// How long the certificate is good as it is; `None` when there is none.
fn due(file: &impl Kept, counts: &Counts) -> Result<Option<Duration>> {
    let Some(pair) = file.held()? else { return Ok(None) };
    let validity: Validity = pair.validity()?;
    counts.holds(validity.not_after);
    let now = schedule::now();
    if validity.is_late(now) {
        let ends = validity.not_after.saturating_sub(now);
        tracing::warn!(subject = ?file.subject(), "a certificate ends in {ends} s and was not renewed");
    }
    let moment = validity.renewal(schedule::fraction(&pair.certificate));
    Ok(Some(schedule::until(moment, now, LOOK)))
}

async fn renew(client: &Client, file: &impl Kept, counts: &Counts) -> Result<()> {
    let key = pair::generate()?;
    let pair = request(client, &file.subject(), &key, SIGNED_WITHIN).await?;
    file.keep(&pair)?;
    counts.holds(pair.validity()?.not_after);
    tracing::info!(subject = ?file.subject(), "a certificate was renewed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::pair::tests::made;
    use super::*;

    #[test]
    fn a_serving_certificate_for_other_addresses_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = |addresses: &[&str]| ServingFile {
            path: folder.path().join("current.pem"),
            node: "n1".into(),
            names: Vec::new(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        };
        assert!(file(&[]).held().unwrap().is_none(), "there is no file");
        let (pair, _) = made("n1", (2020, 2200));
        file(&[]).keep(&pair).unwrap();
        assert_eq!(file(&[]).held().unwrap(), Some(pair));
        assert_eq!(file(&["192.0.2.1"]).held().unwrap(), None);
        std::fs::write(folder.path().join("current.pem"), "damaged").unwrap();
        assert_eq!(file(&[]).held().unwrap(), None);
    }

    #[test]
    fn what_is_over_is_due_and_what_is_fresh_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        let file = ClientFile { kubeconfig: path.clone(), node: "n1".into() };
        let counts = Counts::of_client();
        assert!(due(&file, &counts).is_err(), "there is no kubeconfig");
        for (years, fresh) in [((2020, 2021), false), ((2020, 2200), true)] {
            let (pair, _) = made("n1", years);
            let text = kubeconfig::of_node("https://192.0.2.1", "ca", "system:node:n1", &pair).unwrap();
            std::fs::write(&path, text).unwrap();
            let wait = due(&file, &counts).unwrap().unwrap();
            assert_eq!(!wait.is_zero(), fresh, "{years:?}");
        }
        let (next, _) = made("n1", (2021, 2300));
        file.keep(&next).unwrap();
        assert_eq!(file.held().unwrap(), Some(next));
    }
}
