//! Goal: `CURRENT` names the live generation or the one before, whatever a
//! crash or damage does to one slot, and a writer that has been overtaken is
//! told. Method: files in memory, with every bit of a slot flipped, and cut, and
//! overwritten by halves; slots that no writer makes.

use super::*;
use crate::storage::memory::MemoryStorage;
use crate::storage::trace::TraceStorage;

const DATABASE: u64 = 0xd0d0;

fn number(n: u64) -> FileNumber {
    FileNumber(n)
}

/// A file of so many generations, whose manifests are 11, 12 and so on.
fn generations(count: u64) -> (MemoryStorage, Vec<Current>) {
    let storage = MemoryStorage::new();
    let mut all = vec![create(&storage, number(11), DATABASE, DirSync::Done).unwrap()];
    for n in 1..count {
        let last = all.last().unwrap();
        all.push(advance(&storage, last, number(11 + n), DirSync::Done).unwrap());
    }
    (storage, all)
}

fn bytes_of(storage: &MemoryStorage) -> Vec<u8> {
    storage.read(filename::CURRENT).unwrap()
}

fn read_bytes(bytes: &[u8]) -> Result<CurrentState> {
    let storage = MemoryStorage::new();
    storage.write(filename::CURRENT, bytes);
    read(&storage)
}

fn live(state: Result<CurrentState>) -> Current {
    match state {
        Ok(CurrentState::Live(current)) => current,
        other => panic!("not live: {other:?}"),
    }
}

/// A slot with any contents and a right checksum.
fn slot(version: u32, generation: u64, database_id: u64) -> Vec<u8> {
    let current = Current {
        generation,
        manifest: number(generation.saturating_add(10)),
        database_id,
        names_durable: true,
        other: OtherSlot::Empty,
    };
    let mut bytes = encode(&current).to_vec();
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..40]);
    bytes[40..44].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn is_corruption(outcome: &Result<CurrentState>) -> bool {
    matches!(outcome, Err(Error::Corruption { file, .. }) if file == filename::CURRENT)
}

#[test]
fn generations_follow_each_other() {
    let storage = MemoryStorage::new();
    assert_eq!(read(&storage).unwrap(), CurrentState::Missing);
    let first = create(&storage, number(11), DATABASE, DirSync::Done).unwrap();
    let expected = Current {
        generation: 1,
        manifest: number(11),
        database_id: DATABASE,
        names_durable: true,
        other: OtherSlot::Empty,
    };
    assert_eq!(first, expected);
    assert_eq!(live(read(&storage)), expected);
    assert!(create(&storage, number(12), 1, DirSync::Done).is_err(), "never over another");
    let mut last = first;
    for generation in 2..9 {
        let names = if generation % 3 == 0 { DirSync::Unsupported } else { DirSync::Done };
        let next = advance(&storage, &last, number(10 + generation), names).unwrap();
        let expected = Current {
            generation,
            manifest: number(10 + generation),
            database_id: DATABASE,
            names_durable: names == DirSync::Done,
            other: OtherSlot::Previous(last.manifest),
        };
        assert_eq!((next, live(read(&storage))), (expected, expected));
        check(&storage, &next).unwrap();
        last = next;
    }
}

