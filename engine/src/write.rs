//! The one write path: batch, then WAL, then memtable, then visible.
//!
//! Concurrent commits are grouped. One of them leads: it commits its own batch and
//! then makes the one that has waited longest the leader, which commits every batch
//! that waits by then, with one append and at most one sync, tells the others, and so
//! on until nobody waits. Nobody but the leader contends for the writer's lock. Source
//! of the idea: the writer queue of LevelDB.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::hint;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::{Arc, OnceLock, PoisonError};

use bytes::Bytes;

use crate::batch::{self, Op, OpKind, WriteBatch};
use crate::core::{Core, OldWal};
use crate::error::{Error, Result};
use crate::filename;
use crate::fold::Folded;
use crate::key::{Expiry, FileNumber, KeyspaceId, SequenceNumber, ValueKind};
use crate::keyspace::Keyspace;
use crate::options::Durability;
use crate::read_set::ReadSet;
use crate::sstable::hash_key;
use crate::stall::Buffered;
use crate::sync::atomic::{AtomicU8, AtomicU64};
use crate::sync::{Condvar, Mutex, lock};
use crate::wal::Wal;

/// Bytes of batches that are committed together, beyond the first.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// Where commits queue.
#[derive(Debug)]
pub(crate) struct WritePath {
    queue: Mutex<Queue>,
    writer: Mutex<Writer>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Somebody leads; whoever comes waits.
    led: bool,
    /// The one that has waited longest first.
    waiting: VecDeque<Arc<Request>>,
}

/// The lead over those who wait, until it is dropped and another one has it.
struct Lead<'p>(&'p WritePath);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        match queue.waiting.front() {
            Some(next) => next.turn(LEAD),
            None => queue.led = false,
        }
    }
}

#[derive(Debug)]
struct Writer {
    /// Created by the first commit that needs it.
    wal: Option<Wal>,
    /// What was left in memory when the end of the WAL was prepared last.
    prepared_at: Option<usize>,
    /// Bytes of batches since it was looked how much is in memory.
    unlooked_bytes: usize,
    last_seq: SequenceNumber,
    /// Of the batch that goes into the memtables; always the same memory.
    ops: Vec<Op>,
    /// True once the log is sealed for good.
    closed: bool,
}

/// A commit that waits.
#[derive(Debug)]
struct Request {
    batch: Vec<u8>,
    /// That of some of its operations, if it was looked up.
    keyspace: Option<Arc<Keyspace>>,
    durability: Durability,
    /// What a transaction has read, to be looked at again.
    reads: Option<ReadSet>,
    outcome: OnceLock<Result<()>>,
    /// What it is to do.
    turn: AtomicU8,
    /// For one that sleeps.
    asleep: Mutex<()>,
    turned: Condvar,
}

/// Its turn has not come, and it looks whether it has.
const WAIT: u8 = 0;
/// Its turn has not come, and it is to be woken.
const SLEEP: u8 = 1;
/// It is to commit what waits.
const LEAD: u8 = 2;
/// Somebody has committed it.
const GO: u8 = 3;

/// How often it is looked, while a memtable fills with entries of some length, whether it
/// is full.
const LOOKS_PER_MEMTABLE: usize = 256;

/// Operations for which there is memory when a batch has come into the memtables.
const OPS_KEPT_MAX: usize = 1 << 10;

/// How often a commit looks whether its turn has come before it sleeps: for as long as a
/// small commit takes, as waking one that sleeps takes longer than that.
const LOOKS: u32 = if cfg!(feature = "shuttle") { 1 } else { 300 };

impl WritePath {
    /// The write path of a database whose last commit is `last_seq`.
    pub fn new(last_seq: SequenceNumber) -> Self {
        let writer = Writer {
            wal: None,
            prepared_at: None,
            unlooked_bytes: 0,
            last_seq,
            ops: Vec::new(),
            closed: false,
        };
        WritePath { queue: Mutex::default(), writer: Mutex::new(writer) }
    }

