//! What every kind of memtable must do, each kind by the same tests: by example,
//! by a model, and with readers beside writers.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread;

use bytes::Bytes;

use super::Memtable;
use crate::cursor::Cursor;
use crate::key::{Entry, Expiry, KEY_BYTES_MAX, SequenceNumber, ValueKind};
use crate::options::MemtableKind;

/// All tests for one kind.
macro_rules! behaves {
    ($module:ident, $kind:expr) => {
        mod $module {
            use super::*;

            #[test]
            fn empty() {
                super::empty($kind);
            }

            #[test]
            fn versions_of_a_key() {
                super::versions_of_a_key($kind);
            }

            #[test]
            fn every_key_has_its_place() {
                super::every_key_has_its_place($kind);
            }

            #[test]
            fn what_an_entry_has() {
                super::what_an_entry_has($kind);
            }

            #[test]
            fn cursors_live_through_inserts() {
                super::cursors_live_through_inserts($kind);
            }

            #[test]
            fn a_reader_walks_what_it_needs() {
                (1..=40).for_each(|seed| super::a_reader_walks_what_it_needs($kind, seed));
            }

            #[test]
            fn counts() {
                super::counts($kind);
            }

            #[test]
            fn like_a_model() {
                for seed in 1..=60 {
                    super::like_a_model($kind, seed);
                }
            }

            #[test]
            fn readers_beside_a_writer() {
                super::readers_beside_writers($kind, 1);
            }
        }
    };
}

behaves!(sorted, MemtableKind::Sorted);
behaves!(skiplist, MemtableKind::SkipList);
behaves!(trie, MemtableKind::Trie);

/// Only this kind promises it.
#[test]
fn a_skip_list_has_many_writers() {
    readers_beside_writers(MemtableKind::SkipList, 4);
}

fn put(key: &[u8], seq: u64, value: &[u8]) -> Entry {
    Entry {
        key: Bytes::copy_from_slice(key),
        seq: SequenceNumber(seq),
        kind: ValueKind::Put,
        expires_at: Expiry::NEVER,
        value: Bytes::copy_from_slice(value),
    }
}

fn here(cursor: &dyn Cursor) -> Option<(Vec<u8>, u64)> {
    cursor.entry().map(|entry| (entry.key.to_vec(), entry.seq.0))
}

/// Where the cursor stands from now to the end.
fn rest(cursor: &mut dyn Cursor, step: fn(&mut dyn Cursor)) -> Vec<(Vec<u8>, u64)> {
    let mut found = Vec::new();
    while let Some(entry) = here(cursor) {
        found.push(entry);
        step(cursor);
    }
    found
}

fn forward(cursor: &mut dyn Cursor) {
    cursor.next().unwrap();
}

fn backward(cursor: &mut dyn Cursor) {
    cursor.prev().unwrap();
}

fn empty(kind: MemtableKind) {
    let table = super::new(kind);
    assert_eq!((table.entries(), table.get(b"", SequenceNumber::MAX)), (0, None));
    let mut cursor = Arc::clone(&table).cursor(None);
    assert_eq!(here(&*cursor), None, "a fresh cursor stands nowhere");
    cursor.seek_first().unwrap();
    assert_eq!(here(&*cursor), None);
    cursor.seek_last().unwrap();
    assert_eq!(here(&*cursor), None);
    cursor.seek(b"", SequenceNumber::MAX).unwrap();
    assert_eq!(here(&*cursor), None);
    cursor.seek_before(b"zzz", SequenceNumber(0)).unwrap();
    assert_eq!(here(&*cursor), None);
    // The cursor keeps the table.
    table.insert(put(b"a", 1, b"1").borrowed());
    drop(table);
    cursor.seek_first().unwrap();
    assert_eq!(here(&*cursor), Some((b"a".to_vec(), 1)));
    cursor.next().unwrap();
    assert_eq!(here(&*cursor), None);
}

