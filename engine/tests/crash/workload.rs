//! Workloads: lists of steps, made from seeds.

use duramen::Durability;
use duramen::storage::fault::{Fault, FaultKind, Names, Operation};

use crate::model::{Commit, PASSING_TTLS_MS};
use crate::random::Random;

/// What a program does.
#[derive(Clone, Debug)]
pub enum Step {
    Commit(Durability, Commit),
    Sync,
    Flush,
    Compact,
    Maintain(u64),
    /// Creates a keyspace beside the two that commits go to.
    Keyspace(String),
    /// Creates the keyspace that comes and goes, or gives it this time to live, in
    /// milliseconds.
    CreatePassing(u64),
    /// Drops it.
    DropPassing,
    /// A commit during a transaction that has read what it changes, and that
    /// must fail therefore.
    Conflict(Durability, Commit),
    /// Holds a snapshot, until [`Step::Release`].
    Snapshot,
    Release,
    /// Closes, and opens again.
    Close,
    /// Ends as if killed, and opens again.
    Kill,
    /// Lets a call fail.
    Fault(Fault),
}

/// Steps, and the sizes that make them interesting.
#[derive(Clone, Debug)]
pub struct Workload {
    pub name: &'static str,
    pub steps: Vec<Step>,
    pub names: Names,
    pub memtable_bytes: usize,
    pub target_file_bytes: u64,
    /// So many steps, at the start, are not crashed at.
    pub quiet_steps: usize,
    /// Commits have operations of every kind, and not puts and deletes alone.
    pub every_kind: bool,
}

/// Numbers commits.
struct Steps {
    random: Random,
    every_kind: bool,
    steps: Vec<Step>,
    commits: u64,
}

const DURABILITIES: [Durability; 3] = [Durability::None, Durability::Buffered, Durability::Sync];

impl Steps {
    fn new(seed: u64) -> Steps {
        Steps { random: Random::new(seed), every_kind: false, steps: Vec::new(), commits: 0 }
    }

    fn of_every_kind(seed: u64) -> Steps {
        Steps { every_kind: true, ..Steps::new(seed) }
    }

    fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    fn next_commit(&mut self) -> Commit {
        self.commits += 1;
        match self.every_kind {
            false => Commit::random(self.commits, &mut self.random),
            true => Commit::of_every_kind(self.commits, &mut self.random),
        }
    }

    fn commit(&mut self, durability: Durability) {
        let commit = self.next_commit();
        self.push(Step::Commit(durability, commit));
    }

    fn conflict(&mut self, durability: Durability) {
        let commit = self.next_commit();
        self.push(Step::Conflict(durability, commit));
    }

    fn commits(&mut self, count: usize, durability: Durability) {
        (0..count).for_each(|_| self.commit(durability));
    }

    fn create_passing(&mut self) {
        let ttl_ms = PASSING_TTLS_MS[self.random.below(PASSING_TTLS_MS.len())];
        self.push(Step::CreatePassing(ttl_ms));
    }

    fn any_commit(&mut self) {
        let durability = DURABILITIES[self.random.below(3)];
        self.commit(durability);
    }

    fn named(self, name: &'static str) -> Workload {
        Workload {
            name,
            every_kind: self.every_kind,
            steps: self.steps,
            names: Names::ByDirectory,
            memtable_bytes: 3 << 10,
            target_file_bytes: 4 << 10,
            quiet_steps: 0,
        }
    }
}

/// Commits of every durability, and `sync`.
pub fn commits(seed: u64) -> Workload {
    let mut steps = Steps::new(seed);
    for _ in 0..25 {
        steps.any_commit();
        if steps.random.one_in(6) {
            steps.push(Step::Sync);
        }
    }
    Workload { memtable_bytes: 1 << 20, ..steps.named("commits") }
}

/// WALs that fill up and give way to others, with commits that nobody syncs.
pub fn rotation(seed: u64) -> Workload {
    let mut steps = Steps::new(seed);
    for _ in 0..2 {
        let (buffered, none) = (5 + steps.random.below(15), steps.random.below(8));
        steps.commits(buffered, Durability::Buffered);
        steps.commit(Durability::Sync);
        steps.commits(none, Durability::None);
    }
    Workload { memtable_bytes: 1 << 10, ..steps.named("rotation") }
}

