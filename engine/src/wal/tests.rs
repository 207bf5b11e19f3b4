//! Goal: replay gives back what was appended, or a prefix and how much a crash
//! took, or says what is damaged; never anything else. Method: small WALs in
//! memory, cut at every byte and with every bit flipped, and WALs that only a
//! broken writer could have made.

use super::*;
use crate::batch::WriteBatch;
use crate::key::KeyspaceId;
use crate::record::LogWriter;
use crate::storage::memory::MemoryStorage;
use crate::storage::trace::TraceStorage;

const DATABASE: u64 = 0xd0d0;
const NUMBER: FileNumber = FileNumber(7);
const FIRST: SequenceNumber = SequenceNumber(41);
const MAX: usize = 1 << 20;

type Batches = Vec<(u64, Vec<u8>)>;

fn batch(n: u64) -> Vec<u8> {
    let mut batch = WriteBatch::new();
    batch.put(KeyspaceId(1), format!("key{n}").as_bytes(), &vec![n as u8; n as usize % 5]);
    batch.delete(KeyspaceId(2), b"gone");
    batch.into_encoded()
}

fn create(storage: &MemoryStorage) -> Wal {
    storage.create_dir(filename::WAL_DIR).unwrap();
    Wal::create(storage, NUMBER, DATABASE, FIRST).unwrap()
}

fn bytes_of(storage: &MemoryStorage) -> Vec<u8> {
    storage.read(&filename::wal(NUMBER)).unwrap()
}

/// A WAL of four batches, the first two of which the others know to be synced,
/// with a seal or not; where its frames begin, the end included; and the
/// batches.
fn example(sealed: bool) -> (Vec<u8>, Vec<u64>, Batches) {
    let storage = MemoryStorage::new();
    let mut wal = create(&storage);
    let (mut frames, mut batches) = (vec![0], Vec::new());
    for n in FIRST.0..FIRST.0 + 4 {
        if n == FIRST.0 + 2 {
            wal.sync().unwrap();
        }
        frames.push(wal.bytes());
        wal.append(SequenceNumber(n), &batch(n)).unwrap();
        batches.push((n, batch(n)));
    }
    if sealed {
        frames.push(wal.bytes());
        wal.seal().unwrap();
    }
    frames.push(wal.bytes());
    (bytes_of(&storage), frames, batches)
}

fn replay_from(storage: &MemoryStorage, is_last: bool) -> Result<(Batches, Replayed)> {
    let mut batches = Vec::new();
    let replayed = replay(storage, NUMBER, DATABASE, is_last, MAX, |seq, batch| {
        batches.push((seq.0, batch.to_vec()));
        Ok(())
    })?;
    assert_eq!(replayed.batches, batches.len() as u64);
    assert_eq!(replayed.last_seq.map(|seq| seq.0), batches.last().map(|(seq, _)| *seq));
    Ok((batches, replayed))
}

fn replay_bytes(bytes: &[u8], is_last: bool) -> Result<(Batches, Replayed)> {
    let storage = MemoryStorage::new();
    storage.write(&filename::wal(NUMBER), bytes);
    replay_from(&storage, is_last)
}

fn corruption_at<T: std::fmt::Debug>(outcome: Result<T>) -> u64 {
    match outcome {
        Err(Error::Corruption { file, offset, .. }) => {
            assert_eq!(file, filename::wal(NUMBER));
            offset
        }
        other => panic!("not corruption: {other:?}"),
    }
}

#[test]
fn replay_gives_back_what_was_appended() {
    for sealed in [false, true] {
        let (bytes, _, batches) = example(sealed);
        let (found, replayed) = replay_bytes(&bytes, true).unwrap();
        assert_eq!(found, batches);
        let expected = Replayed {
            sealed,
            created_for: Some(FIRST),
            first_seq: Some(FIRST),
            last_seq: Some(SequenceNumber(FIRST.0 + 3)),
            batches: 4,
            bytes: bytes.len() as u64,
            bytes_dropped: 0,
        };
        assert_eq!(replayed, expected);
        // With a later WAL that holds data this one must have its seal.
        match sealed {
            true => assert_eq!(replay_bytes(&bytes, false).unwrap(), (batches, expected)),
            false => assert_eq!(corruption_at(replay_bytes(&bytes, false)), bytes.len() as u64),
        }
    }
}