fn versions_of_a_key(kind: MemtableKind) {
    let table = super::new(kind);
    for seq in [5, 9, 2] {
        table.insert(put(b"k", seq, seq.to_string().as_bytes()).borrowed());
    }
    table.insert(put(b"k2", 7, b"other").borrowed());
    table.insert(put(b"", 3, b"empty").borrowed());
    let value = |seq| table.get(b"k", SequenceNumber(seq)).map(|entry| (entry.seq.0, entry.value));
    assert_eq!(value(0), None);
    assert_eq!(value(1), None);
    for (at, seq) in [(2, 2), (4, 2), (5, 5), (8, 5), (9, 9), (SequenceNumber::MAX.0, 9)] {
        assert_eq!(value(at), Some((seq, seq.to_string().into())), "at {at}");
    }
    assert_eq!(table.get(b"k1", SequenceNumber::MAX), None);
    assert_eq!(table.get(b"k2", SequenceNumber(6)), None);
    assert_eq!(table.get(b"", SequenceNumber(3)).map(|entry| entry.value), Some("empty".into()));

    let order =
        [(&b""[..], 3), (b"k", 9), (b"k", 5), (b"k", 2), (b"k2", 7)].map(|(key, s)| (key.to_vec(), s));
    let mut cursor = Arc::clone(&table).cursor(None);
    cursor.seek_first().unwrap();
    assert_eq!(rest(&mut *cursor, forward), order);
    cursor.seek_last().unwrap();
    assert!(rest(&mut *cursor, backward).iter().eq(order.iter().rev()));
    for (seq, at) in [(10, 1), (9, 1), (8, 2), (5, 2), (2, 3), (1, 4), (0, 4)] {
        cursor.seek(b"k", SequenceNumber(seq)).unwrap();
        assert_eq!(here(&*cursor).as_ref(), Some(&order[at]), "from k at {seq}");
        cursor.seek_before(b"k", SequenceNumber(seq)).unwrap();
        assert_eq!(here(&*cursor).as_ref(), Some(&order[at - 1]), "before k at {seq}");
    }
    cursor.seek(b"k2", SequenceNumber(6)).unwrap();
    assert_eq!(here(&*cursor), None);
    cursor.seek_before(b"", SequenceNumber(3)).unwrap();
    assert_eq!(here(&*cursor), None);
}

/// Keys that are hard to keep apart or in order: prefixes of each other, zeros,
/// long ones, and so many that share a prefix that every byte comes next.
fn hard_keys() -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = vec![
        vec![],
        vec![0],
        vec![0, 0],
        vec![0, 0, 0],
        vec![0, 255],
        vec![255],
        vec![255, 0],
        vec![255, 255],
        b"a".to_vec(),
        b"a\0".to_vec(),
        b"a\0\0".to_vec(),
        b"a\0b".to_vec(),
        b"a\x01".to_vec(),
        b"ab".to_vec(),
        b"abc".to_vec(),
        b"abcdefghijklmnopqrstuvwxyz".to_vec(),
        b"abcdefghijklmnopqrstuvwxyy".to_vec(),
        b"abcdefghijklmnop".to_vec(),
        b"abcdefghijklmnoq".to_vec(),
        vec![b'l'; KEY_BYTES_MAX],
        vec![b'l'; KEY_BYTES_MAX - 1],
        [&vec![b'l'; KEY_BYTES_MAX - 1][..], b"m"].concat(),
        [&vec![b'l'; 1000][..], b"\0"].concat(),
        vec![b'l'; 1000],
    ];
    keys.extend((0..=255).map(|byte| vec![b'p', b'q', byte, byte.wrapping_mul(7)]));
    keys.extend((0..=255).map(|byte| vec![b'p', b'q', 17, 119, byte]));
    keys
}

