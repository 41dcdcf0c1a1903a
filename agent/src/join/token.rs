//! What a machine is given to join with: a bootstrap token, and what the cluster's CA must be.
//!
//! In: text of flags. Out: checked values.

use std::str::FromStr;

use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// `id.secret`. Never shown as a whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    secret: String,
}

/// The digest of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaHash([u8; 32]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({}.…)", self.id)
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        match text.split_once('.') {
            Some((id, secret))
                if id.len() == ID_LENGTH && secret.len() == SECRET_LENGTH && plain(id) && plain(secret) =>
            {
                Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
            }
            // The text itself stays out of the message: it may be a secret with a slip of the pen.
            _ => Err("a token is six characters, a dot and sixteen characters, of a-z and 0-9".to_owned()),
        }
    }
}

impl FromStr for CaHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?}: write sha256: and 64 hexadecimal digits");
        let hex = text.strip_prefix("sha256:").ok_or_else(wrong)?;
        let digits: Option<Vec<u8>> = hex.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
        let digits = digits.filter(|digits| digits.len() == 64).ok_or_else(wrong)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(bytes))
    }
}

// === impl Token ===

impl Token {
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// As a bearer token.
    pub fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

// === impl CaHash ===

impl CaHash {
    /// Whether a certificate has the public key that was named.
    pub fn is_of(&self, certificate: &CertificateDer<'_>) -> bool {
        X509Certificate::from_der(certificate)
            .is_ok_and(|(_, parsed)| digest(&SHA256, parsed.public_key().raw).as_ref() == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_one_form_and_are_not_shown() {
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        assert_eq!(
            (token.bearer().as_str(), token.secret()),
            ("abcdef.0123456789abcdef", "0123456789abcdef")
        );
        assert_eq!(format!("{token:?}"), "Token(abcdef.…)");
        for bad in ["abcdef", "abcdef.0123", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcdef.x"] {
            let refused = bad.parse::<Token>().unwrap_err();
            assert!(!refused.contains(bad), "{refused}");
        }
    }

    #[test]
    fn a_ca_is_known_by_the_digest_of_its_public_key() {
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let again =
            rcgen::CertificateParams::new(vec!["b.example".into()]).unwrap().self_signed(&key).unwrap();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        let hex: String = digest(&SHA256, &spki).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let hash: CaHash = format!("sha256:{hex}").parse().unwrap();
        assert!(hash.is_of(ca.der()) && hash.is_of(again.der()));
        let other = rcgen::KeyPair::generate().unwrap();
        assert!(!hash.is_of(rcgen::CertificateParams::default().self_signed(&other).unwrap().der()));
        for bad in
            [hex.clone(), format!("sha512:{hex}"), "sha256:12".into(), format!("sha256:{}", "é".repeat(32))]
        {
            assert!(bad.parse::<CaHash>().is_err(), "{bad}");
        }
    }
}
