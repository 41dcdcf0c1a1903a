//! `proxy`: requests passed on to a node's kubelet, a pod, or one of a Service's endpoints.
//!
//! In: any request below `…/proxy/`. Out: the other side's answer, streamed; an upgrade becomes a tunnel. The client's
//! credentials, and whom it acts as, stay here. Cookies pass: they are the other side's own and mean nothing here. Where
//! the other side sends its client to is rewritten to lead through here again.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use super::stream::{may_create, refused};
use crate::body::{self, Body};
use crate::dial;
use crate::dispatch::Call;
use crate::facts::Filter;
use crate::kubelet::{self, Target};
use crate::list;
use crate::meta;
use crate::options::ListOptions;
use crate::status::ApiError;
use crate::tunnel;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers of one connection, and who the client is: not for the other side, not from it.
const KEPT_HERE: [HeaderName; 10] = [
    header::AUTHORIZATION,
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    // May carry a bearer token, and without an upgrade says nothing else.
    header::SEC_WEBSOCKET_PROTOCOL,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What the names of headers begin with that say whom a request is made as.
const IMPERSONATE: &str = "impersonate-";

/// `name`, `name:port`, `scheme:name:port`.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

/// Whom a request is passed on to.
enum Destination {
    Kubelet(Target),
    Plain(SocketAddr),
}

// === impl Destination ===

impl Destination {
    fn authority(&self) -> String {
        match self {
            Self::Kubelet(target) => target.authority(),
            Self::Plain(address) => address.to_string(),
        }
    }
}

pub(super) async fn connect(call: &Call<'_>, mut request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let Some(path) = trailing(request.uri(), call.info.namespace.is_some()) else {
        return Ok(with_slash(request.uri()));
    };
    let address = Address::parse(&call.info.name)?;
    let wants_tunnel = tunnel::is_wanted(request.headers());
    let destination = match &*call.info.resource {
        "nodes" => {
            if wants_tunnel {
                // Through here leads the way to every container of the node.
                may_create(call)?;
            }
            node(call, &address)?
        }
        "pods" => pod(call, &address)?,
        _ => service(call, &address)?,
    };
    let place = wants_tunnel.then(tunnel::place).transpose()?;
    let client = wants_tunnel.then(|| hyper::upgrade::on(&mut request));
    let below = request.uri().path().strip_suffix(path.split('?').next().unwrap_or_default());
    let below = below.unwrap_or_default().to_owned();
    let passed_on = passed_on(request, &path, wants_tunnel)?;
    let answer = match &destination {
        Destination::Kubelet(target) => kubelet::send(&call.cx.registry.config, target, passed_on).await?,
        Destination::Plain(address) => plain(*address, passed_on).await?,
    };
    match (client, place) {
        (Some(client), Some(place)) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
            Ok(tunnel::join(client, answer, place))
        }
        (Some(_), _) => Err(refused(answer).await),
        (None, _) => Ok(passed_back(answer, &destination.authority(), &below)),
    }
}

/// The path behind `proxy`, as it was sent; `None` when not even a slash follows.
fn trailing(uri: &Uri, namespaced: bool) -> Option<String> {
    // /api/v1/namespaces/NAMESPACE/RESOURCE/NAME/proxy or /api/v1/RESOURCE/NAME/proxy
    let segments = if namespaced { 7 } else { 5 };
    let mut rest = uri.path();
    for _ in 0..segments {
        let below = rest.trim_start_matches('/');
        rest = &below[below.find('/').unwrap_or(below.len())..];
    }
    if rest.is_empty() {
        return None;
    }
    Some(match uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    })
}

/// Relative links of a page need the slash at the end of its folder.
fn with_slash(uri: &Uri) -> Response<Body> {
    let mut location = format!("{}/", uri.path());
    if let Some(query) = uri.query() {
        location = format!("{location}?{query}");
    }
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

// === impl Address ===

impl<'a> Address<'a> {
    fn parse(text: &'a str) -> Result<Self, ApiError> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return Err(ApiError::bad_request(format!("invalid proxy address {text:?}"))),
        };
        if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
            return Err(ApiError::bad_request(format!("invalid proxy address {text:?}")));
        }
        Ok(Self { scheme, name, port })
    }

    /// Pods, Services and what is on a node besides its kubelet are reached without TLS only.
    fn plain(&self) -> Result<(), ApiError> {
        match self.scheme {
            "https" => Err(ApiError::bad_request("proxying over https is not served")),
            _ => Ok(()),
        }
    }

    fn number(&self) -> Result<Option<u16>, ApiError> {
        if self.port.is_empty() {
            return Ok(None);
        }
        let port = self.port.parse().ok().filter(|port| *port > 0);
        port.map(Some).ok_or_else(|| ApiError::bad_request(format!("invalid port {:?}", self.port)))
    }
}

fn node(call: &Call<'_>, address: &Address<'_>) -> Result<Destination, ApiError> {
    let node = call.cx.registry.get(call.served, None, address.name)?.decode()?;
    let target = Target::of(&node)?;
    match address.number()? {
        Some(port) if port != target.port() => {
            address.plain()?;
            Ok(Destination::Plain(checked(target.address(), port)?))
        }
        _ => Ok(Destination::Kubelet(target)),
    }
}

