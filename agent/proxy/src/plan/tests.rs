//! Plans against a model that refuses every half-made state.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;
use xebec_datapath::lb::{Backend, FrontendKind, Protocol, Scope};

use super::*;
use crate::desired::Pool;
use crate::model::Model;
use crate::sink::LbSink;

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

fn backend(number: u8) -> Backend {
    let address = IpAddr::V4(Ipv4Addr::new(10, 1, 0, number));
    Backend { address, port: 8080, protocol: Protocol::Tcp, local: number.is_multiple_of(2) }
}

fn frontend(number: u8, scope: Scope) -> Frontend {
    let address = IpAddr::V4(Ipv4Addr::new(10, 96, 0, number));
    Frontend { address, port: 80, protocol: Protocol::Tcp, scope }
}

fn pool(frontends: &[Frontend], backends: &[u8]) -> Pool {
    let mut backends: Vec<_> = backends.iter().map(|number| backend(*number)).collect();
    backends.sort_unstable();
    backends.dedup();
    let frontends = frontends.iter().map(|frontend| DesiredFrontend {
        frontend: *frontend,
        kind: FrontendKind::ClusterIp,
        masquerade: false,
        drop_when_empty: false,
    });
    Pool { frontends: frontends.collect(), backends }
}

/// A service with one port, whose frontends share one pool.
fn simple(created: i64, frontends: &[Frontend], backends: &[u8]) -> Desired {
    let pool = pool(frontends, backends);
    let port = DesiredPort {
        name: PortName { name: String::new(), protocol: Protocol::Tcp },
        affinity: None,
        alive: pool.backends.clone(),
        pools: vec![pool],
    };
    Desired { created, ports: vec![port], ..Desired::default() }
}

fn started(model: &Model) -> Planner {
    Planner::restore(model.limits(), &model.snapshot().unwrap())
}

fn apply(model: &Model, planner: &mut Planner, changes: Vec<(ServiceKey, Option<Desired>)>) -> Vec<LbOp> {
    let plan = planner.plan(changes, Instant::now());
    assert!(plan.refused.is_empty(), "{:?}", plan.refused);
    model.apply(&plan.ops).unwrap();
    plan.ops
}

const IN: Scope = Scope::Internal;

#[test]
fn one_change_writes_only_its_own_entries() {
    let model = Model::new(1000, 1000);
    let mut planner = started(&model);
    let all =
        (0..50).map(|n| (key(&format!("s{n}")), Some(simple(0, &[frontend(n, IN)], &[n, n + 1])))).collect();
    apply(&model, &mut planner, all);
    let ops =
        apply(&model, &mut planner, vec![(key("s7"), Some(simple(0, &[frontend(7, IN)], &[7, 8, 200])))]);
    let kinds: Vec<_> = ops.iter().map(std::mem::discriminant).collect();
    let expected = [
        LbOp::PutBackend { id: BackendId(1), backend: backend(0) },
        LbOp::PutSlots { base: 0, backends: vec![] },
        LbOp::PutService { frontend: frontend(7, IN), entry: model.tables().services[&frontend(7, IN)] },
    ];
    assert_eq!(kinds, expected.iter().map(std::mem::discriminant).collect::<Vec<_>>());
    let again = vec![(key("s7"), Some(simple(0, &[frontend(7, IN)], &[7, 8, 200])))];
    assert_eq!(apply(&model, &mut planner, again), []);
}

#[test]
fn shared_backend_outlives_the_first_of_its_services() {
    let model = Model::new(1000, 1000);
    let mut planner = started(&model);
    let services =
        ["a", "b"].iter().zip(1..).map(|(n, f)| (key(n), Some(simple(0, &[frontend(f, IN)], &[1]))));
    apply(&model, &mut planner, services.collect());
    assert_eq!(model.tables().backends.len(), 1);
    let ops = apply(&model, &mut planner, vec![(key("a"), None)]);
    assert_eq!(ops, [LbOp::DeleteService { frontend: frontend(1, IN) }]);
    apply(&model, &mut planner, vec![(key("b"), None)]);
    assert!(model.tables().backends.is_empty() && model.tables().services.is_empty());
}

