//! `CURRENT`: which manifest is live.
//!
//! ```text
//! file := slot, padded to 4096 bytes | slot, padded to 4096 bytes
//! slot := magic "DURAMENC" | format_version u32 | flags u32 | generation u64
//!       | manifest u64 | database_id u64 | crc u32
//! flags := bit 0: the names of this generation's files are durable
//! ```
//!
//! Integers are little-endian; `crc` is the CRC-32 (IEEE) of the slot before it.
//! Hosts differ in renaming and in syncing names, but all can overwrite and sync
//! bytes in place: generation `g` lives in slot `(g - 1) % 2`, so writing the
//! next one touches only the older slot, and a crash meanwhile leaves the live
//! one as it was. A slot lies within one disk sector, which is written whole.
//!
//! The generation is also the writer's epoch: every opener for writing advances
//! it, and [`check`] tells a stale writer that somebody else has.
//!
//! Creation of a database ends with [`create`]: without a valid slot there is no
//! database yet. Called by recovery and by whoever rolls the manifest over.

use crate::error::{Error, Result};
use crate::filename;
use crate::key::FileNumber;
use crate::record::{FORMAT_VERSION, newer_format, split_u32, split_u64};
use crate::storage::{DirSync, Storage};

const MAGIC: [u8; 8] = *b"DURAMENC";
const SLOT_BYTES: usize = 44;
/// Bytes between slots: a page, so that no write touches both.
const SLOT_STRIDE: usize = 4096;
const FILE_BYTES: usize = 2 * SLOT_STRIDE;
const NAMES_DURABLE: u32 = 1;

/// A generation of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// Counts from 1; each new manifest adds one.
    pub generation: u64,
    /// The live manifest.
    pub manifest: FileNumber,
    /// Random id of the database.
    pub database_id: u64,
    /// False where the host cannot sync directories: then the files of the
    /// generation before are still needed.
    pub names_durable: bool,
    /// What the other slot holds.
    pub other: OtherSlot,
}

/// The slot that is not live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherSlot {
    /// Never written.
    Empty,
    /// The generation before, and its manifest.
    Previous(FileNumber),
    /// Not valid: a crash while the next generation was being written, or
    /// damage to it. If the live manifest is missing it was damage.
    Invalid,
}

/// What `CURRENT` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CurrentState {
    /// There is no such file.
    Missing,
    /// The file is short or zero: a crash while it was being created, unless a
    /// manifest says otherwise.
    Incomplete,
    /// The live generation.
    Live(Current),
}

/// Creates the file with generation 1, the last step in making a database, and
/// makes it durable. A file left incomplete by a crash must be removed before.
pub fn create(
    storage: &dyn Storage,
    manifest: FileNumber,
    database_id: u64,
    names: DirSync,
) -> Result<Current> {
    let names_durable = names == DirSync::Done;
    let other = OtherSlot::Empty;
    let current = Current { generation: 1, manifest, database_id, names_durable, other };
    let mut bytes = encode(&current).to_vec();
    bytes.resize(FILE_BYTES, 0);
    let mut file = storage.create(filename::CURRENT)?;
    file.append(&bytes)?;
    file.sync_data()?;
    storage.sync_dir("")?;
    Ok(current)
}

/// Reads the file and changes nothing.
///
/// # Errors
/// `Corruption` where neither slot is valid though something was written, or
/// the slots contradict each other; `Unsupported` for a newer format.
pub fn read(storage: &dyn Storage) -> Result<CurrentState> {
    let file = match storage.open(filename::CURRENT) {
        Err(error) if error.is_not_found() => return Ok(CurrentState::Missing),
        other => other?,
    };
    let size = file.size()?;
    if size < FILE_BYTES as u64 {
        return Ok(CurrentState::Incomplete);
    }
    if size > FILE_BYTES as u64 {
        return Err(corruption(FILE_BYTES, "bytes after the slots"));
    }
    let bytes = file.read_at(0, FILE_BYTES)?;
    let (first, second) = bytes.split_at(SLOT_STRIDE);
    let (newer, older) = match (decode(first, 0)?, decode(second, 1)?) {
        (Slot::Valid(first), Slot::Valid(second)) if first.generation < second.generation => {
            (second, Slot::Valid(first))
        }
        (Slot::Valid(first), second) => (first, second),
        (first, Slot::Valid(second)) => (second, first),
        // A lone slot is judged by its bytes alone, so both can be zero only
        // if neither was ever synced.
        _ if bytes.iter().all(|&byte| byte == 0) => return Ok(CurrentState::Incomplete),
        _ => return Err(corruption(0, "neither slot is valid")),
    };
    let other = match older {
        Slot::Valid(older) if older.database_id != newer.database_id => {
            return Err(corruption(0, "the slots belong to different databases"));
        }
        Slot::Valid(older) if older.generation.checked_add(1) != Some(newer.generation) => {
            return Err(corruption(0, "the generations of the slots do not follow each other"));
        }
        Slot::Valid(older) => OtherSlot::Previous(older.manifest),
        // The first generation alone leaves the other slot empty.
        Slot::Empty if newer.generation == 1 => OtherSlot::Empty,
        Slot::Empty | Slot::Invalid => OtherSlot::Invalid,
    };
    Ok(CurrentState::Live(Current { other, ..newer }))
}