fn pod(call: &Call<'_>, address: &Address<'_>) -> Result<Destination, ApiError> {
    address.plain()?;
    let pod = call.cx.registry.get(call.served, call.namespace, address.name)?.decode()?;
    let ip = meta::text(&pod, &["status", "podIP"]).parse();
    let ip: IpAddr = ip.map_err(|_| ApiError::bad_request("address not allowed"))?;
    let first = || {
        let ports = meta::items(&pod, &["spec", "containers"]).flat_map(|c| meta::items(c, &["ports"]));
        ports.into_iter().find_map(|port| u16::try_from(port["containerPort"].as_u64()?).ok())
    };
    let port = address.number()?.or_else(first).unwrap_or(80);
    Ok(Destination::Plain(checked(ip, port)?))
}

fn service(call: &Call<'_>, address: &Address<'_>) -> Result<Destination, ApiError> {
    address.plain()?;
    let registry = call.cx.registry;
    let service = registry.get(call.served, call.namespace, address.name)?.decode()?;
    let none =
        || ApiError::service_unavailable(format!("no endpoints available for service {:?}", call.info.name));
    let port_name = port_name(&service, address.port).ok_or_else(none)?;
    let slices = registry.kinds.get("discovery.k8s.io", "v1", "endpointslices").ok_or_else(none)?;
    let options = ListOptions::default();
    let selector = format!("kubernetes.io/service-name={}", address.name);
    let filter = Filter::parse(slices, &selector, "")?;
    let found = list::list(&registry.store, &slices.resource, call.namespace, &options, &filter)?;
    let mut ready = Vec::new();
    for stored in found.items {
        let slice = stored.decode()?;
        let port = meta::items(&slice, &["ports"]).find(|port| meta::text(port, &["name"]) == port_name);
        let Some(port) = port.and_then(|port| u16::try_from(port["port"].as_u64()?).ok()) else { continue };
        for endpoint in meta::items(&slice, &["endpoints"]) {
            if endpoint["conditions"]["ready"] == Value::Bool(false) {
                continue;
            }
            let address = meta::items(endpoint, &["addresses"]).find_map(|ip| ip.as_str()?.parse().ok());
            ready.extend(address.map(|ip: IpAddr| (ip, port)));
        }
    }
    if ready.is_empty() {
        return Err(none());
    }
    let (ip, port) = ready[rand::random_range(0..ready.len())];
    Ok(Destination::Plain(checked(ip, port)?))
}

/// The port's name in the slices, from its name or number; the only one needs neither.
fn port_name(service: &Value, asked: &str) -> Option<String> {
    let ports: Vec<&Value> = meta::items(service, &["spec", "ports"]).collect();
    let name = |port: &Value| meta::text(port, &["name"]).to_owned();
    if asked.is_empty() {
        return (ports.len() == 1).then(|| name(ports[0])).or_else(|| {
            // Upstream means the port without a name.
            ports.iter().find(|port| name(port).is_empty()).map(|port| name(port))
        });
    }
    let number = asked.parse::<u64>().ok();
    ports.iter().find(|port| name(port) == asked || port["port"].as_u64() == number).map(|port| name(port))
}

/// Addresses of this machine and of its link are nobody's pods.
fn checked(ip: IpAddr, port: u16) -> Result<SocketAddr, ApiError> {
    let canonical = ip.to_canonical();
    let local = match canonical {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if canonical.is_loopback() || canonical.is_unspecified() || canonical.is_multicast() || local {
        return Err(ApiError::bad_request("address not allowed"));
    }
    Ok(SocketAddr::new(canonical, port))
}

fn passed_on(request: Request<Body>, path: &str, tunnel: bool) -> Result<Request<Body>, ApiError> {
    let (head, content) = request.into_parts();
    let mut passed_on = Request::new(content);
    *passed_on.method_mut() = head.method;
    *passed_on.uri_mut() =
        path.parse().map_err(|_| ApiError::bad_request(format!("invalid path {path:?}")))?;
    *passed_on.headers_mut() = if tunnel { tunnel::headers_of(&head.headers) } else { head.headers };
    if !tunnel {
        keep_here(passed_on.headers_mut());
    }
    Ok(passed_on)
}

fn keep_here(headers: &mut HeaderMap) {
    let impersonates = headers.keys().filter(|name| name.as_str().starts_with(IMPERSONATE));
    let names: Vec<HeaderName> = impersonates.cloned().chain(KEPT_HERE).collect();
    for name in names {
        headers.remove(name);
    }
}

/// Where a redirection of the other side leads through here; `None` when it leads elsewhere, or along with the page.
fn rewritten(location: &str, authority: &str, below: &str) -> Option<String> {
    let path = if location.starts_with('/') && !location.starts_with("//") {
        location
    } else {
        let absolute: Uri = location.parse().ok()?;
        let port = absolute.port_u16().unwrap_or(if absolute.scheme_str()? == "https" { 443 } else { 80 });
        if format!("{}:{port}", absolute.host()?) != authority {
            return None;
        }
        let path = location.splitn(4, '/').nth(3).unwrap_or_default();
        return Some(format!("{below}/{path}"));
    };
    // A page that knows where it is shown says so itself.
    let known = path.strip_prefix(below).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    (!known).then(|| format!("{below}{path}"))
}

fn passed_back(answer: Response<Incoming>, authority: &str, below: &str) -> Response<Body> {
    let mut response = answer.map(|body| -> Body { body.map_err(Into::into).boxed_unsync() });
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    if let Some(location) = location.and_then(|location| rewritten(location, authority, below))
        && let Ok(location) = HeaderValue::from_str(&location)
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        response.headers_mut().remove(name);
    }
    response
}

