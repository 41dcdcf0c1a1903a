//! The in-process client: the same requests and answers as over the network, without sockets and TLS.
//!
//! In: an identity. Out: a `kube::Client` whose transport is [`ApiServer::handle`].

use std::convert::Infallible;

use http::{HeaderValue, Request, header};
use http_body_util::BodyExt;

use crate::authn::{InProcess, UserInfo};
use crate::body::Body;
use crate::server::ApiServer;

impl ApiServer {
    /// A client that acts as `user`.
    pub fn client(&self, user: UserInfo) -> kube::Client {
        let server = self.clone();
        let transport = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            let agent = HeaderValue::from_str(program_of(&user.name)).ok();
            let user = InProcess(user.clone());
            async move {
                let mut request = request.map(|body| -> Body { body.map_err(Into::into).boxed_unsync() });
                if let Some(agent) = agent {
                    request.headers_mut().entry(header::USER_AGENT).or_insert(agent);
                }
                request.extensions_mut().insert(user);
                Ok::<_, Infallible>(server.handle(request).await)
            }
        });
        kube::Client::new(transport, "default")
    }
}

/// The program a component is part of elsewhere; objects it writes are recorded as that program's.
fn program_of(user: &str) -> &str {
    match user.strip_prefix("system:") {
        Some(name) if name.starts_with("controller:") => "kube-controller-manager",
        Some(name) => name,
        None => user,
    }
}
