//! From a query to its answer.
//!
//! In: parsed queries. Out: records of the zone with authority, forwarded answers, or an error code. Until both lists
//! were complete once, names of the cluster get SERVFAIL: NXDOMAIN would be believed. Reverse names that the zone does not
//! know are forwarded at any time: most addresses are not of the cluster.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use hickory_proto::op::{Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use crate::error::{Error, Result};
use crate::forward::Forwarder;
use crate::sync::Synced;
use crate::zone::{Answer, Data, Wanted, Zone};

/// Seconds an answer of the cluster may be kept: endpoints come and go.
const TTL: u32 = 5;

/// Answers queries of one node's pods.
pub(crate) struct Handler {
    zone: Arc<RwLock<Zone>>,
    synced: Synced,
    forwarder: Forwarder,
    soa: Record,
    /// Turns address lists, so that clients which take the first share the load.
    turn: AtomicUsize,
}

/// What to send.
struct Reply {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl Handler {
    pub(crate) fn new(
        zone: Arc<RwLock<Zone>>,
        synced: Synced,
        forwarder: Forwarder,
        domain: &[String],
    ) -> Result<Self> {
        let origin = domain.join(".");
        let name = |text: String| {
            Name::from_str(&text).map_err(|e| Error::Domain { domain: origin.clone(), reason: e.to_string() })
        };
        // Upstream's example of the specification: ns.dns and hostmaster below the domain.
        let soa = SOA::new(
            name(format!("ns.dns.{origin}."))?,
            name(format!("hostmaster.{origin}."))?,
            1,
            7200,
            1800,
            86_400,
            TTL,
        );
        let soa = Record::from_rdata(name(format!("{origin}."))?, TTL, RData::SOA(soa));
        Ok(Self { zone, synced, forwarder, soa, turn: AtomicUsize::new(0) })
    }

    async fn reply(&self, request: &Request) -> Reply {
        if request.metadata.op_code != OpCode::Query || request.metadata.message_type != MessageType::Query {
            return Reply::code(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else { return Reply::code(ResponseCode::FormErr) };
        let name = Name::from(info.query.name()).to_lowercase();
        let labels: Vec<String> =
            name.iter().map(|label| String::from_utf8_lossy(label).into_owned()).collect();
        if let Some(reply) = self.of_cluster(&labels, &name, info.query.query_type()) {
            return reply;
        }
        match self.forwarder.ask(request.as_slice()).await.and_then(|bytes| Message::from_vec(&bytes).ok()) {
            Some(message) => Reply {
                code: message.metadata.response_code,
                authoritative: false,
                answers: message.answers,
                authorities: message.authorities,
                additionals: message.additionals,
            },
            None => Reply::code(ResponseCode::ServFail),
        }
    }

    /// The answer to a name of the cluster; `None` for all others.
    fn of_cluster(&self, labels: &[String], name: &Name, record_type: RecordType) -> Option<Reply> {
        let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner);
        if record_type == RecordType::PTR {
            let target = zone.reverse(address_of(labels)?)?;
            return Some(Reply::records(records(name, &[Data::Alias(target)], true)));
        }
        let inside = zone.inside(labels)?;
        if !self.synced.is_complete() {
            return Some(Reply::code(ResponseCode::ServFail));
        }
        let wanted = match record_type {
            RecordType::A => Wanted::V4,
            RecordType::AAAA => Wanted::V6,
            RecordType::SRV => Wanted::Srv,
            RecordType::TXT => Wanted::Txt,
            _ => Wanted::Other,
        };
        Some(match zone.lookup(inside, wanted) {
            Answer::Records(mut data) => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % data.len().max(1);
                data.rotate_left(turn);
                Reply::records(records(name, &data, false))
            }
            Answer::NoData => Reply { authorities: vec![self.soa.clone()], ..Reply::records(Vec::new()) },
            Answer::NoName => Reply {
                code: ResponseCode::NXDomain,
                authorities: vec![self.soa.clone()],
                ..Reply::records(Vec::new())
            },
        })
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut out: R,
    ) -> ResponseInfo {
        let reply = self.reply(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = true;
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &request.edns {
            builder.edns(edns);
        }
        let response = builder.build(metadata, &reply.answers, &reply.authorities, [], &reply.additionals);
        match out.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!("cannot send a DNS answer: {error}");
                ResponseInfo::from(hickory_proto::op::Header {
                    metadata,
                    counts: hickory_proto::op::HeaderCounts::default(),
                })
            }
        }
    }
}