#[test]
fn bytes_of_the_format() {
    let (storage, _) = generations(2);
    let bytes = bytes_of(&storage);
    assert_eq!(bytes.len(), 8192);
    for (at, generation) in [(0, 1u64), (4096, 2)] {
        let slot = &bytes[at..at + 44];
        let mut expected = b"DURAMENC".to_vec();
        expected.extend([1, 0, 0, 0, 1, 0, 0, 0]);
        for word in [generation, 10 + generation, DATABASE] {
            expected.extend(word.to_le_bytes());
        }
        assert_eq!(slot[..40], expected);
        assert_eq!(slot[40..], crc32fast::hash(&expected).to_le_bytes());
        assert!(bytes[at + 44..at + 4096].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn a_stale_writer_is_locked_out() {
    let (storage, all) = generations(4);
    let before = bytes_of(&storage);
    for stale in &all[..3] {
        assert!(matches!(check(&storage, stale), Err(Error::Locked(_))));
        let advanced = advance(&storage, stale, number(99), DirSync::Done);
        assert!(matches!(advanced, Err(Error::Locked(_))));
    }
    let other = Current { database_id: 1, ..all[3] };
    assert!(matches!(check(&storage, &other), Err(Error::Locked(_))));
    assert_eq!(bytes_of(&storage), before);
    storage.remove(filename::CURRENT).unwrap();
    assert!(matches!(check(&storage, &all[3]), Err(Error::Locked(_))), "the file is gone");
}

#[test]
fn every_flipped_bit_leaves_a_generation() {
    for count in [2, 3] {
        let (storage, all) = generations(count);
        let (newest, before) = (all[all.len() - 1], all[all.len() - 2]);
        let good = bytes_of(&storage);
        let newest_at = slot_of(newest.generation) * SLOT_STRIDE;
        for at in 0..good.len() {
            let in_slot = at % SLOT_STRIDE < SLOT_BYTES;
            for bit in 0..if in_slot { 8 } else { 1 } {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                let found = live(read_bytes(&bytes));
                let expected = match (in_slot, at / SLOT_STRIDE * SLOT_STRIDE == newest_at) {
                    (false, _) => newest,
                    (true, true) => Current { other: OtherSlot::Invalid, ..before },
                    (true, false) => Current { other: OtherSlot::Invalid, ..newest },
                };
                assert_eq!(found, expected, "bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn a_lone_slot_that_is_damaged_is_corruption() {
    let (storage, all) = generations(1);
    let good = bytes_of(&storage);
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        let outcome = read_bytes(&bytes);
        if at < SLOT_BYTES {
            assert!(is_corruption(&outcome), "byte {at}: {outcome:?}");
        } else {
            // In the other slot it may be the trace of a crash.
            let other = if at < SLOT_STRIDE { OtherSlot::Empty } else { OtherSlot::Invalid };
            assert_eq!(live(outcome), Current { other, ..all[0] }, "byte {at}");
        }
    }
}

#[test]
fn a_torn_advance_leaves_either_generation() {
    let (storage, all) = generations(3);
    let before = bytes_of(&storage);
    let next = advance(&storage, &all[2], number(14), DirSync::Done).unwrap();
    let after = bytes_of(&storage);
    let changed = slot_of(4) * SLOT_STRIDE;
    for written in 0..=SLOT_STRIDE {
        let mut bytes = before.clone();
        bytes[changed..changed + written].copy_from_slice(&after[changed..changed + written]);
        let found = live(read_bytes(&bytes));
        if written < SLOT_BYTES {
            assert_eq!((found.generation, found.manifest), (3, number(13)), "{written} bytes");
        } else {
            assert_eq!(found, next, "{written} bytes");
        }
    }
}

#[test]
fn a_short_or_zero_file_is_incomplete() {
    let (storage, _) = generations(1);
    let bytes = bytes_of(&storage);
    for cut in 0..bytes.len() {
        assert_eq!(read_bytes(&bytes[..cut]).unwrap(), CurrentState::Incomplete, "cut at {cut}");
    }
    assert_eq!(read_bytes(&[0; FILE_BYTES]).unwrap(), CurrentState::Incomplete);
    let longer = [&bytes[..], &[0]].concat();
    assert!(is_corruption(&read_bytes(&longer)));
}

#[test]
fn a_newer_format_is_unsupported() {
    let zeros = vec![0; SLOT_STRIDE];
    let refused = |slots: [Vec<u8>; 2]| {
        let outcome = read_bytes(&slots.concat());
        matches!(outcome, Err(Error::Unsupported(text)) if text.contains("version 2"))
    };
    assert!(refused([slot(2, 1, DATABASE), zeros.clone()]));
    assert!(refused([slot(1, 1, DATABASE), slot(2, 2, DATABASE)]));
    assert!(refused([slot(2, 3, DATABASE), slot(1, 2, DATABASE)]));
    assert!(read_bytes(&[slot(1, 1, DATABASE), zeros].concat()).is_ok());
}

#[test]
fn slots_that_contradict_each_other_are_corruption() {
    let zeros = vec![0; SLOT_STRIDE];
    for (first, second) in [
        // In the place of the other, both or alone.
        (slot(1, 2, DATABASE), slot(1, 1, DATABASE)),
        (slot(1, 2, DATABASE), zeros.clone()),
        (zeros.clone(), slot(1, 1, DATABASE)),
        // Not neighbours.
        (slot(1, 1, DATABASE), slot(1, 4, DATABASE)),
        (slot(1, 5, DATABASE), slot(1, 2, DATABASE)),
        // Of two databases.
        (slot(1, 1, DATABASE), slot(1, 2, 7)),
        (slot(1, 0, DATABASE), zeros),
    ] {
        let outcome = read_bytes(&[first, second].concat());
        assert!(is_corruption(&outcome), "{outcome:?}");
    }
}

#[test]
fn generations_end() {
    let storage = MemoryStorage::new();
    let last = [slot(1, u64::MAX, DATABASE), vec![0; SLOT_STRIDE]].concat();
    storage.write(filename::CURRENT, last.clone());
    let current = live(read(&storage));
    let advanced = advance(&storage, &current, number(1), DirSync::Done);
    assert!(matches!(advanced, Err(Error::Unsupported(_))));
    assert_eq!(bytes_of(&storage), last);
}

#[test]
fn only_the_older_slot_is_touched() {
    let storage = TraceStorage::new(std::sync::Arc::new(MemoryStorage::new()));
    let mut current = create(&storage, number(11), DATABASE, DirSync::Done).unwrap();
    let expected = "create CURRENT\nappend CURRENT 8192 bytes at 0\nsync CURRENT\nsync_dir .\n";
    assert_eq!(storage.take_changes(), expected);
    for offset in [4096, 0, 4096] {
        current = advance(&storage, &current, number(12), DirSync::Done).unwrap();
        assert_eq!(storage.take_changes(), format!("overwrite CURRENT 4096 bytes at {offset}\n"));
    }
}
