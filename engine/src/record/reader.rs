//! Reading frames back and judging how a log ends.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::key::SequenceNumber;
use crate::record::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, LogId, before, check_log_header, claimed_number, split_u64,
};
use crate::storage::ReadFile;

/// Bytes read at once. Calls are dear in a sandbox and memory is scarce there.
const WINDOW_BYTES: usize = 256 << 10;

/// Bytes checksummed in search of a valid frame after damage, at most. Only a
/// prepared file comes near: it takes a 64-bit coincidence to try one frame.
const SCAN_CRC_BYTES_MAX: u64 = 1 << 30;

/// How a log may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// The last log of its kind: a crash may have torn its tail.
    MayBeTorn,
    /// A log that was sealed before a later one took data: whole, or corrupt.
    Complete,
}

/// How a log did end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a seal: nothing is missing.
    Sealed,
    /// At a frame boundary, without a seal.
    Clean,
    /// With bytes that are no frame, dropped as the trace of a crash.
    Torn {
        /// Where the dropped bytes begin.
        offset: u64,
        /// How many there are, but for zeros at the end.
        bytes_dropped: u64,
    },
}

/// A batch or an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where the frame begins, in bytes from the start of the file.
    pub offset: u64,
    /// What it was appended with.
    pub seq: SequenceNumber,
    /// What was appended.
    pub payload: Bytes,
}

/// Streams the frames of one log; holds a window of it, never all.
#[derive(Debug)]
pub struct LogReader {
    file: Arc<dyn ReadFile>,
    id: LogId,
    path: String,
    tail: Tail,
    payload_bytes_max: usize,
    size: u64,
    offset: u64,
    window: Bytes,
    window_offset: u64,
    /// Of the frames so far.
    synced_offset: u64,
    first_seq: Option<SequenceNumber>,
    /// `None` before the first frame of a log that does not say what it begins with.
    last_seq: Option<SequenceNumber>,
    ending: Option<Ending>,
}

/// A frame with a right checksum, or why there is none.
enum Found {
    Valid(FrameHeader, Bytes),
    Bad(&'static str),
}

impl LogReader {
    /// Reads the header of `file`, which must be the log `id`. A payload longer
    /// than `payload_bytes_max` is not loaded.
    ///
    /// # Errors
    /// `Unsupported` for a newer format; `Corruption` for another log, another
    /// database, or damage that `tail` does not allow.
    pub fn open(
        file: Arc<dyn ReadFile>,
        id: LogId,
        tail: Tail,
        payload_bytes_max: usize,
    ) -> Result<LogReader> {
        let mut reader = LogReader {
            size: file.size()?,
            file,
            id,
            path: id.path(),
            tail,
            payload_bytes_max,
            offset: 0,
            window: Bytes::new(),
            window_offset: 0,
            synced_offset: 0,
            first_seq: None,
            last_seq: None,
            ending: None,
        };
        reader.read_log_header()?;
        Ok(reader)
    }

    /// The first sequence number that the log was created for, 0 if that was not known
    /// then; `None` if a crash kept even the header from being written.
    pub fn first_seq(&self) -> Option<SequenceNumber> {
        self.first_seq
    }

    /// How the log ended; `None` before [`LogReader::next_frame`] has said so.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Bytes of valid frames so far, the log header included.
    pub fn valid_bytes(&self) -> u64 {
        self.offset
    }

