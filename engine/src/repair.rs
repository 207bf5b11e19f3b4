//! Repair: what is sound of a damaged database becomes a new one. A call of its
//! own, which no open ever makes; the original is not changed.
//!
//! 1. The manifest says which files count, if it is whole. If not, even at its
//!    end, the newest manifest gives what names and tables it still has, and every
//!    SSTable and WAL that is there counts.
//! 2. Of each SSTable every page that passes its checks is taken; of each WAL
//!    every batch. What cannot be read is listed.
//! 3. Per keyspace all of it is merged, with its sequence numbers, into SSTables
//!    of one run in the target, which becomes a database as a checkpoint does.
//!
//! What comes out is no prefix of the commits: later ones may be there while
//! others are lost, and batches may be there in part. Where the manifest is lost,
//! tables that compactions had replaced may count again: a deleted key may be
//! back, and a merge operand may count twice.

use std::collections::{BTreeMap, BTreeSet};
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
use std::path::Path;
use std::sync::Arc;

use crate::batch;
use crate::checkpoint;
use crate::cursor::Cursor;
use crate::edit::{Header, KeyspaceFacts, KeyspaceRecord, Placed, State};
use crate::error::{Error, Result};
use crate::filename::{self, FileKind};
use crate::key::{EntryRef, FileNumber, KeyspaceId, SequenceNumber};
use crate::keyspace::Memory;
use crate::manifest;
use crate::merge::{MergeCursor, Source};
use crate::options::Options;
use crate::range_delete::RangeDeletes;
use crate::record::{FrameKind, LogSalvage, Piece};
use crate::recovery::{self, BATCH_BYTES_MAX};
use crate::sstable::{
    Lost, SalvageCursor, SalvageTable, TableIdentity, TableMeta, TableOptions, TableWriter,
};
use crate::storage::Storage;
use crate::sync::{Mutex, lock};

/// Level of all tables of a repaired database: one run for each keyspace.
const LEVEL: u32 = 1;

/// Something that was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The file, relative to the directory of the damaged database.
    pub file: String,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// What was found.
    pub what: String,
    /// The keyspace, where the file tells.
    pub keyspace: Option<KeyspaceId>,
    /// Keys that may be lost, where that is known: from the first to before the
    /// second, or the last key of the table.
    pub keys: Option<(Vec<u8>, Vec<u8>)>,
}

/// What [`repair`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// True if the manifest could not be relied on; see [`mod@crate::repair`].
    pub manifest_lost: bool,
    /// Names and ids of all keyspaces. Those whose names are lost are called
    /// `recovered-<id>`.
    pub keyspaces: Vec<(String, KeyspaceId)>,
    /// SSTables and WALs that anything was taken from.
    pub files: u64,
    /// Entries in the new database: versions and tombstones.
    pub entries: u64,
    /// Batches taken from WALs.
    pub batches: u64,
    /// Highest sequence number found.
    pub last_sequence: u64,
    /// What was lost; empty if nothing was.
    pub lost: Vec<Loss>,
}

/// Makes a database in the directory `target`, which is new or empty, of what is
/// sound in `path`. See [`repair`].
///
/// # Errors
/// As [`repair`].
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub fn repair_directory(
    path: impl AsRef<Path>,
    target: impl AsRef<Path>,
    options: &Options,
) -> Result<RepairReport> {
    let storage = |path: &Path| Arc::new(crate::storage::fs::FsStorage::new(path));
    repair(storage(path.as_ref()), storage(target.as_ref()), options)
}

/// Makes a database in `target`, which is empty, of what is sound in `source`,
/// which is not changed. What is only in WALs is held in memory meanwhile. Of the
/// options those about the layout of SSTables count.
///
/// # Errors
/// `Locked` while the source is open for writing; `InvalidArgument` where the
/// target holds something, or the source nothing of a database; `Unsupported`
/// where a newer program wrote it; `Io` of the target. After an error the target
/// is no database.
pub fn repair(source: Arc<dyn Storage>, target: Arc<dyn Storage>, options: &Options) -> Result<RepairReport> {
    let files = recovery::list_files(&*source)?;
    if !files.iter().any(|path| filename::parse(path).is_some()) {
        return Err(Error::invalid(format!("there is nothing of a database in {}", source.describe())));
    }
    let _source_lock = source.lock_shared()?;
    let _target_lock = checkpoint::lock_target(&*target)?;
    let mut report = RepairReport::default();
    let plan = plan(&*source, &files, &mut report)?;
    checkpoint::begin(&*target)?;
    Repair { source, target, options, report, plan, next_file: 1, last_seq: SequenceNumber(0) }.run()
}

