//! Goal: transactions behave as if they had run one after another, in an order
//! that agrees with real time. Method: many of them at once, from threads and
//! interleaved by a seed, over lists, registers and bank accounts; each notes
//! which versions it saw and wrote, and the graph of what must come before what
//! may have no cycle. Two clients that are wrong on purpose show that the check
//! can fail.
//!
//! An edge leads from the transaction that must come first:
//!
//! ```text
//! ww    wrote the version before the one that the other wrote
//! wr    wrote the version that the other read
//! rw    read the version before the one that the other wrote
//! time  had committed before the other began
//! ```
//!
//! Source: "Generalized Isolation Level Definitions" (Adya, Liskov and O'Neil,
//! 2000), and Elle (Kingsbury and Alvaro, 2020) for lists whose elements tell
//! the order of versions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

use duramen::storage::memory::MemoryStorage;
use duramen::{
    Background, Database, Db, Durability, Error, Keyspace, KeyspaceOptions, Options, Snapshot, Transaction,
};

use crate::random::{Random, for_seeds};
use crate::support::{open, small};

/// Lists grow by what is appended; registers and accounts are read, then
/// written; twins are lists that are only ever appended to together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    List,
    Register,
    Account,
    Twin,
}

type Key = (Kind, u8);

const KINDS: [Kind; 4] = [Kind::List, Kind::Register, Kind::Account, Kind::Twin];

/// Keys of each kind.
const KEYS: u8 = 5;

/// What all accounts hold together.
const TOTAL: i64 = 1000 * KEYS as i64;

fn name((_, number): Key) -> [u8; 1] {
    [b'0' + number]
}

/// Who wrote what was read: every writer of a list, the last one of a register.
/// Transactions count from 1.
type Seen = Vec<u64>;

/// A transaction that committed.
#[derive(Clone, Debug, Default)]
struct Committed {
    id: u64,
    began: u64,
    ended: u64,
    reads: Vec<(Key, Seen)>,
    /// With the writer of the version before, where that was read.
    writes: Vec<(Key, Option<u64>)>,
}

/// What happened.
#[derive(Debug, Default)]
struct History {
    committed: Vec<Committed>,
    conflicts: u64,
    /// What was there in the end.
    last: BTreeMap<Key, Seen>,
}

// --- The check ---------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    Ww(Key),
    Wr(Key),
    Rw(Key),
    Time,
}

/// What must come before what; moments are nodes, too.
#[derive(Default)]
struct Graph {
    edges: Vec<Vec<(usize, Edge)>>,
}

impl Graph {
    fn add(&mut self, from: usize, to: usize, edge: Edge) {
        let len = self.edges.len().max(from + 1).max(to + 1);
        self.edges.resize_with(len, Vec::new);
        if from != to {
            self.edges[from].push((to, edge));
        }
    }

    /// Takes away, again and again, what nothing leads to; a cycle stays.
    fn cyclic(&self) -> BTreeSet<usize> {
        let mut incoming = vec![0; self.edges.len()];
        self.edges.iter().flatten().for_each(|(to, _)| incoming[*to] += 1);
        let mut free: Vec<usize> = (0..incoming.len()).filter(|node| incoming[*node] == 0).collect();
        let mut left: BTreeSet<usize> = (0..incoming.len()).collect();
        while let Some(node) = free.pop() {
            left.remove(&node);
            for (to, _) in &self.edges[node] {
                incoming[*to] -= 1;
                if incoming[*to] == 0 {
                    free.push(*to);
                }
            }
        }
        left
    }

    /// A cycle with the fewest edges, as nodes and the edges that leave them.
    fn shortest_cycle(&self) -> Option<Vec<(usize, Edge)>> {
        let left = self.cyclic();
        left.iter().filter_map(|node| self.cycle_through(*node, &left)).min_by_key(Vec::len)
    }

