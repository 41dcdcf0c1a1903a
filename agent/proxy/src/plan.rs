//! From desired tables to ordered operations.
//!
//! In: desired tables of the services that changed. Out: [`LbOp`]s in the order that no packet can see half of: new
//! backends, new runs, frontends, then deletions. The planner keeps what the tables hold, by service, so that a change
//! costs what it changes. Pure.
//!
//! Ownership: a frontend belongs to the first service that claims it; others wait. It refers to one run, a run to its
//! backends, a service to the backends whose flows go on. What loses its last reference is deleted at the end of the plan.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tokio::time::Instant;
use tracing::warn;
use xebec_datapath::lb::{BackendId, Frontend, LbOp, LbSnapshot, ServiceEntry, ServiceId};

use crate::backends::Backends;
use crate::desired::{Desired, DesiredFrontend, DesiredPort};
use crate::error::{Error, Result};
use crate::ids::Ids;
use crate::runs::{Restored, Runs};
use crate::service::PortName;
use crate::sink::LbLimits;
use crate::types::ServiceKey;

/// Service ids are no index; this bounds the allocator's bitmap (256 KiB).
const SERVICE_IDS: u32 = 1 << 21;

/// What the tables hold, and for whom.
#[derive(Debug)]
pub(crate) struct Planner {
    ids: Ids,
    backends: Backends,
    runs: Runs,
    frontends: HashMap<Frontend, Held>,
    services: HashMap<ServiceKey, Placed>,
    /// Services that want a frontend another one has.
    waiting: HashMap<Frontend, BTreeSet<ServiceKey>>,
    /// Ids of restored frontends that no service has adopted yet.
    orphans: HashSet<ServiceId>,
}

/// A plan. Applying it makes the tables what the planner takes them to be.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) ops: Vec<LbOp>,
    /// Services that do not fit; what they had before stays.
    pub(crate) refused: Vec<(ServiceKey, Error)>,
}

#[derive(Debug)]
struct Held {
    entry: ServiceEntry,
    /// The run it holds a reference on; none without backends, or restored from slots that made no sense.
    run: Option<u32>,
    owner: Option<ServiceKey>,
}

/// What a service has in the tables.
#[derive(Debug, Default)]
struct Placed {
    ids: BTreeMap<PortName, ServiceId>,
    frontends: Vec<Frontend>,
    /// Frontends it waits for.
    waits: Vec<Frontend>,
    alive: Vec<BackendId>,
}

/// Changes of the running plan.
struct Batch {
    now: Instant,
    /// Entries as they were before.
    before: HashMap<Frontend, Option<ServiceEntry>>,
    new_backends: Vec<BackendId>,
    loose_backends: Vec<BackendId>,
    new_runs: Vec<u32>,
    loose_runs: Vec<u32>,
    released_ids: Vec<ServiceId>,
    /// Services whose awaited frontend became free.
    woken: Vec<ServiceKey>,
}

/// What a service is about to get.
struct Placement {
    ids: BTreeMap<PortName, ServiceId>,
    new_ids: Vec<ServiceId>,
    frontends: Vec<(Frontend, ServiceEntry)>,
    alive: Vec<BackendId>,
}

impl Planner {
    /// Adopts what the tables hold. Nothing of it is deleted before [`Planner::sweep`].
    pub(crate) fn restore(limits: LbLimits, snapshot: &LbSnapshot) -> Self {
        let mut planner = Self {
            ids: Ids::new(SERVICE_IDS),
            backends: Backends::new(limits.backends),
            runs: Runs::new(limits.slots),
            frontends: HashMap::new(),
            services: HashMap::new(),
            waiting: HashMap::new(),
            orphans: HashSet::new(),
        };
        for (id, backend) in &snapshot.backends {
            planner.backends.restore(*id, *backend);
        }
        for (frontend, entry) in &snapshot.services {
            planner.restore_frontend(*frontend, *entry, &snapshot.slots);
        }
        planner
    }

