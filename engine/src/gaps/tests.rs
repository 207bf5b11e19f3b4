//! Goal: nobody can tell from what scans answer that there are gaps. Method: by
//! example, what is learned and what ends it; then queues of random operations against
//! an ordered map, with snapshots, transactions, merges, expiry and a clock that moves
//! both ways. What threads do to each other is in `tests/schedules.rs`.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::AtomicU64 as Clock;
use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::api::{Database, DatabaseTransaction, Progress, ScanRange};
use crate::batch::WriteBatch;
use crate::db::{Db, Keyspace, Rows, Snapshot, Transaction};
use crate::key::Expiry;
use crate::keyspace::View;
use crate::options::{Background, Budget, Durability, Environment, KeyspaceOptions, MemtableKind, Options};
use crate::read::RowCursor;
use crate::storage::memory::MemoryStorage;

fn moment(seq: u64, now_ms: u64) -> Moment {
    Moment { seq: SequenceNumber(seq), now_ms }
}

fn edge(key: &str) -> Edge {
    Edge::Key(key.into())
}

/// A scan from `start` that met its first row at `end`.
fn walk<'a>(start: &'a str, end: Edge, moment: Moment) -> Walk<'a> {
    Walk { start: start.as_bytes(), end, moment, timeless: false }
}

fn put(gaps: &Gaps, seq: u64, key: &str) {
    gaps.note_put(SequenceNumber(seq), key.as_bytes());
}

fn end_of(gaps: &Gaps, start: &str, seq: u64) -> Option<Edge> {
    gaps.end_of(start.as_bytes(), moment(seq, 0), false)
}

#[test]
fn a_walk_that_has_seen_every_put_makes_a_gap() {
    let gaps = Gaps::default();
    put(&gaps, 7, "m");
    assert_eq!(end_of(&gaps, "", 9), None);
    gaps.learn(walk("b", edge("m"), moment(9, 0)));
    assert_eq!(end_of(&gaps, "b", 9), Some(edge("m")));
    assert_eq!(end_of(&gaps, "c", 20), Some(edge("m")));
    // Before it, at its end, and for a snapshot from before.
    assert_eq!(end_of(&gaps, "a", 9), None);
    assert_eq!(end_of(&gaps, "m", 9), None);
    assert_eq!(end_of(&gaps, "c", 8), None);
}

#[test]
fn a_walk_that_has_missed_a_put_begins_a_watch() {
    let gaps = Gaps::default();
    put(&gaps, 10, "f");
    gaps.learn(walk("b", edge("m"), moment(9, 0)));
    assert_eq!(end_of(&gaps, "b", 9), None);
    put(&gaps, 11, "k");
    // So has this one; the next but stops at what was put since.
    gaps.learn(walk("b", edge("m"), moment(9, 0)));
    assert_eq!(end_of(&gaps, "b", 20), None);
    gaps.learn(walk("b", edge("m"), moment(10, 0)));
    assert_eq!(end_of(&gaps, "b", 10), Some(edge("k")));
    // The watch has begun anew: what it knew of is seen.
    gaps.learn(walk("b", edge("m"), moment(11, 0)));
    assert_eq!(end_of(&gaps, "b", 11), Some(edge("m")));
}

#[test]
fn a_put_cuts_a_gap_and_the_next_walk_may_mend_it() {
    let gaps = Gaps::default();
    gaps.learn(walk("", Edge::Open, moment(9, 0)));
    assert_eq!(end_of(&gaps, "x", 9), Some(Edge::Open));
    put(&gaps, 10, "f");
    put(&gaps, 10, "x");
    assert_eq!(end_of(&gaps, "", 10), Some(edge("f")));
    assert_eq!(end_of(&gaps, "f", 10), None);
    put(&gaps, 11, "");
    assert_eq!(end_of(&gaps, "", 11), None);
    gaps.learn(walk("", edge("x"), moment(12, 0)));
    gaps.learn(walk("", edge("x"), moment(12, 0)));
    assert_eq!(end_of(&gaps, "", 12), Some(edge("x")));
}