fn every_key_has_its_place(kind: MemtableKind) {
    let mut sorted = hard_keys();
    sorted.sort();
    let descending = sorted.iter().rev().cloned().collect();
    for (name, keys) in [("mixed", hard_keys()), ("ascending", sorted.clone()), ("descending", descending)] {
        let table = super::new(kind);
        for (seq, key) in keys.iter().enumerate() {
            assert_eq!(table.get(key, SequenceNumber::MAX), None, "{name}");
            table.insert(put(key, seq as u64 + 1, &seq.to_le_bytes()).borrowed());
        }
        for (seq, key) in keys.iter().enumerate() {
            let found = table.get(key, SequenceNumber::MAX).map(|found| found.value);
            assert_eq!(found, Some(seq.to_le_bytes().to_vec().into()), "{name}");
        }
        let key = |(key, _): (Vec<u8>, u64)| key;
        let mut cursor = Arc::clone(&table).cursor(None);
        cursor.seek_first().unwrap();
        assert!(rest(&mut *cursor, forward).into_iter().map(key).eq(sorted.iter().cloned()), "{name}");
        cursor.seek_last().unwrap();
        assert!(rest(&mut *cursor, backward).into_iter().map(key).eq(sorted.iter().rev().cloned()), "{name}");
        for (at, probe) in sorted.iter().enumerate() {
            cursor.seek(probe, SequenceNumber::MAX).unwrap();
            assert_eq!(here(&*cursor).map(key).as_ref(), Some(probe), "{name}");
            cursor.seek(probe, SequenceNumber(0)).unwrap();
            assert_eq!(here(&*cursor).map(key).as_ref(), sorted.get(at + 1), "{name}");
            cursor.seek_before(probe, SequenceNumber::MAX).unwrap();
            let before = at.checked_sub(1).map(|at| &sorted[at]);
            assert_eq!(here(&*cursor).map(key).as_ref(), before, "{name}");
            cursor.seek_before(probe, SequenceNumber(0)).unwrap();
            assert_eq!(here(&*cursor).map(key).as_ref(), Some(probe), "{name}");
        }
    }
}

fn what_an_entry_has(kind: MemtableKind) {
    let table = super::new(kind);
    let kinds = [ValueKind::Put, ValueKind::Delete, ValueKind::Merge];
    for (seq, value_kind) in (1..).zip(kinds) {
        let expires_at = Expiry(seq * 100 % 300);
        table.insert(Entry { kind: value_kind, expires_at, ..put(b"key", seq, &[seq as u8; 3]) }.borrowed());
    }
    let mut cursor = Arc::clone(&table).cursor(None);
    cursor.seek_first().unwrap();
    for (seq, value_kind) in (1..).zip(kinds).collect::<Vec<_>>().into_iter().rev() {
        let found = table.get(b"key", SequenceNumber(seq)).unwrap();
        assert_eq!((found.kind, found.expires_at), (value_kind, Expiry(seq * 100 % 300)));
        assert_eq!(cursor.value(), found.value);
        assert_eq!(cursor.entry(), Some(found.with_key(b"key").borrowed()));
        cursor.next().unwrap();
    }
}

fn cursors_live_through_inserts(kind: MemtableKind) {
    let table = super::new(kind);
    let key = |number: u64| format!("{number:05}").into_bytes();
    let before: Vec<(Vec<u8>, u64)> = (0..400).map(|number| (key(number * 10), number + 1)).collect();
    before.iter().for_each(|(key, seq)| table.insert(put(key, *seq, b"").borrowed()));
    for reverse in [false, true] {
        let mut cursor = Arc::clone(&table).cursor(None);
        if reverse {
            cursor.seek_last().unwrap()
        } else {
            cursor.seek_first().unwrap()
        }
        let (mut found, mut seq) = (Vec::new(), 10_000 + u64::from(reverse) * 10_000);
        while let Some((at, version)) = here(&*cursor) {
            // Around the cursor: a new version of its key, and neighbours.
            let number = u64::from(reverse) * 5 + at.iter().fold(0, |n, b| n * 10 + u64::from(b - b'0'));
            if version <= 400 {
                found.push((at.clone(), version));
                for near in [at, key(number + 1), key(number.saturating_sub(1)), key(seq), key(seq - 9000)] {
                    seq += 1;
                    table.insert(put(&near, seq, b"new").borrowed());
                }
            }
            if reverse { cursor.prev().unwrap() } else { cursor.next().unwrap() }
        }
        if reverse {
            found.reverse();
        }
        assert_eq!(found, before, "reverse: {reverse}");
    }
}

