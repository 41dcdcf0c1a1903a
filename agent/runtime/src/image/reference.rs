//! Image references: from what a manifest says to the one full name.
//!
//! In: `nginx`, `nginx:1.2`, `repo/x@sha256:…`. Out: registry, repository, tag or digest. Pure.

use std::fmt;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;

/// A full image name. Its display is the name of containerd's image record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reference {
    /// `docker.io`, `registry.k8s.io`, `localhost:5000`.
    pub(crate) registry: String,
    /// `library/nginx`.
    pub(crate) repository: String,
    pub(crate) version: Version,
}

/// A digest wins over a tag when a reference has both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    Tag(String),
    Digest(String),
}

// === impl Reference ===

impl Reference {
    /// # Errors
    /// The reason, worded as other runtimes word it.
    pub(crate) fn parse(image: &str) -> Result<Self, String> {
        const FORMAT: &str = "invalid reference format";
        if image.len() == 64 && image.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(format!(
                "invalid repository name ({image}), cannot specify 64-byte hexadecimal strings"
            ));
        }
        let (rest, digest) = match image.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest)),
            Some(_) => return Err(FORMAT.into()),
            None => (image, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(FORMAT.into());
        }
        let (registry, repository) = split_registry(name);
        if repository.is_empty() || !is_registry(&registry) {
            return Err(FORMAT.into());
        }
        if repository.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(format!("{FORMAT}: repository name ({repository}) must be lowercase"));
        }
        if !repository.split('/').all(is_path_component) {
            return Err(FORMAT.into());
        }
        if registry.len() + 1 + repository.len() > LONGEST_NAME {
            return Err(format!("repository name must not be more than {LONGEST_NAME} characters"));
        }
        let version = match (digest, tag) {
            (Some(digest), _) => Version::Digest(digest.to_owned()),
            (None, Some(tag)) => Version::Tag(tag.to_owned()),
            (None, None) => Version::Tag(DEFAULT_TAG.to_owned()),
        };
        Ok(Self { registry, repository, version })
    }

    /// `docker.io/library/nginx`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The tag or digest as the registry's manifest URL has it.
    pub(crate) fn version(&self) -> &str {
        match &self.version {
            Version::Tag(version) | Version::Digest(version) => version,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = match self.version {
            Version::Tag(_) => ':',
            Version::Digest(_) => '@',
        };
        write!(f, "{}/{}{separator}{}", self.registry, self.repository, self.version())
    }
}

/// `sha256:` or `sha512:` and its hexadecimal digits.
pub(crate) fn is_digest(digest: &str) -> bool {
    let hex = |digits: &str, length: usize| {
        digits.len() == length && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    match digest.split_once(':') {
        Some(("sha256", digits)) => hex(digits, 64),
        Some(("sha512", digits)) => hex(digits, 128),
        _ => false,
    }
}

fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    tag.len() <= LONGEST_TAG
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// The part before the first slash is a registry when it looks like a host.
fn split_registry(name: &str) -> (String, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    if registry == DEFAULT_REGISTRY && !repository.is_empty() && !repository.contains('/') {
        return (registry.to_owned(), format!("library/{repository}"));
    }
    (registry.to_owned(), repository.to_owned())
}

fn is_registry(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else { return false };
            return address.parse::<std::net::Ipv6Addr>().is_ok()
                && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
        }
        None => match registry.rsplit_once(':') {
            Some((host, port)) if is_port(port) => host,
            Some(_) => return false,
            None => registry,
        },
    };
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

fn is_port(port: &str) -> bool {
    port.parse::<u16>().is_ok()
}

/// Lower-case alphanumerics with single separators between them: `.`, `_`, `__` or any number of dashes.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(|b| alphanumeric(*b));
    if !ends(bytes.first()) || !ends(bytes.last()) {
        return false;
    }
    bytes
        .split(|b| alphanumeric(*b))
        .all(|gap| gap.is_empty() || matches!(gap, b"." | b"_" | b"__") || gap.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_means_docker_hub_and_latest() {
        for (given, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.2", "docker.io/library/nginx:1.2"),
            ("me/app", "docker.io/me/app:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("registry.k8s.io/e2e-test-images/agnhost:2.53", "registry.k8s.io/e2e-test-images/agnhost:2.53"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/a/b__c:T_1.x-y", "localhost:5000/a/b__c:T_1.x-y"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("10.0.0.1:5000/a--b", "10.0.0.1:5000/a--b:latest"),
        ] {
            assert_eq!(Reference::parse(given).unwrap().to_string(), full, "{given}");
        }
    }

    #[test]
    fn a_digest_wins_over_a_tag() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let reference = Reference::parse(&format!("nginx:1.2@{digest}")).unwrap();
        assert_eq!(reference.to_string(), format!("docker.io/library/nginx@{digest}"));
        assert_eq!(reference.name(), "docker.io/library/nginx");
    }

    #[test]
    fn bad_names_are_refused() {
        for bad in [
            "",
            ":",
            "nginx:",
            "Nginx",
            "a/B",
            "nginx:la test",
            "nginx@sha256:123",
            "nginx@",
            "/nginx",
            "nginx/",
            "a//b",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "../../etc/passwd",
            "http://x/y",
            "host.:99999/a",
            "x.y:70000/a",
            &format!("nginx:{}", "t".repeat(129)),
            &"a".repeat(64),
            &"n".repeat(300),
            "näme",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
        let message = Reference::parse("repo/Name").unwrap_err();
        assert!(message.contains("must be lowercase"), "{message}");
    }
}
