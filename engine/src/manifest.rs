//! The manifest: a durable log of version edits, and the only truth about which
//! files are live.
//!
//! `manifest/<number>.log` is a log of [`crate::record`] whose data frames carry
//! one edit of [`crate::edit`] each; the first holds the whole state. Every
//! writable open and every log that has grown long begins a new manifest:
//!
//! 1. write and sync the new file and its name,
//! 2. advance `CURRENT` to it,
//! 3. remove the one before (where names are durable).
//!
//! An edit takes effect once it is synced. After a failed append or sync the
//! edit may or may not be there, so nothing more is written: neither the files
//! it adds nor those it removes may be deleted until the database is opened
//! again.

use std::io;
use std::sync::Arc;

use crate::current::{self, Current, CurrentState, OtherSlot};
use crate::edit::{Item, State, decode, encode};
use crate::error::{Error, Result};
use crate::filename;
use crate::key::{FileNumber, SequenceNumber};
use crate::record::{Ending, FRAME_HEADER_BYTES, LogId, LogKind, LogReader, LogWriter, Tail, identify};
use crate::storage::{DirSync, Storage};

/// Bytes of edits after the first after which a new manifest is begun, unless
/// the state itself is larger.
const ROLL_BYTES: u64 = 1 << 20;

/// Longest edit, in bytes: a state of a few hundred thousand SSTables.
const EDIT_BYTES_MAX: usize = 256 << 20;

/// The live manifest, open for edits.
#[derive(Debug)]
pub struct Manifest {
    storage: Arc<dyn Storage>,
    /// `None` where nothing may be written.
    log: Option<LogWriter>,
    current: Current,
    state: State,
    /// What the edits on disk add up to, where that is not `state`.
    recorded: Option<State>,
    /// Length after the first edit.
    snapshot_bytes: u64,
}

/// What [`load`] found.
#[derive(Debug)]
pub struct Loaded {
    /// The state after the last edit.
    pub state: State,
    /// What `CURRENT` says.
    pub current: Current,
    /// Bytes of the file.
    pub bytes: u64,
    /// Edits in it, the first one included.
    edits: u64,
}

/// The refusal of a change where nothing may be written.
pub(crate) fn read_only() -> Error {
    Error::invalid("the database is open read-only; open it without `read_only` to change anything")
}

fn id(number: FileNumber, database_id: u64) -> LogId {
    LogId { kind: LogKind::Manifest, number, database_id }
}

/// Reads the live manifest and changes nothing; `None` if there is no database.
///
/// Where the names of files are not durable a power loss may have taken some:
/// then the answer is the latest state all of whose files are there, if need be
/// of the generation before. In that mode no file is removed in the session
/// that stopped to need it.
///
/// # Errors
/// `Corruption` where `CURRENT` or the manifest is damaged, `Unsupported` for a
/// newer format.
pub fn load(storage: &dyn Storage) -> Result<Option<Loaded>> {
    let current = match current::read(storage)? {
        CurrentState::Live(current) => current,
        CurrentState::Missing | CurrentState::Incomplete => return Ok(None),
    };
    if current.other == OtherSlot::Invalid {
        check_not_superseded(storage, &current)?;
    }
    let live = filename::manifest(current.manifest);
    if current.names_durable {
        let whole = fold(storage, &current, current.manifest, |_| Ok(true))?;
        let missing =
            || Error::corruption(filename::CURRENT, 0, format!("{live}, which is live, does not exist"));
        return whole.ok_or_else(missing).map(Some);
    }
    let previous = match current.other {
        OtherSlot::Previous(number) => Some(number),
        OtherSlot::Empty | OtherSlot::Invalid => None,
    };
    for number in [Some(current.manifest), previous].into_iter().flatten() {
        let loaded = fold(storage, &current, number, |state| files_exist(storage, state))?;
        if loaded.is_some() {
            return Ok(loaded);
        }
    }
    let what = format!("neither {live} nor the manifest before has all the files it names");
    Err(Error::corruption(filename::CURRENT, 0, what))
}