/// Neither what is newer than the reader, nor what a put or a tombstone hides from it,
/// of keys with few and with hundreds of versions.
fn a_reader_walks_what_it_needs(kind: MemtableKind, seed: u64) {
    let mut random = Random(seed);
    let table = super::new(kind);
    let mut model: BTreeMap<(Vec<u8>, Reverse<u64>), ValueKind> = BTreeMap::new();
    let operands = random.below(10);
    let hot: Vec<Vec<u8>> = (0..5).map(|_| random.key()).collect();
    let entries = random.below(1500);
    for seq in 1..=entries {
        let key = if random.below(2) == 0 { hot[random.below(5) as usize].clone() } else { random.key() };
        let kind = match random.below(10) {
            n if n < operands => ValueKind::Merge,
            9 => ValueKind::Delete,
            _ => ValueKind::Put,
        };
        table.insert(Entry { kind, ..put(&key, seq, b"") }.borrowed());
        model.insert((key, Reverse(seq)), kind);
    }
    for _ in 0..20 {
        let (start, reader) = (random.key(), random.below(entries + 2));
        let mut cursor = Arc::clone(&table).cursor(Some(SequenceNumber(reader)));
        cursor.seek(&start, SequenceNumber::MAX).unwrap();
        let mut hidden: Option<&[u8]> = None;
        let mut expected = Vec::new();
        for ((key, Reverse(seq)), kind) in model.range((start, Reverse(u64::MAX))..) {
            if *seq <= reader && hidden != Some(key) {
                expected.push((key.clone(), *seq));
                hidden = (*kind != ValueKind::Merge).then_some(key);
            }
        }
        assert_eq!(rest(&mut *cursor, forward), expected, "seed {seed}, reader {reader}");
    }
}

fn counts(kind: MemtableKind) {
    let table = super::new(kind);
    let (mut entries, mut contents) = (0, 0);
    for (seq, key) in (1..).zip(hard_keys()) {
        let value = vec![7; seq as usize % 50];
        let before = table.bytes();
        table.insert(put(&key, seq, &value).borrowed());
        entries += 1;
        contents += key.len() + value.len();
        assert!(table.bytes() >= before);
        assert_eq!(table.entries(), entries);
        assert!(table.bytes() >= contents);
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }

    /// Few bytes of few kinds, so that keys share prefixes and come again.
    fn key(&mut self) -> Vec<u8> {
        let len = match self.below(12) {
            0 => 0,
            1 => 30 + self.below(300),
            _ => self.below(5),
        };
        (0..len).map(|at| if at < 25 { [0, 1, 97, 255][self.below(4) as usize] } else { 97 }).collect()
    }
}

/// Internal keys in their order, and values.
type Model = BTreeMap<(Vec<u8>, Reverse<u64>), Vec<u8>>;

/// Random inserts, gets and walks. A walk sees what was there when it began,
/// whatever is inserted meanwhile.
fn like_a_model(kind: MemtableKind, seed: u64) {
    let mut random = Random(seed);
    let table = super::new(kind);
    let mut model = Model::new();
    let mut walk = Walk::new(&table, 0);
    let mut seq = 0_u64;
    for step in 0..random.below(1500) {
        let context = format!("seed {seed}, step {step}");
        match random.below(10) {
            0..4 => {
                for _ in 0..random.below(4) {
                    seq += 1;
                    let (key, value) = (random.key(), seq.to_le_bytes().to_vec());
                    table.insert(put(&key, seq, &value).borrowed());
                    model.insert((key, Reverse(seq)), value);
                }
            }
            4 | 5 => {
                let (key, at) = (random.key(), random.below(seq + 2));
                let mut newer = model.range((key.clone(), Reverse(at))..);
                let expected = newer.next().filter(|((found, _), _)| *found == key);
                let found = table.get(&key, SequenceNumber(at));
                let found = found.map(|found| ((key, Reverse(found.seq.0)), found.value.to_vec()));
                assert_eq!(found.as_ref().map(|(key, value)| (key, value)), expected, "{context}");
            }
            6 if random.below(8) == 0 => walk = Walk::new(&table, seq),
            _ => walk.step(&mut random, &model, &context),
        }
    }
    assert_eq!(table.entries(), model.len(), "seed {seed}");
}

/// A cursor of a reader that skips what is newer than when it began, and where it
/// should stand.
struct Walk {
    cursor: Box<dyn Cursor + Send>,
    seq: u64,
    expected: Option<(Vec<u8>, Reverse<u64>)>,
}

impl Walk {
    fn new(table: &Arc<dyn Memtable>, seq: u64) -> Self {
        Walk { cursor: Arc::clone(table).cursor(None), seq, expected: None }
    }

