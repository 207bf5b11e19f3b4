//! Checksummed framing, shared by WAL and manifest.
//!
//! ```text
//! log     := header frame* [seal]
//! frame   := crc u32 | payload_len u32 | kind u8 | zero 3 bytes
//!          | synced_offset u64 | seq u64 | payload
//! kind    := 1 header | 2 batch (WAL) | 3 seal | 4 edit (manifest)
//! header  := magic "DURAMEN\0" | format_version u32 | log_kind u8 | zero 3 bytes
//!          | log_number u64 | database_id u64           seq: the first one to come,
//!                                                       0 if that was not known
//! seal    := log_length u64, this frame included        seq: the last one before
//! ```
//!
//! Integers are little-endian. `crc` is the CRC-32 (IEEE) of log number u64,
//! frame offset u64, and the frame after its `crc`: a frame is valid only in the
//! file and at the offset it was written for. Where a header begins with zeros
//! (kind 0) the log ends; a file with zeros written ahead has such a tail, and so does
//! one that a crash left longer than its bytes. The first frame keeps this layout in
//! every format version, so that an older program can tell that a log is newer.
//!
//! `synced_offset` is the length known to be synced when the frame was written.
//! It tells two kinds of damage apart. In the last log, which nobody sealed, an
//! invalid frame is a **torn tail**, the trace of a crash, and is dropped with
//! what follows; but if a valid frame further on says that the bad offset had
//! been synced, synced bytes have changed, which is **corruption**. In a log
//! that must be complete all damage is corruption, as are bytes other than zeros after
//! a seal.
//!
//! Invariants of the writer: one frame or group is one call of the storage; a
//! log ends at a frame boundary unless its writer is broken; a seal is written
//! only once everything before it is synced, and ends the log.

mod reader;
mod salvage;
mod writer;

use crate::error::{Error, Result};
use crate::filename;
use crate::key::{FileNumber, SequenceNumber};

pub use reader::{Ending, Frame, LogReader, Tail};
pub(crate) use salvage::{LogSalvage, Piece, identify};
pub use writer::{LogSyncer, LogWriter};

/// Version of all file formats that this build writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 28;

/// Bytes of the first frame of a log; a log of this length holds no data.
pub const LOG_HEADER_BYTES: u64 = (FRAME_HEADER_BYTES + HEADER_PAYLOAD_BYTES) as u64;

const HEADER_PAYLOAD_BYTES: usize = 32;
const MAGIC: [u8; 8] = *b"DURAMEN\0";

/// What a log is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LogKind {
    /// Batches.
    Wal = 1,
    /// Version edits.
    Manifest = 2,
}

impl LogKind {
    /// The one kind of frame that carries this log's data.
    fn data(self) -> FrameKind {
        match self {
            LogKind::Wal => FrameKind::Batch,
            LogKind::Manifest => FrameKind::Edit,
        }
    }
}

/// What makes a log this log and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogId {
    /// What it is for.
    pub kind: LogKind,
    /// Its file number.
    pub number: FileNumber,
    /// Random id of the database it belongs to.
    pub database_id: u64,
}

impl LogId {
    /// Path of the log, relative to the database directory.
    pub fn path(&self) -> String {
        match self.kind {
            LogKind::Wal => filename::wal(self.number),
            LogKind::Manifest => filename::manifest(self.number),
        }
    }
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// The identity of the log; its first frame and no other.
    Header = 1,
    /// An encoded batch.
    Batch = 2,
    /// The end of a complete log.
    Seal = 3,
    /// An encoded version edit.
    Edit = 4,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<FrameKind> {
        match byte {
            1 => Some(FrameKind::Header),
            2 => Some(FrameKind::Batch),
            3 => Some(FrameKind::Seal),
            4 => Some(FrameKind::Edit),
            _ => None,
        }
    }
}

/// The fixed part of a frame, decoded and not yet believed.
#[derive(Clone, Copy, Debug)]
struct FrameHeader {
    crc: u32,
    payload_len: u32,
    kind: u8,
    synced_offset: u64,
    seq: u64,
}

