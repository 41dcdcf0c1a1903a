//! The in-process client: the same requests and answers as over the network, without sockets and TLS.
//!
//! In: an identity. Out: a `kube::Client` whose transport is [`ApiServer::handle`].

use std::convert::Infallible;

use http::Request;
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
            let user = InProcess(user.clone());
            async move {
                let mut request = request.map(|body| -> Body { body.map_err(Into::into).boxed_unsync() });
                request.extensions_mut().insert(user);
                Ok::<_, Infallible>(server.handle(request).await)
            }
        });
        kube::Client::new(transport, "default")
    }
}
