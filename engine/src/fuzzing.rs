//! Doors for fuzzing: one function for each decoder, and one for operations
//! against a model.
//!
//! Whatever the bytes, a function returns: it neither panics nor takes memory out
//! of proportion to them. Where a checksum would turn most bytes away, they are
//! tried as they are and with the checksum made right. `engine/fuzz` has the
//! targets and their corpus; the tests below drive the same functions without a
//! fuzzer. Nothing here is part of the interface.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::api::{Database, Page, ScanRange, pairs, split_keys};
use crate::batch::{self, BatchLimits, WriteBatch};
use crate::edit::{self, State};
use crate::key::{FileNumber, SequenceNumber};
use crate::options::{Background, Compression, Durability, Environment, KeyspaceOptions, Options};
use crate::record::FRAME_HEADER_BYTES;
use crate::storage::memory::MemoryStorage;
use crate::{Db, Error, KeyspaceId, current, filename, manifest, wal};

pub use crate::sstable::fuzzing::{filter, page, page_body, private_block, table};

/// Number of the logs that are tried.
pub(crate) const LOG: FileNumber = FileNumber(1);

/// Id of the database whose manifest is tried.
pub(crate) const DATABASE_ID: u64 = 0x5eed;

/// Longest payload of a log that is loaded.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// A WAL: its frames, its batches, its end.
pub fn wal(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), with_frames_sealed(bytes)] {
        // The id is at the end of the header's payload.
        let id = bytes.get(52..60).and_then(|id| id.first_chunk()).map_or(0, |id| u64::from_le_bytes(*id));
        let storage = MemoryStorage::new();
        storage.write(&filename::wal(LOG), bytes);
        let _ = wal::holds_data(&storage, LOG);
        for is_last in [true, false] {
            let mut last = None;
            let outcome = wal::replay(&storage, LOG, id, is_last, PAYLOAD_BYTES_MAX, |seq, batch| {
                assert!(last.is_none_or(|last: SequenceNumber| last < seq), "sequence numbers go up");
                last = Some(seq);
                batch::decode(&batch).for_each(|op| drop(op.unwrap().slices(&batch)));
                Ok(())
            });
            check(outcome.map(drop));
        }
    }
}

/// A manifest: its frames, its edits, their fold.
pub fn manifest(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), with_frames_sealed(bytes)] {
        let storage = MemoryStorage::new();
        let created = current::create(&storage, LOG, DATABASE_ID, crate::storage::DirSync::Done);
        check(created.map(drop));
        storage.write(&filename::manifest(LOG), bytes);
        check(manifest::load(&storage).map(drop));
    }
}

/// The slots of `CURRENT`.
pub fn current(bytes: &[u8]) {
    let storage = MemoryStorage::new();
    storage.write(filename::CURRENT, bytes.to_vec());
    check(current::read(&storage).map(drop));
}

/// A version edit, and its fold into nothing.
pub fn edit(bytes: &[u8]) {
    let Ok(items) = edit::decode(bytes, "edit", u64::MAX / 2) else { return };
    let again = edit::encode(&items);
    assert!(edit::decode(&again, "edit", 0).is_ok_and(|decoded| decoded == items), "edits round-trip");
    let mut state = State::default();
    if state.apply(&items).is_ok() {
        let mut copy = State::default();
        copy.apply(&state.snapshot()).unwrap();
        copy.clean_close = state.clean_close;
        assert_eq!(copy, state, "a state is made again by its snapshot");
    }
}

/// A packed batch.
pub fn batch(bytes: &[u8]) {
    let Ok(batch) = WriteBatch::from_encoded(bytes.to_vec()) else { return };
    let _ = batch.check(BatchLimits { value_bytes_max: 100, batch_bytes_max: 1000 });
    let encoded = Bytes::copy_from_slice(bytes);
    let mut again = WriteBatch::new();
    for op in batch::decode(&encoded) {
        let op = op.unwrap();
        let (key, value) = op.slices(&encoded);
        again.push(op.kind, op.keyspace, op.expires_at, &key, &value);
    }
    assert_eq!(again.as_encoded(), bytes, "a batch has one encoding");
}

/// Packed keys, as they come into the component, and packed pairs, as they leave.
pub fn packed(bytes: &[u8]) {
    if let Ok(keys) = split_keys(bytes) {
        let len: usize = keys.iter().map(|key| 4 + key.len()).sum();
        assert_eq!(len, bytes.len(), "keys and their lengths are all there is");
    }
    let page = Page(Bytes::copy_from_slice(bytes));
    let borrowed = page.pairs_borrowed().map_while(Result::ok);
    let pairs: Vec<(Bytes, Bytes)> = page.pairs().map_while(Result::ok).collect();
    assert!(borrowed.eq(pairs.iter().map(|(key, value)| (&key[..], &value[..]))), "lent or not");
    let mut len = 0;
    for pair in page.pairs() {
        let Ok((key, value)) = pair else { return };
        len += 8 + key.len() + value.len();
    }
    assert_eq!(len, bytes.len(), "pairs and their lengths are all there is");
}