    fn cycle_through(&self, start: usize, within: &BTreeSet<usize>) -> Option<Vec<(usize, Edge)>> {
        let mut came: BTreeMap<usize, (usize, Edge)> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            for (to, edge) in self.edges[node].iter().filter(|(to, _)| within.contains(to)) {
                if came.contains_key(to) {
                    continue;
                }
                came.insert(*to, (node, *edge));
                if *to != start {
                    queue.push_back(*to);
                    continue;
                }
                let mut cycle = vec![came[&start]];
                while let Some((node, _)) = cycle.last().filter(|(node, _)| *node != start) {
                    cycle.push(came[node]);
                }
                cycle.reverse();
                return Some(cycle);
            }
        }
        None
    }
}

impl History {
    /// Who wrote each version of each key, in order.
    fn orders(&self) -> Result<BTreeMap<Key, Vec<u64>>, String> {
        let mut writers: BTreeMap<Key, Vec<(u64, Option<u64>)>> = BTreeMap::new();
        for transaction in &self.committed {
            for (key, before) in &transaction.writes {
                writers.entry(*key).or_default().push((transaction.id, *before));
            }
        }
        let mut orders = BTreeMap::new();
        for (key, last) in &self.last {
            let writers = writers.remove(key).unwrap_or_default();
            let order = match key.0 {
                Kind::List | Kind::Twin => list_order(last),
                Kind::Register | Kind::Account => chain(last.last().copied().unwrap_or(0), &writers),
            };
            let order = order.map_err(|what| format!("{key:?}: {what}"))?;
            let found: BTreeSet<u64> = order.iter().copied().collect();
            let wanted: BTreeSet<u64> = writers.iter().map(|(id, _)| *id).collect();
            if found != wanted {
                let lost: Vec<_> = wanted.difference(&found).collect();
                let aborted: Vec<_> = found.difference(&wanted).collect();
                return Err(format!(
                    "{key:?}: lost writes of {lost:?}, writes of none that committed {aborted:?}"
                ));
            }
            orders.insert(*key, order);
        }
        Ok(orders)
    }

    /// # Errors
    /// What contradicts an order of all transactions, for people.
    fn check(&self) -> Result<(), String> {
        let orders = self.orders()?;
        let nodes: BTreeMap<u64, usize> =
            self.committed.iter().enumerate().map(|(node, transaction)| (transaction.id, node)).collect();
        let mut graph = Graph::default();
        for (key, order) in &orders {
            for pair in order.windows(2) {
                graph.add(nodes[&pair[0]], nodes[&pair[1]], Edge::Ww(*key));
            }
        }
        for (node, transaction) in self.committed.iter().enumerate() {
            for (key, seen) in &transaction.reads {
                let order = &orders[key];
                let version = match key.0 {
                    Kind::List | Kind::Twin => {
                        let seen = list_order(seen).map_err(|what| format!("{key:?}: {what}"))?;
                        if !order.starts_with(&seen) {
                            return Err(format!(
                                "{key:?}: transaction {} saw {seen:?}, no prefix of {order:?}",
                                transaction.id
                            ));
                        }
                        seen.len()
                    }
                    Kind::Register | Kind::Account => match seen.last().filter(|id| **id != 0) {
                        None => 0,
                        Some(id) => match order.iter().position(|other| other == id) {
                            Some(at) => at + 1,
                            None => {
                                return Err(format!(
                                    "{key:?}: transaction {} saw a write of {id}, which did not commit",
                                    transaction.id
                                ));
                            }
                        },
                    },
                };
                if let Some(before) = version.checked_sub(1) {
                    graph.add(nodes[&order[before]], node, Edge::Wr(*key));
                }
                if let Some(next) = order.get(version) {
                    graph.add(node, nodes[next], Edge::Rw(*key));
                }
            }
        }
        self.add_time(&mut graph);
        let Some(cycle) = graph.shortest_cycle() else { return Ok(()) };
        let mut text = "cycle:".to_owned();
        for (node, edge) in cycle {
            match self.committed.get(node) {
                Some(transaction) => write!(text, " {} -{edge:?}->", transaction.id).unwrap(),
                None => text.push_str(" ..."),
            }
        }
        Err(text)
    }

