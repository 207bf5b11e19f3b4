//! The write-ahead log: batches, durable before they are acknowledged.
//!
//! `wal/<number>.log` is a log of [`crate::record`] whose data frames carry one
//! encoded batch of [`crate::batch`] each, all keyspaces together, in commit
//! order: the sequence number of each is one more than that before, starting at
//! the one in the header.
//!
//! The life of a WAL:
//!
//! 1. [`Wal::create`], or ahead of time [`Wal::prepare`] and then [`Wal::begin`]: the
//!    file, its header and its name are durable before it takes the first batch.
//!    Numbers are never reused.
//! 2. [`Wal::append`], [`Wal::append_group`], [`Wal::sync`]; beside them
//!    [`LogSyncer::sync`].
//! 3. [`Wal::seal`], before a later WAL takes its first batch, in every
//!    durability mode. So only the last WAL that holds data can be torn.
//! 4. [`replay`] at open. A recovered WAL is never appended to, and it stays
//!    unsealed: the new manifest records where it ends before a later WAL takes
//!    data.
//! 5. Removed once the manifest says that all its batches are in SSTables.
//!
//! Called by the write path and by recovery.

use std::sync::Arc;

use bytes::Bytes;

use crate::batch;
use crate::error::{Error, Result};
use crate::filename;
use crate::key::{FileNumber, SequenceNumber};
use crate::record::{
    Ending, FRAME_HEADER_BYTES, Frame, LOG_HEADER_BYTES, LogId, LogKind, LogReader, LogSyncer, LogWriter,
    Tail,
};
use crate::storage::{DirSync, ReadFile, Storage};

/// A WAL being written.
#[derive(Debug)]
pub struct Wal {
    log: LogWriter,
    syncer: Arc<LogSyncer>,
    name_durable: DirSync,
}

fn id(number: FileNumber, database_id: u64) -> LogId {
    LogId { kind: LogKind::Wal, number, database_id }
}

impl Wal {
    /// Creates the WAL `number`, durable with its name where the storage can
    /// sync names. The first batch will carry `first_seq`.
    ///
    /// # Errors
    /// Any: give the number up, and use neither it nor the file again.
    pub fn create(
        storage: &dyn Storage,
        number: FileNumber,
        database_id: u64,
        first_seq: SequenceNumber,
    ) -> Result<Wal> {
        let path = filename::wal(number);
        let file = storage.create(&path)?;
        let mut log = LogWriter::create(file, id(number, database_id), first_seq)?;
        log.sync()?;
        let syncer = Arc::new(log.syncer(storage.open_to_sync(&path)?));
        let name_durable = storage.sync_dir(filename::WAL_DIR)?;
        Ok(Wal { log, syncer, name_durable })
    }

    /// As [`Wal::create`], before it is known what the first batch will carry, with
    /// room for about `bytes`.
    pub fn prepare(storage: &dyn Storage, number: FileNumber, database_id: u64, bytes: u64) -> Result<Wal> {
        let mut wal = Wal::create(storage, number, database_id, SequenceNumber(0))?;
        wal.log.reserve(bytes);
        Ok(wal)
    }

    /// Says what the first batch of a prepared WAL will carry.
    pub fn begin(&mut self, first_seq: SequenceNumber) {
        self.log.begin(first_seq);
    }

    /// Syncs it beside whoever appends.
    pub fn syncer(&self) -> Arc<LogSyncer> {
        Arc::clone(&self.syncer)
    }

    /// Appends an encoded batch: handed to the storage on return, not synced.
    ///
    /// # Errors
    /// `Io`: nothing was appended and the WAL is usable. `Poisoned`: it is not.
    pub fn append(&mut self, seq: SequenceNumber, batch: &[u8]) -> Result<()> {
        self.append_group(&[(seq, batch)])
    }

    /// Appends several batches in one call of the storage: all or, on an `Io`
    /// error, none.
    pub fn append_group(&mut self, batches: &[(SequenceNumber, &[u8])]) -> Result<()> {
        let mut last = self.log.last_seq();
        for &(seq, _) in batches {
            // Replay would take a gap for corruption; refuse it while it can
            // still be put right.
            if last.0.checked_add(1) != Some(seq.0) || seq >= SequenceNumber::MAX {
                return Err(Error::invalid(format!("batch {} cannot follow batch {}", seq.0, last.0)));
            }
            last = seq;
        }
        self.log.append_many(batches)
    }

    /// Makes everything appended survive power loss.
    ///
    /// # Errors
    /// `Poisoned`, for good.
    pub fn sync(&mut self) -> Result<()> {
        self.log.sync()
    }

    /// Syncs, ends the WAL with a seal, and syncs that.
    pub fn seal(&mut self) -> Result<()> {
        self.log.seal()
    }