    /// Commits a batch.
    pub fn commit(
        &self,
        core: &Core,
        batch: WriteBatch,
        durability: Durability,
        reads: Option<ReadSet>,
    ) -> Result<()> {
        core.check_writable()?;
        batch.check(core.options.batch_limits())?;
        let (batch, keyspace) = canonical(core, batch)?;
        if batch.is_empty() {
            return if durability == Durability::Sync { self.sync(core) } else { Ok(()) };
        }
        let request = Request::new(batch, keyspace, durability, reads);
        let mut queue = lock(&self.queue);
        if !queue.led {
            queue.led = true;
            drop(queue);
            let _lead = Lead(self);
            lock(&self.writer).commit_group(core, &[&request]);
            return request.outcome();
        }
        let request = Arc::new(request);
        queue.waiting.push_back(Arc::clone(&request));
        drop(queue);
        if request.wait() == LEAD {
            let _lead = Lead(self);
            let group = self.take_group();
            let group = Group(&group);
            lock(&self.writer)
                .commit_group(core, &group.0.iter().map(|request| &**request).collect::<Vec<_>>());
        }
        request.outcome()
    }

    /// The batches at the head of the queue. A transaction goes alone: it is
    /// validated against everything before it.
    fn take_group(&self) -> Vec<Arc<Request>> {
        let mut queue = lock(&self.queue);
        let mut bytes = 0;
        let count = queue.waiting.iter().take_while(|request| {
            bytes += request.batch.len();
            bytes <= GROUP_BYTES_MAX && request.reads.is_none()
        });
        let count = count.count().max(1).min(queue.waiting.len());
        queue.waiting.drain(..count).collect()
    }

    /// Raises every earlier commit to [`Durability::Sync`].
    pub fn sync(&self, core: &Core) -> Result<()> {
        core.check_writable()?;
        lock(&self.writer).sync(core)
    }

    /// Seals the WAL and sets aside every memtable that holds anything; answers
    /// those memtables and their keyspaces.
    pub fn freeze_all(&self, core: &Core) -> Result<()> {
        core.check_writable()?;
        lock(&self.writer).freeze(core, |_| true)
    }

    /// Seals the WAL for good: whatever commits from now on is refused. Answers
    /// the last sequence number.
    pub fn close(&self, core: &Core) -> Result<SequenceNumber> {
        let mut writer = lock(&self.writer);
        writer.closed = true;
        if let Some(wal) = &mut writer.wal {
            wal.release();
        }
        writer.seal(core)?;
        Ok(writer.last_seq)
    }

    /// Seals the WAL, and runs `look` while nobody commits: the log is complete
    /// up to the sequence number that it is told.
    pub fn with_sealed<T>(&self, core: &Core, look: impl FnOnce(SequenceNumber) -> Result<T>) -> Result<T> {
        let mut writer = lock(&self.writer);
        writer.seal(core)?;
        look(writer.last_seq)
    }

    /// Runs `look` on the WAL that takes batches, held still.
    pub fn with_wal<T>(&self, look: impl FnOnce(Option<&Wal>) -> T) -> T {
        look(lock(&self.writer).wal.as_ref())
    }
}

/// Requests that one of them commits; whatever becomes of it, the others go on.
struct Group<'g>(&'g [Arc<Request>]);

impl Drop for Group<'_> {
    fn drop(&mut self) {
        for request in self.0 {
            request.outcome.get_or_init(|| Err(Error::Poisoned("a commit beside this one panicked".into())));
            request.turn(GO);
        }
    }
}

impl Request {
    fn new(
        batch: Vec<u8>,
        keyspace: Option<Arc<Keyspace>>,
        durability: Durability,
        reads: Option<ReadSet>,
    ) -> Self {
        let (outcome, turn) = (OnceLock::new(), AtomicU8::new(WAIT));
        let (asleep, turned) = (Mutex::default(), Condvar::new());
        Request { batch, keyspace, durability, reads, outcome, turn, asleep, turned }
    }

    fn turn(&self, turn: u8) {
        if self.turn.swap(turn, AcqRel) == SLEEP {
            // It has gone to sleep once the lock is free.
            drop(lock(&self.asleep));
            self.turned.notify_one();
        }
    }

    /// Waits for something to do.
    fn wait(&self) -> u8 {
        // A sync takes longer than it is worth looking.
        let looks = if self.durability == Durability::Sync { 0 } else { LOOKS };
        for _ in 0..looks {
            match self.turn.load(Acquire) {
                WAIT => hint::spin_loop(),
                turn => return turn,
            }
        }
        let mut asleep = lock(&self.asleep);
        let _ = self.turn.compare_exchange(WAIT, SLEEP, AcqRel, Acquire);
        loop {
            match self.turn.load(Acquire) {
                SLEEP => asleep = self.turned.wait(asleep).unwrap_or_else(PoisonError::into_inner),
                turn => return turn,
            }
        }
    }