async fn plain(address: SocketAddr, request: Request<Body>) -> Result<Response<Incoming>, ApiError> {
    let refuse = |what: &str| {
        ApiError::service_unavailable(format!("error trying to reach service: dial tcp {address}: {what}"))
    };
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, dial::connect(address))
        .await
        .map_err(|_| refuse("i/o timeout"))?
        .map_err(|error| refuse(&error.to_string()))?;
    kubelet::exchange(stream, &address.to_string(), request).await.map_err(|why| refuse(&why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_follows_is_passed_on_as_it_was_sent() {
        let path = |uri: &str, namespaced| trailing(&uri.parse().expect("a URI"), namespaced);
        let pod = "/api/v1/namespaces/default/pods/web:80/proxy";
        assert_eq!(path(&format!("{pod}/a%2Fb/?x=%20"), true), Some("/a%2Fb/?x=%20".into()));
        assert_eq!(path(&format!("{pod}/"), true), Some("/".into()));
        assert_eq!(path(pod, true), None);
        assert_eq!(path("/api/v1/nodes/n1/proxy/metrics", false), Some("/metrics".into()));
        let response = with_slash(&format!("{pod}?a=b").parse().expect("a URI"));
        assert_eq!(response.headers()[header::LOCATION], format!("{pod}/?a=b"));
    }

    #[test]
    fn who_asks_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for name in [
            "authorization",
            "impersonate-user",
            "impersonate-group",
            "impersonate-extra-scopes",
            "sec-websocket-protocol",
            "cookie",
            "accept",
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
        }
        keep_here(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "cookie"]);
    }

    #[test]
    fn redirections_lead_through_here() {
        let below = "/api/v1/namespaces/default/pods/web/proxy";
        let to = |location: &str| rewritten(location, "10.0.0.1:80", below);
        assert_eq!(to("/login?x=1"), Some(format!("{below}/login?x=1")));
        assert_eq!(to("http://10.0.0.1/login"), Some(format!("{below}/login")));
        assert_eq!(to("http://10.0.0.1:80"), Some(format!("{below}/")));
        for elsewhere in [
            "http://10.0.0.1:81/a",
            "https://10.0.0.1/a",
            "https://example.com/a",
            "//example.com/a",
            "next",
            "../up",
        ] {
            assert_eq!(to(elsewhere), None, "{elsewhere}");
        }
        assert_eq!(to(&format!("{below}/a")), None, "it knows where it is");
    }

    #[test]
    fn nothing_on_a_node_but_its_kubelet_is_reached_by_tls() {
        let parse = |text| Address::parse(text).expect("an address").plain().is_ok();
        assert!(parse("http:n1:80") && parse("n1:80") && !parse("https:n1:443"));
    }

    #[test]
    fn addresses_name_scheme_and_port() {
        let parse = |text| Address::parse(text).map_err(|error| error.code().as_u16());
        assert_eq!(parse("web"), Ok(Address { scheme: "", name: "web", port: "" }));
        assert_eq!(parse("web:80"), Ok(Address { scheme: "", name: "web", port: "80" }));
        assert_eq!(parse("http:web:http"), Ok(Address { scheme: "http", name: "web", port: "http" }));
        assert_eq!((parse("a:b:c:d"), parse(":80"), parse("ftp:web:1")), (Err(400), Err(400), Err(400)));
    }

    #[test]
    fn the_machine_itself_is_not_proxied_to() {
        for ip in
            ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1"]
        {
            assert!(checked(ip.parse().expect("an address"), 80).is_err(), "{ip}");
        }
        assert!(checked("10.0.0.1".parse().expect("an address"), 80).is_ok());
    }

    #[test]
    fn a_port_is_meant_by_name_number_or_being_the_only_one() {
        let two = json!({"spec": {"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]}});
        assert_eq!(port_name(&two, "81").as_deref(), Some("admin"));
        assert_eq!(port_name(&two, "http").as_deref(), Some("http"));
        assert_eq!((port_name(&two, ""), port_name(&two, "82")), (None, None));
        let one = json!({"spec": {"ports": [{"port": 80}]}});
        assert_eq!(port_name(&one, "").as_deref(), Some(""));
    }
}