    /// Gives back room that was reserved and is not used.
    pub fn release(&mut self) {
        self.log.release();
    }

    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.log.len()
    }

    /// True without a batch.
    pub fn is_empty(&self) -> bool {
        self.log.is_empty()
    }

    /// Bytes that are not known to survive power loss.
    pub fn unsynced_bytes(&self) -> u64 {
        self.syncer.unsynced_bytes()
    }

    /// Its file number.
    pub fn number(&self) -> FileNumber {
        self.log.id().number
    }

    /// Sequence number of the last batch, or the one before the first.
    pub fn last_seq(&self) -> SequenceNumber {
        self.log.last_seq()
    }

    /// Whether the name of the file survives power loss.
    pub fn name_durable(&self) -> DirSync {
        self.name_durable
    }
}

/// What [`replay`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The WAL ended with its seal.
    pub sealed: bool,
    /// What the WAL was created for, 0 if that was not known then; `None` if a crash
    /// kept the header from being written.
    pub created_for: Option<SequenceNumber>,
    /// Sequence number of the first batch, so that the caller can look for gaps
    /// between WALs; `None` without one.
    pub first_seq: Option<SequenceNumber>,
    /// Sequence number of the last batch; `None` without one.
    pub last_seq: Option<SequenceNumber>,
    /// Number of batches.
    pub batches: u64,
    /// Bytes of valid frames.
    pub bytes: u64,
    /// Bytes of the torn tail, but for zeros at its end.
    pub bytes_dropped: u64,
}

/// Hands every batch of a WAL to `apply`, in order, and changes nothing.
///
/// `is_last` says that no later WAL holds data ([`holds_data`]); then the tail
/// may be torn. A WAL that is not the last must be sealed and whole, unless it
/// holds nothing: a crash between its creation and its first batch. Whether
/// batches are missing *between* WALs is for the caller to check.
///
/// # Errors
/// `Corruption` with file and offset, `Unsupported` for a newer format or a
/// batch over `payload_bytes_max`; whatever `apply` answers. Batches before the
/// error have been applied.
pub fn replay(
    storage: &dyn Storage,
    number: FileNumber,
    database_id: u64,
    is_last: bool,
    payload_bytes_max: usize,
    mut apply: impl FnMut(SequenceNumber, Bytes) -> Result<()>,
) -> Result<Replayed> {
    let path = filename::wal(number);
    let file = storage.open(&path)?;
    let tail = if is_last || !has_bytes_after_header(&*file)? { Tail::MayBeTorn } else { Tail::Complete };
    let mut log = LogReader::open(file, id(number, database_id), tail, payload_bytes_max)?;
    let (mut batches, mut first_seq, mut last_seq) = (0, None, None);
    let mut expected = log.first_seq().filter(|seq| *seq > SequenceNumber(0));
    while let Some(frame) = log.next_frame()? {
        let follows = expected.map_or(batches == 0 && frame.seq > SequenceNumber(0), |seq| seq == frame.seq);
        if !follows || frame.seq >= SequenceNumber::MAX {
            let wanted = expected.map_or(1, |seq| seq.0);
            let what = format!("batch {} where batch {wanted} must be", frame.seq.0);
            return Err(Error::corruption(path, frame.offset, what));
        }
        check_batch(&path, &frame)?;
        first_seq.get_or_insert(frame.seq);
        last_seq = Some(frame.seq);
        expected = frame.seq.0.checked_add(1).map(SequenceNumber);
        batches += 1;
        apply(frame.seq, frame.payload)?;
    }
    let ending = log.ending();
    let bytes_dropped = match ending {
        Some(Ending::Torn { bytes_dropped, .. }) => bytes_dropped,
        _ => 0,
    };
    Ok(Replayed {
        sealed: ending == Some(Ending::Sealed),
        created_for: log.first_seq(),
        first_seq,
        last_seq,
        batches,
        bytes: log.valid_bytes(),
        bytes_dropped,
    })
}

/// True if a WAL holds anything after its header, valid or not. Then every
/// earlier WAL was sealed before.
pub fn holds_data(storage: &dyn Storage, number: FileNumber) -> Result<bool> {
    has_bytes_after_header(&*storage.open(&filename::wal(number))?)
}

fn has_bytes_after_header(file: &dyn ReadFile) -> Result<bool> {
    let size = file.size()?;
    let mut offset = LOG_HEADER_BYTES;
    while offset < size {
        let len = (size - offset).min(64 << 10) as usize;
        if file.read_at(offset, len)?.iter().any(|&byte| byte != 0) {
            return Ok(true);
        }
        offset += len as u64;
    }
    Ok(false)
}

fn check_batch(path: &str, frame: &Frame) -> Result<()> {
    for op in batch::decode(&frame.payload) {
        let Err(error) = op else { continue };
        let offset = frame.offset + (FRAME_HEADER_BYTES + error.offset) as u64;
        return Err(Error::corruption(path, offset, error.what));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
