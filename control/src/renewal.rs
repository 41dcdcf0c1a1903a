//! The control plane's own certificates, renewed while it runs.
//!
//! In: the keys, the clock. Out: certificates on disk and, from the next handshake on, at the door and towards kubelets.
//! Connections that stand go on. The CA is not renewed: that it ends soon is said in the log.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use crate::pki::{self, Pki, Validity};
use crate::tls::Live;

/// Clocks are set and folders replaced: looked at again after this, whatever was found.
const LOOK: Duration = Duration::from_secs(600);
const SHORTEST: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(60);
/// How long before its end somebody has to know.
const WARN_BEFORE: i64 = 30 * 24 * 3600;

/// Where renewed pairs are used.
pub struct Used {
    pub serving: Arc<Live>,
    pub kubelet_client: Arc<Live>,
}

/// Renews until told to stop.
pub async fn run(mut pki: Pki, used: Used, stop: CancellationToken) {
    loop {
        let wait = match look(&mut pki, &used) {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!("a certificate is not renewed: {error:#}");
                RETRY
            }
        };
        warn(&pki);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Makes anew what is due; says when to look again.
fn look(pki: &mut Pki, used: &Used) -> Result<Duration> {
    let (serving, kubelet_client) = pki.renewed()?;
    if serving {
        used.serving.replace(&pki.serving)?;
    }
    if kubelet_client {
        used.kubelet_client.replace(&pki.kubelet_client)?;
    }
    let mut next = LOOK;
    for pair in [&pki.serving, &pki.kubelet_client] {
        let left = Validity::of(&pair.certificate)?.renewal().saturating_sub(pki::now());
        next = next.min(Duration::from_secs(u64::try_from(left).unwrap_or(0)));
    }
    Ok(next.max(SHORTEST))
}

fn warn(pki: &Pki) {
    for (name, certificate) in [
        (pki::CA, pki.authority.certificate()),
        (pki::SERVING, &pki.serving.certificate),
        (pki::KUBELET_CLIENT, &pki.kubelet_client.certificate),
    ] {
        let Ok(validity) = Validity::of(certificate) else { continue };
        let left = validity.not_after.saturating_sub(pki::now());
        // Of one that lives for days only, the last tenth.
        let early = WARN_BEFORE.min((validity.not_after - validity.not_before) / 10);
        if left < early {
            tracing::warn!(
                certificate = name,
                "a certificate ends in {left} s; `xebec-control certs` shows all"
            );
        }
    }
}