    /// Moments are a chain of nodes after those of transactions.
    fn add_time(&self, graph: &mut Graph) {
        let mut moments: Vec<(u64, usize, bool)> = Vec::new();
        for (node, transaction) in self.committed.iter().enumerate() {
            moments.extend([(transaction.began, node, true), (transaction.ended, node, false)]);
        }
        moments.sort_unstable();
        let first = self.committed.len();
        for (index, (_, node, begins)) in moments.iter().enumerate() {
            let moment = first + index;
            if index > 0 {
                graph.add(moment - 1, moment, Edge::Time);
            }
            if *begins { graph.add(moment, *node, Edge::Time) } else { graph.add(*node, moment, Edge::Time) }
        }
    }
}

/// Writers of a list, each of whose appends lie together.
fn list_order(elements: &[u64]) -> Result<Vec<u64>, String> {
    let mut order = elements.to_vec();
    order.dedup();
    let writers: BTreeSet<u64> = order.iter().copied().collect();
    if writers.len() == order.len() { Ok(order) } else { Err(format!("a torn transaction in {elements:?}")) }
}

/// Writers from the first to `last`, each of which names the one before it.
fn chain(last: u64, writers: &[(u64, Option<u64>)]) -> Result<Vec<u64>, String> {
    let mut before: BTreeMap<u64, u64> = BTreeMap::new();
    let mut after: BTreeMap<u64, u64> = BTreeMap::new();
    for (id, previous) in writers {
        let previous = previous.ok_or_else(|| format!("{id} has written blindly"))?;
        before.insert(*id, previous);
        if let Some(other) = after.insert(previous, *id) {
            return Err(format!("lost update: {other} and {id} have both written on top of {previous}"));
        }
    }
    let mut order = Vec::new();
    let mut id = last;
    while let Some(previous) = before.get(&id).copied().filter(|_| order.len() < writers.len()) {
        order.push(id);
        id = previous;
    }
    order.reverse();
    Ok(order)
}

// --- The clients -------------------------------------------------------------

/// How a client uses the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// As it is meant.
    Right,
    /// Reads at the right snapshot, but past the transaction, so that the commit
    /// validates nothing.
    Unvalidated,
    /// Reads what is newest, past the transaction.
    AtLatest,
}

/// A database and what of it is used.
struct World {
    db: Db,
    keyspaces: BTreeMap<Kind, Keyspace>,
    clock: AtomicU64,
    ids: AtomicU64,
    history: Mutex<History>,
}

/// A transaction in progress.
struct Session<'w> {
    world: &'w World,
    client: Client,
    transaction: Transaction,
    snapshot: Option<Snapshot>,
    noted: Committed,
    /// Own writes: not versions of anybody else.
    written: BTreeSet<Key>,
    steps: VecDeque<Step>,
}

/// What a transaction does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Read(Key),
    ScanLists,
    /// Without a look.
    Append(u8),
    /// Reads the list and puts one that is longer.
    Extend(u8),
    Write(u8),
    Transfer(u8, u8, i64),
    Audit,
    AppendToTwins,
    LookAtTwins,
}

/// A script of a few steps.
fn script(random: &mut Random, kinds: &[Kind]) -> VecDeque<Step> {
    let one = |random: &mut Random| random.below(KEYS.into()) as u8;
    let steps = 1 + random.below(4);
    (0..steps)
        .map(|_| {
            let n = one(random);
            match (kinds[random.below(kinds.len() as u64) as usize], random.below(6)) {
                (Kind::List, 0) => Step::ScanLists,
                (Kind::List, 1 | 2) => Step::Read((Kind::List, n)),
                (Kind::List, 3) => Step::Extend(n),
                (Kind::List, _) => Step::Append(n),
                (Kind::Register, 0..3) => Step::Read((Kind::Register, n)),
                (Kind::Register, _) => Step::Write(n),
                (Kind::Account, 0) => Step::Audit,
                (Kind::Account, _) => Step::Transfer(n, one(random), random.below(100) as i64),
                (Kind::Twin, 0..3) => Step::AppendToTwins,
                (Kind::Twin, _) => Step::LookAtTwins,
            }
        })
        .collect()
}

/// Reads one of two lists and appends to the other: what snapshot isolation does
/// not keep apart.
fn skewing_script(random: &mut Random) -> VecDeque<Step> {
    let n = random.below(2) as u8;
    [Step::Read((Kind::List, n)), Step::Append(1 - n)].into()
}