/// WALs that are made before they are needed, and synced while they grow.
pub fn ahead(seed: u64) -> Workload {
    let mut steps = Steps::new(seed);
    for _ in 0..20 {
        steps.any_commit();
        if steps.random.one_in(2) {
            steps.push(Step::Maintain(1));
        }
    }
    Workload { memtable_bytes: 2 << 10, ..steps.named("ahead") }
}

/// Flushes that are asked for.
pub fn flush(seed: u64) -> Workload {
    let mut steps = Steps::new(seed);
    for _ in 0..5 {
        (0..6).for_each(|_| steps.any_commit());
        steps.push(Step::Flush);
    }
    Workload { memtable_bytes: 1 << 20, ..steps.named("flush") }
}

/// Compactions that are asked for, with and without a snapshot.
pub fn compaction(seed: u64) -> Workload {
    let mut steps = Steps::new(seed);
    for round in 0..4 {
        for _ in 0..2 {
            (0..5).for_each(|_| steps.any_commit());
            steps.push(Step::Flush);
        }
        if round == 1 {
            steps.push(Step::Snapshot);
        }
        steps.push(Step::Compact);
        if round == 2 {
            steps.push(Step::Release);
        }
    }
    Workload { memtable_bytes: 1 << 20, target_file_bytes: 2 << 10, ..steps.named("compaction") }
}

/// A database that is opened again and again, closed or not.
pub fn reopening(seed: u64) -> Workload {
    let mut steps = Steps::new(seed);
    for round in 0..6 {
        (0..4).for_each(|_| steps.any_commit());
        if steps.random.one_in(3) {
            steps.push(Step::Flush);
        }
        steps.push(if round % 2 == 0 { Step::Kill } else { Step::Close });
    }
    steps.commit(Durability::Sync);
    steps.push(Step::Close);
    steps.named("reopening")
}

/// A few commits, each followed by a kill: every image is one of a recovery.
pub fn recovery(seed: u64) -> Workload {
    let mut steps = Steps::new(seed);
    for durability in DURABILITIES {
        steps.commits(2, durability);
        steps.push(Step::Kill);
    }
    steps.push(Step::Flush);
    steps.push(Step::Kill);
    steps.named("recovery")
}

/// Keyspaces that come while others are written to.
pub fn keyspaces(seed: u64) -> Workload {
    let mut steps = Steps::new(seed);
    for number in 0..6 {
        steps.push(Step::Keyspace(format!("other {number}")));
        (0..2).for_each(|_| steps.any_commit());
        if number == 3 {
            steps.push(Step::Flush);
        }
    }
    steps.named("keyspaces")
}

/// Range deletes, expiry, merges and transactions, through flushes, compactions
/// and recoveries, with and without a snapshot.
pub fn operations(seed: u64) -> Workload {
    let mut steps = Steps::of_every_kind(seed);
    for (round, ttl_ms) in PASSING_TTLS_MS.into_iter().enumerate() {
        steps.push(Step::CreatePassing(ttl_ms));
        for _ in 0..2 {
            (0..4).for_each(|_| steps.any_commit());
            steps.push(Step::Flush);
        }
        if round == 1 {
            steps.push(Step::Snapshot);
            (0..3).for_each(|_| steps.any_commit());
        }
        steps.push(Step::Compact);
        steps.conflict(Durability::Buffered);
        match round {
            0 => steps.push(Step::Kill),
            1 => steps.push(Step::Release),
            _ => steps.push(Step::Close),
        }
    }
    Workload { memtable_bytes: 1 << 20, target_file_bytes: 2 << 10, ..steps.named("operations") }
}

/// A keyspace that comes and goes: with its data in the log, in memtables, in
/// tables, and with nothing else that tells the last commit; amid commits that
/// nobody has synced, and with the highest id or without.
pub fn passing(seed: u64) -> Workload {
    let mut steps = Steps::of_every_kind(seed);
    for round in 0..5 {
        steps.create_passing();
        (0..3).for_each(|_| steps.any_commit());
        if round > 0 {
            steps.push(Step::Flush);
        }
        if round == 1 {
            steps.push(Step::Keyspace("other".into()));
        }
        if round == 2 {
            (0..2).for_each(|_| steps.any_commit());
            steps.push(Step::Compact);
        }
        if round > 2 {
            steps.create_passing();
            (0..2).for_each(|_| steps.any_commit());
        }
        steps.commit(Durability::Buffered);
        steps.push(Step::DropPassing);
        steps.commit(Durability::Buffered);
        match round {
            0 | 1 => steps.push(Step::Flush),
            2 => steps.push(Step::Close),
            3 => steps.push(Step::Kill),
            _ => {}
        }
        steps.any_commit();
    }
    steps.push(Step::Close);
    Workload { memtable_bytes: 1 << 20, ..steps.named("passing keyspaces") }
}