/// What counts.
#[derive(Debug, Default)]
struct Plan {
    /// What is known of the state; its tables and WALs may not be there.
    state: State,
    tables: Vec<(KeyspaceId, FileNumber, Option<TableMeta>)>,
    /// WALs in order, and where each ends if that is known.
    wals: Vec<(FileNumber, Option<u64>)>,
}

fn plan(source: &dyn Storage, files: &[String], report: &mut RepairReport) -> Result<Plan> {
    let loaded = match manifest::load(source) {
        Ok(Some(loaded)) => {
            let path = filename::manifest(loaded.current.manifest);
            let size = source.open(&path).and_then(|file| file.size());
            match size {
                // What was lost may be the edit of a crash, or one that counted.
                Ok(size) if loaded.current.names_durable && size > loaded.bytes => {
                    let what = format!("its last {} bytes are no edits", size - loaded.bytes);
                    report.lost.push(Loss { offset: loaded.bytes, ..lost_file(&path, &what) });
                    None
                }
                _ => Some(loaded.state),
            }
        }
        Ok(None) => {
            let what = "there is no live generation";
            report.lost.push(lost_file(filename::CURRENT, what));
            None
        }
        Err(Error::Unsupported(what)) => return Err(Error::Unsupported(what)),
        Err(Error::Corruption { file, offset, what }) => {
            report.lost.push(Loss { file, offset, what, keyspace: None, keys: None });
            None
        }
        Err(Error::Io { operation, file, source }) => {
            report.lost.push(lost_file(&file, &format!("{operation}: {source}")));
            None
        }
        Err(error) => return Err(error),
    };
    let (state, whole) = match loaded {
        Some(state) => (state, true),
        None => manifest::salvage(source)?.unwrap_or_default(),
    };
    if whole {
        let tables = state.keyspaces.iter().flat_map(|(id, record)| {
            record.tables.values().map(|placed| (*id, placed.meta.number, Some(placed.meta.clone())))
        });
        let wals = state.wals.iter().map(|(number, wal)| (*number, wal.end.map(|end| end.bytes)));
        return Ok(Plan { tables: tables.collect(), wals: wals.collect(), state });
    }
    report.manifest_lost = true;
    let mut plan = Plan::default();
    for path in files {
        match filename::parse(path) {
            Some(FileKind::Sst(id, number)) if !is_dropped(&state, id) => {
                let placed = state.keyspaces.get(&id).and_then(|record| record.tables.get(&number));
                plan.tables.push((id, number, placed.map(|placed| placed.meta.clone())));
            }
            Some(FileKind::Wal(number)) => {
                let end = state.wals.get(&number).and_then(|wal| wal.end);
                plan.wals.push((number, end.map(|end| end.bytes)));
            }
            _ => {}
        }
    }
    plan.wals.sort_unstable();
    plan.state = state;
    Ok(plan)
}

/// True if the state knows that a keyspace is no more.
fn is_dropped(state: &State, id: KeyspaceId) -> bool {
    id <= state.keyspace_max && !state.keyspaces.contains_key(&id)
}

fn lost_file(file: &str, what: &str) -> Loss {
    Loss { file: file.to_owned(), offset: 0, what: what.to_owned(), keyspace: None, keys: None }
}

/// A repair in progress.
struct Repair<'a> {
    source: Arc<dyn Storage>,
    target: Arc<dyn Storage>,
    options: &'a Options,
    report: RepairReport,
    plan: Plan,
    next_file: u64,
    last_seq: SequenceNumber,
}

/// Where the losses of a table go while it is read.
type TableLosses = (KeyspaceId, String, Arc<Mutex<Vec<Lost>>>);

