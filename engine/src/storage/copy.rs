//! Files of one storage brought into another: by a second name for the same
//! file where that is possible, byte by byte otherwise.
//!
//! Only files that nobody changes any more are brought so. Neither call syncs
//! the directory of the target.

use crate::error::{Error, Result};
use crate::storage::Storage;

/// Bytes of a copy that are in memory at once: few calls, little memory.
const COPY_BYTES: u64 = 1 << 20;

/// Copies the first `bytes` bytes of a file to a new one, and syncs it.
///
/// # Errors
/// `Corruption` if the file is shorter; `Io` of either storage. The new file may
/// be there in part.
pub(crate) fn copy(
    (source, from): (&dyn Storage, &str),
    (target, to): (&dyn Storage, &str),
    bytes: u64,
) -> Result<()> {
    let file = source.open(from)?;
    let mut copy = target.create(to)?;
    let mut offset = 0;
    while offset < bytes {
        let chunk = file.read_at(offset, (bytes - offset).min(COPY_BYTES) as usize)?;
        copy.append(&chunk)?;
        offset += chunk.len() as u64;
    }
    copy.sync_data()
}

/// Gives a file of `bytes` bytes, which must be durable, a second name in
/// another storage; false where that cannot be done, and then nothing was.
///
/// # Errors
/// `Corruption` if the file has another length; `Io`.
pub(crate) fn link(
    (source, from): (&dyn Storage, &str),
    (target, to): (&dyn Storage, &str),
    bytes: u64,
) -> Result<bool> {
    let found = source.open(from)?.size()?;
    if found != bytes {
        let what = format!("the file has {found} bytes, and {bytes} in the manifest");
        return Err(Error::corruption(from, found.min(bytes), what));
    }
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    if let Some(((source, from), (target, to))) = source.locate(from).zip(target.locate(to)) {
        return target.link(&to, source, &from);
    }
    let _ = (target, to);
    Ok(false)
}
