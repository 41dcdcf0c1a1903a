//! The query of a request.
//!
//! In: a URI. Out: decoded values by name, read as flags and ports.

use http::Uri;

/// Ports of one request; their channels are numbered by a byte.
const MOST_PORTS: usize = 100;

#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

// === impl Query ===

impl Query {
    pub fn of(uri: &Uri) -> Self {
        Self::parse(uri.query().unwrap_or_default())
    }

    pub fn parse(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        self.pairs().filter(|(known, _)| *known == name).map(|(_, value)| value.to_owned()).collect()
    }

    /// `1` or `true`, as upstream's servers take it.
    pub fn flag(&self, name: &str) -> bool {
        self.pairs().any(|(known, value)| known == name && matches!(value, "1" | "true"))
    }

    /// Ports, one a value or several with commas between.
    ///
    /// # Errors
    /// Names the value that is none.
    pub fn ports(&self, name: &str) -> Result<Vec<u16>, String> {
        let values = self.pairs().filter(|(known, _)| *known == name).flat_map(|(_, value)| value.split(','));
        let mut ports = Vec::new();
        for value in values {
            let port = value.parse().ok().filter(|port| *port > 0);
            ports.push(port.ok_or_else(|| format!("{value:?} is not a port"))?);
        }
        if ports.len() > MOST_PORTS {
            return Err(format!("{} ports are more than {MOST_PORTS}", ports.len()));
        }
        Ok(ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_read() {
        let query = Query::parse(
            "command=sh&command=-c&command=echo+%26&input=1&tty=true&error=0&port=80,81&port=82",
        );
        assert_eq!(query.all("command"), ["sh", "-c", "echo &"]);
        assert!(query.flag("input") && query.flag("tty") && !query.flag("error") && !query.flag("output"));
        assert_eq!(query.ports("port"), Ok(vec![80, 81, 82]));
        for bad in ["port=0", "port=65536", "port=x", "port="] {
            assert!(Query::parse(bad).ports("port").is_err(), "{bad}");
        }
    }
}
