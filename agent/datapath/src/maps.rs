//! All maps of one datapath, opened by their pins.

use std::path::Path;

use xebec_ebpf_common::names;
use xebec_ebpf_common::{
    AffinityKey, AffinityValue, BackendValue, ConfigValue, FlowKey, FlowValue, NetnsValue, PodValue,
    ServiceKey, ServiceValue, V4, V6,
};

use crate::counters::Counters;
use crate::error::Result;
use crate::table::Table;

#[derive(Debug)]
pub(crate) struct Maps {
    pub(crate) services4: Table<ServiceKey<V4>, ServiceValue>,
    pub(crate) services6: Table<ServiceKey<V6>, ServiceValue>,
    pub(crate) slots: Table<u32, u32>,
    pub(crate) backends4: Table<u32, BackendValue<V4>>,
    pub(crate) backends6: Table<u32, BackendValue<V6>>,
    pub(crate) pods4: Table<V4, PodValue>,
    pub(crate) pods6: Table<V6, PodValue>,
    pub(crate) netns: Table<u64, NetnsValue>,
    pub(crate) pod_flows: Table<u32, u32>,
    pub(crate) flows4: Table<FlowKey<V4>, FlowValue<V4>>,
    pub(crate) flows6: Table<FlowKey<V6>, FlowValue<V6>>,
    pub(crate) affinity4: Table<AffinityKey<V4>, AffinityValue>,
    pub(crate) affinity6: Table<AffinityKey<V6>, AffinityValue>,
    pub(crate) config: Table<u32, ConfigValue>,
    pub(crate) counters: Counters,
}

impl Maps {
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        Ok(Self {
            services4: Table::open(folder, names::SERVICES4)?,
            services6: Table::open(folder, names::SERVICES6)?,
            slots: Table::open(folder, names::SLOTS)?,
            backends4: Table::open(folder, names::BACKENDS4)?,
            backends6: Table::open(folder, names::BACKENDS6)?,
            pods4: Table::open(folder, names::PODS4)?,
            pods6: Table::open(folder, names::PODS6)?,
            netns: Table::open(folder, names::NETNS)?,
            pod_flows: Table::open(folder, names::POD_FLOWS)?,
            flows4: Table::open(folder, names::FLOWS4)?,
            flows6: Table::open(folder, names::FLOWS6)?,
            affinity4: Table::open(folder, names::AFFINITY4)?,
            affinity6: Table::open(folder, names::AFFINITY6)?,
            config: Table::open(folder, names::CONFIG)?,
            counters: Counters::open(folder)?,
        })
    }
}