#[test]
fn groups_read_back_like_single_batches() {
    let (storage, (one, _, _)) = (MemoryStorage::new(), example(true));
    let mut wal = create(&storage);
    let encoded: Vec<Vec<u8>> = (FIRST.0..FIRST.0 + 4).map(batch).collect();
    let group: Vec<(SequenceNumber, &[u8])> =
        (FIRST.0..).map(SequenceNumber).zip(encoded.iter().map(|batch| &batch[..])).collect();
    wal.append_group(&group[..2]).unwrap();
    wal.sync().unwrap();
    wal.append_group(&group[2..]).unwrap();
    wal.seal().unwrap();
    assert_eq!(bytes_of(&storage), one);
    assert_eq!((wal.last_seq().0, wal.number(), wal.is_empty()), (FIRST.0 + 3, NUMBER, false));
}

#[test]
fn a_wal_that_was_made_ahead_begins_anywhere() {
    let storage = MemoryStorage::new();
    storage.create_dir(filename::WAL_DIR).unwrap();
    let mut wal = Wal::prepare(&storage, NUMBER, DATABASE, 1000).unwrap();
    let (created_for, none) = (Some(SequenceNumber(0)), (None, None));
    let (_, found) = replay_from(&storage, true).unwrap();
    assert_eq!((found.created_for, (found.first_seq, found.last_seq)), (created_for, none));
    wal.begin(FIRST);
    assert!(wal.append(SequenceNumber(FIRST.0 + 1), &batch(1)).is_err());
    let sealed_empty = {
        let copy = storage.deep_clone();
        let mut other = Wal::prepare(&copy, FileNumber(8), DATABASE, 1000).unwrap();
        other.begin(FIRST);
        other.seal().unwrap();
        replay(&copy, FileNumber(8), DATABASE, true, MAX, |_, _| Ok(())).unwrap()
    };
    assert_eq!((sealed_empty.sealed, sealed_empty.batches), (true, 0));
    for n in FIRST.0..FIRST.0 + 3 {
        wal.append(SequenceNumber(n), &batch(n)).unwrap();
    }
    wal.seal().unwrap();
    let (batches, found) = replay_from(&storage, false).unwrap();
    assert_eq!(batches.len(), 3);
    assert_eq!((found.created_for, found.first_seq, found.sealed), (created_for, Some(FIRST), true));
    // The first one may be any but 0, the others follow it.
    let at = |seqs: [u64; 2]| {
        let storage = MemoryStorage::new();
        storage.create_dir(filename::WAL_DIR).unwrap();
        let file = storage.create(&filename::wal(NUMBER)).unwrap();
        let mut log = LogWriter::create(file, id(NUMBER, DATABASE), SequenceNumber(0)).unwrap();
        for seq in seqs {
            log.append(SequenceNumber(seq), &batch(seq)).unwrap();
        }
        replay_from(&storage, true)
    };
    assert!(at([1, 2]).is_ok() && at([7, 8]).is_ok());
    for seqs in [[0, 1], [7, 7], [7, 9]] {
        corruption_at(at(seqs));
    }
}

#[test]
fn a_wal_is_synced_beside_its_writer() {
    let storage = TraceStorage::new(Arc::new(MemoryStorage::new()));
    storage.create_dir(filename::WAL_DIR).unwrap();
    let mut wal = Wal::create(&storage, NUMBER, DATABASE, FIRST).unwrap();
    let syncer = wal.syncer();
    assert_eq!(syncer.unsynced_bytes(), 0);
    wal.append(FIRST, &batch(FIRST.0)).unwrap();
    let bytes = wal.bytes() - LOG_HEADER_BYTES;
    assert_eq!(syncer.unsynced_bytes(), bytes);
    storage.take();
    syncer.sync().unwrap();
    assert_eq!(syncer.unsynced_bytes(), 0);
    wal.sync().unwrap();
    assert_eq!(storage.take(), "sync wal/000007.log\n", "once is enough");
}