fn ids(value: &[u8]) -> Seen {
    let (words, rest) = value.as_chunks::<8>();
    assert!(rest.is_empty(), "a value that nobody wrote");
    words.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

/// A balance and who wrote it.
fn account(value: &[u8]) -> (i64, u64) {
    let words = ids(value);
    (words[0] as i64, words[1])
}

impl World {
    fn new(options: Options) -> World {
        let db = open(&MemoryStorage::new(), options).unwrap();
        let keyspace = |kind: Kind| {
            let merge_operator = matches!(kind, Kind::List | Kind::Twin).then(|| "append".to_owned());
            let options = KeyspaceOptions { merge_operator, ..KeyspaceOptions::default() };
            (kind, db.keyspace_with(&format!("{kind:?}"), options).unwrap())
        };
        let keyspaces: BTreeMap<Kind, Keyspace> = KINDS.into_iter().map(keyspace).collect();
        for n in 0..KEYS {
            let value = [1000i64.to_le_bytes(), 0u64.to_le_bytes()].concat();
            keyspaces[&Kind::Account].put(&name((Kind::Account, n)), &value).unwrap();
        }
        let (clock, ids) = (AtomicU64::new(0), AtomicU64::new(1));
        World { db, keyspaces, clock, ids, history: Mutex::default() }
    }

    fn begin(&self, client: Client, steps: VecDeque<Step>) -> Session<'_> {
        let noted = Committed {
            id: self.ids.fetch_add(1, SeqCst),
            began: self.clock.fetch_add(1, SeqCst),
            ..Committed::default()
        };
        let (transaction, snapshot) = loop {
            let (transaction, snapshot) = (self.db.transaction(), self.db.snapshot());
            if transaction.sequence() == snapshot.sequence() {
                break (transaction, snapshot);
            }
        };
        let snapshot = (client == Client::Unvalidated).then_some(snapshot);
        Session { world: self, client, transaction, snapshot, noted, written: BTreeSet::new(), steps }
    }

    /// Everything that was written, read at the end.
    fn finish(self) -> History {
        let mut history = self.history.into_inner().unwrap();
        for kind in KINDS {
            for n in 0..KEYS {
                let value = self.keyspaces[&kind].get(&name((kind, n))).unwrap().unwrap_or_default();
                let seen = ids(&value);
                let seen = if kind == Kind::Account { seen[1..].to_vec() } else { seen };
                history.last.insert((kind, n), seen);
            }
        }
        assert_eq!(self.db.verify().unwrap().problems, []);
        history
    }
}

