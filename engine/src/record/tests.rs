//! Goal: a log gives back what was appended, and what a crash or damage did to
//! it is told rightly. Method: small logs in memory, cut and changed at every
//! byte, and a file that fails on demand.

use std::sync::{Arc, Mutex};

use super::*;
use crate::storage::fault::{Fault, FaultKind, FaultStorage, Operation};
use crate::storage::memory::MemoryStorage;
use crate::storage::{AppendFile, Storage};

const MAX: usize = 1 << 20;

fn wal_id() -> LogId {
    LogId { kind: LogKind::Wal, number: FileNumber(7), database_id: 0xd0d0 }
}

fn seq(n: u64) -> SequenceNumber {
    SequenceNumber(n)
}

fn create(storage: &MemoryStorage, id: LogId) -> LogWriter {
    storage.create_dir("wal").unwrap();
    storage.create_dir("manifest").unwrap();
    LogWriter::create(storage.create(&id.path()).unwrap(), id, seq(1)).unwrap()
}

type Read = (Vec<(u64, Vec<u8>)>, Ending);

/// All frames and the ending.
fn read(bytes: &[u8], id: LogId, tail: Tail, max: usize) -> Result<Read> {
    let storage = MemoryStorage::new();
    storage.write(&id.path(), bytes);
    let mut log = LogReader::open(storage.open(&id.path()).unwrap(), id, tail, max)?;
    let mut frames = Vec::new();
    while let Some(frame) = log.next_frame()? {
        frames.push((frame.seq.0, frame.payload.to_vec()));
    }
    assert!(log.next_frame().unwrap().is_none());
    Ok((frames, log.ending().unwrap()))
}

fn corruption_at(result: Result<Read>) -> u64 {
    match result {
        Err(Error::Corruption { file, offset, .. }) => {
            assert_eq!(file, wal_id().path());
            offset
        }
        other => panic!("not corruption: {other:?}"),
    }
}

/// The checksum by its definition, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc: u32, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1))
        })
    })
}

#[test]
fn bytes_of_the_format() {
    let storage = MemoryStorage::new();
    let mut log = create(&storage, wal_id());
    log.sync().unwrap();
    log.append(seq(1), b"pay").unwrap();
    log.seal().unwrap();
    let hex: String = storage.read("wal/000007.log").unwrap().iter().map(|b| format!("{b:02x}")).collect();
    let expected = [
        // crc, payload length, kind, synced offset, sequence number
        ("20000000", "01000000", "0000000000000000", "0100000000000000"),
        ("03000000", "02000000", "3c00000000000000", "0100000000000000"),
        ("08000000", "03000000", "5b00000000000000", "0100000000000000"),
    ];
    let payloads =
        ["445552414d454e0001000000010000000700000000000000d0d0000000000000", "706179", "7f00000000000000"];
    let mut offset = 0u64;
    let mut want = String::new();
    for ((len, kind, synced, seq), payload) in expected.into_iter().zip(payloads) {
        let rest = format!("{len}{kind}{synced}{seq}{payload}");
        let raw: Vec<u8> =
            (0..rest.len() / 2).map(|i| u8::from_str_radix(&rest[2 * i..2 * i + 2], 16).unwrap()).collect();
        let seeded = [&7u64.to_le_bytes()[..], &offset.to_le_bytes(), &raw].concat();
        want += &crc32(&seeded).to_le_bytes().iter().map(|b| format!("{b:02x}")).collect::<String>();
        want += &rest;
        offset += 4 + raw.len() as u64;
    }
    assert_eq!(hex, want);
}