/// Length of `bytes` but for zeros at the end.
fn without_zeros(bytes: &[u8]) -> u64 {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

#[test]
fn every_cut_gives_a_prefix_and_tells_what_is_lost() {
    for sealed in [false, true] {
        let (bytes, frames, batches) = example(sealed);
        for cut in 0..bytes.len() as u64 {
            let (found, replayed) = replay_bytes(&bytes[..cut as usize], true).unwrap();
            let end = *frames.iter().rfind(|&&frame| frame <= cut).unwrap();
            let whole = frames.iter().filter(|&&frame| frame <= cut).count();
            assert_eq!(found, batches[..whole.saturating_sub(2).min(4)], "cut at {cut}");
            let dropped = without_zeros(&bytes[end as usize..cut as usize]);
            assert_eq!((replayed.bytes, replayed.bytes_dropped), (end, dropped), "cut at {cut}");
            assert!(!replayed.sealed);
            assert_eq!(replayed.created_for, (cut >= frames[1]).then_some(FIRST), "cut at {cut}");
            // Before a later WAL with data only an empty one may be like that.
            match replay_bytes(&bytes[..cut as usize], false) {
                Ok((found, _)) => assert!(found.is_empty() && cut <= frames[1], "cut at {cut}"),
                error => {
                    assert_eq!(corruption_at(error), end, "cut at {cut}");
                    assert!(cut > frames[1]);
                }
            }
        }
    }
}

#[test]
fn every_flipped_bit_gives_a_prefix_or_corruption() {
    for sealed in [false, true] {
        let (good, frames, batches) = example(sealed);
        // What the last frame knows to be synced: half of the batches, or all
        // that is before the seal.
        let synced = if sealed { frames[5] } else { frames[3] };
        for at in 0..good.len() as u64 {
            let bad = *frames.iter().rfind(|&&frame| frame <= at).unwrap();
            let before = frames.iter().filter(|&&frame| frame <= at).count();
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at as usize] ^= 1 << bit;
                assert_eq!(corruption_at(replay_bytes(&bytes, false)), bad, "bit {bit} of byte {at}");
                let outcome = replay_bytes(&bytes, true);
                if bad < synced {
                    assert_eq!(corruption_at(outcome), bad, "bit {bit} of byte {at}");
                    continue;
                }
                let (found, replayed) = outcome.unwrap();
                assert_eq!(found, batches[..before - 2], "bit {bit} of byte {at}");
                let dropped = without_zeros(&bytes[bad as usize..]);
                assert_eq!((replayed.bytes, replayed.bytes_dropped), (bad, dropped));
                assert!(!replayed.sealed);
            }
        }
    }
}

#[test]
fn zeros_after_the_batches_are_no_loss() {
    let (mut bytes, _, batches) = example(false);
    let len = bytes.len() as u64;
    bytes.extend([0; 5000]);
    let (found, replayed) = replay_bytes(&bytes, true).unwrap();
    assert_eq!((found, replayed.bytes, replayed.bytes_dropped), (batches, len, 0));
    let (mut bytes, _, batches) = example(true);
    let len = bytes.len() as u64;
    bytes.extend([0; 5000]);
    let (found, replayed) = replay_bytes(&bytes, false).unwrap();
    assert_eq!((found, replayed.bytes, replayed.sealed), (batches, len, true));
    for at in [len as usize, bytes.len() - 1] {
        let mut bytes = bytes.clone();
        bytes[at] = 1;
        for is_last in [false, true] {
            assert_eq!(corruption_at(replay_bytes(&bytes, is_last)), len, "nothing else follows a seal");
        }
    }
}