#[test]
fn backend_that_takes_no_new_flows_stays_while_its_flows_go_on() {
    let model = Model::new(1000, 1000);
    let mut planner = started(&model);
    apply(&model, &mut planner, vec![(key("a"), Some(simple(0, &[frontend(1, IN)], &[1, 2])))]);
    let mut draining = simple(0, &[frontend(1, IN)], &[1]);
    draining.ports[0].alive = vec![backend(1), backend(2)];
    apply(&model, &mut planner, vec![(key("a"), Some(draining))]);
    assert_eq!(model.tables().backends.len(), 2);
    assert_eq!(model.reach("10.96.0.1", 80, IN).unwrap().len(), 1);
    apply(&model, &mut planner, vec![(key("a"), Some(simple(0, &[frontend(1, IN)], &[1])))]);
    assert_eq!(model.tables().backends.len(), 1);
}

#[test]
fn frontends_of_one_pool_share_a_run_and_an_id() {
    let model = Model::new(1000, 1000);
    let mut planner = started(&model);
    let both = [frontend(1, IN), frontend(2, IN), frontend(2, Scope::External)];
    apply(&model, &mut planner, vec![(key("a"), Some(simple(0, &both, &[1, 2, 3])))]);
    let tables = model.tables();
    let entries: Vec<_> = tables.services.values().collect();
    assert!(entries.iter().all(|e| (e.id, e.base, e.count) == (entries[0].id, entries[0].base, 3)));
    assert_eq!(tables.slots.len(), 3);
}

#[test]
fn disputed_frontend_goes_to_the_older_service_and_then_to_the_other() {
    let model = Model::new(1000, 1000);
    let mut planner = started(&model);
    let disputed = frontend(9, IN);
    let changes = vec![
        (key("young"), Some(simple(20, &[disputed, frontend(1, IN)], &[1]))),
        (key("old"), Some(simple(10, &[disputed], &[2]))),
    ];
    apply(&model, &mut planner, changes);
    assert_eq!(model.reach("10.96.0.9", 80, IN).unwrap()[0].0, backend(2).address);
    assert_eq!(model.reach("10.96.0.1", 80, IN).unwrap()[0].0, backend(1).address);
    let waiters = planner.waiters(&HashSet::from([key("old")]));
    assert_eq!(waiters, [key("young")]);
    let changes =
        vec![(key("old"), None), (key("young"), Some(simple(20, &[disputed, frontend(1, IN)], &[1])))];
    let ops = apply(&model, &mut planner, changes);
    assert!(!ops.iter().any(|op| matches!(op, LbOp::DeleteService { .. })), "{ops:?}");
    assert_eq!(model.reach("10.96.0.9", 80, IN).unwrap()[0].0, backend(1).address);
    assert!(planner.waiting.is_empty());
}

#[test]
fn address_that_moves_between_services_in_one_plan_is_never_gone() {
    let model = Model::new(1000, 1000);
    let mut planner = started(&model);
    apply(&model, &mut planner, vec![(key("a"), Some(simple(0, &[frontend(1, IN)], &[1])))]);
    let changes = vec![(key("b"), Some(simple(0, &[frontend(1, IN)], &[2]))), (key("a"), None)];
    let ops = apply(&model, &mut planner, changes);
    assert!(!ops.iter().any(|op| matches!(op, LbOp::DeleteService { .. })), "{ops:?}");
}

#[test]
fn service_that_does_not_fit_keeps_what_it_had() {
    let model = Model::new(1000, 5);
    let mut planner = started(&model);
    apply(&model, &mut planner, vec![(key("a"), Some(simple(0, &[frontend(1, IN)], &[1, 2])))]);
    let plan =
        planner.plan(vec![(key("a"), Some(simple(0, &[frontend(1, IN)], &[1, 2, 3, 4])))], Instant::now());
    model.apply(&plan.ops).unwrap();
    assert_eq!(plan.refused[0].1.to_string(), "no room for 4 more endpoint slots of 5");
    assert_eq!(model.reach("10.96.0.1", 80, IN).unwrap().len(), 2);
    assert_eq!(model.tables().backends.len(), 2, "backends of the refused plan are not left behind");
    apply(&model, &mut planner, vec![(key("a"), None)]);
    apply(&model, &mut planner, vec![(key("a"), Some(simple(0, &[frontend(1, IN)], &[1, 2, 3, 4])))]);
}