/// One slot of `CURRENT` is invalid: a crash while it was being written, or
/// damage to what was live. After a crash nothing was done in the generation that
/// never began; so if a later manifest has edits, what is left is stale.
fn check_not_superseded(storage: &dyn Storage, current: &Current) -> Result<()> {
    for name in storage.list(filename::MANIFEST_DIR)? {
        let Some(number) = filename::parse_log(&name).filter(|number| *number > current.manifest) else {
            continue;
        };
        // What does not decode is no witness.
        let later = fold(storage, current, number, |_| Ok(true));
        if let Some(later) = later.ok().flatten().filter(|later| later.edits > 1) {
            let what = format!(
                "a slot is damaged, and {} has {} edits that the other slot does not know of",
                filename::manifest(number),
                later.edits
            );
            return Err(Error::corruption(filename::CURRENT, 0, what));
        }
    }
    Ok(())
}

/// The last acceptable state of a manifest; `None` without one, or without the
/// file.
fn fold(
    storage: &dyn Storage,
    current: &Current,
    number: FileNumber,
    acceptable: impl Fn(&State) -> Result<bool>,
) -> Result<Option<Loaded>> {
    let path = filename::manifest(number);
    let file = match storage.open(&path) {
        Err(error) if error.is_not_found() => return Ok(None),
        other => other?,
    };
    // An edit that a crash has torn was not acknowledged, and nothing was
    // removed on the strength of it.
    let mut log = LogReader::open(file, id(number, current.database_id), Tail::MayBeTorn, EDIT_BYTES_MAX)?;
    let mut state = State::default();
    let mut accepted = None;
    let mut edits = 0_u64;
    while let Some(frame) = log.next_frame()? {
        let items = decode(&frame.payload, &path, frame.offset + FRAME_HEADER_BYTES as u64)?;
        state.apply(&items).map_err(|what| Error::corruption(&path, frame.offset, what))?;
        if acceptable(&state)? {
            accepted = Some(state.clone());
        }
        edits += 1;
    }
    if edits == 0 {
        // The first edit was synced before CURRENT named the file.
        return Err(Error::corruption(path, log.valid_bytes(), "the first version edit is missing"));
    }
    let bytes = log.valid_bytes();
    Ok(accepted.map(|state| Loaded { state, current: *current, bytes, edits }))
}

/// What the newest manifest that has any sound edit adds up to, as far as they are
/// sound, and true if all are. For repair: `CURRENT` is not looked at.
pub(crate) fn salvage(storage: &dyn Storage) -> Result<Option<(State, bool)>> {
    let names = storage.list(filename::MANIFEST_DIR)?;
    let mut numbers: Vec<FileNumber> = names.iter().filter_map(|name| filename::parse_log(name)).collect();
    numbers.sort_unstable();
    for number in numbers.into_iter().rev() {
        let path = filename::manifest(number);
        let Ok(file) = storage.open(&path) else { continue };
        let Ok(Some(log)) = identify(&*file, LogKind::Manifest) else { continue };
        let Ok(mut log) = LogReader::open(file, id(number, log.database_id), Tail::MayBeTorn, EDIT_BYTES_MAX)
        else {
            continue;
        };
        let mut sound: Option<State> = None;
        let whole = loop {
            let Ok(frame) = log.next_frame() else { break false };
            let Some(frame) = frame else { break !matches!(log.ending(), Some(Ending::Torn { .. })) };
            let Ok(items) = decode(&frame.payload, &path, frame.offset) else { break false };
            let mut state = sound.clone().unwrap_or_default();
            if state.apply(&items).is_err() {
                break false;
            }
            sound = Some(state);
        };
        if let Some(state) = sound {
            return Ok(Some((state, whole)));
        }
    }
    Ok(None)
}

fn files_exist(storage: &dyn Storage, state: &State) -> Result<bool> {
    let wals = state.wals.keys().map(|number| filename::wal(*number));
    let tables = state
        .keyspaces
        .iter()
        .flat_map(|(id, record)| record.tables.keys().map(|number| filename::sst(*id, *number)));
    for path in wals.chain(tables) {
        match storage.open(&path) {
            Err(error) if error.is_not_found() => return Ok(false),
            other => drop(other?),
        }
    }
    Ok(true)
}