#[test]
fn gaps_and_repeats_are_corruption() {
    for (numbers, wrong) in [([41, 43], 1), ([41, 41], 1), ([42, 43], 0), ([40, 41], 0)] {
        let storage = MemoryStorage::new();
        storage.create_dir(filename::WAL_DIR).unwrap();
        let file = storage.create(&filename::wal(NUMBER)).unwrap();
        let mut log = LogWriter::create(file, id(NUMBER, DATABASE), FIRST).unwrap();
        let mut offsets = Vec::new();
        for n in numbers {
            offsets.push(log.len());
            log.append(SequenceNumber(n), &batch(n)).unwrap();
        }
        for is_last in [true, false] {
            assert_eq!(corruption_at(replay_from(&storage, is_last)), offsets[wrong], "{numbers:?}");
        }
    }
}

#[test]
fn another_wal_is_refused() {
    let (bytes, _, _) = example(true);
    let storage = MemoryStorage::new();
    let other = FileNumber(8);
    storage.write(&filename::wal(other), bytes.clone());
    storage.write(&filename::wal(NUMBER), bytes);
    for is_last in [true, false] {
        let ignore = |_, _| panic!("nothing of it is used");
        let renamed = replay(&storage, other, DATABASE, is_last, MAX, ignore).unwrap_err();
        assert!(renamed.to_string().contains("log 7 under another name"), "{renamed}");
        let foreign = replay(&storage, NUMBER, DATABASE + 1, is_last, MAX, ignore).unwrap_err();
        assert!(foreign.to_string().contains("belongs to database"), "{foreign}");
        for error in [renamed, foreign] {
            assert!(matches!(error, Error::Corruption { .. }));
        }
    }
    let missing = replay(&storage, FileNumber(9), DATABASE, true, MAX, |_, _| Ok(()));
    assert!(missing.unwrap_err().is_not_found());
}

#[test]
fn a_batch_that_cannot_follow_is_refused() {
    let storage = MemoryStorage::new();
    let mut wal = create(&storage);
    wal.append(FIRST, &batch(1)).unwrap();
    let before = bytes_of(&storage);
    let seq = |n| SequenceNumber(FIRST.0 + n);
    for wrong in [seq(0), seq(2), SequenceNumber(0), SequenceNumber(u64::MAX)] {
        assert!(matches!(wal.append(wrong, &batch(1)), Err(Error::InvalidArgument(_))), "{wrong:?}");
    }
    let gap = [(seq(1), &b""[..]), (seq(3), &b""[..])];
    assert!(matches!(wal.append_group(&gap), Err(Error::InvalidArgument(_))));
    assert_eq!(bytes_of(&storage), before, "none of a group that is refused");
    wal.append(seq(1), &batch(2)).unwrap();
    assert_eq!(replay_from(&storage, true).unwrap().0.len(), 2);
}

#[test]
fn sequence_numbers_end() {
    let storage = MemoryStorage::new();
    storage.create_dir(filename::WAL_DIR).unwrap();
    let last = SequenceNumber(SequenceNumber::MAX.0 - 1);
    let mut wal = Wal::create(&storage, NUMBER, DATABASE, last).unwrap();
    wal.append(last, &batch(1)).unwrap();
    let past = wal.append(SequenceNumber::MAX, &batch(2));
    assert!(matches!(past, Err(Error::InvalidArgument(_))));
    assert_eq!(replay_from(&storage, true).unwrap().1.last_seq, Some(last));
}

#[test]
fn a_sealed_wal_takes_no_more() {
    let storage = MemoryStorage::new();
    let mut wal = create(&storage);
    wal.append(FIRST, &batch(1)).unwrap();
    wal.seal().unwrap();
    let before = bytes_of(&storage);
    assert!(wal.append(SequenceNumber(FIRST.0 + 1), &batch(2)).is_err());
    assert_eq!(bytes_of(&storage), before);
    assert!(Wal::create(&storage, NUMBER, DATABASE, FIRST).is_err(), "numbers are not reused");
    assert_eq!(bytes_of(&storage), before);
}