#[test]
fn round_trip_of_every_length() {
    for id in [wal_id(), LogId { kind: LogKind::Manifest, ..wal_id() }] {
        let storage = MemoryStorage::new();
        let mut log = create(&storage, id);
        assert!(log.is_empty());
        // Around the window of the reader, too.
        let lengths = [0, 1, 27, 28, 29, 1000, 262_100, 262_144, 262_145, 600_000, 3, 0];
        let payloads: Vec<Vec<u8>> =
            lengths.iter().enumerate().map(|(i, &len)| vec![i as u8 + 1; len]).collect();
        let records: Vec<_> = payloads.iter().enumerate().map(|(i, p)| (seq(i as u64 + 1), &p[..])).collect();
        log.append(records[0].0, records[0].1).unwrap();
        log.append_many(&records[1..8]).unwrap();
        log.append_many(&[]).unwrap();
        log.sync().unwrap();
        log.append_many(&records[8..]).unwrap();
        assert!(!log.is_empty());
        let bytes = storage.read(&id.path()).unwrap();
        assert_eq!(log.len(), bytes.len() as u64);
        let want: Vec<_> = records.iter().map(|(s, p)| (s.0, p.to_vec())).collect();
        assert_eq!(read(&bytes, id, Tail::MayBeTorn, MAX).unwrap(), (want.clone(), Ending::Clean));
        assert!(read(&bytes, id, Tail::Complete, MAX).is_err(), "a complete log is sealed");

        log.seal().unwrap();
        assert!(log.is_sealed() && log.synced_bytes() == log.len());
        assert!(log.append(seq(99), b"late").is_err());
        let bytes = storage.read(&id.path()).unwrap();
        for tail in [Tail::MayBeTorn, Tail::Complete] {
            assert_eq!(read(&bytes, id, tail, MAX).unwrap(), (want.clone(), Ending::Sealed));
        }
    }
}

