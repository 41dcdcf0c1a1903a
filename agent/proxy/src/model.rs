//! The tables as plain maps, for tests. Every operation is checked: no packet may ever see half of a service.
//!
//! In: operations. Out: the same tables a datapath would hold. A violation of the write order is an error that the test
//! sees.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use xebec_datapath::lb::{Backend, BackendId, Frontend, LbOp, LbSnapshot, Scope, ServiceEntry};

use crate::sink::{LbLimits, LbSink, SinkError};

#[derive(Debug)]
pub(crate) struct Model {
    limits: LbLimits,
    tables: Mutex<Tables>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) services: BTreeMap<Frontend, ServiceEntry>,
    pub(crate) backends: BTreeMap<BackendId, Backend>,
    pub(crate) slots: Vec<u32>,
    /// Operations so far.
    pub(crate) applied: usize,
    /// Fails this many operations from now, half-way through a plan.
    pub(crate) fail_after: Option<usize>,
    /// Cannot be read.
    pub(crate) broken: bool,
}

impl Model {
    pub(crate) fn new(backends: u32, slots: u32) -> Self {
        Self { limits: LbLimits { backends, slots }, tables: Mutex::default() }
    }

    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Addresses and ports that a client of this frontend reaches, sorted; `None` where nothing answers.
    pub(crate) fn reach(&self, address: &str, port: u16, scope: Scope) -> Option<Vec<(IpAddr, u16)>> {
        let tables = self.tables();
        let address: IpAddr = address.parse().unwrap();
        let (_, entry) = tables
            .services
            .iter()
            .find(|(f, _)| f.address == address && f.port == port && f.scope == scope)?;
        Some(tables.run(entry).iter().map(|b| (b.address, b.port)).collect())
    }
}

impl Tables {
    /// The backends of an entry, sorted.
    pub(crate) fn run(&self, entry: &ServiceEntry) -> Vec<Backend> {
        let range = entry.base as usize..(entry.base + entry.count) as usize;
        let mut run: Vec<_> = self.slots[range].iter().map(|id| self.backends[&BackendId(*id)]).collect();
        run.sort_unstable();
        run
    }

    fn apply(&mut self, op: &LbOp, limits: LbLimits) -> Result<(), String> {
        match op {
            LbOp::PutBackend { id, backend } => {
                if id.0 == 0 || id.0 >= limits.backends {
                    return Err(format!("backend id {} is out of range", id.0));
                }
                if self.backends.insert(*id, *backend).is_some_and(|old| old != *backend) {
                    return Err(format!("backend {} changed under its users", id.0));
                }
            }
            LbOp::PutSlots { base, backends } => self.put_slots(*base, backends, limits)?,
            LbOp::PutService { frontend, entry } => {
                self.check(entry).map_err(|why| format!("{frontend:?}: {why}"))?;
                if let Some(old) = self.services.insert(*frontend, *entry)
                    && (old.base, old.count) != (entry.base, entry.count)
                    && old.generation == entry.generation
                {
                    return Err(format!("{frontend:?}: the run changed but not the generation"));
                }
            }
            LbOp::DeleteService { frontend } => {
                self.services.remove(frontend).ok_or(format!("{frontend:?} is not there"))?;
            }
            LbOp::DeleteBackend { id } => {
                self.backends.remove(id).ok_or(format!("backend {} is not there", id.0))?;
                for (frontend, entry) in &self.services {
                    self.check(entry).map_err(|why| format!("{frontend:?}: {why}"))?;
                }
            }
        }
        Ok(())
    }

    fn put_slots(&mut self, base: u32, ids: &[BackendId], limits: LbLimits) -> Result<(), String> {
        let end = base + ids.len() as u32;
        if end > limits.slots {
            return Err(format!("slots end at {end}"));
        }
        let used = self.services.iter().find(|(_, e)| e.count > 0 && e.base < end && base < e.base + e.count);
        if let Some((frontend, _)) = used {
            return Err(format!("slots of {frontend:?} are overwritten"));
        }
        if self.slots.len() < end as usize {
            self.slots.resize(end as usize, 0);
        }
        for (slot, id) in self.slots[base as usize..].iter_mut().zip(ids) {
            *slot = id.0;
        }
        Ok(())
    }

    fn check(&self, entry: &ServiceEntry) -> Result<(), String> {
        let range = entry.base as usize..(entry.base + entry.count) as usize;
        let run = self.slots.get(range).ok_or("its slots were never written")?;
        match run.iter().find(|id| !self.backends.contains_key(&BackendId(**id))) {
            Some(id) => Err(format!("a slot points at backend {id}, which is not there")),
            None => Ok(()),
        }
    }
}

impl LbSink for Model {
    fn snapshot(&self) -> Result<LbSnapshot, SinkError> {
        let tables = self.tables();
        if tables.broken {
            return Err("the disk is on fire".into());
        }
        Ok(LbSnapshot {
            services: tables.services.iter().map(|(f, e)| (*f, *e)).collect(),
            backends: tables.backends.iter().map(|(id, b)| (*id, *b)).collect(),
            slots: tables.slots.clone(),
        })
    }

    fn apply(&self, ops: &[LbOp]) -> Result<(), SinkError> {
        let mut tables = self.tables();
        for op in ops {
            if let Some(left) = tables.fail_after.as_mut() {
                if *left == 0 {
                    tables.fail_after = None;
                    return Err("the disk is on fire".into());
                }
                *left -= 1;
            }
            tables.apply(op, self.limits).map_err(|why| format!("{op:?}: {why}"))?;
            tables.applied += 1;
        }
        Ok(())
    }

    fn limits(&self) -> LbLimits {
        self.limits
    }
}