#[test]
fn valid_frames_of_nonsense_are_corruption() {
    let mut unknown = batch(1);
    unknown[0] = 77;
    for (payload, at) in [(unknown, 0), (batch(1)[..30].to_vec(), 20), (vec![1; 3], 0)] {
        let storage = MemoryStorage::new();
        let mut wal = create(&storage);
        wal.append(FIRST, &batch(1)).unwrap();
        let offset = wal.bytes() + FRAME_HEADER_BYTES as u64;
        wal.append(SequenceNumber(FIRST.0 + 1), &payload).unwrap();
        let found = corruption_at(replay_from(&storage, true));
        assert!((offset..=offset + at + 16).contains(&found), "{found}, payload at {offset}");
    }
}

#[test]
fn a_batch_over_the_limit_is_refused_and_not_dropped() {
    let (bytes, _, _) = example(false);
    let storage = MemoryStorage::new();
    storage.write(&filename::wal(NUMBER), bytes);
    let longest = (FIRST.0..FIRST.0 + 4).map(|n| batch(n).len()).max().unwrap();
    assert!(replay(&storage, NUMBER, DATABASE, true, longest, |_, _| Ok(())).is_ok());
    let refused = replay(&storage, NUMBER, DATABASE, true, longest - 1, |_, _| Ok(()));
    assert!(matches!(refused, Err(Error::Unsupported(_))));
}

#[test]
fn what_the_caller_refuses_ends_the_replay() {
    let (bytes, _, _) = example(true);
    let storage = MemoryStorage::new();
    storage.write(&filename::wal(NUMBER), bytes);
    let mut seen = 0;
    let outcome = replay(&storage, NUMBER, DATABASE, true, MAX, |_, _| {
        seen += 1;
        if seen == 2 { Err(Error::invalid("enough")) } else { Ok(()) }
    });
    assert!(matches!(outcome, Err(Error::InvalidArgument(text)) if text == "enough"));
    assert_eq!(seen, 2);
}

#[test]
fn holding_data_begins_after_the_header() {
    let (bytes, frames, _) = example(false);
    let storage = MemoryStorage::new();
    for cut in 0..bytes.len() {
        storage.write(&filename::wal(NUMBER), &bytes[..cut]);
        let holds = holds_data(&storage, NUMBER).unwrap();
        // The frame may begin with zeros, which are no data.
        assert!(!holds || cut as u64 > frames[1], "cut at {cut}");
        assert!(holds || (cut as u64) < frames[1] + FRAME_HEADER_BYTES as u64, "cut at {cut}");
    }
    let mut empty = bytes[..frames[1] as usize].to_vec();
    empty.extend(vec![0; 200_000]);
    storage.write(&filename::wal(NUMBER), empty.clone());
    assert!(!holds_data(&storage, NUMBER).unwrap());
    empty.push(1);
    storage.write(&filename::wal(NUMBER), empty);
    assert!(holds_data(&storage, NUMBER).unwrap());
}

#[test]
fn a_wal_is_durable_before_it_takes_data_and_before_its_seal() {
    let storage = TraceStorage::new(Arc::new(MemoryStorage::new()));
    storage.create_dir(filename::WAL_DIR).unwrap();
    let mut wal = Wal::create(&storage, NUMBER, DATABASE, FIRST).unwrap();
    assert_eq!(wal.name_durable(), DirSync::Done);
    wal.append(FIRST, b"").unwrap();
    wal.seal().unwrap();
    let expected = "\
create_dir wal
create wal/000007.log
append wal/000007.log 60 bytes at 0
sync wal/000007.log
sync_dir wal
append wal/000007.log 28 bytes at 60
sync wal/000007.log
append wal/000007.log 36 bytes at 88
sync wal/000007.log
";
    assert_eq!(storage.take_changes(), expected);
}