#[test]
fn a_log_is_bound_to_its_name_kind_and_database() {
    let storage = MemoryStorage::new();
    let mut log = create(&storage, wal_id());
    log.append(seq(1), b"data").unwrap();
    let bytes = storage.read(&wal_id().path()).unwrap();
    for (id, what) in [
        (LogId { number: FileNumber(8), ..wal_id() }, "log 7 under another name"),
        (LogId { database_id: 1, ..wal_id() }, "belongs to database"),
        (LogId { kind: LogKind::Manifest, ..wal_id() }, "another kind"),
    ] {
        for tail in [Tail::MayBeTorn, Tail::Complete] {
            let error = read(&bytes, id, tail, MAX).unwrap_err();
            assert!(matches!(&error, Error::Corruption { file, .. } if *file == id.path()), "{error}");
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}

/// Rewrites the checksum of the frame at `offset`.
fn reseal(bytes: &mut [u8], offset: usize) {
    let header = FrameHeader::decode(bytes[offset..].first_chunk().unwrap()).unwrap();
    let start = offset + FRAME_HEADER_BYTES;
    let payload = &bytes[start..start + header.payload_len as usize];
    let crc = header.payload_crc(wal_id().number, offset as u64, payload);
    bytes[offset..offset + 4].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn valid_checksums_over_nonsense_are_corruption() {
    let storage = MemoryStorage::new();
    let mut log = create(&storage, wal_id());
    log.append(seq(1), b"data").unwrap();
    log.append(seq(2), b"more").unwrap();
    let good = storage.read(&wal_id().path()).unwrap();
    let (first, second) = (60, 92);
    // Header, edit, and unknown kinds where batches belong.
    for kind in [1, 4, 5, 255] {
        let mut bytes = good.clone();
        bytes[first + 8] = kind;
        reseal(&mut bytes, first);
        assert_eq!(corruption_at(read(&bytes, wal_id(), Tail::MayBeTorn, MAX)), first as u64);
    }
    // A seal that is not the end, or of the wrong length.
    let mut bytes = good.clone();
    bytes[first + 8] = 3;
    reseal(&mut bytes, first);
    assert_eq!(corruption_at(read(&bytes, wal_id(), Tail::MayBeTorn, MAX)), first as u64);
    // More synced than written.
    let mut bytes = good.clone();
    bytes[second + 12] = 200;
    reseal(&mut bytes, second);
    assert_eq!(corruption_at(read(&bytes, wal_id(), Tail::MayBeTorn, MAX)), second as u64);
    // A newer format.
    let mut bytes = good.clone();
    bytes[FRAME_HEADER_BYTES + 8] = 2;
    reseal(&mut bytes, 0);
    for tail in [Tail::MayBeTorn, Tail::Complete] {
        let error = read(&bytes, wal_id(), tail, MAX).unwrap_err();
        assert!(matches!(&error, Error::Unsupported(text) if text.contains("version 2")), "{error}");
    }
}

#[test]
fn a_record_over_the_limit_is_refused_and_not_dropped() {
    let storage = MemoryStorage::new();
    let mut log = create(&storage, wal_id());
    log.append(seq(1), &vec![1; 600_000]).unwrap();
    let mut bytes = storage.read(&wal_id().path()).unwrap();
    assert!(matches!(read(&bytes, wal_id(), Tail::MayBeTorn, 599_999), Err(Error::Unsupported(_))));
    assert!(read(&bytes, wal_id(), Tail::MayBeTorn, 600_000).is_ok());
    // Unless it is damaged: then it is an ordinary torn tail.
    bytes[70] ^= 1;
    let (frames, ending) = read(&bytes, wal_id(), Tail::MayBeTorn, 599_999).unwrap();
    assert_eq!((frames.len(), ending), (0, Ending::Torn { offset: 60, bytes_dropped: 600_028 }));
}

#[test]
fn zeros_after_the_last_frame_are_the_end() {
    let storage = MemoryStorage::new();
    let mut log = create(&storage, wal_id());
    log.append(seq(1), b"data").unwrap();
    log.sync().unwrap();
    let good = storage.read(&wal_id().path()).unwrap();
    for zeros in [1, 27, 28, 29, 300_000] {
        let mut bytes = good.clone();
        bytes.resize(good.len() + zeros, 0);
        let (frames, ending) = read(&bytes, wal_id(), Tail::MayBeTorn, MAX).unwrap();
        assert_eq!((frames.len(), ending), (1, Ending::Clean));
        assert_eq!(corruption_at(read(&bytes, wal_id(), Tail::Complete, MAX)), good.len() as u64);
        // Zeros and then something.
        bytes.push(1);
        let dropped = Ending::Torn { offset: good.len() as u64, bytes_dropped: zeros as u64 + 1 };
        assert_eq!(read(&bytes, wal_id(), Tail::MayBeTorn, MAX).unwrap().1, dropped);
    }
    // Zeros where synced bytes had been.
    log.append(seq(2), b"more").unwrap();
    let mut bytes = storage.read(&wal_id().path()).unwrap();
    bytes[60..92].fill(0);
    assert_eq!(corruption_at(read(&bytes, wal_id(), Tail::MayBeTorn, MAX)), 60);
}

#[test]
fn a_contradiction_is_found_far_behind_the_damage() {
    // The frame that knows better lies at, before and after window borders.
    for gap in [262_100usize, 262_144 - 28, 262_144 - 27, 262_144, 524_300, 3 << 20] {
        let storage = MemoryStorage::new();
        let mut log = create(&storage, wal_id());
        log.append(seq(1), b"synced").unwrap();
        log.sync().unwrap();
        let after_sync = log.len();
        log.append(seq(2), &vec![0xff; gap]).unwrap();
        log.append(seq(3), b"knows").unwrap();
        let good = storage.read(&wal_id().path()).unwrap();
        let mut bytes = good.clone();
        bytes[61] ^= 4;
        assert_eq!(corruption_at(read(&bytes, wal_id(), Tail::MayBeTorn, 8 << 20)), 60);
        // What was not synced may be torn, whatever follows it.
        let mut bytes = good;
        bytes[after_sync as usize + 40] ^= 1;
        let (frames, ending) = read(&bytes, wal_id(), Tail::MayBeTorn, 8 << 20).unwrap();
        let bytes_dropped = bytes.len() as u64 - after_sync;
        assert_eq!((frames.len(), ending), (1, Ending::Torn { offset: after_sync, bytes_dropped }));
    }
}

#[test]
fn a_log_inside_a_value_does_not_confuse_the_search() {
    let storage = MemoryStorage::new();
    let mut log = create(&storage, wal_id());
    for n in 1..=20 {
        log.append(seq(n), b"some data to be found").unwrap();
        log.sync().unwrap();
    }
    let inner = storage.read(&wal_id().path()).unwrap();
    let storage = MemoryStorage::new();
    let mut log = create(&storage, wal_id());
    log.append(seq(1), &inner).unwrap();
    let mut bytes = storage.read(&wal_id().path()).unwrap();
    let len = bytes.len();
    bytes[64] ^= 1;
    let (frames, ending) = read(&bytes, wal_id(), Tail::MayBeTorn, MAX).unwrap();
    assert_eq!((frames.len(), ending), (0, Ending::Torn { offset: 60, bytes_dropped: len as u64 - 60 }));
}

/// What the failing file does next.
#[derive(Debug, Default)]
struct Faults {
    /// The next append writes this many bytes and fails.
    append: Option<usize>,
    sync: bool,
    truncate: bool,
}

#[derive(Debug)]
struct Failing {
    inner: Box<dyn AppendFile>,
    faults: Arc<Mutex<Faults>>,
}

fn no_space(operation: &'static str) -> Error {
    Error::io(operation, "wal/000007.log", std::io::ErrorKind::StorageFull.into())
}

impl AppendFile for Failing {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        match self.faults.lock().unwrap().append.take() {
            None => self.inner.append(bytes),
            Some(len) => {
                self.inner.append(&bytes[..len.min(bytes.len())])?;
                Err(no_space("append to"))
            }
        }
    }
    fn sync_data(&mut self) -> Result<()> {
        if std::mem::take(&mut self.faults.lock().unwrap().sync) {
            return Err(no_space("sync"));
        }
        self.inner.sync_data()
    }
    fn truncate(&mut self, len: u64) -> Result<()> {
        if std::mem::take(&mut self.faults.lock().unwrap().truncate) {
            return Err(no_space("truncate"));
        }
        self.inner.truncate(len)
    }
    fn len(&self) -> u64 {
        self.inner.len()
    }
}

fn failing() -> (MemoryStorage, Arc<Mutex<Faults>>, LogWriter) {
    let storage = MemoryStorage::new();
    storage.create_dir("wal").unwrap();
    let faults = Arc::<Mutex<Faults>>::default();
    let inner = storage.create(&wal_id().path()).unwrap();
    let file = Box::new(Failing { inner, faults: faults.clone() });
    let mut log = LogWriter::create(file, wal_id(), seq(1)).unwrap();
    log.append(seq(1), b"first").unwrap();
    (storage, faults, log)
}

#[test]
fn a_failed_append_leaves_no_trace() {
    for written in 0..70 {
        let (storage, faults, mut log) = failing();
        let before = storage.read(&wal_id().path()).unwrap();
        faults.lock().unwrap().append = Some(written);
        let records = [(seq(2), &b"second"[..]), (seq(3), &b"third"[..])];
        assert!(matches!(log.append_many(&records), Err(Error::Io { .. })));
        assert_eq!(storage.read(&wal_id().path()).unwrap(), before);
        assert_eq!((log.len(), log.last_seq()), (before.len() as u64, seq(1)));
        // Cutting back synced everything before.
        assert_eq!(log.synced_bytes(), log.len());
        // The log goes on, and so does sealing after a failed seal.
        log.append_many(&records).unwrap();
        faults.lock().unwrap().append = Some(written);
        assert!(matches!(log.seal(), Err(Error::Io { .. })));
        assert!(!log.is_sealed());
        log.append(seq(4), b"fourth").unwrap();
        log.seal().unwrap();
        let bytes = storage.read(&wal_id().path()).unwrap();
        let (frames, ending) = read(&bytes, wal_id(), Tail::Complete, MAX).unwrap();
        let payloads: Vec<_> = frames.iter().map(|(_, payload)| &payload[..]).collect();
        assert_eq!(payloads, [&b"first"[..], b"second", b"third", b"fourth"]);
        assert_eq!(ending, Ending::Sealed);
    }
}

#[test]
fn a_log_that_cannot_be_cut_back_is_broken() {
    for (truncate, sync) in [(true, false), (false, true)] {
        let (storage, faults, mut log) = failing();
        *faults.lock().unwrap() = Faults { append: Some(9), sync, truncate };
        assert!(matches!(log.append(seq(2), b"second"), Err(Error::Poisoned(_))));
        let after = storage.read(&wal_id().path()).unwrap();
        assert!(matches!(log.append(seq(2), b"second"), Err(Error::Poisoned(_))));
        assert!(matches!(log.sync(), Err(Error::Poisoned(_))));
        assert!(matches!(log.seal(), Err(Error::Poisoned(_))));
        assert_eq!(storage.read(&wal_id().path()).unwrap(), after, "a broken log is left alone");
        // What a reader finds is still a prefix.
        assert_eq!(read(&after, wal_id(), Tail::MayBeTorn, MAX).unwrap().0, [(1, b"first".to_vec())]);
    }
}

#[test]
fn a_failed_sync_is_never_retried() {
    let (_, faults, mut log) = failing();
    faults.lock().unwrap().sync = true;
    assert!(matches!(log.sync(), Err(Error::Poisoned(text)) if text.contains("wal/000007.log")));
    // The disk would answer well now, and nobody asks it.
    assert!(matches!(log.sync(), Err(Error::Poisoned(_))));
    assert!(matches!(log.append(seq(2), b"second"), Err(Error::Poisoned(_))));
    assert!(matches!(log.seal(), Err(Error::Poisoned(_))));
}

#[test]
fn small_syncs_of_a_wal_find_zeros_written_ahead() {
    let storage = FaultStorage::new(1);
    storage.create_dir("wal").unwrap();
    let path = wal_id().path();
    let mut log = LogWriter::create(storage.create(&path).unwrap(), wal_id(), seq(1)).unwrap();
    log.sync().unwrap();
    let size = || storage.read(&path).unwrap().len() as u64;
    assert_eq!(size(), log.len(), "a log that is not synced has none");
    let mut sizes = std::collections::BTreeSet::new();
    for n in 1..=2000 {
        log.append(seq(n), &[7; 100]).unwrap();
        log.sync().unwrap();
        assert!(size() >= log.len() && log.synced_bytes() == log.len());
        sizes.insert(size());
    }
    assert!(sizes.len() < 10, "{sizes:?}");
    let (frames, ending) = read(&storage.read(&path).unwrap(), wal_id(), Tail::MayBeTorn, MAX).unwrap();
    assert_eq!((frames.len(), ending), (2000, Ending::Clean));

    // Without space for zeros it goes on; a failed append takes them away.
    let fault = |only| Fault { kind: FaultKind::NoSpace, skip: 0, forever: false, only: Some(only) };
    storage.inject(fault(Operation::Append));
    assert!(log.append(seq(2001), &[7; 100]).is_err());
    assert_eq!(size(), log.len());
    storage.inject(fault(Operation::Preallocate));
    for n in 2001..=2002 {
        log.append(seq(n), &[7; 100]).unwrap();
        log.sync().unwrap();
        assert_eq!(storage.take_fired().len(), usize::from(n == 2001) * 2);
    }
    log.seal().unwrap();
    let (frames, ending) = read(&storage.read(&path).unwrap(), wal_id(), Tail::Complete, MAX).unwrap();
    assert_eq!((frames.len(), ending), (2002, Ending::Sealed));
}