#[test]
fn a_clock_that_goes_back_knows_nothing_of_it() {
    let gaps = Gaps::default();
    gaps.learn(walk("", edge("m"), moment(9, 50)));
    assert_eq!(gaps.end_of(b"", moment(9, 49), false), None);
    assert_eq!(gaps.end_of(b"", moment(9, 49), true), Some(edge("m")));
    gaps.learn(walk("c", edge("f"), moment(9, 49)));
    assert_eq!(gaps.end_of(b"", moment(9, 49), false), None);
    assert_eq!(gaps.end_of(b"c", moment(9, 49), false), Some(edge("f")));
    // Where nothing expires, it is so for those for whom nothing does.
    gaps.learn(Walk { timeless: true, ..walk("c", edge("g"), moment(9, 0)) });
    assert_eq!(gaps.end_of(b"c", moment(9, 0), true), Some(edge("g")));
    assert_eq!(gaps.end_of(b"c", moment(9, 99), false), None);
}

#[test]
fn one_gap_leads_to_another_and_those_least_used_go() {
    let gaps = Gaps::default();
    for start in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        gaps.learn(walk(start, edge(&format!("{start}9")), moment(9, 0)));
    }
    gaps.learn(walk("c9", edge("d"), moment(9, 0)));
    assert_eq!(end_of(&gaps, "c", 9), Some(edge("d9")));
    // Each is used but one.
    put(&gaps, 10, "z");
    for start in ["a", "b", "c", "d", "f", "g", "h"] {
        assert!(end_of(&gaps, start, 10).is_some());
    }
    gaps.learn(walk("i", edge("i9"), moment(10, 0)));
    assert_eq!(end_of(&gaps, "e", 10), None);
    assert!(end_of(&gaps, "i", 10).is_some());
    for _ in 0..IDLE_PUTS_MAX {
        put(&gaps, 11, "z");
    }
    assert_eq!(end_of(&gaps, "i", 11), None);
    assert!(!gaps.any.load(SeqCst));
}

/// All rows of a view, read at the last commit.
fn rows_of(db: &Db, keyspace: &Keyspace, view: &Arc<View>) -> Vec<Vec<u8>> {
    let (inner, view) = (Arc::clone(&keyspace.inner), Arc::clone(view));
    let all = (Bound::Unbounded, Bound::Unbounded);
    let now = moment(Database::stats(db).unwrap().last_sequence, 0);
    let mut rows = RowCursor::new(inner, view, all, now, false, None).unwrap();
    let next = || rows.advance().unwrap().then(|| rows.key().to_vec());
    std::iter::from_fn(next).collect()
}

/// A view that was taken before a memtable was set aside, read at a moment that was taken
/// after more was committed, does not show the latter: not the half of it either.
#[test]
fn a_view_that_lacks_what_came_later_knows_no_gap_of_then() {
    let db = Db::open_with(Arc::new(MemoryStorage::new()), Options::default()).unwrap();
    let keyspace = db.keyspace("k").unwrap();
    let view = keyspace.inner.view();
    let keys = [b"a", b"b", b"c", b"y"];
    let mut batch = db.batch();
    for key in keys {
        batch.put(&keyspace, key, b"");
    }
    batch.commit(Durability::Buffered).unwrap();
    Database::flush(&db).unwrap();
    let mut batch = db.batch();
    for key in keys {
        batch.delete(&keyspace, key);
    }
    batch.put(&keyspace, b"z", b"");
    batch.commit(Durability::Buffered).unwrap();
    assert_eq!(rows_of(&db, &keyspace, &keyspace.inner.view()), [b"z"]);
    let now = moment(2, 0);
    assert_eq!(keyspace.inner.gaps.end_of(b"", now, true), Some(edge("z")));
    assert_eq!(rows_of(&db, &keyspace, &view), keys);
}

/// Nor does such a view tell others of a gap.
#[test]
fn a_view_that_lacks_what_came_later_makes_no_gap_of_then() {
    let db = Db::open_with(Arc::new(MemoryStorage::new()), Options::default()).unwrap();
    let keyspace = db.keyspace("k").unwrap();
    for key in [b"a", b"b", b"c", b"d"] {
        keyspace.delete(key).unwrap();
    }
    let view = keyspace.inner.view();
    Database::flush(&db).unwrap();
    keyspace.put(b"b", b"").unwrap();
    assert!(rows_of(&db, &keyspace, &view).is_empty());
    assert_eq!(rows_of(&db, &keyspace, &keyspace.inner.view()), [b"b"]);
}