/// Operations, a few bytes each, against an ordered map.
pub fn operations(bytes: &[u8]) {
    let mut run = Operations::new();
    let mut bytes = bytes.iter().copied();
    // Enough to reach every state, and an end for every input.
    for _ in 0..200 {
        let Some(code) = bytes.next() else { break };
        let [a, b] = [bytes.next().unwrap_or(0), bytes.next().unwrap_or(0)];
        run.step(code, a, b);
    }
    run.reopen();
    run.compare();
}

/// A clock that stands.
#[derive(Debug)]
struct Still;

impl Environment for Still {
    fn monotonic_ms(&self) -> u64 {
        0
    }

    fn unix_ms(&self) -> u64 {
        1000
    }

    fn random(&self) -> u64 {
        DATABASE_ID
    }
}

struct Operations {
    storage: MemoryStorage,
    db: Option<Db>,
    id: KeyspaceId,
    map: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Operations {
    fn new() -> Operations {
        let mut run =
            Operations { storage: MemoryStorage::new(), db: None, id: KeyspaceId(0), map: BTreeMap::new() };
        run.reopen();
        run
    }

    fn reopen(&mut self) {
        let options = Options {
            memtable_bytes: 512,
            target_file_bytes: 1 << 10,
            cache_bytes: 4 << 10,
            compression: Compression::None,
            background: Background::Inline,
            environment: Arc::new(Still),
            ..Options::default()
        };
        self.db = None;
        let db = Db::open_with(Arc::new(self.storage.clone()), options).unwrap();
        let append = KeyspaceOptions { merge_operator: Some("append".into()), ..KeyspaceOptions::default() };
        self.id = db.create_keyspace_with("k", &append).unwrap();
        self.db = Some(db);
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    fn step(&mut self, code: u8, a: u8, b: u8) {
        let key = |n: u8| vec![b'a' + n % 8, n % 3];
        let mut batch = WriteBatch::new();
        match code % 16 {
            0..5 => {
                let value = vec![b; usize::from(code)];
                batch.put(self.id, &key(a), &value);
                self.map.insert(key(a), value);
            }
            5 | 6 => {
                batch.delete(self.id, &key(a));
                self.map.remove(&key(a));
            }
            7 | 8 => {
                batch.merge(self.id, &key(a), &[b; 9]);
                self.map.entry(key(a)).or_default().extend([b; 9]);
            }
            9 => {
                batch.delete_range(self.id, &key(a), &key(b)).put(self.id, b"a", &[a]);
                self.map.retain(|found, _| *found < key(a) || *found >= key(b));
                self.map.insert(b"a".to_vec(), vec![a]);
            }
            10 => {
                batch.delete_prefix(self.id, &key(a)[..1]);
                self.map.retain(|found, _| found[0] != key(a)[0]);
            }
            11 => {
                let mut transaction = Database::transaction(self.db()).unwrap();
                let found = transaction.get(self.id, &key(a)).unwrap();
                assert_eq!(found.as_deref(), self.map.get(&key(a)).map(Vec::as_slice));
                batch.put(self.id, &key(b), &[a, b]);
                transaction.write(std::mem::take(&mut batch)).unwrap();
                transaction.commit(Durability::Sync).unwrap();
                self.map.insert(key(b), vec![a, b]);
            }
            12 => self.db().flush().unwrap(),
            13 => self.db().compact().unwrap(),
            14 => self.reopen(),
            _ => self.compare(),
        }
        if !batch.is_empty() {
            self.db().write(batch, Durability::Buffered).unwrap();
        }
    }

    fn compare(&self) {
        for range in [ScanRange::all(), ScanRange::all().reversed()] {
            let mut found: Vec<_> = pairs(self.db().scan(self.id, &range, None).unwrap())
                .map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap())
                .collect();
            if range.reverse {
                found.reverse();
            }
            assert!(
                found.iter().map(|(key, value)| (key, value)).eq(&self.map),
                "{found:?} for {:?}",
                self.map
            );
        }
    }
}

/// Bytes may be refused for what they are, and for nothing else.
pub(crate) fn check(outcome: Result<(), Error>) {
    match outcome {
        Ok(()) | Err(Error::Corruption { .. } | Error::Unsupported(_) | Error::InvalidArgument(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

/// The bytes of a log with the checksum of every frame made right, as far as
/// lengths lead from one to the next.
fn with_frames_sealed(log: &[u8]) -> Vec<u8> {
    let mut log = log.to_vec();
    let mut offset = 0;
    while let Some(header) = log.get(offset..offset + FRAME_HEADER_BYTES) {
        let len = header[4..8].first_chunk().map_or(0, |len| u32::from_le_bytes(*len)) as usize;
        let end = offset + FRAME_HEADER_BYTES + len;
        let Some(frame) = log.get(offset + 4..end) else { break };
        let place = [LOG.0.to_le_bytes(), (offset as u64).to_le_bytes()].concat();
        let crc = crc32fast::hash(&[&place, frame].concat());
        log[offset..offset + 4].copy_from_slice(&crc.to_le_bytes());
        offset = end;
    }
    log
}

#[cfg(test)]
mod tests;