    fn step(&mut self, random: &mut Random, model: &Model, context: &str) {
        let probe = (random.key(), Reverse(random.below(self.seq + 2)));
        let (key, seq) = (&probe.0[..], SequenceNumber(probe.1.0));
        let all = (Bound::Unbounded, Bound::Unbounded);
        let (range, backward) = match (random.below(12), self.expected.take()) {
            (0, _) => {
                self.cursor.seek_first().unwrap();
                (all, false)
            }
            (1, _) => {
                self.cursor.seek_last().unwrap();
                (all, true)
            }
            (2, _) => {
                self.cursor.seek(key, seq).unwrap();
                ((Bound::Included(probe), Bound::Unbounded), false)
            }
            (3, _) => {
                self.cursor.seek_before(key, seq).unwrap();
                ((Bound::Unbounded, Bound::Excluded(probe)), true)
            }
            (4..9, Some(at)) => {
                self.cursor.next().unwrap();
                ((Bound::Excluded(at), Bound::Unbounded), false)
            }
            (_, Some(at)) => {
                self.cursor.prev().unwrap();
                ((Bound::Unbounded, Bound::Excluded(at)), true)
            }
            (_, None) => return,
        };
        let mut seen = model.range(range).map(|(key, _)| key).filter(|(_, seq)| seq.0 <= self.seq);
        self.expected = if backward { seen.next_back() } else { seen.next() }.cloned();
        while self.cursor.entry().is_some_and(|entry| entry.seq.0 > self.seq) {
            if backward { self.cursor.prev().unwrap() } else { self.cursor.next().unwrap() }
        }
        let found = self.cursor.entry().map(|entry| (entry.key.to_vec(), Reverse(entry.seq.0)));
        assert_eq!(found, self.expected, "{context}");
        if let Some(found) = &found {
            assert_eq!(self.cursor.value(), model[found], "{context}");
        }
    }
}

/// Writers insert keys of their own while others walk in both directions: what a
/// reader finds is in order and whole, and what had been inserted before it began
/// is there.
fn readers_beside_writers(kind: MemtableKind, writers: usize) {
    const KEYS: usize = 2000;
    // Each key once, in an order that jumps about.
    let key = |writer: usize, number: usize| format!("{:04}/{writer}", number * 1237 % KEYS);
    let value = |key: &[u8], seq: u64| [key, &seq.to_le_bytes()].concat();
    let table = super::new(kind);
    let done: Vec<AtomicUsize> = (0..writers).map(|_| AtomicUsize::new(0)).collect();
    thread::scope(|scope| {
        for writer in 0..writers {
            let (table, done) = (&table, &done);
            scope.spawn(move || {
                for number in 0..KEYS {
                    let (key, seq) = (key(writer, number), (number * writers + writer) as u64 + 1);
                    table.insert(put(key.as_bytes(), seq, &value(key.as_bytes(), seq)).borrowed());
                    done[writer].store(number + 1, Release);
                }
            });
        }
        for reverse in [false, true] {
            let (table, done) = (&table, &done);
            scope.spawn(move || {
                loop {
                    let began: Vec<usize> = done.iter().map(|done| done.load(Acquire)).collect();
                    let mut cursor = Arc::clone(table).cursor(None);
                    if reverse {
                        cursor.seek_last().unwrap()
                    } else {
                        cursor.seek_first().unwrap()
                    }
                    let mut found: Vec<Vec<u8>> = Vec::new();
                    while let Some(entry) = cursor.entry() {
                        assert_eq!(entry.value, value(entry.key, entry.seq.0));
                        found.push(entry.key.to_vec());
                        if reverse { cursor.prev().unwrap() } else { cursor.next().unwrap() }
                    }
                    if reverse {
                        found.reverse();
                    }
                    assert!(found.is_sorted_by(|a, b| a < b));
                    for (writer, count) in began.iter().enumerate() {
                        for key in (0..*count).map(|number| key(writer, number)) {
                            assert!(found.binary_search(&key.clone().into_bytes()).is_ok(), "{key}");
                            assert!(table.get(key.as_bytes(), SequenceNumber::MAX).is_some(), "{key}");
                        }
                    }
                    if began.iter().all(|count| *count == KEYS) {
                        return;
                    }
                }
            });
        }
    });
    assert_eq!(table.entries(), writers * KEYS);
}
