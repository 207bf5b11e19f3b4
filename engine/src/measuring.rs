//! Doors for measuring: the inner loops of the engine, each on the same input every
//! time. The package in `engine/benches` times them, and counts their instructions.
//! Nothing here is part of the interface.

use std::hint::black_box;
use std::sync::Arc;

use crate::batch::WriteBatch;
use crate::cursor::Cursor;
use crate::filename;
use crate::key::{EntryRef, Expiry, FileNumber, KeyspaceId, SequenceNumber, ValueKind};
use crate::memtable::{self, Memtable};
use crate::merge::MergeCursor;
use crate::options::MemtableKind;
use crate::storage::Storage;
use crate::storage::memory::MemoryStorage;
use crate::wal::Wal;

/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 100;

/// Entries of a memtable, and batches of a WAL.
const ENTRIES: u64 = 10_000;

/// Memtables that are merged.
const SOURCES: u64 = 4;

/// A loop to measure.
pub struct Loop {
    /// What it does.
    pub name: &'static str,
    /// What a run does so often.
    pub steps: u64,
    /// A run.
    pub run: Box<dyn FnMut()>,
}

impl Loop {
    pub(crate) fn new(name: &'static str, steps: u64, run: impl FnMut() + 'static) -> Loop {
        Loop { name, steps, run: Box::new(run) }
    }
}

/// Every loop, and what it needs.
pub fn loops() -> Vec<Loop> {
    let mut loops = crate::sstable::measuring::loops();
    loops.extend([
        Loop::new("memtable insert, sorted", ENTRIES, || drop(filled(MemtableKind::Sorted, 0, 1))),
        Loop::new("memtable insert, skiplist", ENTRIES, || drop(filled(MemtableKind::SkipList, 0, 1))),
        Loop::new("memtable insert, trie", ENTRIES, || drop(filled(MemtableKind::Trie, 0, 1))),
        merge_step(),
        wal_append(),
    ]);
    loops
}

/// Numbers in no order, each once.
pub(crate) fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A key of 16 bytes, in no order.
pub fn key(number: u64) -> [u8; 16] {
    ((u128::from(scattered(number)) << 64) | u128::from(number)).to_be_bytes()
}

/// A value whose second half repeats the first.
pub fn value(number: u64) -> Vec<u8> {
    let half: Vec<u8> =
        (0..).flat_map(|word| scattered(number + word).to_le_bytes()).take(VALUE_BYTES / 2).collect();
    half.repeat(2)
}

/// A memtable with every `step`th key from `first` on.
fn filled(kind: MemtableKind, first: u64, step: u64) -> Arc<dyn Memtable> {
    let memtable = memtable::new(kind);
    let value = [7; VALUE_BYTES];
    for number in 0..ENTRIES {
        memtable.insert(EntryRef {
            key: &key(first + number * step),
            seq: SequenceNumber(number + 1),
            kind: ValueKind::Put,
            expires_at: Expiry::NEVER,
            value: &value,
        });
    }
    memtable
}

fn merge_step() -> Loop {
    let sources: Vec<_> = (0..SOURCES).map(|first| filled(MemtableKind::Sorted, first, SOURCES)).collect();
    Loop::new("merge step", SOURCES * ENTRIES, move || {
        let cursors = sources.iter().map(|source| Arc::clone(source).cursor(None).into());
        let mut merge = MergeCursor::new(cursors.collect());
        merge.seek_first().unwrap_or_else(|error| panic!("{error}"));
        while let Some(entry) = merge.entry() {
            black_box(entry.key);
            merge.next().unwrap_or_else(|error| panic!("{error}"));
        }
    })
}

fn wal_append() -> Loop {
    let mut batch = WriteBatch::new();
    batch.put(KeyspaceId(1), &key(1), &value(1));
    Loop::new("WAL append", ENTRIES, move || {
        let storage = MemoryStorage::new();
        let created = storage
            .create_dir(filename::WAL_DIR)
            .and_then(|()| Wal::create(&storage, FileNumber(1), 1, SequenceNumber(1)));
        let mut wal = created.unwrap_or_else(|error| panic!("{error}"));
        for seq in 1..=ENTRIES {
            wal.append(SequenceNumber(seq), batch.as_encoded()).unwrap_or_else(|error| panic!("{error}"));
        }
    })
}
