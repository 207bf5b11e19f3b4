//! Tries by example and against an ordered map: keys that are prefixes of each
//! other, nodes of every kind, versions in any order, cursors beside inserts.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::super::arena::Arena;
use super::node::{Few, Kind, Node};
use super::tree;
use super::*;
use crate::key::{Expiry, KEY_BYTES_MAX, ValueKind, shared_prefix};

/// Internal keys in their order, and what else an entry has.
type Model = BTreeMap<(Vec<u8>, Reverse<u64>), Rest>;

type Rest = (ValueKind, Expiry, Vec<u8>);

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }

    /// Few bytes of few kinds, so that keys share prefixes and come again; now and
    /// then any bytes, or a long run in the middle.
    fn key(&mut self) -> Vec<u8> {
        let few = |random: &mut Random, len| -> Vec<u8> {
            (0..len).map(|_| [0, 1, b'a', 255][random.below(4) as usize]).collect()
        };
        let len = self.below(5);
        match self.below(12) {
            0 => (0..self.below(4)).map(|_| self.below(256) as u8).collect(),
            1 => [few(self, len), vec![b'a'; 8 * self.below(20) as usize], few(self, 2)].concat(),
            _ => few(self, len),
        }
    }

    fn entry(&mut self, key: Vec<u8>, seq: u64) -> Entry {
        let kind = [ValueKind::Put, ValueKind::Delete, ValueKind::Merge][self.below(3) as usize];
        let value = seq.to_le_bytes()[..self.below(9) as usize].to_vec();
        let expires_at = Expiry(self.below(3) * 100);
        Entry { key: key.into(), seq: SequenceNumber(seq), kind, expires_at, value: value.into() }
    }
}

fn get(table: &TrieMemtable, key: &[u8], seq: SequenceNumber) -> Option<Entry> {
    table.get(key, seq).map(|found| found.with_key(key))
}

fn put(key: &[u8], seq: u64) -> Entry {
    Entry {
        key: Bytes::copy_from_slice(key),
        seq: SequenceNumber(seq),
        kind: ValueKind::Put,
        expires_at: Expiry::NEVER,
        value: Bytes::copy_from_slice(&seq.to_le_bytes()),
    }
}

fn modelled((internal, rest): (&(Vec<u8>, Reverse<u64>), &Rest)) -> Entry {
    Entry {
        key: internal.0.clone().into(),
        seq: SequenceNumber(internal.1.0),
        kind: rest.0,
        expires_at: rest.1,
        value: rest.2.clone().into(),
    }
}

fn add(table: &TrieMemtable, model: &mut Model, entry: Entry) {
    let rest = (entry.kind, entry.expires_at, entry.value.to_vec());
    model.insert((entry.key.to_vec(), Reverse(entry.seq.0)), rest);
    table.insert(entry.borrowed());
}

/// The entry under the cursor; its value asked for both ways.
fn here(cursor: &dyn Cursor) -> Option<Entry> {
    let entry = cursor.entry()?;
    assert_eq!(entry.value, cursor.value());
    let (key, value) = (Bytes::copy_from_slice(entry.key), cursor.value());
    Some(Entry { key, seq: entry.seq, kind: entry.kind, expires_at: entry.expires_at, value })
}

/// The table holds what the model does, in both directions and at every seek.
fn check(table: &Arc<TrieMemtable>, model: &Model, context: &str) {
    assert_eq!(table.entries(), model.len(), "{context}");
    let all: Vec<Entry> = model.iter().map(modelled).collect();
    let mut cursor = Arc::clone(table).cursor(None);
    cursor.seek_first().unwrap();
    for entry in &all {
        assert_eq!(here(&*cursor).as_ref(), Some(entry), "{context}");
        cursor.next().unwrap();
    }
    assert_eq!(here(&*cursor), None, "{context}");
    cursor.seek_last().unwrap();
    for entry in all.iter().rev() {
        assert_eq!(here(&*cursor).as_ref(), Some(entry), "{context}");
        cursor.prev().unwrap();
    }
    assert_eq!(here(&*cursor), None, "{context}");
    for (at, entry) in all.iter().enumerate() {
        let (key, seq) = (&entry.key, entry.seq);
        assert_eq!(get(table, key, seq).as_ref(), Some(entry), "{context}");
        cursor.seek(key, seq).unwrap();
        assert_eq!(here(&*cursor).as_ref(), Some(entry), "{context}");
        cursor.seek_before(key, seq).unwrap();
        assert_eq!(here(&*cursor).as_ref(), at.checked_sub(1).map(|at| &all[at]), "{context}");
        let older = SequenceNumber(seq.0 - 1);
        cursor.seek(key, older).unwrap();
        assert_eq!(here(&*cursor).as_ref(), all.get(at + 1), "{context}");
        cursor.seek_before(key, older).unwrap();
        assert_eq!(here(&*cursor).as_ref(), Some(entry), "{context}");
    }
}