    fn restore_frontend(&mut self, frontend: Frontend, entry: ServiceEntry, slots: &[u32]) {
        if self.ids.hold(entry.id.0) {
            self.orphans.insert(entry.id);
        }
        let slots = slots.iter().skip(entry.base as usize).take(entry.count as usize);
        let ids: Vec<_> = slots.map(|id| BackendId(*id)).filter(|id| self.backends.contains(*id)).collect();
        let restored = match entry.count {
            0 => Restored::Overlaps,
            count => self.runs.restore(entry.base, count, ids.clone()),
        };
        if restored == Restored::New {
            ids.iter().for_each(|id| self.backends.retain(*id));
        }
        let run = (restored != Restored::Overlaps).then_some(entry.base);
        if let Some(base) = run {
            self.runs.retain(base);
        }
        self.frontends.insert(frontend, Held { entry, run, owner: None });
    }

    /// Plans the tables of these services; `None` takes a service away.
    pub(crate) fn plan(&mut self, mut changes: Vec<(ServiceKey, Option<Desired>)>, now: Instant) -> Plan {
        // Of services that are first seen together, as after a restart, the older one gets a disputed frontend.
        changes.sort_by(|(a, x), (b, y)| {
            let created = |desired: &Option<Desired>| desired.as_ref().map_or(i64::MIN, |d| d.created);
            created(x).cmp(&created(y)).then_with(|| a.cmp(b))
        });
        let mut batch = Batch::new(now);
        let mut plan = Plan::default();
        let mut known: HashMap<ServiceKey, Desired> = HashMap::new();
        for (key, desired) in changes {
            match desired {
                Some(desired) => {
                    if let Err(error) = self.place(&key, &desired, &mut batch) {
                        plan.refused.push((key.clone(), error));
                    }
                    known.insert(key, desired);
                }
                None => self.remove(&key, &mut batch),
            }
        }
        // A freed frontend goes to one that waits: each round settles at least one, and waiters only become fewer.
        while let Some(key) = batch.woken.pop() {
            if let Some(desired) = known.get(&key)
                && let Err(error) = self.place(&key, desired, &mut batch)
            {
                plan.refused.push((key, error));
            }
        }
        plan.ops = self.finish(batch);
        plan
    }

    /// Services that must be planned together with these: they wait for a frontend that one of these may free.
    pub(crate) fn waiters(&self, keys: &HashSet<ServiceKey>) -> Vec<ServiceKey> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let frontends =
            keys.iter().filter_map(|key| self.services.get(key)).flat_map(|placed| &placed.frontends);
        let waiters = frontends.filter_map(|frontend| self.waiting.get(frontend)).flatten();
        waiters.filter(|key| !keys.contains(*key)).cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Deletes what was restored and nobody adopted. To be called once, after the first plan of all services.
    pub(crate) fn sweep(&mut self, now: Instant) -> Vec<LbOp> {
        let mut batch = Batch::new(now);
        let orphans: Vec<_> =
            self.frontends.iter().filter(|(_, held)| held.owner.is_none()).map(|(f, _)| *f).collect();
        for frontend in orphans {
            self.unset(frontend, &mut batch);
        }
        batch.loose_runs.extend(self.runs.unused());
        batch.loose_backends.extend(self.backends.unused());
        batch.released_ids.extend(self.orphans.drain());
        self.finish(batch)
    }

    /// Whether a service has anything here.
    pub(crate) fn knows(&self, key: &ServiceKey) -> bool {
        self.services.contains_key(key)
    }

    /// Everything is allocated before anything of the service is touched, so that a refusal changes nothing.
    fn place(&mut self, key: &ServiceKey, desired: &Desired, batch: &mut Batch) -> Result<()> {
        let placement = self.allocate(key, desired, batch)?;
        let old = self.services.remove(key).unwrap_or_default();
        self.unwait(key, &old.waits);
        for id in &placement.alive {
            self.backends.retain(*id);
        }
        let mut placed = Placed { alive: placement.alive, ..Placed::default() };
        for (frontend, entry) in placement.frontends {
            match self.frontends.get(&frontend).and_then(|held| held.owner.as_ref()) {
                Some(owner) if owner != key => {
                    warn!(service = %key, %owner, address = %frontend.address, port = frontend.port,
                          "another service has this address and port");
                    self.waiting.entry(frontend).or_default().insert(key.clone());
                    placed.waits.push(frontend);
                }
                _ => {
                    self.set(frontend, entry, key, batch);
                    placed.frontends.push(frontend);
                }
            }
        }
        let kept: HashSet<_> = placed.frontends.iter().copied().collect();
        for frontend in old.frontends.iter().filter(|frontend| !kept.contains(*frontend)) {
            self.unset(*frontend, batch);
        }
        batch
            .released_ids
            .extend(old.ids.iter().filter(|(n, _)| !placement.ids.contains_key(*n)).map(|(_, id)| *id));
        placed.ids = placement.ids;
        self.release_alive(&old.alive, batch);
        self.services.insert(key.clone(), placed);
        Ok(())
    }