impl Session<'_> {
    fn get(&mut self, key: Key) -> Vec<u8> {
        let keyspace = &self.world.keyspaces[&key.0];
        let found = match (&self.snapshot, self.client) {
            // Own writes are in the transaction alone.
            _ if self.written.contains(&key) => self.transaction.get(keyspace, &name(key)),
            (Some(snapshot), _) => snapshot.get(keyspace, &name(key)),
            (None, Client::AtLatest) => keyspace.get(&name(key)),
            (None, _) => self.transaction.get(keyspace, &name(key)),
        };
        found.unwrap().unwrap_or_default().to_vec()
    }

    fn note(&mut self, key: Key, seen: Seen) {
        if !self.written.contains(&key) {
            self.noted.reads.push((key, seen));
        }
    }

    fn read(&mut self, key: Key) -> Vec<u8> {
        let value = self.get(key);
        let seen = if key.0 == Kind::Account { vec![account(&value).1] } else { ids(&value) };
        if self.written.contains(&key) {
            assert_eq!(seen.last(), Some(&self.noted.id), "own writes are read");
        }
        self.note(key, seen);
        value
    }

    fn wrote(&mut self, key: Key, before: Option<u64>) {
        if self.written.insert(key) {
            self.noted.writes.push((key, before));
        }
    }

    fn append(&mut self, key: Key) {
        let keyspace = &self.world.keyspaces[&key.0];
        self.transaction.merge(keyspace, &name(key), &self.noted.id.to_le_bytes()).unwrap();
        self.wrote(key, None);
    }

    fn put(&mut self, key: Key, before: Option<u64>, value: &[u8]) {
        self.transaction.put(&self.world.keyspaces[&key.0], &name(key), value).unwrap();
        self.wrote(key, before);
    }

    /// All keys of a kind by a scan, absent ones included.
    fn scan(&mut self, kind: Kind) -> BTreeMap<Key, Vec<u8>> {
        let mut found: BTreeMap<Key, Vec<u8>> = (0..KEYS).map(|n| ((kind, n), Vec::new())).collect();
        for row in self.transaction.range::<&[u8]>(&self.world.keyspaces[&kind], ..).unwrap() {
            let (key, value) = row.unwrap();
            found.insert((kind, key[0] - b'0'), value.to_vec());
        }
        found
    }

    fn set_balance(&mut self, n: u8, balance: i64, before: u64) {
        let id = self.noted.id;
        self.put((Kind::Account, n), Some(before), &[balance.to_le_bytes(), id.to_le_bytes()].concat());
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Read(key) => drop(self.read(key)),
            Step::ScanLists => {
                for (key, value) in self.scan(Kind::List) {
                    self.note(key, ids(&value));
                }
            }
            Step::Append(n) => self.append((Kind::List, n)),
            Step::Extend(n) => {
                let mut value = self.read((Kind::List, n));
                value.extend_from_slice(&self.noted.id.to_le_bytes());
                self.put((Kind::List, n), None, &value);
            }
            Step::Write(n) => {
                let before = ids(&self.read((Kind::Register, n))).last().copied().unwrap_or(0);
                self.put((Kind::Register, n), Some(before), &self.noted.id.to_le_bytes());
            }
            Step::Transfer(from, to, amount) if from != to => {
                let (balance, before) = account(&self.read((Kind::Account, from)));
                self.set_balance(from, balance - amount, before);
                let (balance, before) = account(&self.read((Kind::Account, to)));
                self.set_balance(to, balance + amount, before);
            }
            Step::Transfer(..) | Step::Audit => {
                let found = self.scan(Kind::Account);
                let sum: i64 = found.values().map(|value| account(value).0).sum();
                assert_eq!(sum, TOTAL, "an audit finds another total");
                for (key, value) in found {
                    self.note(key, vec![account(&value).1]);
                }
            }
            Step::AppendToTwins => (0..KEYS).for_each(|n| self.append((Kind::Twin, n))),
            Step::LookAtTwins => {
                let one = self.read((Kind::Twin, 0));
                let all = self.scan(Kind::Twin);
                assert!(all.values().all(|other| *other == one), "torn: {all:?}");
                self.note((Kind::Twin, 1), ids(&one));
            }
        }
    }

    /// Takes the next step, or commits; true once it is over.
    fn advance(&mut self) -> bool {
        match self.steps.pop_front() {
            Some(step) => self.step(step),
            None => return true,
        }
        false
    }

    fn commit(mut self, durability: Durability) {
        let outcome = self.transaction.commit(durability);
        self.noted.ended = self.world.clock.fetch_add(1, SeqCst);
        let mut history = self.world.history.lock().unwrap();
        match outcome {
            Ok(()) => history.committed.push(self.noted),
            Err(Error::Conflict { .. }) => history.conflicts += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

// --- Runs --------------------------------------------------------------------

/// Several transactions at a time, whose steps a seed interleaves.
fn interleaved(
    seed: u64,
    client: Client,
    count: usize,
    script: impl Fn(&mut Random) -> VecDeque<Step>,
) -> History {
    let mut random = Random::new(seed);
    let world = World::new(small());
    let mut sessions: Vec<Session<'_>> = Vec::new();
    for _ in 0..count {
        while sessions.len() < 4 {
            sessions.push(world.begin(client, script(&mut random)));
        }
        while !sessions.is_empty() {
            let at = random.below(sessions.len() as u64) as usize;
            if sessions[at].advance() {
                sessions.swap_remove(at).commit(Durability::Buffered);
                break;
            }
        }
        match random.below(60) {
            0 => world.db.flush().unwrap(),
            1 => world.db.compact().unwrap(),
            _ => {}
        }
    }
    drop(sessions);
    world.finish()
}

#[test]
fn interleaved_transactions_are_serializable() {
    for_seeds(0..24, |seed| {
        let history = interleaved(seed, Client::Right, 250, |random| script(random, &KINDS));
        assert!(history.committed.len() > 50 && history.conflicts > 10, "{}", history.conflicts);
        history.check().unwrap_or_else(|what| panic!("{what}"));
    });
    for_seeds(100..110, |seed| {
        let history = interleaved(seed, Client::Right, 300, skewing_script);
        assert!(history.committed.len() > 50 && history.conflicts > 10, "{}", history.conflicts);
        history.check().unwrap_or_else(|what| panic!("{what}"));
    });
}

#[test]
fn transactions_of_threads_are_serializable() {
    const THREADS: u64 = 4;
    for_seeds(0..4, |seed| {
        let world = Arc::new(World::new(Options { background: Background::Threads, ..small() }));
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let world = &world;
                scope.spawn(move || {
                    let mut random = Random::new(seed * THREADS + thread);
                    for _ in 0..250 {
                        let steps = match random.below(3) {
                            0 => skewing_script(&mut random),
                            _ => script(&mut random, &KINDS),
                        };
                        let mut session = world.begin(Client::Right, steps);
                        while !session.advance() {
                            if random.one_in(2) {
                                thread::yield_now();
                            }
                        }
                        let durability = [Durability::Buffered, Durability::Sync][random.below(2) as usize];
                        session.commit(durability);
                    }
                });
            }
            // Snapshots outside transactions, against batches outside of them.
            let world = &world;
            scope.spawn(move || {
                let mut random = Random::new(seed);
                for round in 0..150 {
                    let twins = &world.keyspaces[&Kind::Twin];
                    let snapshot = world.db.snapshot();
                    let lists: Vec<_> =
                        (0..KEYS).map(|n| snapshot.get(twins, &name((Kind::Twin, n))).unwrap()).collect();
                    assert!(lists.iter().all(|list| *list == lists[0]), "a torn batch in a snapshot");
                    let rows: Vec<_> =
                        snapshot.range::<&[u8]>(twins, ..).rev().map(|row| Some(row.unwrap().1)).collect();
                    assert!(rows.iter().all(|list| *list == lists[0]), "a torn batch in a scan");
                    let rows = twins.multi_get((0..KEYS).map(|n| name((Kind::Twin, n)))).unwrap();
                    assert!(rows.iter().all(|list| *list == rows[0]), "a torn batch now");
                    match random.below(12) {
                        0 => world.db.flush().unwrap(),
                        1 if round % 3 == 0 => world.db.compact().unwrap(),
                        _ => thread::yield_now(),
                    }
                }
            });
            scope.spawn(move || {
                for _ in 0..100 {
                    let (id, began) = (world.ids.fetch_add(1, SeqCst), world.clock.fetch_add(1, SeqCst));
                    let mut batch = world.db.batch();
                    for n in 0..KEYS {
                        batch.merge(&world.keyspaces[&Kind::Twin], &name((Kind::Twin, n)), &id.to_le_bytes());
                    }
                    batch.commit(Durability::Buffered).unwrap();
                    let ended = world.clock.fetch_add(1, SeqCst);
                    let writes = (0..KEYS).map(|n| ((Kind::Twin, n), None)).collect();
                    let noted = Committed { id, began, ended, writes, ..Committed::default() };
                    world.history.lock().unwrap().committed.push(noted);
                    thread::yield_now();
                }
            });
        });
        let history = Arc::into_inner(world).unwrap().finish();
        println!("seed {seed}: {} committed, {} conflicts", history.committed.len(), history.conflicts);
        assert_eq!(history.committed.len() as u64 + history.conflicts, THREADS * 250 + 100);
        assert!(history.committed.len() > 200);
        history.check().unwrap_or_else(|what| panic!("{what}"));
    });
}