/// One seek anywhere and steps from there, on both sides.
fn walk(random: &mut Random, cursor: &mut dyn Cursor, model: &Model, context: &str) {
    let probe = (random.key(), Reverse(random.below(40)));
    let (key, seq) = (&probe.0[..], SequenceNumber(probe.1.0));
    let mut expected = match random.below(6) {
        0 => {
            cursor.seek_first().unwrap();
            model.iter().next()
        }
        1 => {
            cursor.seek_last().unwrap();
            model.iter().next_back()
        }
        2 | 3 => {
            cursor.seek(key, seq).unwrap();
            model.range(&probe..).next()
        }
        _ => {
            cursor.seek_before(key, seq).unwrap();
            model.range(..&probe).next_back()
        }
    };
    // More of one direction than of the other, to get through chunks.
    let bias = 1 + random.below(9);
    for _ in 0..random.below(40) {
        assert_eq!(here(cursor), expected.map(modelled), "{context}");
        let Some((at, _)) = expected else { return };
        expected = if random.below(10) < bias {
            cursor.next().unwrap();
            model.range((Bound::Excluded(at), Bound::Unbounded)).next()
        } else {
            cursor.prev().unwrap();
            model.range(..at).next_back()
        };
    }
}

#[test]
fn like_a_model() {
    for seed in 1..=60 {
        let mut random = Random(seed);
        let (table, mut model) = (Arc::new(TrieMemtable::default()), Model::new());
        let mut cursor = Arc::clone(&table).cursor(None);
        for step in 0..random.below(1500) {
            let context = format!("seed {seed}, step {step}");
            let (key, seq) = (random.key(), 1 + random.below(40));
            match random.below(4) {
                // Versions come in any order.
                0 if !model.contains_key(&(key.clone(), Reverse(seq))) => {
                    let entry = random.entry(key, seq);
                    add(&table, &mut model, entry);
                }
                0 | 1 => {
                    let newest = model.range((key.clone(), Reverse(seq))..).next().map(modelled);
                    let expected = newest.filter(|entry| entry.key == key);
                    assert_eq!(get(&table, &key, SequenceNumber(seq)), expected, "{context}");
                }
                _ => walk(&mut random, &mut *cursor, &model, &context),
            }
        }
        check(&table, &model, &format!("seed {seed}"));
    }
}

/// What was there when a reader began is found once and in order, whatever is
/// inserted around its cursor.
#[test]
fn cursors_stay_valid_beside_inserts() {
    for (seed, reverse) in (1..=20).flat_map(|seed| [(seed, false), (seed, true)]) {
        let mut random = Random(seed);
        let table = Arc::new(TrieMemtable::default());
        let mut before = Vec::new();
        for seq in 1..=600 {
            let key = random.key();
            before.push((key.clone(), Reverse(seq)));
            table.insert(put(&key, seq).borrowed());
        }
        before.sort();
        let mut cursor = Arc::clone(&table).cursor(None);
        if reverse {
            cursor.seek_last().unwrap()
        } else {
            cursor.seek_first().unwrap()
        }
        let (mut found, mut seq) = (Vec::new(), 600);
        while let Some(entry) = here(&*cursor) {
            if entry.seq.0 <= 600 {
                found.push((entry.key.to_vec(), Reverse(entry.seq.0)));
                // Its prefix, itself, its neighbours, and anything.
                let near = [&entry.key[..entry.key.len() / 2], &entry.key, b"\0", b"\xff"];
                for key in [near[0], near[1], &near[1..3].concat(), &near[1..4].concat(), &random.key()] {
                    seq += 1;
                    table.insert(put(key, seq).borrowed());
                }
            }
            if reverse { cursor.prev().unwrap() } else { cursor.next().unwrap() }
        }
        if reverse {
            found.reverse();
        }
        assert_eq!(found, before, "seed {seed}, reverse: {reverse}");
        assert_eq!(table.entries(), 600 + 5 * 600, "seed {seed}");
    }
}