impl Repair<'_> {
    fn run(mut self) -> Result<RepairReport> {
        let database_id = self.options.environment.random();
        let memories = self.read_wals();
        let mut ids: BTreeSet<KeyspaceId> = self.plan.state.keyspaces.keys().copied().collect();
        ids.extend(memories.keys().copied());
        ids.extend(self.plan.tables.iter().map(|(id, _, _)| *id));
        checkpoint::create_keyspaces(&*self.target, ids.iter().copied())?;
        let mut state = State::default();
        let mut names: BTreeSet<String> = BTreeSet::new();
        names.extend(self.plan.state.keyspaces.values().map(|record| record.facts.name.clone()));
        for id in ids {
            let known = self.plan.state.keyspaces.get(&id).map(|record| record.facts.clone());
            let facts = known
                .unwrap_or_else(|| KeyspaceFacts { name: new_name(id, &mut names), ..Default::default() });
            let tables = self.merge(id, memories.get(&id), database_id)?;
            self.report.keyspaces.push((facts.name.clone(), id));
            let tables = tables.into_iter().map(|meta| {
                self.report.entries += meta.entries();
                (meta.number, Placed { level: LEVEL, run: u64::from(LEVEL), meta })
            });
            state.keyspaces.insert(id, KeyspaceRecord { facts, tables: tables.collect() });
            state.keyspace_max = id;
        }
        state.keyspace_max = state.keyspace_max.max(self.plan.state.keyspace_max);
        self.last_seq = self.last_seq.max(self.plan.state.header.last_sequence);
        for record in state.keyspaces.values_mut() {
            record.facts.flushed_through = self.last_seq;
        }
        state.header = Header { epoch: 1, last_sequence: self.last_seq, ..Header::default() };
        checkpoint::finish(&self.target, FileNumber(self.next_file), state, database_id)?;
        self.report.last_sequence = self.last_seq.0;
        Ok(self.report)
    }

    /// Everything that is sound in the WALs and not in SSTables already.
    fn read_wals(&mut self) -> BTreeMap<KeyspaceId, Memory> {
        let mut memories = BTreeMap::new();
        let wals = self.plan.wals.clone();
        // A WAL counts up to where the next one begins: what an earlier recovery
        // dropped may look sound.
        let firsts: Vec<_> = wals.iter().map(|(number, _)| self.first_seq(*number)).collect();
        for (index, (number, end)) in wals.iter().enumerate() {
            let next = firsts[index + 1..].iter().flatten().min().copied();
            if let Err(error) = self.read_wal(*number, *end, next, &mut memories) {
                let path = filename::wal(*number);
                self.report.lost.push(lost_file(&path, &format!("the rest cannot be read: {error}")));
            }
        }
        memories
    }

    fn first_seq(&self, number: FileNumber) -> Option<SequenceNumber> {
        let file = self.source.open(&filename::wal(number)).ok()?;
        let mut log = LogSalvage::open(file, number, None, BATCH_BYTES_MAX).ok()?;
        loop {
            // A header may not know.
            if let Piece::Frame { kind: FrameKind::Header | FrameKind::Batch, seq, .. } =
                log.next_piece().ok()??
                && seq > SequenceNumber(0)
            {
                return Some(seq);
            }
        }
    }

    fn read_wal(
        &mut self,
        number: FileNumber,
        end: Option<u64>,
        next: Option<SequenceNumber>,
        memories: &mut BTreeMap<KeyspaceId, Memory>,
    ) -> Result<()> {
        let path = filename::wal(number);
        let mut log = LogSalvage::open(self.source.open(&path)?, number, end, BATCH_BYTES_MAX)?;
        self.report.files += 1;
        while let Some(piece) = log.next_piece()? {
            let loss = |offset: u64, what: String| Loss {
                file: path.clone(),
                offset,
                what,
                keyspace: None,
                keys: None,
            };
            let (offset, seq, batch) = match piece {
                Piece::Damage { offset, bytes } => {
                    let what = format!(
                        "{bytes} bytes that are no batches, perhaps of commits that were not finished"
                    );
                    self.report.lost.push(loss(offset, what));
                    continue;
                }
                Piece::Frame { kind: FrameKind::Batch, offset, seq, payload } => (offset, seq, payload),
                Piece::Frame { .. } => continue,
            };
            if next.is_some_and(|next| seq >= next) {
                continue;
            }
            let ops: Result<Vec<batch::Op>, _> = batch::decode(&batch).collect();
            let ops = match ops {
                Ok(ops) if seq < SequenceNumber::MAX => ops,
                _ => {
                    self.report.lost.push(loss(offset, format!("batch {} does not decode", seq.0)));
                    continue;
                }
            };
            self.report.batches += 1;
            self.last_seq = self.last_seq.max(seq);
            for ops in ops.chunk_by(|a, b| a.keyspace == b.keyspace) {
                let id = ops[0].keyspace;
                let known = self.plan.state.keyspaces.get(&id);
                let flushed = known.is_some_and(|record| seq <= record.facts.flushed_through);
                if !flushed && !is_dropped(&self.plan.state, id) {
                    memories.entry(id).or_default().insert(number, seq, ops, &batch);
                }
            }
        }
        Ok(())
    }

    /// Merges everything of a keyspace into tables of the target.
    fn merge(&mut self, id: KeyspaceId, memory: Option<&Memory>, database_id: u64) -> Result<Vec<TableMeta>> {
        let mut tables: Vec<_> =
            self.plan.tables.iter().filter(|(keyspace, _, _)| *keyspace == id).cloned().collect();
        // Newest first: of equal entries the first counts, and a compaction may
        // have folded what is below into it.
        tables.sort_by_key(|(_, number, _)| std::cmp::Reverse(*number));
        let mut sources = Vec::new();
        let mut range_deletes = RangeDeletes::default();
        let mut expires = false;
        let mut losses: Vec<TableLosses> = Vec::new();
        for (_, number, meta) in tables {
            let path = filename::sst(id, number);
            let mut lost = Vec::new();
            let opened = self.source.open(&path);
            let opened = opened.and_then(|file| SalvageTable::open(file, &path, meta.as_ref(), &mut lost));
            match opened {
                Ok(table) => {
                    self.report.files += 1;
                    range_deletes.extend(&table.range_deletes);
                    expires |= table.expires;
                    let lost = Arc::new(Mutex::new(lost));
                    losses.push((id, path, Arc::clone(&lost)));
                    sources.push(Source::Other(Box::new(SalvageCursor::new(table, lost))));
                }
                Err(error) => {
                    let keys = meta.map(|meta| (meta.key_min, meta.key_max));
                    let what = format!("nothing of it can be read: {error}");
                    self.report.lost.push(Loss { keys, keyspace: Some(id), ..lost_file(&path, &what) });
                }
            }
        }
        if let Some(memory) = memory {
            if let Some(deletes) = memory.range_deletes() {
                range_deletes.extend(&deletes);
            }
            expires |= memory.expires();
            sources.push(Arc::clone(&memory.table).cursor(None).into());
        }
        for (_, _, seq) in range_deletes.iter() {
            self.last_seq = self.last_seq.max(seq);
        }
        let mut cursor = MergeCursor::new(sources);
        let mut output = Output {
            keyspace: id,
            database_id,
            expires,
            range_deletes,
            writer: None,
            finished: Vec::new(),
            target: Arc::clone(&self.target),
            options: self.options,
            next_file: &mut self.next_file,
        };
        let mut before: Option<(Vec<u8>, SequenceNumber)> = None;
        cursor.seek_first()?;
        while let Some(entry) = cursor.entry() {
            let again =
                before.as_ref().is_some_and(|(key, seq)| (key.as_slice(), *seq) == (entry.key, entry.seq));
            if !again {
                output.write(entry)?;
                self.last_seq = self.last_seq.max(entry.seq);
                let (key, seq) = before.get_or_insert_with(|| (Vec::new(), entry.seq));
                key.clear();
                key.extend_from_slice(entry.key);
                *seq = entry.seq;
            }
            cursor.next()?;
        }
        let finished = output.finish()?;
        for (keyspace, file, lost) in losses {
            let found = std::mem::take(&mut *lock(&lost));
            self.report.lost.extend(found.into_iter().map(|Lost { offset, what, keys }| Loss {
                file: file.clone(),
                offset,
                what,
                keyspace: Some(keyspace),
                keys,
            }));
        }
        Ok(finished)
    }
}

