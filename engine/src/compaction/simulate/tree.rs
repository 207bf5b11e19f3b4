//! The tables of a simulation: entries for real, bytes by their number.

use crate::compaction::pick::{Pick, RunShape, Work};
use crate::key::{FileNumber, KeyspaceId, SequenceNumber};
use crate::sstable::TableMeta;

/// An entry of the model. `expires` is 0 for never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub key: u32,
    pub expires: u32,
    pub tombstone: bool,
}

/// Bytes in a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Entries that one entry of the model stands for.
    pub grain: u64,
    /// Of a value with its key, for the whole grain.
    pub put_bytes: u64,
    /// Of a tombstone, for the whole grain.
    pub delete_bytes: u64,
    pub target_file_bytes: u64,
}

impl Sizes {
    pub fn of(&self, entry: &Entry) -> u64 {
        if entry.tombstone { self.delete_bytes } else { self.put_bytes }
    }
}

#[derive(Debug)]
struct Table {
    meta: TableMeta,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Run {
    /// As in the engine: number of the file that it began with.
    id: u64,
    tables: Vec<Table>,
}

/// Runs, newest first.
#[derive(Debug)]
pub(super) struct Tree {
    sizes: Sizes,
    runs: Vec<Run>,
    last_number: u64,
}

impl Tree {
    pub fn new(sizes: Sizes) -> Tree {
        Tree { sizes, runs: Vec::new(), last_number: 0 }
    }

    pub fn metas(&self) -> impl Iterator<Item = &TableMeta> {
        self.runs.iter().flat_map(|run| &run.tables).map(|table| &table.meta)
    }

    pub fn bytes(&self) -> u64 {
        self.metas().map(|meta| meta.bytes).sum()
    }

    pub fn shapes(&self) -> Vec<RunShape<'_>> {
        let runs = self.runs.iter();
        runs.map(|run| RunShape { tables: run.tables.iter().map(|table| &table.meta).collect() }).collect()
    }

    /// Id of the run that the outcome of `pick` joins.
    pub fn run_of(&self, pick: &Pick) -> u64 {
        self.runs.get(pick.run).map_or(0, |run| run.id)
    }

    /// A table of `entries`, as they came; bytes of it.
    pub fn flush(&mut self, entries: Vec<Entry>, now: u64) -> u64 {
        let mut newest_first = entries;
        newest_first.reverse();
        let kept = survivors(newest_first, now, &self.runs);
        let Some(table) = self.table(kept, now) else { return 0 };
        let bytes = table.meta.bytes;
        self.runs.insert(0, Run { id: table.meta.number.0, tables: vec![table] });
        bytes
    }

    /// Carries a pick out whose run had the id `run` and which began at `now`; bytes
    /// written.
    pub fn apply(&mut self, pick: &Pick, run: u64, now: u64) -> u64 {
        let mut inputs = Vec::new();
        for run in &mut self.runs {
            let (taken, kept) =
                run.tables.drain(..).partition(|table| pick.inputs.contains(&table.meta.number));
            run.tables = kept;
            inputs.extend::<Vec<Table>>(taken);
        }
        let at = self.runs.iter().position(|each| each.id == run).unwrap_or(self.runs.len());
        let mut bytes = 0;
        let added = match pick.work {
            Work::Drop => Vec::new(),
            Work::Move => inputs,
            Work::Merge => {
                let merged = self.merge(inputs, at, now);
                bytes = merged.iter().map(|table| table.meta.bytes).sum();
                merged
            }
        };
        if let Some(run) = self.runs.get_mut(at) {
            run.tables.extend(added);
            run.tables.sort_by(|a, b| a.meta.key_min.cmp(&b.meta.key_min));
        }
        self.runs.retain(|run| !run.tables.is_empty());
        bytes
    }

    /// `inputs`, newest first, as tables for the run at `at`.
    fn merge(&mut self, inputs: Vec<Table>, at: usize, now: u64) -> Vec<Table> {
        let entries = inputs.into_iter().flat_map(|table| table.entries).collect();
        let older = self.runs.get(at + 1..).unwrap_or_default();
        let kept = survivors(entries, now, older);
        // Tables end where those of the oldest run do, as in the engine.
        let oldest = older.last().map_or(&[][..], |run| &run.tables);
        let boundaries: Vec<u32> = oldest.iter().map(|table| table.entries[0].key).collect();
        let mut boundaries = boundaries.into_iter().peekable();
        let (mut tables, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
        for entry in kept {
            let mut boundary = false;
            while boundaries.next_if(|boundary| *boundary <= entry.key).is_some() {
                boundary = true;
            }
            let target = self.sizes.target_file_bytes;
            if bytes >= if boundary { target / 2 } else { target } {
                tables.extend(self.table(std::mem::take(&mut part), now));
                bytes = 0;
            }
            bytes += self.sizes.of(&entry);
            part.push(entry);
        }
        tables.extend(self.table(part, now));
        tables
    }

    fn table(&mut self, entries: Vec<Entry>, now: u64) -> Option<Table> {
        let (first, last) = (entries.first()?, entries.last()?);
        self.last_number += 1;
        let deletes = entries.iter().filter(|entry| entry.tombstone).count() as u64;
        let forever = entries.iter().any(|entry| entry.expires == 0);
        let expiries = entries.iter().map(|entry| u64::from(entry.expires)).filter(|expiry| *expiry > 0);
        let meta = TableMeta {
            number: FileNumber(self.last_number),
            keyspace: KeyspaceId(1),
            bytes: entries.iter().map(|entry| self.sizes.of(entry)).sum(),
            tail_offset: 0,
            tail_checksum: 0,
            key_min: first.key.to_be_bytes().to_vec(),
            key_max: last.key.to_be_bytes().to_vec(),
            seq_min: SequenceNumber(0),
            seq_max: SequenceNumber(now),
            puts: (entries.len() as u64 - deletes) * self.sizes.grain,
            deletes: deletes * self.sizes.grain,
            merges: 0,
            range_deletes: 0,
            expires_min: expiries.clone().min().unwrap_or(0),
            expires_max: if forever { 0 } else { expiries.max().unwrap_or(0) },
        };
        Some(Table { meta, entries })
    }
}

/// The newest entry of each key, without tombstones over nothing; `entries` are
/// newest first where their keys are the same.
fn survivors(mut entries: Vec<Entry>, now: u64, older: &[Run]) -> Vec<Entry> {
    // Stable; and made for what is sorted in parts.
    entries.sort_by_key(|entry| entry.key);
    entries.dedup_by_key(|entry| entry.key);
    let may_hold = |key: u32| {
        older.iter().any(|run| {
            let last = |table: &Table| table.entries[table.entries.len() - 1].key;
            let index = run.tables.partition_point(|table| last(table) < key);
            run.tables.get(index).is_some_and(|table| table.entries[0].key <= key)
        })
    };
    entries.retain_mut(|entry| {
        if entry.expires != 0 && u64::from(entry.expires) <= now {
            *entry = Entry { tombstone: true, expires: 0, ..*entry };
        }
        !entry.tombstone || may_hold(entry.key)
    });
    entries
}