/// A node grows from kind to kind; the key that ends at it takes no room of the
/// others, and may come at any time.
#[test]
fn nodes_grow_through_every_kind() {
    let ascending: Vec<u8> = (0..=255).collect();
    let descending = ascending.iter().rev().copied().collect();
    let mixed = ascending.iter().map(|byte| byte.wrapping_mul(149)).collect();
    for (order, bytes) in [ascending, descending, mixed].into_iter().enumerate() {
        for prefix in [&b""[..], b"p", b"a prefix of more than a word"] {
            for end_at in [0, 3, 10, 40, 200] {
                let (table, mut model) = (Arc::new(TrieMemtable::default()), Model::new());
                let context = format!("order {order}, prefix {prefix:?}, its end at {end_at}");
                for (at, byte) in bytes.iter().enumerate() {
                    if at == end_at {
                        add(&table, &mut model, put(prefix, 7));
                    }
                    add(&table, &mut model, put(&[prefix, &[*byte]].concat(), at as u64 + 1));
                    let expected = match at + 1 {
                        1 if end_at > 0 => Kind::Leaf,
                        0..=4 => Kind::Node4,
                        5..=16 => Kind::Node16,
                        17..=48 => Kind::Node48,
                        _ => Kind::Node256,
                    };
                    assert_eq!(table.tree.read().root().unwrap().kind(), expected, "{context}, {at}");
                    if [3, 4, 15, 16, 47, 48, 255].contains(&at) {
                        check(&table, &model, &format!("{context}, {at}"));
                    }
                }
            }
        }
    }
}

/// Below a parent of each kind, a child grows and edges are split.
#[test]
fn nodes_grow_below_nodes() {
    let mut random = Random(9);
    let (table, mut model) = (Arc::new(TrieMemtable::default()), Model::new());
    let mut seq = 0;
    for (first, fork) in [(b'a', 3), (b'b', 12), (b'c', 40), (b'd', 250)] {
        for second in 0..fork {
            // Some children of each parent grow large, and long edges are cut.
            for third in 0..[1, 2, 7, 30, 60][usize::from(second) % 5] {
                let len = random.below(12) as usize;
                let key = [&[first, second][..], &[b'-'; 12][..len], &[third]].concat();
                seq += 1;
                add(&table, &mut model, put(&key, seq));
            }
        }
    }
    check(&table, &model, "all");
}

#[test]
fn long_keys() {
    let long = vec![b'l'; KEY_BYTES_MAX];
    let (table, mut model) = (Arc::new(TrieMemtable::default()), Model::new());
    let keys = [
        long.clone(),
        long[1..].to_vec(),
        [&long[1..], b"m"].concat(),
        [&long[1..], b"\0"].concat(),
        [&long[..1000], b"\0"].concat(),
        [&long[..1000], &long[1001..], b"z"].concat(),
        long[..1000].to_vec(),
        vec![0; KEY_BYTES_MAX],
        vec![255; KEY_BYTES_MAX],
        vec![],
    ];
    for (seq, key) in (1..).zip(&keys) {
        add(&table, &mut model, put(key, seq));
        check(&table, &model, &format!("{seq} keys"));
    }
}

/// Every key is a prefix of the next, in any order of insertion: the tree is as
/// deep as it has keys.
#[test]
fn a_chain_of_prefixes() {
    const KEYS: usize = 2000;
    for (name, factor) in [("ascending", 1), ("descending", KEYS - 1), ("mixed", 1237)] {
        let (table, mut model) = (Arc::new(TrieMemtable::default()), Model::new());
        for (seq, number) in (1..).zip(0..KEYS) {
            add(&table, &mut model, put(&vec![0; number * factor % KEYS], seq));
        }
        check(&table, &model, name);
    }
}