impl Reply {
    fn code(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        }
    }

    fn records(answers: Vec<Record>) -> Self {
        Self { answers, authoritative: true, ..Self::code(ResponseCode::NoError) }
    }
}

/// Records owned by `name`. Names that do not fit DNS are left out: the API would not have taken them.
fn records(name: &Name, data: &[Data], pointer: bool) -> Vec<Record> {
    let target = |text: &str| Name::from_str(&format!("{text}.")).ok();
    data.iter()
        .filter_map(|data| {
            let rdata = match data {
                Data::Address(IpAddr::V4(address)) => RData::A(A::from(*address)),
                Data::Address(IpAddr::V6(address)) => RData::AAAA(AAAA::from(*address)),
                // Priority and weight as the specification's examples.
                Data::Srv(port, host) => RData::SRV(SRV::new(0, 100, *port, target(host)?)),
                Data::Alias(host) if pointer => RData::PTR(PTR(target(host)?)),
                Data::Alias(host) => RData::CNAME(CNAME(target(host)?)),
                Data::Text(text) => RData::TXT(TXT::new(vec![text.clone()])),
            };
            Some(Record::from_rdata(name.clone(), TTL, rdata))
        })
        .collect()
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` spells backwards.
fn address_of(labels: &[String]) -> Option<IpAddr> {
    let parts: Vec<&str> = labels.iter().rev().map(String::as_str).collect();
    match parts.as_slice() {
        ["arpa", "in-addr", a, b, c, d] => format!("{a}.{b}.{c}.{d}").parse().ok(),
        ["arpa", "ip6", nibbles @ ..] if nibbles.len() == 32 && nibbles.iter().all(|n| n.len() == 1) => {
            u128::from_str_radix(&nibbles.concat(), 16).ok().map(|bits| IpAddr::V6(bits.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(name: &str) -> Vec<String> {
        name.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn reverse_names_spell_addresses() {
        assert_eq!(address_of(&labels("10.0.96.10.in-addr.arpa")), "10.96.0.10".parse().ok());
        let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(address_of(&labels(v6)), "fd00::1".parse().ok());
        assert_eq!(address_of(&labels("a.in-addr.arpa")), None);
    }

    #[test]
    fn before_the_first_lists_cluster_names_fail_and_afterwards_they_do_not_exist() {
        let domain = labels("cluster.local");
        let zone = Arc::new(RwLock::new(Zone::new(domain.clone())));
        let name = Name::from_str("a.b.svc.cluster.local.").unwrap();
        let ask = |synced: Synced| {
            let handler = Handler::new(Arc::clone(&zone), synced, Forwarder::new("", &[]), &domain).unwrap();
            handler.of_cluster(&labels("a.b.svc.cluster.local"), &name, RecordType::A).unwrap().code
        };
        assert_eq!(ask(Synced::default()), ResponseCode::ServFail);
        assert_eq!(ask(Synced::complete()), ResponseCode::NXDomain);
    }

    #[test]
    fn names_of_others_are_not_ours() {
        let domain = labels("cluster.local");
        let zone = Arc::new(RwLock::new(Zone::new(domain.clone())));
        let handler = Handler::new(zone, Synced::complete(), Forwarder::new("", &[]), &domain).unwrap();
        let name = Name::from_str("example.org.").unwrap();
        assert!(handler.of_cluster(&labels("example.org"), &name, RecordType::A).is_none());
    }
}