impl Manifest {
    /// Begins the manifest `number` with `state` and makes it live: after
    /// `previous`, or as the first of a new database with this id.
    pub fn create(
        storage: Arc<dyn Storage>,
        number: FileNumber,
        mut state: State,
        previous: Result<Current, u64>,
    ) -> Result<Manifest> {
        let database_id = previous.map_or_else(|id| id, |current| current.database_id);
        let file = storage.create(&filename::manifest(number))?;
        let mut log = LogWriter::create(file, id(number, database_id), SequenceNumber(1))?;
        state.header.next_file = state.header.next_file.max(FileNumber(number.0 + 1));
        state.clean_close = None;
        let names = storage.sync_dir(filename::MANIFEST_DIR)?;
        state.header.names_durable = names == DirSync::Done;
        log.append(SequenceNumber(1), &encode(&state.snapshot()))?;
        log.sync()?;
        let current = match &previous {
            Ok(current) => current::advance(&*storage, current, number, names)?,
            Err(database_id) => current::create(&*storage, number, *database_id, names)?,
        };
        let snapshot_bytes = log.len();
        Ok(Manifest { storage, log: Some(log), current, state, recorded: None, snapshot_bytes })
    }

    /// The manifest that was loaded, for reading alone; `state` is what recovery
    /// has made of it.
    pub(crate) fn read_only(storage: Arc<dyn Storage>, loaded: Loaded, state: State) -> Manifest {
        let Loaded { state: recorded, current, bytes, .. } = loaded;
        Manifest { storage, log: None, current, state, recorded: Some(recorded), snapshot_bytes: bytes }
    }

    /// What the edits on disk add up to.
    pub(crate) fn recorded(&self) -> &State {
        self.recorded.as_ref().unwrap_or(&self.state)
    }

    /// The durable state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The live generation.
    pub fn current(&self) -> &Current {
        &self.current
    }

    /// Makes an edit durable, then applies it to [`Manifest::state`].
    ///
    /// # Errors
    /// `Locked` if another writer has taken over; nothing was written. After
    /// `Poisoned` the edit may or may not be there.
    pub fn commit(&mut self, items: &[Item]) -> Result<()> {
        let mut state = self.state.clone();
        state.apply(items).map_err(|what| Error::invalid(format!("version edit refused: {what}")))?;
        let log = self.log.as_mut().ok_or_else(read_only)?;
        current::check(&*self.storage, &self.current)?;
        let seq = SequenceNumber(log.last_seq().0 + 1);
        let written = log.append(seq, &encode(items)).and_then(|()| log.sync());
        written.map_err(|error| Error::Poisoned(format!("the manifest could not be written ({error})")))?;
        self.state = state;
        Ok(())
    }

    /// Makes sure that there is room on the disk for an edit, where the storage tells.
    ///
    /// # Errors
    /// `Io` if there is none; nothing was written.
    pub fn check_room(&self, items: &[Item]) -> Result<()> {
        let bytes = (FRAME_HEADER_BYTES + encode(items).len()) as u64;
        match self.storage.space_left()? {
            Some(left) if left < bytes => {
                let path = filename::manifest(self.current.manifest);
                Err(Error::io("append to", path, io::ErrorKind::StorageFull.into()))
            }
            _ => Ok(()),
        }
    }

    /// True once edits have outgrown the state they describe.
    pub fn is_long(&self) -> bool {
        let bytes = self.log.as_ref().map_or(0, LogWriter::len);
        bytes.saturating_sub(self.snapshot_bytes) > ROLL_BYTES.max(self.snapshot_bytes)
    }

    /// Begins the manifest `number` with the state of this one, which is
    /// removed where names are durable.
    ///
    /// # Errors
    /// Any: either manifest may be live; stop writing until reopened.
    pub fn roll(&mut self, number: FileNumber) -> Result<()> {
        let rolled =
            Manifest::create(Arc::clone(&self.storage), number, self.state.clone(), Ok(self.current))?;
        let old = std::mem::replace(self, rolled);
        if self.current.names_durable {
            // A manifest that stays is removed by the next open.
            let _ = self.storage.remove(&filename::manifest(old.current.manifest));
        }
        Ok(())
    }