#[test]
fn many_versions_of_a_key() {
    for (name, factor) in [("ascending", 1), ("descending", 999), ("mixed", 237)] {
        let (table, mut model) = (Arc::new(TrieMemtable::default()), Model::new());
        for number in 0..1000 {
            add(&table, &mut model, put(b"key", 1 + number * factor % 1000));
        }
        add(&table, &mut model, put(b"ke", 5));
        add(&table, &mut model, put(b"key0", 5));
        check(&table, &model, name);
        assert_eq!(table.get(b"key", SequenceNumber(0)), None);
        assert_eq!(table.get(b"key", SequenceNumber::MAX).map(|entry| entry.seq.0), Some(1000));
    }
}

#[test]
fn an_empty_table() {
    let table = Arc::new(TrieMemtable::default());
    assert_eq!((table.entries(), table.bytes()), (0, 0));
    assert_eq!(table.get(b"", SequenceNumber::MAX), None);
    let mut cursor = Arc::clone(&table).cursor(None);
    assert_eq!(here(&*cursor), None, "a fresh cursor stands nowhere");
    check(&table, &Model::new(), "empty");
    cursor.seek(b"", SequenceNumber::MAX).unwrap();
    assert_eq!(here(&*cursor), None);
    cursor.seek_before(b"zzz", SequenceNumber(0)).unwrap();
    assert_eq!(here(&*cursor), None);
}

/// Memory is counted as it is taken: no less than what an entry needs, and soon
/// no more than that and an eighth.
#[test]
fn bytes_count_what_is_kept() {
    let table = TrieMemtable::default();
    let leaf = size_of::<tree::Leaf>();
    let mut needed = 0;
    for seq in 1..=100_000_u64 {
        let entry = put(&seq.to_be_bytes(), seq);
        needed += entry.key.len() + entry.value.len() + leaf;
        table.insert(entry.borrowed());
        assert!(table.bytes() >= needed);
    }
    let bytes = table.bytes();
    assert!(bytes < needed + needed / 8, "{bytes} for {needed}");
    // All versions of one key take room as well; what a chunk has left may hold values.
    for seq in 1..=1000 {
        table.insert(put(b"key", seq).borrowed());
    }
    assert!(table.bytes() > bytes + 1000 * size_of::<Versioned>());
}

/// A node that has grown leaves its room to others.
#[test]
fn outgrown_nodes_take_no_memory() {
    const NODES: u64 = 20_000;
    let table = TrieMemtable::default();
    let mut needed = NODES as usize * size_of::<Node<Few<16>>>();
    for (seq, number) in (1..).zip(0..NODES * 5) {
        let key = [&(number as u32 / 5).to_be_bytes()[..], &[(number % 5) as u8]].concat();
        let entry = put(&key, seq);
        needed += entry.key.len() + entry.value.len() + size_of::<tree::Leaf>();
        table.insert(entry.borrowed());
    }
    let (bytes, spare) = (table.bytes(), NODES as usize * size_of::<Node<Few<4>>>());
    assert!(bytes < needed + spare, "{bytes} for {needed}");
}

#[test]
fn an_arena_uses_numbers_again() {
    let mut arena = Arena::default();
    let numbers: Vec<u32> = (0..50_000_u64).map(|item| arena.add(item)).collect();
    assert_eq!(numbers, (0..50_000).collect::<Vec<_>>());
    arena.free(49_000);
    arena.free(7);
    assert_eq!((arena.add(70), arena.add(71), arena.add(72)), (7, 49_000, 50_000));
    assert_eq!((arena[6], arena[7], arena[49_000], arena[50_000]), (6, 70, 71, 72));
    arena[7] = 73;
    assert_eq!(arena[7], 73);
}

#[test]
fn shared_prefixes() {
    for len in 0..40 {
        let a = vec![1; len];
        for at in 0..len {
            let mut b = a.clone();
            b[at] = 2;
            assert_eq!(shared_prefix(&a, &b), at);
            assert_eq!(shared_prefix(&b, &a[..at]), at);
        }
        assert_eq!(shared_prefix(&a, &[1; 40]), len);
    }
}