/// Without validation two transactions may each miss what the other wrote.
#[test]
fn reads_that_are_not_validated_are_found_out() {
    for_seeds(0..10, |seed| {
        let history = interleaved(seed, Client::Unvalidated, 60, skewing_script);
        assert_eq!(history.conflicts, 0);
        let found = history.check().expect_err("write skew goes unnoticed");
        println!("seed {seed}: {found}");
        assert!(found.starts_with("cycle") && found.matches("-Rw(").count() == 2, "{found}");
    });
    // Where what is read is written, updates are lost, and with them money.
    for_seeds(0..10, |seed| {
        let script = |random: &mut Random| {
            let from = random.below(KEYS.into()) as u8;
            VecDeque::from([Step::Transfer(from, (from + 1) % KEYS, 1 + random.below(50) as i64)])
        };
        let history = interleaved(seed, Client::Unvalidated, 60, script);
        let found = history.check().expect_err("a lost update goes unnoticed");
        println!("seed {seed}: {found}");
        assert!(found.contains("lost update"), "{found}");
    });
}

/// What is read at two moments may never have been there together.
#[test]
fn reads_at_the_latest_commit_are_found_out() {
    for_seeds(0..10, |seed| {
        let script = |random: &mut Random| -> VecDeque<Step> {
            let all = (0..KEYS).map(|n| (Kind::List, n));
            match random.one_in(2) {
                true => all.map(Step::Read).collect(),
                false => all.map(|(_, n)| Step::Append(n)).collect(),
            }
        };
        let history = interleaved(seed, Client::AtLatest, 100, script);
        assert_eq!(history.conflicts, 0);
        let found = history.check().expect_err("read skew goes unnoticed");
        println!("seed {seed}: {found}");
        assert!(found.starts_with("cycle") && found.contains("-Rw(") && found.contains("-Wr("), "{found}");
        // The right client passes the same.
        interleaved(seed, Client::Right, 100, script).check().unwrap_or_else(|what| panic!("{what}"));
    });
}

