//! Appending frames.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

use crate::error::{Error, Result};
use crate::key::SequenceNumber;
use crate::record::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, LogId, LogKind, before, encode_log_header};
use crate::storage::{AppendFile, SyncFile};
use crate::sync::atomic::AtomicU64;

/// Bytes of the frame buffer kept between appends; one large batch should not
/// cost its size for as long as the log lives.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// Bytes of a sync from which on it is not small.
const PIECE_BYTES_MAX: u64 = 64 << 10;

/// Bytes of zeros that are written ahead at once, at least and at most: in between, as
/// many as the log has.
const ZEROS_BYTES_MIN: u64 = 4 << 10;
const ZEROS_BYTES_MAX: u64 = 1 << 20;

/// Writes one log from its header to its seal.
///
/// An `Io` error leaves the log as it was before the call: usable, every frame
/// whole. After `Poisoned` what the file holds is unknown; every later call
/// answers `Poisoned` too.
#[derive(Debug)]
pub struct LogWriter {
    file: Box<dyn AppendFile>,
    id: LogId,
    path: String,
    buffer: Vec<u8>,
    extent: Arc<Extent>,
    /// Length of the file, with the zeros behind the frames.
    zeros_to: u64,
    /// Room was reserved behind the frames.
    reserved: bool,
    last_seq: SequenceNumber,
    state: State,
}

/// How far a log goes.
#[derive(Debug, Default)]
struct Extent {
    /// Bytes of whole frames.
    len: AtomicU64,
    /// Bytes known to survive power loss.
    synced: AtomicU64,
}

impl Extent {
    fn len(&self) -> u64 {
        self.len.load(Acquire)
    }

    fn synced(&self) -> u64 {
        self.synced.load(Acquire)
    }
}

/// Syncs a log beside its writer.
#[derive(Debug)]
pub struct LogSyncer {
    file: Box<dyn SyncFile>,
    extent: Arc<Extent>,
}

impl LogSyncer {
    /// Bytes that were appended and are not known to survive power loss.
    pub fn unsynced_bytes(&self) -> u64 {
        self.extent.len().saturating_sub(self.extent.synced())
    }

    /// Makes what was appended before the call survive power loss.
    ///
    /// # Errors
    /// `Poisoned`: write no more to the log, see [`Error::Poisoned`].
    pub fn sync(&self) -> Result<()> {
        let len = self.extent.len();
        self.file.sync_data().map_err(|error| Error::Poisoned(error.to_string()))?;
        self.extent.synced.fetch_max(len, Release);
        Ok(())
    }
}

#[derive(Debug)]
enum State {
    Open,
    Sealed,
    Broken(String),
}

impl LogWriter {
    /// Writes the header into an empty file and does not sync it. `first_seq`
    /// is the sequence number that the first append will carry; 0 while that is not
    /// known, see [`LogWriter::begin`].
    pub fn create(file: Box<dyn AppendFile>, id: LogId, first_seq: SequenceNumber) -> Result<LogWriter> {
        let path = id.path();
        let last_seq = before(first_seq);
        let (buffer, state) = (Vec::new(), State::Open);
        let extent = Arc::default();
        let mut log =
            LogWriter { file, id, path, buffer, extent, zeros_to: 0, reserved: false, last_seq, state };
        log.frame(FrameKind::Header, first_seq, &encode_log_header(&id))?;
        log.write()?;
        Ok(log)
    }

    /// What syncs the log beside this writer by `file`, another opening of its file,
    /// made before anything is appended.
    pub fn syncer(&self, file: Box<dyn SyncFile>) -> LogSyncer {
        LogSyncer { file, extent: Arc::clone(&self.extent) }
    }

    /// Lets the storage find room for a log of `bytes`.
    pub fn reserve(&mut self, bytes: u64) {
        self.file.reserve(bytes);
        self.reserved = true;
    }

    /// Gives back the room that is not used. It takes the time of freeing it.
    pub fn release(&mut self) {
        if std::mem::take(&mut self.reserved) && matches!(self.state, State::Open) {
            // For the sake of the room alone: what is there reads as zeros.
            let _ = self.file.truncate(self.len());
            self.zeros_to = 0;
        }
    }

    /// Says what the first append of an empty log will carry.
    pub fn begin(&mut self, first_seq: SequenceNumber) {
        self.last_seq = before(first_seq);
    }

    /// Appends one frame: a batch to a WAL, an edit to a manifest.
    ///
    /// # Errors
    /// `InvalidArgument` for a payload of 4 GiB or more; `Io` and `Poisoned` as
    /// for all of [`LogWriter`].
    pub fn append(&mut self, seq: SequenceNumber, payload: &[u8]) -> Result<()> {
        self.append_many(&[(seq, payload)])
    }

    /// Appends frames in one call of the storage: all of them, or on an `Io`
    /// error none.
    pub fn append_many(&mut self, records: &[(SequenceNumber, &[u8])]) -> Result<()> {
        self.check_open()?;
        let Some(&(last_seq, _)) = records.last() else { return Ok(()) };
        self.buffer.clear();
        let framed =
            records.iter().try_for_each(|&(seq, payload)| self.frame(self.id.kind.data(), seq, payload));
        framed.and_then(|()| self.write())?;
        self.last_seq = last_seq;
        Ok(())
    }