/// All of it, in any order.
pub fn mixed(seed: u64) -> Workload {
    let mut steps = Steps::of_every_kind(seed);
    let mut others = 0;
    while steps.commits < 45 {
        match steps.random.below(43) {
            0 => steps.push(Step::Flush),
            1 => steps.push(Step::Compact),
            2 | 3 => {
                let budget = 1 << steps.random.below(15);
                steps.push(Step::Maintain(budget));
            }
            4 => steps.push(Step::Sync),
            5 => steps.push(Step::Close),
            6 => steps.push(Step::Kill),
            7 => {
                others += 1;
                steps.push(Step::Keyspace(format!("other {others}")));
            }
            8 => steps.push(Step::Snapshot),
            9 => steps.push(Step::Release),
            10 => steps.create_passing(),
            11 => steps.push(Step::DropPassing),
            12 => steps.conflict(Durability::Sync),
            _ => steps.any_commit(),
        }
    }
    let memtable_bytes = 1 << (9 + steps.random.below(5));
    Workload { memtable_bytes, ..steps.named("mixed") }
}

/// All of it where directories cannot be synced.
pub fn names_in_order(seed: u64) -> Workload {
    Workload { name: "names in order", names: Names::InOrder, ..mixed(seed) }
}

/// Appends that fail halfway and are cut back, amid commits that nobody syncs.
pub fn short_writes(seed: u64) -> Workload {
    let mut steps = Steps::new(seed);
    for _ in 0..10 {
        let count = 1 + steps.random.below(4);
        steps.commits(count, Durability::Buffered);
        let kind = [FaultKind::ShortWrite, FaultKind::NoSpace, FaultKind::ZeroWrite][steps.random.below(3)];
        steps.push(Step::Fault(Fault { kind, skip: 0, forever: false, only: Some(Operation::Append) }));
        steps.any_commit();
        if steps.random.one_in(3) {
            steps.push(Step::Sync);
        }
    }
    Workload { memtable_bytes: 1 << 20, ..steps.named("short writes") }
}

/// A manifest that grows past a mebibyte, so that the next begins: edits are
/// long where keys are, as they hold the bounds of tables.
pub fn manifest_rollover(seed: u64) -> Workload {
    let mut steps = Steps::new(seed);
    for _ in 0..9 {
        steps.commits += 1;
        steps.push(Step::Commit(Durability::Buffered, Commit::long_key(steps.commits, 60 << 10)));
        steps.push(Step::Flush);
        steps.push(Step::Compact);
    }
    (0..3).for_each(|_| steps.any_commit());
    steps.push(Step::Close);
    let quiet_steps = 15;
    Workload { memtable_bytes: 1 << 20, quiet_steps, ..steps.named("manifest rollover") }
}

/// A little of everything, for runs in which each call fails once.
pub fn sampler(seed: u64) -> Workload {
    let mut steps = Steps::of_every_kind(seed);
    (0..6).for_each(|_| steps.any_commit());
    steps.push(Step::Sync);
    steps.push(Step::Flush);
    steps.create_passing();
    (0..6).for_each(|_| steps.any_commit());
    steps.push(Step::Snapshot);
    steps.push(Step::Compact);
    steps.conflict(Durability::Buffered);
    steps.push(Step::DropPassing);
    steps.commits(1, Durability::Buffered);
    steps.push(Step::Close);
    steps.commits(3, Durability::Buffered);
    steps.push(Step::Kill);
    (0..5).for_each(|_| steps.any_commit());
    steps.push(Step::Maintain(1 << 14));
    steps.push(Step::Compact);
    steps.any_commit();
    steps.push(Step::Close);
    Workload { memtable_bytes: 1 << 10, ..steps.named("sampler") }
}

/// A workload from a seed.
pub type Make = fn(u64) -> Workload;

/// Every workload, the smallest first.
pub const ALL: [Make; 14] = [
    recovery,
    commits,
    flush,
    short_writes,
    keyspaces,
    compaction,
    reopening,
    rotation,
    ahead,
    mixed,
    names_in_order,
    manifest_rollover,
    passing,
    operations,
];