    fn remove(&mut self, key: &ServiceKey, batch: &mut Batch) {
        let Some(old) = self.services.remove(key) else { return };
        self.unwait(key, &old.waits);
        for frontend in &old.frontends {
            self.unset(*frontend, batch);
        }
        batch.released_ids.extend(old.ids.values());
        self.release_alive(&old.alive, batch);
    }

    fn allocate(&mut self, key: &ServiceKey, desired: &Desired, batch: &mut Batch) -> Result<Placement> {
        let mut placement =
            Placement { ids: BTreeMap::new(), new_ids: Vec::new(), frontends: Vec::new(), alive: Vec::new() };
        let mut result = Ok(());
        for port in &desired.ports {
            result = self.allocate_port(key, port, &mut placement, batch);
            if result.is_err() {
                break;
            }
        }
        match result {
            Ok(()) => Ok(placement),
            Err(error) => {
                // Runs and backends without a reference are collected at the end of the plan.
                batch.released_ids.extend(placement.new_ids);
                Err(error)
            }
        }
    }

    fn allocate_port(
        &mut self,
        key: &ServiceKey,
        port: &DesiredPort,
        placement: &mut Placement,
        batch: &mut Batch,
    ) -> Result<()> {
        let id = self.service_id(key, port, placement)?;
        placement.ids.insert(port.name.clone(), id);
        for backend in &port.alive {
            placement.alive.push(self.intern(*backend, batch)?);
        }
        for pool in &port.pools {
            let mut ids = Vec::with_capacity(pool.backends.len());
            for backend in &pool.backends {
                ids.push(self.intern(*backend, batch)?);
            }
            ids.sort_unstable();
            let base = self.run(&pool.frontends, &ids, batch)?;
            let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
            placement.frontends.extend(pool.frontends.iter().map(|wanted| {
                let entry = ServiceEntry {
                    id,
                    kind: wanted.kind,
                    base,
                    count,
                    generation: 0,
                    affinity: port.affinity,
                    masquerade: wanted.masquerade,
                    drop_when_empty: wanted.drop_when_empty,
                };
                (wanted.frontend, entry)
            }));
        }
        Ok(())
    }

    /// The port's id: the one it has, else that of a restored frontend of it, else a new one.
    fn service_id(
        &mut self,
        key: &ServiceKey,
        port: &DesiredPort,
        placement: &mut Placement,
    ) -> Result<ServiceId> {
        if let Some(id) = self.services.get(key).and_then(|placed| placed.ids.get(&port.name)) {
            return Ok(*id);
        }
        let frontends = port.pools.iter().flat_map(|pool| &pool.frontends);
        let restored = frontends
            .filter_map(|wanted| self.frontends.get(&wanted.frontend))
            .filter(|held| held.owner.is_none())
            .map(|held| held.entry.id)
            .find(|id| self.orphans.contains(id));
        if let Some(id) = restored {
            self.orphans.remove(&id);
            placement.new_ids.push(id);
            return Ok(id);
        }
        let id = self.ids.allocate().ok_or(Error::ServicesExhausted(self.ids.capacity()))?;
        placement.new_ids.push(ServiceId(id));
        Ok(ServiceId(id))
    }

    fn intern(&mut self, backend: xebec_datapath::lb::Backend, batch: &mut Batch) -> Result<BackendId> {
        let id = self.backends.intern(backend)?;
        batch.new_backends.push(id);
        Ok(id)
    }

    /// Where the run of these backends lies: the one that a frontend of the pool has, if it lists the same, else a new
    /// one. An empty pool needs none.
    fn run(&mut self, frontends: &[DesiredFrontend], ids: &[BackendId], batch: &mut Batch) -> Result<u32> {
        if ids.is_empty() {
            return Ok(0);
        }
        let held = frontends.iter().filter_map(|wanted| self.frontends.get(&wanted.frontend));
        let current = held.filter_map(|held| held.run).find(|base| self.runs.is(*base, ids));
        if let Some(base) = current {
            return Ok(base);
        }
        let base = self.runs.allocate(ids, batch.now)?;
        // The run's own references; they go when the run is collected.
        for id in ids {
            self.backends.retain(*id);
        }
        batch.new_runs.push(base);
        Ok(base)
    }