    /// The manifest of the generation before, while it may still be needed.
    pub fn previous(&self) -> Option<FileNumber> {
        match self.current.other {
            OtherSlot::Previous(number) if !self.current.names_durable => Some(number),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edit::KeyspaceFacts;
    use crate::key::KeyspaceId;
    use crate::storage::memory::MemoryStorage;

    fn keyspace(id: u32) -> Item {
        let facts = KeyspaceFacts { name: format!("k{id}"), ..KeyspaceFacts::default() };
        Item::Keyspace(KeyspaceId(id), facts)
    }

    fn new_manifest(storage: &MemoryStorage) -> Manifest {
        storage.create_dir(filename::MANIFEST_DIR).unwrap();
        Manifest::create(Arc::new(storage.clone()), FileNumber(1), State::default(), Err(7)).unwrap()
    }

    #[test]
    fn edits_survive_reopening_and_rolling() {
        let storage = MemoryStorage::new();
        assert!(load(&storage).unwrap().is_none());
        let mut manifest = new_manifest(&storage);
        manifest.commit(&[keyspace(1)]).unwrap();
        manifest.roll(FileNumber(2)).unwrap();
        manifest.commit(&[keyspace(2)]).unwrap();
        let loaded = load(&storage).unwrap().unwrap();
        assert_eq!(loaded.state, *manifest.state());
        assert_eq!(loaded.state.keyspaces.len(), 2);
        assert_eq!((loaded.current.generation, loaded.current.database_id), (2, 7));
        assert_eq!(storage.files().iter().filter(|name| name.starts_with("manifest/")).count(), 1);
    }

    #[test]
    fn damage_to_the_live_slot_does_not_bring_the_generation_before_back() {
        let storage = MemoryStorage::new();
        let mut manifest = new_manifest(&storage);
        let before = storage.read(&filename::manifest(FileNumber(1))).unwrap();
        manifest.roll(FileNumber(2)).unwrap();
        // As if the old one could not be removed.
        storage.write(&filename::manifest(FileNumber(1)), before);
        let mut bytes = storage.read(filename::CURRENT).unwrap();
        bytes[4096 + 20] ^= 1;
        storage.write(filename::CURRENT, bytes.as_slice());
        assert_eq!(load(&storage).unwrap().unwrap().current.generation, 1, "nothing has happened since");
        bytes[4096 + 20] ^= 1;
        storage.write(filename::CURRENT, bytes.as_slice());
        manifest.commit(&[keyspace(1)]).unwrap();
        bytes[4096 + 20] ^= 1;
        storage.write(filename::CURRENT, bytes.as_slice());
        assert!(matches!(load(&storage), Err(Error::Corruption { .. })));
    }

    #[test]
    fn a_stale_writer_is_stopped() {
        let storage = MemoryStorage::new();
        let mut stale = new_manifest(&storage);
        let loaded = load(&storage).unwrap().unwrap();
        let newer =
            Manifest::create(Arc::new(storage.clone()), FileNumber(2), loaded.state, Ok(loaded.current));
        let newer = newer.unwrap();
        assert!(matches!(stale.commit(&[keyspace(1)]), Err(Error::Locked(_))));
        assert_eq!(load(&storage).unwrap().unwrap().state, *newer.state());
    }

    #[test]
    fn every_cut_gives_a_prefix_of_the_edits() {
        let storage = MemoryStorage::new();
        let mut manifest = new_manifest(&storage);
        let first = manifest.snapshot_bytes as usize;
        manifest.commit(&[keyspace(1)]).unwrap();
        manifest.commit(&[keyspace(2)]).unwrap();
        let path = filename::manifest(FileNumber(1));
        let whole = storage.read(&path).unwrap();
        for cut in 0..whole.len() {
            storage.write(&path, &whole[..cut]);
            match load(&storage) {
                Ok(loaded) => {
                    // Edits below an offset that a later frame knows synced are
                    // not lost in silence; what remains is a prefix.
                    let count = loaded.unwrap().state.keyspaces.len() as u32;
                    assert!(cut >= first && count < 2, "cut at {cut}");
                }
                Err(Error::Corruption { .. }) => assert!(cut < first, "cut at {cut}"),
                Err(error) => panic!("cut at {cut}: {error}"),
            }
        }
    }
}