#[test]
fn tables_that_make_no_sense_are_written_anew() {
    let model = Model::new(1000, 1000);
    let mut planner = started(&model);
    apply(&model, &mut planner, vec![(key("a"), Some(simple(0, &[frontend(1, IN)], &[1, 2])))]);
    model.tables().slots[0] = 77;
    let mut planner = started(&model);
    apply(&model, &mut planner, vec![(key("a"), Some(simple(0, &[frontend(1, IN)], &[1, 2])))]);
    model.apply(&planner.sweep(Instant::now())).unwrap();
    assert_eq!(model.reach("10.96.0.1", 80, IN).unwrap().len(), 2);
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    /// Plans these services together: number, and its frontends and backends; none deletes it.
    Change(Vec<(u8, Option<Shape>)>),
    /// The agent restarts.
    Restart,
    /// The next plan is applied up to here; then the agent restarts.
    Crash(usize),
    /// Time passes, so that cooled runs are used again.
    Wait,
}

#[derive(Clone, Debug)]
struct Shape {
    frontends: Vec<u8>,
    internal: Vec<u8>,
    external: Vec<u8>,
    draining: Vec<u8>,
    affinity: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    let numbers = |max: u8, len: usize| prop::collection::vec(0..max, 0..len);
    (numbers(12, 4), numbers(20, 6), numbers(20, 4), numbers(20, 3), any::<bool>()).prop_map(
        |(frontends, internal, external, draining, affinity)| Shape {
            frontends,
            internal,
            external,
            draining,
            affinity,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let change = prop::collection::vec((0..8u8, prop::option::weighted(0.8, shape())), 1..4);
    prop_oneof![8 => change.prop_map(Step::Change), 1 => Just(Step::Restart), 1 => Just(Step::Wait),
        2 => (0..12usize).prop_map(Step::Crash)]
}

fn build(number: u8, shape: &Shape) -> Desired {
    let mut numbers = shape.frontends.clone();
    numbers.sort_unstable();
    numbers.dedup();
    let of = |scope: Scope| numbers.iter().map(|n| frontend(*n, scope)).collect::<Vec<_>>();
    let pools =
        vec![pool(&of(Scope::Internal), &shape.internal), pool(&of(Scope::External), &shape.external)];
    let mut alive: Vec<_> =
        shape.internal.iter().chain(&shape.external).chain(&shape.draining).map(|n| backend(*n)).collect();
    alive.sort_unstable();
    alive.dedup();
    let name = PortName { name: String::new(), protocol: Protocol::Tcp };
    let affinity = shape.affinity.then_some(Duration::from_secs(60));
    Desired {
        created: i64::from(number),
        ports: vec![DesiredPort { name, affinity, pools, alive }],
        ..Desired::default()
    }
}

/// Every service's tables are those it asked for, except for frontends that another service has.
fn assert_desired(model: &Model, world: &BTreeMap<u8, Desired>) {
    let tables = model.tables();
    type Run = (Vec<Backend>, Option<Duration>);
    let mut wanted: BTreeMap<Frontend, Vec<Run>> = BTreeMap::new();
    for desired in world.values() {
        for port in &desired.ports {
            for pool in &port.pools {
                for f in &pool.frontends {
                    wanted.entry(f.frontend).or_default().push((pool.backends.clone(), port.affinity));
                }
            }
        }
    }
    assert_eq!(tables.services.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (frontend, entry) in &tables.services {
        let found = (tables.run(entry), entry.affinity);
        assert!(
            wanted[frontend].contains(&found),
            "{frontend:?} has {found:?}, wanted {:?}",
            wanted[frontend]
        );
    }
    let alive: BTreeSet<_> = world.values().flat_map(|d| &d.ports).flat_map(|p| &p.alive).collect();
    let held: BTreeSet<_> = tables.backends.values().collect();
    assert_eq!(held, alive, "backends are leaked or missing");
    assert_eq!(held.len(), tables.backends.len(), "an endpoint has two ids");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_in_the_desired_tables_through_whole_states_only(steps in prop::collection::vec(step(), 1..25)) {
        let model = Model::new(64, 96);
        let mut planner = started(&model);
        let mut world: BTreeMap<u8, Desired> = BTreeMap::new();
        let mut now = Instant::now();
        let mut crash = None;
        for step in steps {
            match step {
                Step::Wait => now += Duration::from_secs(2),
                Step::Crash(after) => crash = Some(after),
                Step::Restart => {
                    planner = started(&model);
                    let before = model.tables().clone();
                    let all = world.iter().map(|(n, d)| (key(&n.to_string()), Some(d.clone()))).collect();
                    let disputed = !owners_are_unique(&world);
                    let mut ops = planner.plan(all, now).ops;
                    ops.extend(planner.sweep(now));
                    model.apply(&ops).unwrap();
                    if !disputed {
                        prop_assert_eq!(&model.tables().services, &before.services, "a restart wrote {:?}", ops);
                    }
                }
                Step::Change(changes) => {
                    let changes: BTreeMap<_, _> = changes.into_iter().collect();
                    for (number, shape) in &changes {
                        match shape {
                            Some(shape) => drop(world.insert(*number, build(*number, shape))),
                            None => drop(world.remove(number)),
                        }
                    }
                    let mut keys: HashSet<_> = changes.keys().map(|n| key(&n.to_string())).collect();
                    keys.extend(planner.waiters(&keys));
                    let desired = |k: &ServiceKey| {
                        world.iter().find(|(n, _)| key(&n.to_string()) == *k).map(|(_, d)| d.clone())
                    };
                    let planned = keys.iter().map(|k| (k.clone(), desired(k))).collect();
                    let plan = planner.plan(planned, now);
                    prop_assert!(plan.refused.is_empty(), "{:?}", plan.refused);
                    match crash.take().filter(|after| *after < plan.ops.len()) {
                        None => model.apply(&plan.ops).unwrap(),
                        // The model has checked the prefix: no packet saw half of a service.
                        Some(after) => {
                            model.apply(&plan.ops[..after]).unwrap();
                            planner = recovered(&model, &world, now);
                        }
                    }
                }
            }
            assert_desired(&model, &world);
        }
    }
}

fn owners_are_unique(world: &BTreeMap<u8, Desired>) -> bool {
    let all: Vec<_> = world
        .values()
        .flat_map(|d| &d.ports)
        .flat_map(|p| &p.pools)
        .flat_map(|p| &p.frontends)
        .map(|f| f.frontend)
        .collect();
    all.iter().collect::<HashSet<_>>().len() == all.len()
}

/// A planner that found the tables as they are, and made of them what they should be.
fn recovered(model: &Model, world: &BTreeMap<u8, Desired>, now: Instant) -> Planner {
    let mut planner = started(model);
    let all = world.iter().map(|(n, d)| (key(&n.to_string()), Some(d.clone()))).collect();
    let plan = planner.plan(all, now);
    assert!(plan.refused.is_empty(), "{:?}", plan.refused);
    model.apply(&plan.ops).unwrap();
    model.apply(&planner.sweep(now)).unwrap();
    planner
}

fn sized_change() -> impl Strategy<Value = (u8, Option<Vec<u8>>)> {
    (0..8u8, prop::option::weighted(0.8, prop::collection::vec(0..20u8, 0..8)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn tables_that_are_too_small_refuse_whole_services_and_lose_nothing(
        changes in prop::collection::vec(prop::collection::vec(sized_change(), 1..4), 1..30),
    ) {
        let model = Model::new(13, 16);
        let mut planner = started(&model);
        let mut now = Instant::now();
        // What each service has in the tables: what it wanted when it last fitted.
        let mut placed: BTreeMap<u8, Desired> = BTreeMap::new();
        for step in changes {
            now += Duration::from_millis(300);
            let step: BTreeMap<_, _> = step.into_iter().collect();
            let wanted: BTreeMap<u8, Option<Desired>> =
                step.iter().map(|(n, b)| (*n, b.as_ref().map(|b| simple(0, &[frontend(*n, IN)], b)))).collect();
            let plan = planner.plan(wanted.iter().map(|(n, d)| (key(&n.to_string()), d.clone())).collect(), now);
            model.apply(&plan.ops).unwrap();
            let refused: HashSet<_> = plan.refused.iter().map(|(key, _)| key.clone()).collect();
            for (number, desired) in wanted {
                match desired {
                    _ if refused.contains(&key(&number.to_string())) => {}
                    Some(desired) => drop(placed.insert(number, desired)),
                    None => drop(placed.remove(&number)),
                }
            }
            assert_desired(&model, &placed);
        }
        let all: Vec<_> = placed.keys().map(|n| (key(&n.to_string()), None)).collect();
        model.apply(&planner.plan(all, now).ops).unwrap();
        assert_desired(&model, &BTreeMap::new());
        // Everything is there again: the largest service fits.
        let largest: Vec<u8> = (0..12).collect();
        let plan = planner.plan(vec![(key("0"), Some(simple(0, &[frontend(0, IN)], &largest)))], now);
        prop_assert!(plan.refused.is_empty(), "{:?}", plan.refused);
    }
}