impl FrameHeader {
    /// `None` where the reserved bytes are set or the kind is 0: no frame.
    fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Option<FrameHeader> {
        let (crc, rest) = split_u32(bytes)?;
        let (payload_len, rest) = split_u32(rest)?;
        let (&[kind, 0, 0, 0], rest) = rest.split_first_chunk()? else { return None };
        let (synced_offset, rest) = split_u64(rest)?;
        let (seq, _) = split_u64(rest)?;
        (kind != 0).then_some(FrameHeader { crc, payload_len, kind, synced_offset, seq })
    }

    fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.crc.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[8] = self.kind;
        bytes[12..20].copy_from_slice(&self.synced_offset.to_le_bytes());
        bytes[20..].copy_from_slice(&self.seq.to_le_bytes());
        bytes
    }

    /// The checksum so far, to be updated with the payload.
    fn hasher(&self, log: FileNumber, offset: u64) -> crc32fast::Hasher {
        let mut seeded = [0; 16 + FRAME_HEADER_BYTES - 4];
        seeded[..8].copy_from_slice(&log.0.to_le_bytes());
        seeded[8..16].copy_from_slice(&offset.to_le_bytes());
        seeded[16..].copy_from_slice(&self.encode()[4..]);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&seeded);
        hasher
    }

    fn payload_crc(&self, log: FileNumber, offset: u64, payload: &[u8]) -> u32 {
        let mut hasher = self.hasher(log, offset);
        hasher.update(payload);
        hasher.finalize()
    }
}

/// Payload of the first frame.
fn encode_log_header(id: &LogId) -> [u8; HEADER_PAYLOAD_BYTES] {
    let mut bytes = [0; HEADER_PAYLOAD_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[12] = id.kind as u8;
    bytes[16..24].copy_from_slice(&id.number.0.to_le_bytes());
    bytes[24..].copy_from_slice(&id.database_id.to_le_bytes());
    bytes
}

/// The number that a first frame claims, to recognise a log under another name.
fn claimed_number(payload: &[u8]) -> Option<FileNumber> {
    let rest = payload.strip_prefix(&MAGIC)?;
    split_u64(rest.get(8..)?).map(|(number, _)| FileNumber(number))
}

/// Checks the payload of a first frame, whose checksum is right, against what
/// the caller expects.
fn check_log_header(payload: &[u8], id: &LogId) -> Result<()> {
    let corruption = |what: String| Err(Error::corruption(id.path(), FRAME_HEADER_BYTES as u64, what));
    let Some((version, _)) = payload.strip_prefix(&MAGIC).and_then(split_u32) else {
        return corruption("not a log of this engine".into());
    };
    if version > FORMAT_VERSION {
        return Err(newer_format(&id.path(), version));
    }
    let expected = encode_log_header(id);
    if payload == expected {
        return Ok(());
    }
    let found = payload.get(24..).and_then(split_u64).map(|(found, _)| found);
    match found {
        Some(found) if payload.get(..24) == expected.get(..24) => {
            corruption(format!("belongs to database {found:016x}, not {:016x}", id.database_id))
        }
        _ => corruption("header of another kind of log".into()),
    }
}

/// The refusal of a file that a newer program wrote. Nothing has been touched.
pub(crate) fn newer_format(file: &str, version: u32) -> Error {
    Error::Unsupported(format!(
        "{file} has format version {version}, and this program reads up to {FORMAT_VERSION}; use a newer one"
    ))
}

pub(crate) fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    bytes.split_first_chunk().map(|(word, rest)| (u32::from_le_bytes(*word), rest))
}

pub(crate) fn split_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    bytes.split_first_chunk().map(|(word, rest)| (u64::from_le_bytes(*word), rest))
}

/// The sequence number that a log ends with if nothing follows `first_seq`.
fn before(first_seq: SequenceNumber) -> SequenceNumber {
    SequenceNumber(first_seq.0.saturating_sub(1))
}

#[cfg(test)]
mod tests;