/// However long it lives, and whatever is flushed and merged meanwhile.
#[test]
fn the_head_of_a_queue_is_never_far() {
    const LENGTH: u64 = 300;
    const SCAN_EVERY: u64 = 10;
    let options = Options { memtable_bytes: 64 << 10, background: Background::Inline, ..Options::default() };
    let db = Db::open_with(Arc::new(MemoryStorage::new()), options).unwrap();
    let keyspace = db.keyspace("queue").unwrap();
    let key = |number: u64| number.to_be_bytes();
    (0..LENGTH).for_each(|number| keyspace.put(&key(number), &[7; 50]).unwrap());
    let (mut most, mut scans) = (0, 0);
    for head in 0..20_000 {
        keyspace.put(&key(LENGTH + head), &[7; 50]).unwrap();
        keyspace.delete(&key(head)).unwrap();
        if head % SCAN_EVERY == 0 {
            let view = keyspace.inner.view();
            let all = (Bound::Unbounded, Bound::Unbounded);
            let inner = Arc::clone(&keyspace.inner);
            let now = moment(Database::stats(&db).unwrap().last_sequence, 0);
            let mut rows = RowCursor::new(inner, view, all, now, false, None).unwrap();
            assert!(rows.advance().unwrap());
            assert_eq!(rows.key(), key(head + 1));
            most = most.max(rows.dead_keys());
            scans += 1;
        }
    }
    assert!(db.tables("queue").unwrap().is_some_and(|runs| !runs.is_empty()));
    assert!(most <= 3 * SCAN_EVERY as usize, "{most} dead keys were walked in one of {scans} scans");
}

/// A clock that only the test moves.
#[derive(Debug, Default)]
struct TestClock(Clock);