/// A name that no other keyspace has.
fn new_name(id: KeyspaceId, names: &mut BTreeSet<String>) -> String {
    let mut name = format!("recovered-{}", id.0);
    while !names.insert(name.clone()) {
        name.push('\'');
    }
    name
}

/// The tables that are written for a keyspace, cut as a compaction's are.
struct Output<'a> {
    keyspace: KeyspaceId,
    database_id: u64,
    expires: bool,
    range_deletes: RangeDeletes,
    writer: Option<TableWriter>,
    finished: Vec<TableMeta>,
    target: Arc<dyn Storage>,
    options: &'a Options,
    next_file: &'a mut u64,
}

impl Output<'_> {
    fn write(&mut self, entry: EntryRef<'_>) -> Result<()> {
        let bytes_max = self.options.target_file_bytes;
        let full =
            |writer: &TableWriter| writer.estimated_bytes() >= bytes_max && !writer.ends_with(entry.key);
        if self.writer.as_ref().is_some_and(full) {
            self.end_table(Some(entry.key))?;
        }
        self.writer()?.add(entry)
    }

    fn writer(&mut self) -> Result<&mut TableWriter> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                let number = FileNumber(*self.next_file);
                *self.next_file += 1;
                let path = filename::sst(self.keyspace, number);
                let (database_id, keyspace) = (self.database_id, self.keyspace);
                let identity = TableIdentity { database_id, number, keyspace, level: LEVEL };
                let compression = self.options.compression;
                let options = TableOptions { compression, expires: self.expires, ..TableOptions::default() };
                TableWriter::new(self.target.create(&path)?, path, identity, options)?
            }
        };
        Ok(self.writer.insert(writer))
    }

    /// Ends the last table; what range tombstones are left may need one.
    fn finish(mut self) -> Result<Vec<TableMeta>> {
        if !self.range_deletes.is_empty() {
            self.writer()?;
        }
        self.end_table(None)?;
        Ok(self.finished)
    }

    /// Ends a table before the key `next`, or the last one.
    fn end_table(&mut self, next: Option<&[u8]>) -> Result<()> {
        if let Some(mut writer) = self.writer.take() {
            writer.add_range_deletes(self.range_deletes.take_below(next));
            self.finished.push(writer.finish()?);
        }
        Ok(())
    }
}
