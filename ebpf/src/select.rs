//! From a frontend to one of its backends.
//!
//! In: what was dialled and by whom. Out: a backend. The socket hooks and the packet path choose here, and only here.

use xebec_ebpf_common::{Addr, AffinityKey, AffinityValue, BackendValue, Reason, ServiceValue, ticks};

use crate::lookup::{Lookup, Node};

/// Slots tried before a frontend counts as having no live backend. A slot is dead only for the instant between the
/// deletion of a backend and the reader's next look at the service.
const ATTEMPTS: u32 = 4;

/// Slots searched for the backend a client is bound to. Beyond that many the binding is trusted while the backend lives.
const AFFINITY_SEARCH: u32 = 64;

/// A backend and its id.
pub struct Choice<B> {
    pub id: u32,
    pub backend: B,
}

/// Access to a backend in the tables `L`.
pub type BackendRef<'a, A, L> = <L as Node>::Ref<'a, BackendValue<A>>;

/// Chooses a backend of a service that has slots: the client's last one where the service asks for affinity, else a random
/// one. `None`: nothing alive was found.
#[inline(always)]
pub fn choose<'a, A: Addr, L: Lookup<A>>(
    tables: &'a L,
    service: &ServiceValue,
    client: A,
) -> Option<Choice<BackendRef<'a, A, L>>> {
    if service.affinity == 0 {
        return random(tables, service);
    }
    let key = AffinityKey { client, service_id: service.id };
    let now = tables.now();
    let bound = tables.affinity(&key).filter(|bound| now.wrapping_sub(bound.last_used) < bound.timeout);
    let choice = match bound {
        Some(bound) => still_there(tables, service, bound.backend_id).or_else(|| random(tables, service))?,
        None => random(tables, service)?,
    };
    let timeout = ticks::from_secs(u64::from(service.affinity));
    let value = AffinityValue { backend_id: choice.id, last_used: now, timeout };
    if !tables.put_affinity(&key, &value) {
        tables.count(Reason::AffinityTableFull, 0);
    }
    Some(choice)
}

#[inline(always)]
fn random<'a, A: Addr, L: Lookup<A>>(
    tables: &'a L,
    service: &ServiceValue,
) -> Option<Choice<BackendRef<'a, A, L>>> {
    let mut index = tables.random() % service.count.max(1);
    for _ in 0..ATTEMPTS {
        if let Some(id) = tables.slot(service.base.wrapping_add(index))
            && let Some(backend) = tables.backend(id)
        {
            return Some(Choice { id, backend });
        }
        index = if index + 1 >= service.count { 0 } else { index + 1 };
    }
    None
}

/// The bound backend, if it lives and still is one of the service's.
#[inline(always)]
fn still_there<'a, A: Addr, L: Lookup<A>>(
    tables: &'a L,
    service: &ServiceValue,
    id: u32,
) -> Option<Choice<BackendRef<'a, A, L>>> {
    let backend = tables.backend(id)?;
    let searched = service.count.min(AFFINITY_SEARCH);
    for index in 0..AFFINITY_SEARCH {
        if index >= searched {
            break;
        }
        if tables.slot(service.base.wrapping_add(index)) == Some(id) {
            return Some(Choice { id, backend });
        }
    }
    (service.count > AFFINITY_SEARCH).then_some(Choice { id, backend })
}