    fn outcome(&self) -> Result<()> {
        match self.outcome.get() {
            Some(Err(error)) => Err(error.duplicate()),
            _ => Ok(()),
        }
    }
}

impl Writer {
    /// Commits `group` in order and tells each its outcome.
    fn commit_group(&mut self, core: &Core, group: &[&Request]) {
        let mut reads = group.iter().filter_map(|request| request.reads.as_ref());
        let valid = reads.try_for_each(|reads| reads.validate(core));
        let outcome = valid.and_then(|()| self.append(core, group));
        if outcome.is_ok() {
            self.unlooked_bytes = self.unlooked_bytes.saturating_add(self.apply(core, group));
            // To look takes as long as there are keyspaces.
            if self.unlooked_bytes >= core.options.memtable_bytes / LOOKS_PER_MEMTABLE {
                // A failure here is no failure of the commit: the memtable stays,
                // and the next commit tries again.
                let frozen = self.freeze_full(core);
                self.unlooked_bytes = if frozen.is_ok() { 0 } else { usize::MAX };
            }
        }
        for request in group {
            let told = match &outcome {
                Ok(()) => Ok(()),
                Err(error) => Err(error.duplicate()),
            };
            let _ = request.outcome.set(told);
        }
    }

    /// Appends the batches to the WAL, and syncs if one of them asks for it.
    fn append<'g>(&mut self, core: &Core, group: &[&'g Request]) -> Result<()> {
        core.check_writable()?;
        if self.closed {
            return Err(Error::invalid("the database is closed"));
        }
        let mut seq = self.last_seq;
        let numbered = |request: &&'g Request| {
            seq.0 += 1;
            (seq, request.batch.as_slice())
        };
        let records: Vec<(SequenceNumber, &[u8])> = group.iter().map(numbered).collect();
        core.note(self.wal(core)?.append_group(&records))?;
        if group.iter().any(|request| request.durability == Durability::Sync) {
            self.sync(core)?;
        }
        Ok(())
    }

    /// Brings the batches into the memtables, then makes them visible; answers their
    /// bytes.
    fn apply(&mut self, core: &Core, group: &[&Request]) -> usize {
        let wal = self.wal.as_ref().map_or(FileNumber(0), Wal::number);
        let mut bytes = 0;
        for request in group {
            self.last_seq.0 += 1;
            bytes += request.batch.len();
            self.ops.clear();
            self.ops.extend(batch::decode(&request.batch).map_while(Result::ok));
            for ops in self.ops.chunk_by(|a, b| a.keyspace == b.keyspace) {
                let found;
                let keyspace = match &request.keyspace {
                    Some(keyspace) if keyspace.id == ops[0].keyspace => keyspace,
                    // Checked when the commit came in.
                    _ => match core.keyspace(ops[0].keyspace) {
                        Ok(keyspace) => {
                            found = keyspace;
                            &found
                        }
                        Err(_) => continue,
                    },
                };
                let put = ops.iter().map(|op| (op.key.len() + op.value.len()) as u64);
                keyspace.usage.note_writes(ops.len() as u64, put.sum());
                let is_put = |op: &&Op| matches!(op.kind, OpKind::Entry(ValueKind::Put | ValueKind::Merge));
                for op in ops.iter().filter(is_put) {
                    keyspace.gaps.note_put(self.last_seq, &request.batch[op.key.clone()]);
                }
                keyspace.active().insert(wal, self.last_seq, ops, &request.batch);
            }
        }
        self.ops.shrink_to(OPS_KEPT_MAX);
        core.visible.store(self.last_seq.0, Release);
        // There is one writer.
        let add = |counter: &AtomicU64, more| counter.store(counter.load(Relaxed) + more as u64, Relaxed);
        add(&core.counters.commits, group.len());
        add(&core.counters.bytes_committed, bytes);
        bytes
    }

    /// The WAL to append to, durable and listed in the manifest.
    fn wal(&mut self, core: &Core) -> Result<&mut Wal> {
        let first = SequenceNumber(self.last_seq.0 + 1);
        if self.wal.is_none() {
            self.wal = core.open_wals.take_next(first);
        }
        if self.wal.is_none() {
            let number = core.new_file();
            let created = Wal::create(&*core.storage, number, core.database_id, first);
            let wal = core.note(created).inspect_err(|_| {
                // Nobody knows of the file yet.
                let _ = core.storage.remove(&filename::wal(number));
            })?;
            let mut manifest = lock(&core.manifest);
            core.list_wal(&mut manifest, number, first)?;
            core.open_wals.began(&wal);
            self.wal = Some(wal);
        }
        // Just made where there was none.
        self.wal.as_mut().ok_or_else(|| Error::invalid("there is no WAL"))
    }

    fn sync(&mut self, core: &Core) -> Result<()> {
        if let Some(wal) = &mut self.wal {
            core.note(wal.sync())?;
            core.counters.wal_syncs.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    fn seal(&mut self, core: &Core) -> Result<()> {
        if let Some(wal) = &mut self.wal {
            core.note(wal.seal())?;
            core.counters.wal_syncs.fetch_add(1, Relaxed);
            let old = OldWal { bytes: wal.bytes(), last_seq: wal.last_seq() };
            lock(&core.old_wals).insert(wal.number(), old);
            core.open_wals.ended();
            self.wal = None;
            self.prepared_at = None;
        }
        Ok(())
    }

    /// Sets aside memtables that are full, the largest where they are too large
    /// together, and those that keep too much WAL.
    fn freeze_full(&mut self, core: &Core) -> Result<()> {
        let Buffered { active, largest, .. } = core.look_at_memory();
        let active_max = core.options.write_buffer_bytes() / 2;
        let memtable_max = core.options.memtable_bytes;
        if largest >= memtable_max || active > active_max {
            let chosen = largest_first(core, active, active_max);
            self.freeze(core, |keyspace| chosen.contains(&keyspace.id))?;
        } else {
            self.prepare(
                core,
                memtable_max.min(active_max),
                (memtable_max - largest).min(active_max - active),
            );
        }
        let wal_bytes = self.wal.as_ref().map_or(0, Wal::bytes) + core.old_wal_bytes();
        if wal_bytes <= core.options.wal_bytes_max() {
            return Ok(());
        }
        let keyspaces = core.keyspaces();
        if keyspaces.iter().any(|keyspace| !keyspace.view().immutable.is_empty()) {
            // Their flush will free some.
            return Ok(());
        }
        let first = keyspaces.iter().filter_map(|keyspace| keyspace.view().active.first_wal()).min();
        self.freeze(core, |keyspace| keyspace.view().active.first_wal() == first)
    }

    /// Lets the next WAL be made, and this one be synced, before it ends: when `left` of
    /// the `all` bytes that may be in memory are a quarter, then a half of that, and so
    /// on. So the last sync finds little, and there are few.
    fn prepare(&mut self, core: &Core, all: usize, left: usize) {
        let Some(wal) = &self.wal else { return };
        if left <= self.prepared_at.unwrap_or(all / 2) / 2 {
            self.prepared_at = Some(left);
            core.open_wals.prepare(core, Some(wal.bytes() * 4 / 3));
        } else if wal.unsynced_bytes() >= unsynced_bytes_max(core) {
            core.open_wals.prepare(core, None);
        }
    }

    /// Seals the WAL, then sets aside the memtables of the keyspaces chosen.
    ///
    /// Their entries reach SSTables only after this sync, so that what an
    /// SSTable makes durable never runs ahead of the log of other keyspaces.
    fn freeze(&mut self, core: &Core, chosen: impl Fn(&Keyspace) -> bool) -> Result<()> {
        let keyspaces = core.keyspaces();
        let chosen = |keyspace: &&Arc<Keyspace>| !keyspace.view().active.is_empty() && chosen(keyspace);
        let chosen: Vec<&Arc<Keyspace>> = keyspaces.iter().filter(chosen).collect();
        if chosen.is_empty() {
            return Ok(());
        }
        self.seal(core)?;
        chosen.iter().for_each(|keyspace| keyspace.freeze());
        core.views_changed();
        Ok(())
    }
}

/// Bytes of the WAL after which they are synced. Where there are no workers the sync
/// keeps a commit waiting, and must not be long.
fn unsynced_bytes_max(core: &Core) -> u64 {
    if core.threaded() { 4 << 20 } else { 2 << 20 }
}

/// Keyspaces whose memtables are full, and, where all together have more than
/// `active_max` bytes, those with the largest until the others have a half of that.
/// So what is set aside is worth its sync, and is little where little is written.
fn largest_first(core: &Core, mut active: usize, active_max: usize) -> Vec<KeyspaceId> {
    let keyspaces = core.keyspaces();
    let mut sizes: Vec<_> = keyspaces.iter().map(|k| (k.active().bytes(), k.id)).collect();
    sizes.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
    let rest_max = if active > active_max { active_max / 2 } else { usize::MAX };
    let chosen = sizes.into_iter().take_while(|(bytes, _)| {
        let take = *bytes >= core.options.memtable_bytes || active > rest_max;
        active = active.saturating_sub(*bytes);
        take
    });
    chosen.map(|(_, id)| id).collect()
}

/// The batch with at most one operation for each key ([`crate::fold`]), and with
/// the expiries that its keyspaces ask for; and one of its keyspaces.
///
/// # Errors
/// `InvalidArgument` where a keyspace does not exist, or its merge operator
/// refuses.
fn canonical(core: &Core, batch: WriteBatch) -> Result<(Vec<u8>, Option<Arc<Keyspace>>)> {
    let encoded = batch.as_encoded();
    let mut known: Option<Arc<Keyspace>> = None;
    let mut plain = true;
    let mut keyspaces: BTreeMap<KeyspaceId, Arc<Keyspace>> = BTreeMap::new();
    for op in batch::decode(encoded).map_while(Result::ok) {
        let keyspace = match known.take().filter(|keyspace| keyspace.id == op.keyspace) {
            Some(keyspace) => keyspace,
            None => core.keyspace(op.keyspace)?,
        };
        match op.kind {
            OpKind::Entry(ValueKind::Put) => plain &= keyspace.ttl_ms() == 0,
            OpKind::Entry(ValueKind::Delete) => {}
            OpKind::Entry(ValueKind::Merge) => {
                plain = false;
                keyspace.check_operand(&encoded[op.key.clone()], &encoded[op.value.clone()])?;
            }
            OpKind::RangeDelete => plain = false,
        }
        if !plain {
            keyspaces.entry(keyspace.id).or_insert_with(|| Arc::clone(&keyspace));
        }
        known = Some(keyspace);
    }
    if plain && batch.len() == 1 {
        return Ok((batch.into_encoded(), known));
    }
    let ops: Vec<Op> = batch::decode(encoded).map_while(Result::ok).collect();
    if plain {
        return Ok((without_superseded(batch, &ops), known));
    }
    let batch = Bytes::from(batch.into_encoded());
    let now_ms = core.options.environment.unix_ms();
    let mut folded = Folded::new(SequenceNumber(0));
    for op in &ops {
        let keyspace = match keyspaces.get(&op.keyspace) {
            Some(keyspace) => Arc::clone(keyspace),
            None => core.keyspace(op.keyspace)?,
        };
        let expires_at = match (op.kind, keyspace.ttl_ms()) {
            (OpKind::Entry(ValueKind::Put | ValueKind::Merge), ttl_ms @ 1..)
                if op.expires_at == Expiry::NEVER =>
            {
                Expiry(now_ms.saturating_add(ttl_ms)).min(Expiry::MAX)
            }
            _ => op.expires_at,
        };
        folded.apply(op, &batch, expires_at, &keyspace.operator)?;
    }
    // Folding and expiries may have made it longer, and what recovery does not read
    // back must not be written.
    let folded = folded.encode();
    folded.check(core.options.batch_limits())?;
    Ok((folded.into_encoded(), known))
}

/// A batch of puts and deletes without those that a later one supersedes.
fn without_superseded(batch: WriteBatch, ops: &[Op]) -> Vec<u8> {
    let encoded = batch.as_encoded();
    // Equal keys meet where operations are in order of their hashes, ties in
    // order of their age; only then are keys compared.
    let name = |op: &Op| (op.keyspace, &encoded[op.key.clone()]);
    let mut order: Vec<(u64, usize)> = ops
        .iter()
        .enumerate()
        .map(|(index, op)| (hash_key(&encoded[op.key.clone()]).wrapping_add(op.keyspace.0.into()), index))
        .collect();
    order.sort_unstable();
    let mut superseded = vec![false; ops.len()];
    for (at, &(hash, index)) in order.iter().enumerate() {
        let mut later = order[at + 1..].iter().take_while(|(other, _)| *other == hash);
        superseded[index] = later.any(|&(_, later)| name(&ops[later]) == name(&ops[index]));
    }
    if !superseded.contains(&true) {
        return batch.into_encoded();
    }
    let mut kept = WriteBatch::new();
    for (op, _) in ops.iter().zip(&superseded).filter(|(_, superseded)| !**superseded) {
        kept.push_op(encoded, op);
    }
    kept.into_encoded()
}