/// Makes `manifest` live: overwrites the older slot and syncs it. The manifest
/// and everything it names must be durable; `names` is what syncing their
/// directories answered.
///
/// # Errors
/// `Locked` if `current` is not the live generation any more. After any other
/// error either generation may be live; stop writing until reopened.
pub fn advance(
    storage: &dyn Storage,
    current: &Current,
    manifest: FileNumber,
    names: DirSync,
) -> Result<Current> {
    check(storage, current)?;
    let Some(generation) = current.generation.checked_add(1) else {
        return Err(Error::Unsupported("the database has no generations left".into()));
    };
    let next = Current {
        generation,
        manifest,
        database_id: current.database_id,
        names_durable: names == DirSync::Done,
        other: OtherSlot::Previous(current.manifest),
    };
    let offset = (slot_of(generation) * SLOT_STRIDE) as u64;
    storage.overwrite(filename::CURRENT, offset, &encode(&next))?;
    Ok(next)
}

/// Makes sure that `current` is still live, before its manifest is changed.
///
/// # Errors
/// `Locked` if another writer has advanced the generation.
pub fn check(storage: &dyn Storage, current: &Current) -> Result<()> {
    match read(storage)? {
        CurrentState::Live(live)
            if (live.generation, live.manifest, live.database_id)
                == (current.generation, current.manifest, current.database_id) =>
        {
            Ok(())
        }
        _ => Err(Error::Locked(format!(
            "another writer has taken over {}; this one was at generation {}",
            storage.describe(),
            current.generation
        ))),
    }
}

fn slot_of(generation: u64) -> usize {
    usize::from(generation.is_multiple_of(2))
}

fn corruption(offset: usize, what: &str) -> Error {
    Error::corruption(filename::CURRENT, offset as u64, what)
}

fn encode(current: &Current) -> [u8; SLOT_STRIDE] {
    let mut bytes = [0; SLOT_STRIDE];
    let flags = if current.names_durable { NAMES_DURABLE } else { 0 };
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&flags.to_le_bytes());
    bytes[16..24].copy_from_slice(&current.generation.to_le_bytes());
    bytes[24..32].copy_from_slice(&current.manifest.0.to_le_bytes());
    bytes[32..40].copy_from_slice(&current.database_id.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..SLOT_BYTES - 4]);
    bytes[40..SLOT_BYTES].copy_from_slice(&crc.to_le_bytes());
    bytes
}

enum Slot {
    Empty,
    Invalid,
    Valid(Current),
}

/// # Errors
/// `Unsupported` if a newer program wrote the slot; the layout up to the
/// checksum is the same in every version, so that this can be told.
fn decode(bytes: &[u8], index: usize) -> Result<Slot> {
    if bytes.iter().all(|&byte| byte == 0) {
        return Ok(Slot::Empty);
    }
    let Some((version, current)) = parse(bytes) else { return Ok(Slot::Invalid) };
    if version > FORMAT_VERSION {
        return Err(newer_format(filename::CURRENT, version));
    }
    if current.generation == 0 || slot_of(current.generation) != index {
        return Err(corruption(index * SLOT_STRIDE, "a slot in the place of the other"));
    }
    Ok(Slot::Valid(current))
}

fn parse(bytes: &[u8]) -> Option<(u32, Current)> {
    let (slot, rest) = bytes.split_at_checked(SLOT_BYTES - 4)?;
    if split_u32(rest)?.0 != crc32fast::hash(slot) {
        return None;
    }
    let (version, rest) = split_u32(slot.strip_prefix(&MAGIC)?)?;
    let (flags, rest) = split_u32(rest)?;
    let (generation, rest) = split_u64(rest)?;
    let (manifest, rest) = split_u64(rest)?;
    let (database_id, _) = split_u64(rest)?;
    let current = Current {
        generation,
        manifest: FileNumber(manifest),
        database_id,
        names_durable: flags & NAMES_DURABLE != 0,
        other: OtherSlot::Empty,
    };
    Some((version, current))
}

#[cfg(test)]
mod tests;