    /// Makes everything appended so far survive power loss.
    ///
    /// # Errors
    /// `Poisoned`: a failed sync is never retried, see [`Error::Poisoned`].
    pub fn sync(&mut self) -> Result<()> {
        if matches!(self.state, State::Open) {
            self.write_zeros();
        }
        self.sync_frames()
    }

    fn sync_frames(&mut self) -> Result<()> {
        if let State::Broken(why) = &self.state {
            return Err(Error::Poisoned(why.clone()));
        }
        let len = self.extent.len();
        if self.extent.synced() == len {
            return Ok(());
        }
        match self.file.sync_data() {
            Ok(()) => {
                self.extent.synced.fetch_max(len, Release);
                Ok(())
            }
            Err(error) => Err(self.broken(error.to_string())),
        }
    }

    /// Where a WAL is synced by small pieces, writes zeros ahead of it, for the sync to
    /// come and those after it: overwriting them needs no change of the file's length
    /// and place, which would have to be synced, too.
    fn write_zeros(&mut self) {
        let (len, unsynced) = (self.len(), self.len() - self.extent.synced());
        let small = (1..PIECE_BYTES_MAX).contains(&unsynced);
        if self.id.kind == LogKind::Wal && small && !self.is_empty() && len + unsynced > self.zeros_to {
            let zeros_to = len + len.clamp(ZEROS_BYTES_MIN, ZEROS_BYTES_MAX);
            // Without them it goes as well; a failing disk shows in the sync.
            if self.file.preallocate(zeros_to).is_ok() {
                self.zeros_to = zeros_to;
            }
        }
    }

    /// Syncs, writes the seal, and syncs again. The log then takes no more.
    pub fn seal(&mut self) -> Result<()> {
        self.check_open()?;
        // The seal claims that everything before it is durable.
        self.sync_frames()?;
        self.buffer.clear();
        let log_length = self.extent.len() + (FRAME_HEADER_BYTES + size_of::<u64>()) as u64;
        self.frame(FrameKind::Seal, self.last_seq, &log_length.to_le_bytes())?;
        self.write()?;
        self.sync_frames()?;
        self.state = State::Sealed;
        Ok(())
    }

    /// Length of the log in bytes.
    pub fn len(&self) -> u64 {
        self.extent.len()
    }

    /// True if nothing follows the header.
    pub fn is_empty(&self) -> bool {
        self.len() <= super::LOG_HEADER_BYTES
    }

    /// Bytes known to survive power loss.
    pub fn synced_bytes(&self) -> u64 {
        self.extent.synced()
    }

    /// Sequence number of the last append, or the one before the first.
    pub fn last_seq(&self) -> SequenceNumber {
        self.last_seq
    }

    /// True once sealed.
    pub fn is_sealed(&self) -> bool {
        matches!(self.state, State::Sealed)
    }

    /// The log's identity.
    pub fn id(&self) -> LogId {
        self.id
    }

    fn check_open(&self) -> Result<()> {
        match &self.state {
            State::Open => Ok(()),
            State::Sealed => Err(Error::invalid(format!("{} is sealed", self.path))),
            State::Broken(why) => Err(Error::Poisoned(why.clone())),
        }
    }

    fn broken(&mut self, why: String) -> Error {
        self.state = State::Broken(why.clone());
        Error::Poisoned(why)
    }

    /// Adds a frame to the buffer, for the offset where it will land.
    fn frame(&mut self, kind: FrameKind, seq: SequenceNumber, payload: &[u8]) -> Result<()> {
        let Ok(payload_len) = u32::try_from(payload.len()) else {
            return Err(Error::invalid(format!("record of {} bytes is over 4 GiB", payload.len())));
        };
        if self.buffer.try_reserve(FRAME_HEADER_BYTES.saturating_add(payload.len())).is_err() {
            return Err(Error::io("append to", &*self.path, std::io::ErrorKind::OutOfMemory.into()));
        }
        let offset = self.len() + self.buffer.len() as u64;
        let (kind, seq, synced_offset) = (kind as u8, seq.0, self.extent.synced());
        let mut header = FrameHeader { crc: 0, payload_len, kind, synced_offset, seq };
        header.crc = header.payload_crc(self.id.number, offset, payload);
        self.buffer.extend_from_slice(&header.encode());
        self.buffer.extend_from_slice(payload);
        Ok(())
    }

    /// Appends the buffer, or cuts the file back to the last whole frame.
    fn write(&mut self) -> Result<()> {
        let written = self.file.append(&self.buffer);
        let bytes = self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        let len = self.len();
        let Err(error) = written else {
            self.extent.len.store(len + bytes, Release);
            return Ok(());
        };
        // The sync keeps a power loss from bringing the partial frame back
        // beneath frames that are written later.
        self.zeros_to = len;
        match self.file.truncate(len).and_then(|()| self.file.sync_data()) {
            Ok(()) => {
                self.extent.synced.fetch_max(len, Release);
                Err(error)
            }
            Err(second) => Err(self.broken(format!("{error}, and then {second}"))),
        }
    }
}