/// The check itself, on histories of which the answer is known.
#[test]
fn the_check_knows_textbook_anomalies() {
    let [a, b] = [0, 1].map(|n| (Kind::List, n));
    let transaction = |id: u64, times: [u64; 2], reads: &[(Key, &[u64])], writes: &[Key]| Committed {
        id,
        began: times[0],
        ended: times[1],
        reads: reads.iter().map(|(key, seen)| (*key, seen.to_vec())).collect(),
        writes: writes.iter().map(|key| (*key, None)).collect(),
    };
    let history = |committed: Vec<Committed>, last: &[(Key, &[u64])]| History {
        committed,
        conflicts: 0,
        last: last.iter().map(|(key, seen)| (*key, seen.to_vec())).collect(),
    };
    let skew = [
        transaction(1, [0, 3], &[(a, &[]), (b, &[])], &[a]),
        transaction(2, [1, 2], &[(a, &[]), (b, &[])], &[b]),
    ];
    let found = history(skew.to_vec(), &[(a, &[1]), (b, &[2])]).check().unwrap_err();
    assert_eq!(found.matches("-Rw(").count(), 2, "{found}");
    let one_sees = [skew[0].clone(), transaction(2, [1, 4], &[(a, &[1]), (b, &[])], &[b])];
    assert_eq!(history(one_sees.to_vec(), &[(a, &[1]), (b, &[2])]).check(), Ok(()));
    // Fine in some order, but not in that of real time.
    let stale = [transaction(1, [0, 1], &[], &[a]), transaction(2, [2, 3], &[(a, &[])], &[])];
    let found = history(stale.to_vec(), &[(a, &[1])]).check().unwrap_err();
    assert!(found.contains("Time"), "{found}");
    let interleaved = [transaction(1, [0, 2], &[], &[a, b]), transaction(2, [1, 3], &[], &[a, b])];
    let found = history(interleaved.to_vec(), &[(a, &[1, 2]), (b, &[2, 1])]).check().unwrap_err();
    assert_eq!(found.matches("-Ww(").count(), 2, "{found}");
    for (last, what) in [(&[1][..], "lost"), (&[1, 2, 3], "none that committed"), (&[1, 2, 1], "torn")] {
        let found = history(interleaved.to_vec(), &[(a, last), (b, &[1, 2])]).check().unwrap_err();
        assert!(found.contains(what), "{found}");
    }
    let seen = [interleaved[0].clone(), transaction(2, [1, 3], &[(b, &[7])], &[a, b])];
    let found = history(seen.to_vec(), &[(a, &[1, 2]), (b, &[1, 2])]).check().unwrap_err();
    assert!(found.contains("no prefix"), "{found}");
}
