//! News of the uplink: it went down or up, or was made anew.
//!
//! In: the kernel's messages about links. Out: the uplink as it is now, each time that it changed. The kernel forgets the
//! routes over a link that goes down, and a link that is made anew has another index: whoever set something on it must
//! set it again.

use futures::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::netlink::{Netlink, link_of};

/// The uplink at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uplink {
    /// 0 while it does not exist.
    pub index: u32,
    /// It has a carrier and sends.
    pub is_up: bool,
}

/// Follows the link of that name in the calling thread's network namespace, as long as somebody listens.
pub(crate) async fn follow(netlink: Netlink, name: String) -> Result<watch::Receiver<Uplink>> {
    let (connection, handle, mut messages) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
        .map_err(|source| Error::Netlink { action: "listening for news of links".into(), source })?;
    tokio::spawn(connection);
    // After the listening has begun: nothing in between is missed.
    let (sender, receiver) = watch::channel(look(&netlink, &name).await?);
    tokio::spawn(async move {
        // The connection ends with its handle.
        let _handle = handle;
        loop {
            let message = tokio::select! {
                message = messages.next() => message,
                () = sender.closed() => return,
            };
            let Some((message, _)) = message else { return };
            let now = match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => link_of(&link)
                    .filter(|link| link.name == name)
                    .map(|link| Uplink { index: link.index, is_up: link.operational }),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                    link_of(&link).filter(|link| link.name == name).map(|_| Uplink::default())
                }
                // Some were lost.
                NetlinkPayload::Overrun(_) => look(&netlink, &name).await.ok(),
                _ => None,
            };
            if let Some(now) = now {
                sender.send_if_modified(|uplink| std::mem::replace(uplink, now) != now);
            }
        }
    });
    Ok(receiver)
}

async fn look(netlink: &Netlink, name: &str) -> Result<Uplink> {
    let link = netlink.link(name).await?;
    Ok(link.map(|link| Uplink { index: link.index, is_up: link.operational }).unwrap_or_default())
}
