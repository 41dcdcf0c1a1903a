//! How long a certificate is good, and when it is replaced. Pure but for the clock.
//!
//! In: PEM. Out: two moments, in seconds since 1970, and the one to act at.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What is left of a long life when it is replaced; of a shorter one a sixth.
const LONGEST_MARGIN: i64 = 60 * 24 * 3600;
const MARGIN_SHARE: i64 = 6;

/// From when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: i64,
    pub not_after: i64,
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

// === impl Validity ===

impl Validity {
    pub fn of(certificate: &str) -> Result<Self> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).context("it is no PEM")?;
        let (_, parsed) = X509Certificate::from_der(&der).context("it is no certificate")?;
        Ok(Self::from(parsed.validity()))
    }

    /// When it is replaced.
    pub fn renewal(self) -> i64 {
        let life = self.not_after.saturating_sub(self.not_before);
        self.not_after.saturating_sub(LONGEST_MARGIN.min(life / MARGIN_SHARE))
    }
}

impl From<&x509_parser::certificate::Validity> for Validity {
    fn from(validity: &x509_parser::certificate::Validity) -> Self {
        Self { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sixth_is_left_and_never_more_than_sixty_days() {
        assert_eq!(Validity { not_before: 0, not_after: 60 }.renewal(), 50);
        let years = 10 * 365 * 24 * 3600;
        assert_eq!(Validity { not_before: 0, not_after: years }.renewal(), years - LONGEST_MARGIN);
    }
}