impl Environment for TestClock {
    fn monotonic_ms(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn unix_ms(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn random(&self) -> u64 {
        7
    }
}

/// What had expired is dropped, and then a scan learns from a view in which nothing
/// expires; whoever began before sees it all the same.
#[test]
fn a_reader_from_before_an_expiry_sees_what_was_there() {
    let clock = Arc::new(TestClock(Clock::new(1000)));
    let environment = Arc::clone(&clock) as Arc<dyn Environment>;
    let options = Options { background: Background::Inline, environment, ..Options::default() };
    let db = Db::open_with(Arc::new(MemoryStorage::new()), options).unwrap();
    let keyspace = db.keyspace("k").unwrap();
    keyspace.put_until(b"e", b"", Expiry(1100)).unwrap();
    db.flush().unwrap();
    for number in 0..=DEAD_KEYS_MIN as u8 {
        keyspace.delete(&[b'd', number]).unwrap();
    }
    let mut early = keyspace.range::<&[u8]>(..);
    clock.0.store(2000, Relaxed);
    while db.maintain(Budget::bytes(1 << 20)).unwrap() == Progress::More {}
    assert!(!keyspace.inner.view().version.expires(), "the table is dropped");
    assert!(keyspace.range::<&[u8]>(..).next().is_none());
    assert!(keyspace.inner.gaps.end_of(b"", moment(u64::MAX, 2000), true).is_some());
    assert_eq!(&early.next().unwrap().unwrap().0[..], b"e");
}

/// Values, and when they expire; 0 is never.
type Map = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

type Row = (Vec<u8>, Vec<u8>);

/// Queues in one keyspace.
const QUEUES: [&str; 3] = ["", "a/", "b/"];

struct Queues {
    db: Db,
    keyspace: Keyspace,
    clock: Arc<TestClock>,
    /// The clock may go back, and so nothing may be merged: what had expired then is
    /// gone for good.
    back: bool,
    merges: bool,
    map: Map,
    tails: [u64; QUEUES.len()],
    snapshots: Vec<(Snapshot, Map)>,
    held: Vec<(Rows, Vec<Row>)>,
    random: u64,
    /// Scans that began in a gap.
    shortcuts: usize,
}

impl Queues {
    fn new(seed: u64) -> Queues {
        let clock = Arc::new(TestClock(Clock::new(1000)));
        let back = seed.is_multiple_of(3);
        let options = Options {
            memtable_bytes: if back { 1 << 20 } else { 1 << (11 + seed % 4) },
            target_file_bytes: 4 << 10,
            background: Background::Inline,
            environment: Arc::clone(&clock) as Arc<dyn Environment>,
            ..Options::default()
        };
        let db = Db::open_with(Arc::new(MemoryStorage::new()), options).unwrap();
        let merges = seed.is_multiple_of(2);
        let options = KeyspaceOptions {
            merge_operator: merges.then(|| "append".into()),
            memtable: Some(MemtableKind::ALL[seed as usize % MemtableKind::ALL.len()]),
            ..KeyspaceOptions::default()
        };
        let keyspace = db.keyspace_with("queues", options).unwrap();
        let (snapshots, held) = (Vec::new(), Vec::new());
        Queues {
            db,
            keyspace,
            clock,
            back,
            merges,
            map: Map::new(),
            tails: [0; QUEUES.len()],
            snapshots,
            held,
            random: seed.wrapping_mul(2).wrapping_add(1),
            shortcuts: 0,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.random >> 33) % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn key(&self, queue: usize, number: u64) -> Vec<u8> {
        format!("{}{number:04}", QUEUES[queue]).into_bytes()
    }

    /// Any key of a queue, often of its dead part.
    fn any_key(&mut self, queue: usize) -> Vec<u8> {
        let number = self.below(self.tails[queue] + 3);
        self.key(queue, number)
    }

    fn now(&self) -> u64 {
        self.clock.0.load(Relaxed)
    }

    fn value(&mut self) -> Vec<u8> {
        let (length, byte) = (self.below(20), self.below(256));
        vec![byte as u8; length as usize]
    }

    /// Puts `key` or merges into it, also in the model.
    fn fill(&mut self, batch: &mut WriteBatch, map: &mut Map, key: &[u8]) {
        let (value, now) = (self.value(), self.now());
        if self.merges && self.one_in(3) {
            batch.merge(&self.keyspace, key, &value);
            let base = map.get(key).filter(|cell| is_live(cell, now)).cloned();
            let value = [base.map_or(Vec::new(), |(base, _)| base), value].concat();
            map.insert(key.to_vec(), (value, 0));
            return;
        }
        // A value that expires under operands is for another test.
        let expires_at = if !self.merges && self.one_in(4) { now + 1 + self.below(60) } else { 0 };
        batch.put_until(&self.keyspace, key, &value, Expiry(expires_at));
        map.insert(key.to_vec(), (value, expires_at));
    }

    /// Something that happens to queues, as a batch, and to `map`.
    fn change(&mut self, map: &mut Map) -> WriteBatch {
        let mut batch = WriteBatch::new();
        let queue = self.below(QUEUES.len() as u64) as usize;
        let prefix = QUEUES[queue].as_bytes();
        match self.below(16) {
            0..6 => {
                for _ in 0..1 + self.below(3) {
                    let key = self.key(queue, self.tails[queue]);
                    self.tails[queue] += 1;
                    self.fill(&mut batch, map, &key);
                }
            }
            6..12 => {
                let count = 1 + self.below(6) as usize;
                let head = map.keys().filter(|key| key.starts_with(prefix)).take(count).cloned();
                for key in head.collect::<Vec<_>>() {
                    batch.delete(&self.keyspace, &key);
                    map.remove(&key);
                }
            }
            12 => {
                let end = self.any_key(queue);
                batch.delete_range(&self.keyspace, prefix, &end);
                map.retain(|key, _| key.as_slice() < prefix || *key >= end);
            }
            13 => {
                let key = self.any_key(queue);
                batch.delete(&self.keyspace, &key);
                map.remove(&key);
            }
            _ => {
                let key = self.any_key(queue);
                self.fill(&mut batch, map, &key);
            }
        }
        batch
    }

    fn write(&mut self) {
        let mut map = std::mem::take(&mut self.map);
        let batch = self.change(&mut map);
        self.map = map;
        self.db_write(batch);
    }

    fn db_write(&self, ops: WriteBatch) {
        Database::write(&self.db, ops, Durability::Buffered).unwrap();
    }

    fn range(&mut self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let queue = self.below(QUEUES.len() as u64) as usize;
        if self.one_in(3) {
            let ScanRange { start, end, .. } = ScanRange::prefix(QUEUES[queue].as_bytes());
            return (start, end);
        }
        let start = match self.below(4) {
            0 | 1 => Bound::Unbounded,
            2 => Bound::Included(self.any_key(queue)),
            _ => Bound::Excluded(self.any_key(queue)),
        };
        let end = match self.below(6) {
            0 => Bound::Included(self.any_key(queue)),
            1 => Bound::Excluded(self.any_key(queue)),
            _ => Bound::Unbounded,
        };
        let reversed = match (&start, &end) {
            (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
            _ => false,
        };
        if reversed { (start, Bound::Unbounded) } else { (start, end) }
    }

    fn expected(&self, map: &Map, range: &(Bound<Vec<u8>>, Bound<Vec<u8>>)) -> Vec<Row> {
        let rows = map.range::<Vec<u8>, _>(range.clone()).filter(|(_, cell)| is_live(cell, self.now()));
        rows.map(|(key, (value, _))| (key.clone(), value.clone())).collect()
    }

    /// A few rows, or all.
    fn compare(
        &mut self,
        rows: impl Iterator<Item = crate::Result<(bytes::Bytes, bytes::Bytes)>>,
        expected: &[Row],
    ) {
        let limit = if self.one_in(2) { 1 + self.below(4) as usize } else { usize::MAX };
        let found: Vec<Row> =
            rows.take(limit).map(|row| row.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap()).collect();
        let expected: Vec<Row> = expected.iter().take(limit).cloned().collect();
        let keys = |rows: &[Row]| -> Vec<String> {
            rows.iter().map(|(key, _)| String::from_utf8_lossy(key).into()).collect()
        };
        assert_eq!(keys(&found), keys(&expected));
        assert_eq!(found, expected);
    }

    fn scan(&mut self) {
        let range = self.range();
        let start = match &range.0 {
            Bound::Unbounded => &[][..],
            Bound::Included(key) | Bound::Excluded(key) => key,
        };
        let now = moment(u64::MAX, self.now());
        self.shortcuts += usize::from(self.keyspace.inner.gaps.end_of(start, now, false).is_some());
        if self.one_in(3) && !self.snapshots.is_empty() {
            let index = self.below(self.snapshots.len() as u64) as usize;
            let expected = self.expected(&self.snapshots[index].1, &range);
            let rows = self.snapshots[index].0.range(&self.keyspace, range);
            return self.compare(rows, &expected);
        }
        let expected = self.expected(&self.map, &range);
        let rows = self.keyspace.range(range);
        self.compare(rows, &expected);
    }

    /// A transaction that writes and scans, and is committed or not.
    fn transact(&mut self) {
        let mut transaction: Transaction = self.db.transaction();
        let mut map = self.map.clone();
        for _ in 0..1 + self.below(4) {
            if self.one_in(3) {
                let batch = self.change(&mut map);
                DatabaseTransaction::write(&mut transaction, batch).unwrap();
            }
            let range = self.range();
            let expected = self.expected(&map, &range);
            let rows = transaction.range(&self.keyspace, range).unwrap();
            self.compare(rows, &expected);
        }
        if self.one_in(2) {
            transaction.commit(Durability::Buffered).unwrap();
            self.map = map;
        }
    }

    fn step(&mut self) {
        match self.below(40) {
            0..20 => self.write(),
            20..31 => self.scan(),
            31..33 => self.transact(),
            33 => {
                let snapshot = (self.db.snapshot(), self.map.clone());
                self.snapshots.push(snapshot);
            }
            34 => drop(self.snapshots.pop()),
            35 if !self.back => {
                // At the time of the scan, whenever it is walked.
                let range = self.range();
                let expected = self.expected(&self.map, &range);
                self.held.push((self.keyspace.range(range), expected));
            }
            36 => {
                if let Some((rows, expected)) = self.held.pop() {
                    self.compare(rows, &expected);
                }
            }
            37 if !self.back && self.one_in(2) => Database::flush(&self.db).unwrap(),
            37 if !self.back && self.one_in(3) => Database::compact(&self.db).unwrap(),
            38 => {
                let step = self.below(40);
                self.clock.0.fetch_add(step, Relaxed);
            }
            39 if self.back => {
                let step = self.below(60);
                self.clock.0.store((self.now() - step).max(1000), Relaxed);
            }
            _ => self.write(),
        }
    }
}

fn is_live((_, expires_at): &(Vec<u8>, u64), now: u64) -> bool {
    *expires_at == 0 || *expires_at > now
}

#[test]
fn queues_of_random_operations_match_a_map() {
    let seeds = std::env::var("DURAMEN_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let mut shortcuts = 0;
    for seed in 0..seeds {
        let mut queues = Queues::new(seed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..600).for_each(|_| queues.step());
            queues.shortcuts
        }));
        match outcome {
            Ok(count) => shortcuts += count,
            Err(panic) => {
                eprintln!("failed with seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(shortcuts as u64 > 20 * seeds, "{shortcuts} scans began in a gap");
}