    fn set(&mut self, frontend: Frontend, mut entry: ServiceEntry, key: &ServiceKey, batch: &mut Batch) {
        let old = self.frontends.get(&frontend).map(|held| (held.entry, held.run));
        let before = *batch.before.entry(frontend).or_insert(old.map(|(entry, _)| entry));
        entry.generation = match before {
            Some(before) if (before.base, before.count) == (entry.base, entry.count) => before.generation,
            Some(before) => before.generation.wrapping_add(1),
            None => 0,
        };
        let run = (entry.count > 0).then_some(entry.base);
        if let Some(base) = run {
            self.runs.retain(base);
        }
        self.frontends.insert(frontend, Held { entry, run, owner: Some(key.clone()) });
        self.release_run(old.and_then(|(_, run)| run), batch);
    }

    fn unset(&mut self, frontend: Frontend, batch: &mut Batch) {
        let Some(held) = self.frontends.remove(&frontend) else { return };
        batch.before.entry(frontend).or_insert(Some(held.entry));
        self.release_run(held.run, batch);
        batch.woken.extend(self.waiting.get(&frontend).into_iter().flatten().rev().cloned());
    }

    fn release_run(&mut self, run: Option<u32>, batch: &mut Batch) {
        if let Some(base) = run
            && self.runs.release(base)
        {
            batch.loose_runs.push(base);
        }
    }

    fn release_alive(&mut self, alive: &[BackendId], batch: &mut Batch) {
        for id in alive {
            if self.backends.release(*id) {
                batch.loose_backends.push(*id);
            }
        }
    }

    fn unwait(&mut self, key: &ServiceKey, waits: &[Frontend]) {
        for frontend in waits {
            if let Some(keys) = self.waiting.get_mut(frontend) {
                keys.remove(key);
                if keys.is_empty() {
                    self.waiting.remove(frontend);
                }
            }
        }
    }

    /// Puts the changes in order and gives back what nobody refers to any more.
    fn finish(&mut self, batch: Batch) -> Vec<LbOp> {
        let Batch { now, before, mut loose_backends, .. } = batch;
        let mut deleted = Vec::new();
        for base in batch.loose_runs.into_iter().chain(batch.new_runs.iter().copied()) {
            for id in self.runs.collect(base, now).iter().flatten() {
                if self.backends.release(*id) {
                    loose_backends.push(*id);
                }
            }
        }
        let mut new_backends = batch.new_backends;
        new_backends.sort_unstable();
        new_backends.dedup();
        let mut ops = Vec::new();
        for id in &new_backends {
            ops.extend(self.backends.write(*id).map(|backend| LbOp::PutBackend { id: *id, backend }));
        }
        for base in batch.new_runs {
            ops.extend(self.runs.write(base).map(|backends| LbOp::PutSlots { base, backends }));
        }
        let mut before: Vec<_> = before.into_iter().collect();
        before.sort_unstable_by_key(|(frontend, _)| *frontend);
        for (frontend, before) in before {
            match (before, self.frontends.get(&frontend).map(|held| held.entry)) {
                (before, Some(entry)) if before != Some(entry) => {
                    ops.push(LbOp::PutService { frontend, entry });
                }
                (Some(_), None) => deleted.push(LbOp::DeleteService { frontend }),
                _ => {}
            }
        }
        loose_backends.extend(new_backends);
        loose_backends.sort_unstable();
        loose_backends.dedup();
        for id in loose_backends {
            if self.backends.collect(id) {
                deleted.push(LbOp::DeleteBackend { id });
            }
        }
        for id in batch.released_ids {
            self.ids.release(id.0);
        }
        ops.append(&mut deleted);
        ops
    }
}

impl Batch {
    fn new(now: Instant) -> Self {
        Self {
            now,
            before: HashMap::new(),
            new_backends: Vec::new(),
            loose_backends: Vec::new(),
            new_runs: Vec::new(),
            loose_runs: Vec::new(),
            released_ids: Vec::new(),
            woken: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
