//! The tree against an ordered set of internal keys: keys in every order, with long
//! prefixes shared by some, and many versions of one. Records of every length.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::records::{Record, Records};
use super::tree::Tree;
use crate::key::{Entry, EntryRef, Expiry, SequenceNumber, ValueKind};
use crate::memtable::node::Located;

/// Numbers in no order, each once below a power of two.
fn scattered(number: u64, below: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % below
}

/// Inserts internal keys in the given order, looks for each and for what is beside it
/// all along, and returns the tree.
fn check(keys: &[(Vec<u8>, u64)]) -> Tree {
    let (mut tree, mut model) = (Tree::default(), BTreeSet::new());
    let model_of = |(key, seq): &(Vec<u8>, u64)| (key.clone(), Reverse(*seq));
    for (number, (key, seq)) in keys.iter().enumerate() {
        let (kind, expires_at) = (ValueKind::Put, Expiry::NEVER);
        let entry = EntryRef { key, seq: SequenceNumber(*seq), kind, expires_at, value: b"" };
        tree.insert(&entry);
        model.insert(model_of(&keys[number]));
        assert_eq!(tree.len(), number + 1);
        let probe = &keys[scattered(number as u64, keys.len() as u64) as usize];
        for seq in [probe.1 + 1, probe.1, probe.1 - 1] {
            let sought = (probe.0.as_slice(), SequenceNumber(seq));
            let wanted = (probe.0.clone(), Reverse(seq));
            let found = tree.from(Some(sought)).next().map(Record::probe);
            let model_found = model.range(wanted.clone()..).next();
            assert_eq!(found, model_found.map(|(key, seq)| (key.as_slice(), SequenceNumber(seq.0))));
            let found = tree.back_from(Some(sought)).next().map(Record::probe);
            let model_found = model.range(..wanted).next_back();
            assert_eq!(found, model_found.map(|(key, seq)| (key.as_slice(), SequenceNumber(seq.0))));
        }
    }
    let all: Vec<_> = model.iter().map(|(key, seq)| (key.as_slice(), SequenceNumber(seq.0))).collect();
    assert_eq!(tree.from(None).map(Record::probe).collect::<Vec<_>>(), all);
    let mut back: Vec<_> = tree.back_from(None).map(Record::probe).collect();
    back.reverse();
    assert_eq!(back, all);
    tree
}

/// Keys of every kind: short and long, prefixes of each other, alike but for the end,
/// with zeros and with the greatest bytes.
fn keys(kind: u64, number: u64) -> Vec<u8> {
    match kind {
        0 => scattered(number, 1 << 40).to_be_bytes().to_vec(),
        1 => format!("https://www.example.org/{:02}/a/{number:06}", number % 7).into_bytes(),
        2 => [vec![0xff; (number % 40) as usize], (number / 40).to_be_bytes()[5..].to_vec()].concat(),
        3 => [vec![0; (number % 40) as usize], (number / 40).to_be_bytes()[6..].to_vec()].concat(),
        _ => [b"prefix".as_slice(), &[b'a'; 50][..(number % 50) as usize], &(number / 50).to_le_bytes()]
            .concat(),
    }
}

#[test]
fn finds_what_a_model_finds() {
    const KEYS: u64 = 1 << 12;
    for kind in 0..5 {
        let ascending: BTreeSet<Vec<u8>> = (0..KEYS).map(|number| keys(kind, number)).collect();
        let ascending: Vec<_> = ascending.into_iter().map(|key| (key, 5)).collect();
        check(&ascending);
        check(&ascending.iter().rev().cloned().collect::<Vec<_>>());
        let order = (0..ascending.len() as u64).map(|number| (scattered(number, KEYS), number));
        let order: BTreeSet<_> = order.collect();
        check(&order.iter().map(|(_, number)| ascending[*number as usize].clone()).collect::<Vec<_>>());
    }
}

#[test]
fn many_versions_of_a_few_keys() {
    let short_and_long =
        |number: u64| [b"k".to_vec(), [b'k'; 30].to_vec(), Vec::new()][number as usize % 3].clone();
    check(&(1..6000).map(|seq| (short_and_long(seq), seq)).collect::<Vec<_>>());
    check(&(1..6000).rev().map(|seq| (short_and_long(seq), seq)).collect::<Vec<_>>());
    check(&(0..1 << 12).map(|n| (short_and_long(n), 1 + scattered(n, 1 << 12))).collect::<Vec<_>>());
}

#[test]
fn leaves_stay_full_where_keys_ascend() {
    // Beside keys, per version.
    let bytes = |order: &dyn Fn(u64) -> u64| {
        let all: Vec<_> = (0..1 << 14).map(|number| (keys(1, order(number)), 1)).collect();
        let key_bytes: usize = all.iter().map(|(key, _)| key.len()).sum();
        (check(&all).bytes() - key_bytes) / all.len()
    };
    let (ascending, scattered) = (bytes(&|number| number * 7), bytes(&|number| scattered(number, 1 << 14)));
    assert!((32..40).contains(&ascending), "{ascending} bytes a version");
    assert!((38..48).contains(&scattered), "{scattered} bytes a version");
}

#[test]
fn records_of_every_length_come_back_and_little_is_wasted() {
    let mut records = Records::default();
    let entry = |n: usize| Entry {
        key: vec![n as u8; n % 50].into(),
        seq: SequenceNumber(1 << 40 | n as u64),
        kind: [ValueKind::Put, ValueKind::Delete, ValueKind::Merge][n % 3],
        expires_at: if n.is_multiple_of(5) { Expiry(n as u64) } else { Expiry::NEVER },
        value: vec![!n as u8; if n.is_multiple_of(100) { 40 * n } else { n % 300 }].into(),
    };
    let (mut places, mut bytes) = (Vec::new(), 0);
    for n in 0..3_000 {
        let entry = entry(n);
        bytes +=
            16 + entry.key.len() + entry.value.len() + 8 * usize::from(entry.expires_at != Expiry::NEVER);
        places.push(records.add(&entry.borrowed()));
    }
    for (n, place) in places.into_iter().enumerate() {
        let (record, entry) = (Record { records: &records, place }, entry(n));
        assert_eq!(record.borrowed(), entry.borrowed());
        assert_eq!(record.probe(), (&*entry.key, entry.seq));
        assert_eq!(
            (record.version().borrowed(), record.version().value()),
            (entry.borrowed(), entry.value.clone())
        );
        assert_eq!(record.versioned().with_key(&entry.key), entry);
    }
    let used = records.bytes();
    assert!((bytes..bytes + bytes / 16 + (64 << 10)).contains(&used), "{used} for {bytes}");
}