    /// The next frame, or `None` at the end of the log.
    ///
    /// # Errors
    /// `Corruption` with file and offset; `Unsupported` for a valid payload
    /// over the limit, which must not be dropped. Called again it says the same.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        if self.ending.is_some() {
            return Ok(None);
        }
        let offset = self.offset;
        if offset == self.size {
            return match self.tail {
                Tail::MayBeTorn => self.end(Ending::Clean),
                Tail::Complete => self.corruption(offset, "the log ends without its seal"),
            };
        }
        let (header, payload) = match self.read_frame(offset)? {
            Found::Valid(header, payload) => (header, payload),
            Found::Bad(what) => {
                self.damage(offset, what)?;
                return Ok(None);
            }
        };
        // From here on the writer itself wrote this: what is wrong now is no
        // trace of a crash.
        if header.synced_offset > offset || header.synced_offset < self.synced_offset {
            return self.corruption(offset, "the synced offset of the frame is impossible");
        }
        let end = offset + FRAME_HEADER_BYTES as u64 + payload.len() as u64;
        let seq = SequenceNumber(header.seq);
        match FrameKind::from_byte(header.kind) {
            Some(FrameKind::Seal) => {
                let follows = self.last_seq.is_none_or(|last| last == seq);
                if split_u64(&payload) != Some((end, &[])) || !follows {
                    return self.corruption(offset, "the seal does not match the log");
                }
                if self.end_of_bytes(end)? != end {
                    return self.corruption(end, "bytes after the seal");
                }
                self.offset = end;
                self.end(Ending::Sealed)
            }
            Some(kind) if kind == self.id.kind.data() => {
                self.offset = end;
                self.synced_offset = header.synced_offset;
                self.last_seq = Some(seq);
                Ok(Some(Frame { offset, seq, payload }))
            }
            _ => self.corruption(offset, "a frame of this kind does not belong here"),
        }
    }

    fn read_log_header(&mut self) -> Result<()> {
        let what = match self.read_frame(0)? {
            Found::Valid(header, payload) if header.kind == FrameKind::Header as u8 => {
                check_log_header(&payload, &self.id)?;
                let seq = SequenceNumber(header.seq);
                self.first_seq = Some(seq);
                self.last_seq = (seq > SequenceNumber(0)).then(|| before(seq));
                self.offset = FRAME_HEADER_BYTES as u64 + payload.len() as u64;
                return Ok(());
            }
            Found::Valid(..) => return self.corruption(0, "the log does not begin with its header"),
            Found::Bad(what) => what,
        };
        // A whole header that names another log is no torn one: dropping it
        // would drop what the right log held.
        if let Some(number) = self.other_log()? {
            return self.corruption(0, &format!("the file is log {} under another name", number.0));
        }
        self.damage(0, what)
    }

    /// The number of the log that this file is, if it is another one.
    fn other_log(&mut self) -> Result<Option<crate::key::FileNumber>> {
        let bytes = self.fetch(0, self.size.min(super::LOG_HEADER_BYTES) as usize)?;
        let Some((fixed, payload)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = FrameHeader::decode(fixed).filter(|header| header.payload_len as usize == payload.len());
        let Some((header, number)) = header.zip(claimed_number(payload)) else { return Ok(None) };
        Ok((header.crc == header.payload_crc(number, 0, payload)).then_some(number))
    }

    fn end(&mut self, ending: Ending) -> Result<Option<Frame>> {
        self.ending = Some(ending);
        Ok(None)
    }

    fn corruption<T>(&self, offset: u64, what: &str) -> Result<T> {
        Err(Error::corruption(&*self.path, offset, what))
    }

    /// Reads the frame at `offset` and checks its checksum.
    fn read_frame(&mut self, offset: u64) -> Result<Found> {
        let left = self.size - offset;
        if left < FRAME_HEADER_BYTES as u64 {
            return Ok(Found::Bad("the header of a frame is cut short"));
        }
        let fixed = self.fetch(offset, FRAME_HEADER_BYTES)?;
        let Some(header) = fixed.first_chunk().and_then(FrameHeader::decode) else {
            return Ok(Found::Bad("no frame"));
        };
        if u64::from(header.payload_len) > left - FRAME_HEADER_BYTES as u64 {
            return Ok(Found::Bad("the payload of a frame runs past the end of the file"));
        }
        let payload_len = header.payload_len as usize;
        if payload_len > self.payload_bytes_max {
            if !self.check_crc(&header, offset)? {
                return Ok(Found::Bad("wrong checksum"));
            }
            return Err(Error::Unsupported(format!(
                "{} holds a record of {payload_len} bytes at offset {offset}, over the limit of {} bytes; \
                 open the database with a larger `batch_bytes_max`",
                self.path, self.payload_bytes_max
            )));
        }
        let payload = self.fetch(offset + FRAME_HEADER_BYTES as u64, payload_len)?;
        if header.payload_crc(self.id.number, offset, &payload) != header.crc {
            return Ok(Found::Bad("wrong checksum"));
        }
        Ok(Found::Valid(header, payload))
    }

    /// Checks a frame that lies within the file without holding its payload.
    fn check_crc(&self, header: &FrameHeader, offset: u64) -> Result<bool> {
        let mut hasher = header.hasher(self.id.number, offset);
        let mut at = offset + FRAME_HEADER_BYTES as u64;
        let mut left = header.payload_len as usize;
        while left > 0 {
            let bytes = self.file.read_at(at, left.min(WINDOW_BYTES))?;
            hasher.update(&bytes);
            at += bytes.len() as u64;
            left -= bytes.len();
        }
        Ok(hasher.finalize() == header.crc)
    }

    /// `len` bytes at `offset`, which lie within the file.
    fn fetch(&mut self, offset: u64, len: usize) -> Result<Bytes> {
        let inside = offset.checked_sub(self.window_offset).and_then(|start| {
            let start = usize::try_from(start).ok()?;
            let end = start.checked_add(len)?;
            (end <= self.window.len()).then_some(start..end)
        });
        if let Some(range) = inside {
            return Ok(self.window.slice(range));
        }
        if len >= WINDOW_BYTES {
            return self.file.read_at(offset, len);
        }
        let window = (self.size - offset).min(WINDOW_BYTES as u64) as usize;
        self.window = self.file.read_at(offset, window)?;
        self.window_offset = offset;
        Ok(self.window.slice(..len))
    }

    /// Judges the invalid frame at `offset`: an ending, or corruption.
    fn damage(&mut self, offset: u64, what: &'static str) -> Result<()> {
        if self.tail == Tail::Complete {
            return self.corruption(offset, what);
        }
        let end = self.end_of_bytes(offset)?;
        if let Some((frame, synced)) = self.scan(offset, end)? {
            let what = format!("{what}, though the frame at {frame} says that {synced} bytes were synced");
            return self.corruption(offset, &what);
        }
        self.ending = Some(match end {
            _ if end == offset => Ending::Clean,
            _ => Ending::Torn { offset, bytes_dropped: end - offset },
        });
        Ok(())
    }

    /// Where the zeros begin with which the file ends, at `from` at the earliest.
    fn end_of_bytes(&self, from: u64) -> Result<u64> {
        let mut end = self.size;
        while end > from {
            let start = from.max(end.saturating_sub(WINDOW_BYTES as u64));
            let window = self.file.read_at(start, (end - start) as usize)?;
            if let Some(last) = window.iter().rposition(|byte| *byte != 0) {
                return Ok(start + last as u64 + 1);
            }
            end = start;
        }
        Ok(end)
    }

    /// Looks behind the invalid frame at `bad`, byte by byte, as its length cannot be
    /// trusted, and as far as `end`, from where on there are zeros. Answers the offset of
    /// a valid frame, and the bytes it knows to be synced, past the invalid one.
    fn scan(&self, bad: u64, end: u64) -> Result<Option<(u64, u64)>> {
        // The last bytes of a header may be zeros.
        let end = self.size.min(end + FRAME_HEADER_BYTES as u64);
        let mut crc_bytes_left = SCAN_CRC_BYTES_MAX;
        let mut at = bad;
        while at < end {
            // Windows overlap by a header less one byte, so that no header is
            // missed between them.
            let len = (end - at).min(WINDOW_BYTES as u64) as usize;
            let window = self.file.read_at(at, len)?;
            for (start, bytes) in window.windows(FRAME_HEADER_BYTES).enumerate() {
                let offset = at + start as u64;
                let Some(header) = self.candidate(bytes, bad, offset) else { continue };
                let cost = FRAME_HEADER_BYTES as u64 + u64::from(header.payload_len);
                let Some(left) = crc_bytes_left.checked_sub(cost) else {
                    return self.corruption(bad, "damage followed by too many things that look like frames");
                };
                crc_bytes_left = left;
                if self.check_crc(&header, offset)? {
                    return Ok(Some((offset, header.synced_offset)));
                }
            }
            if at + len as u64 == end {
                break;
            }
            at += (len - (FRAME_HEADER_BYTES - 1)) as u64;
        }
        Ok(None)
    }

    /// A header at `offset` that would contradict a torn tail at `bad`.
    fn candidate(&self, bytes: &[u8], bad: u64, offset: u64) -> Option<FrameHeader> {
        // Most bytes fail here, without decoding.
        if !matches!(bytes[8], 1..=4) {
            return None;
        }
        let header = FrameHeader::decode(bytes.first_chunk()?)?;
        let end = (offset + FRAME_HEADER_BYTES as u64).checked_add(header.payload_len.into())?;
        let plausible = header.synced_offset > bad && header.synced_offset <= offset && end <= self.size;
        plausible.then_some(header)
    }
}
