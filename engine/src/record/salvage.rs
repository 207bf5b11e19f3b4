//! Reading what is sound of a damaged log: every frame whose checksum is right,
//! wherever it is. For repair alone: what it skips may be commits that were
//! acknowledged.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::key::{FileNumber, SequenceNumber};
use crate::record::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, LOG_HEADER_BYTES, LogId, LogKind, claimed_number, split_u64,
};
use crate::storage::ReadFile;

/// Bytes read at once in search of a frame.
const WINDOW_BYTES: u64 = 256 << 10;

/// Bytes checksummed in search of frames, at most; only a prepared file comes
/// near.
const SEARCH_BYTES_MAX: u64 = 1 << 30;

/// What follows in a log.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A frame with a right checksum.
    Frame { kind: FrameKind, offset: u64, seq: SequenceNumber, payload: Bytes },
    /// Bytes that are none.
    Damage { offset: u64, bytes: u64 },
}

/// What a file says that it is, if its first frame is sound.
pub(crate) fn identify(file: &dyn ReadFile, kind: LogKind) -> Result<Option<LogId>> {
    if file.size()? < LOG_HEADER_BYTES {
        return Ok(None);
    }
    let bytes = file.read_at(0, LOG_HEADER_BYTES as usize)?;
    let Some((fixed, payload)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
    let header = FrameHeader::decode(fixed).filter(|header| header.payload_len as usize == payload.len());
    let Some((header, number)) = header.zip(claimed_number(payload)) else { return Ok(None) };
    let database_id = payload.get(24..).and_then(split_u64).map(|(id, _)| id);
    let sound =
        header.crc == header.payload_crc(number, 0, payload) && payload.get(12) == Some(&(kind as u8));
    Ok(database_id.filter(|_| sound).map(|database_id| LogId { kind, number, database_id }))
}

/// Walks the sound frames of a log.
#[derive(Debug)]
pub(crate) struct LogSalvage {
    file: Arc<dyn ReadFile>,
    number: FileNumber,
    payload_bytes_max: usize,
    /// Where the log ends.
    end: u64,
    offset: u64,
    search_bytes_left: u64,
    /// A frame found behind damage.
    found: Option<Piece>,
}

impl LogSalvage {
    /// Walks the log `number` in `file`, as far as `end` at most.
    pub fn open(
        file: Arc<dyn ReadFile>,
        number: FileNumber,
        end: Option<u64>,
        payload_bytes_max: usize,
    ) -> Result<LogSalvage> {
        let size = file.size()?;
        let end = end.map_or(size, |end| end.min(size));
        let search_bytes_left = SEARCH_BYTES_MAX;
        Ok(LogSalvage { file, number, payload_bytes_max, end, offset: 0, search_bytes_left, found: None })
    }

    /// The next piece, or `None` at the end. Zeros up to the end are the end.
    ///
    /// # Errors
    /// Those of storage: what follows cannot be read.
    pub fn next_piece(&mut self) -> Result<Option<Piece>> {
        if let Some(found) = self.found.take() {
            return Ok(Some(found));
        }
        if self.offset >= self.end {
            return Ok(None);
        }
        if let Some(frame) = self.frame(self.offset)? {
            return Ok(Some(frame));
        }
        let (offset, mut zeros) = (self.offset, true);
        let mut at = offset;
        while at < self.end {
            let len = (self.end - at).min(WINDOW_BYTES) as usize;
            let window = self.file.read_at(at, len)?;
            zeros &= window.iter().all(|&byte| byte == 0);
            for (start, bytes) in window.windows(FRAME_HEADER_BYTES).enumerate() {
                // Most bytes fail here, without decoding.
                if !matches!(bytes[8], 1..=4) {
                    continue;
                }
                let frame_offset = at + start as u64;
                if let Some(frame) = self.frame(frame_offset)? {
                    self.found = Some(frame);
                    return Ok(Some(Piece::Damage { offset, bytes: frame_offset - offset }));
                }
            }
            if at + len as u64 == self.end {
                break;
            }
            // Windows overlap, so that no header is missed between them.
            at += (len - (FRAME_HEADER_BYTES - 1)) as u64;
        }
        self.offset = self.end;
        Ok((!zeros).then_some(Piece::Damage { offset, bytes: self.end - offset }))
    }

    /// The frame at `offset`, if there is a sound one; goes on behind it.
    fn frame(&mut self, offset: u64) -> Result<Option<Piece>> {
        let start = offset + FRAME_HEADER_BYTES as u64;
        if start > self.end {
            return Ok(None);
        }
        let fixed = self.file.read_at(offset, FRAME_HEADER_BYTES)?;
        let header = fixed.first_chunk().and_then(FrameHeader::decode);
        let Some((header, kind)) =
            header.and_then(|header| Some((header, FrameKind::from_byte(header.kind)?)))
        else {
            return Ok(None);
        };
        let len = header.payload_len as usize;
        if u64::from(header.payload_len) > self.end - start
            || len > self.payload_bytes_max
            || header.synced_offset > offset
        {
            return Ok(None);
        }
        let Some(left) = self.search_bytes_left.checked_sub(len as u64) else { return Ok(None) };
        let payload = self.file.read_at(start, len)?;
        if header.payload_crc(self.number, offset, &payload) != header.crc {
            self.search_bytes_left = left;
            return Ok(None);
        }
        self.offset = start + len as u64;
        Ok(Some(Piece::Frame { kind, offset, seq: SequenceNumber(header.seq), payload }))
    }
}
