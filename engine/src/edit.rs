//! Version edits: what the manifest says, item by item.
//!
//! One edit is one frame of the manifest and takes effect as a whole. The state
//! of a database is the fold of its edits; a new manifest begins with one edit
//! that holds the whole state. Integers are little-endian, a string or key is
//! its length as u32 and its bytes:
//!
//! ```text
//! edit     := item*
//! item     := tag u8 | len u32 | payload of len bytes
//! 1 header           := epoch u64 | next file u64 | last sequence u64 | names durable u8
//! 2 keyspace         := id u32 | flushed through u64 | memtable u8 | flags u8 | zero u16
//!                     | name | schema | merge operator | [ttl ms u64] | [compaction]
//! 3 keyspace dropped := id u32
//! 4 table added      := level u32 | run u64 | keyspace u32 | number u64 | bytes u64
//!                     | tail offset u64 | tail xxh64 u64 | seq min u64 | seq max u64
//!                     | puts u64 | deletes u64 | merges u64 | range deletes u64
//!                     | expires min u64 | expires max u64 | key min | key max
//! 5 table removed    := keyspace u32 | number u64
//! 6 wal added        := number u64 | first sequence u64
//! 7 wal ended        := number u64 | bytes u64 | last sequence u64
//! 8 wal removed      := number u64
//! 9 clean close      := last sequence u64
//! memtable           := 0 sorted | 1 skip list | 2 trie
//! flags              := bit 0: a time to live follows; bit 1: a compaction strategy, as text
//! ```
//!
//! Of the ids of keyspaces that were dropped a new manifest names the highest, so
//! that none is given twice. The schema is reserved by format version 1 and empty
//! so far; an edit that uses it is refused, as is an unknown tag.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::key::{FileNumber, KEY_BYTES_MAX, KeyspaceId, SequenceNumber};
use crate::options::MemtableKind;
use crate::scaling::CompactionStrategy;
use crate::sstable::TableMeta;

/// Flag of a keyspace with a time to live.
const HAS_TTL: u8 = 1;

/// Flag of a keyspace with a compaction strategy of its own.
const HAS_COMPACTION: u8 = 2;

/// Longest name of a keyspace, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// One fact of an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Facts about the database; later ones replace earlier ones.
    Header(Header),
    /// A keyspace, new or changed.
    Keyspace(KeyspaceId, KeyspaceFacts),
    /// A keyspace and everything in it is gone.
    KeyspaceDropped(KeyspaceId),
    /// An SSTable is live.
    TableAdded(Placed),
    /// An SSTable is no longer live.
    TableRemoved(KeyspaceId, FileNumber),
    /// A WAL takes records from now on; its first one has this sequence number, or if
    /// that is 0 the one after the last of the WAL before.
    WalAdded(FileNumber, SequenceNumber),
    /// Recovery read a WAL up to here; what follows is a torn tail.
    WalEnded(FileNumber, WalEnd),
    /// A WAL is not needed any more.
    WalRemoved(FileNumber),
    /// The database was closed at this sequence number. Any later edit ends
    /// that state.
    CleanClose(SequenceNumber),
}

/// Facts about a keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceFacts {
    /// Its name.
    pub name: String,
    /// Highest sequence number whose operations are in SSTables.
    pub flushed_through: SequenceNumber,
    /// Name of its merge operator; empty without one.
    pub merge_operator: String,
    /// Milliseconds that an entry lives unless it says otherwise; 0: for ever.
    pub ttl_ms: u64,
    /// Kind of its memtables.
    pub memtable: MemtableKind,
    /// When its runs are merged, where it has a strategy of its own.
    pub compaction: Option<CompactionStrategy>,
}

/// Facts about the database as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Raised by every writable open.
    pub epoch: u64,
    /// No file has this number or a higher one, as far as this edit knows.
    pub next_file: FileNumber,
    /// Highest sequence number known when this was written.
    pub last_sequence: SequenceNumber,
    /// True if the host could sync the names of the files that are named here.
    pub names_durable: bool,
}

/// An SSTable and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its level.
    pub level: u32,
    /// Its sorted run: the number of its file on level 0, the level otherwise.
    pub run: u64,
    /// The table.
    pub meta: TableMeta,
}

/// Where recovery ended in a WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalEnd {
    /// Bytes that count.
    pub bytes: u64,
    /// Sequence number of the last record.
    pub last_sequence: SequenceNumber,
}

/// Encodes an edit.
pub fn encode(items: &[Item]) -> Vec<u8> {
    let mut edit = Vec::new();
    let mut payload = Vec::new();
    for item in items {
        payload.clear();
        let tag = encode_item(item, &mut payload);
        edit.push(tag);
        edit.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        edit.extend_from_slice(&payload);
    }
    edit
}

fn encode_item(item: &Item, out: &mut Vec<u8>) -> u8 {
    fn put(out: &mut Vec<u8>, words: &[u64]) {
        words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }
    fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    }
    match item {
        Item::Header(header) => {
            put(out, &[header.epoch, header.next_file.0, header.last_sequence.0]);
            out.push(u8::from(header.names_durable));
            1
        }
        Item::Keyspace(id, facts) => {
            out.extend_from_slice(&id.0.to_le_bytes());
            put(out, &[facts.flushed_through.0]);
            let flags = if facts.ttl_ms == 0 { 0 } else { HAS_TTL }
                | if facts.compaction.is_none() { 0 } else { HAS_COMPACTION };
            let memtable = match facts.memtable {
                MemtableKind::Sorted => 0,
                MemtableKind::SkipList => 1,
                MemtableKind::Trie => 2,
            };
            out.extend_from_slice(&[memtable, flags, 0, 0]);
            put_bytes(out, facts.name.as_bytes());
            put_bytes(out, &[]);
            put_bytes(out, facts.merge_operator.as_bytes());
            if facts.ttl_ms != 0 {
                put(out, &[facts.ttl_ms]);
            }
            if let Some(compaction) = &facts.compaction {
                put_bytes(out, compaction.to_string().as_bytes());
            }
            2
        }
        Item::KeyspaceDropped(id) => {
            out.extend_from_slice(&id.0.to_le_bytes());
            3
        }
        Item::TableAdded(Placed { level, run, meta }) => {
            out.extend_from_slice(&level.to_le_bytes());
            put(out, &[*run]);
            out.extend_from_slice(&meta.keyspace.0.to_le_bytes());
            put(out, &[meta.number.0, meta.bytes, meta.tail_offset, meta.tail_checksum]);
            put(out, &[meta.seq_min.0, meta.seq_max.0, meta.puts, meta.deletes, meta.merges]);
            put(out, &[meta.range_deletes, meta.expires_min, meta.expires_max]);
            put_bytes(out, &meta.key_min);
            put_bytes(out, &meta.key_max);
            4
        }
        Item::TableRemoved(keyspace, number) => {
            out.extend_from_slice(&keyspace.0.to_le_bytes());
            put(out, &[number.0]);
            5
        }
        Item::WalAdded(number, first) => {
            put(out, &[number.0, first.0]);
            6
        }
        Item::WalEnded(number, end) => {
            put(out, &[number.0, end.bytes, end.last_sequence.0]);
            7
        }
        Item::WalRemoved(number) => {
            put(out, &[number.0]);
            8
        }
        Item::CleanClose(last) => {
            put(out, &[last.0]);
            9
        }
    }
}

/// Decodes an edit; `Corruption` names `file` and the offset `base` plus the
/// place in the edit.
pub fn decode(edit: &[u8], file: &str, base: u64) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut reader = Reader { rest: edit };
    while !reader.rest.is_empty() {
        let offset = base + (edit.len() - reader.rest.len()) as u64;
        let damaged = |what: &str| Error::corruption(file, offset, what);
        let item = reader.u8().zip(reader.bytes()).ok_or_else(|| damaged("a version edit is cut short"))?;
        let (tag, payload) = item;
        let mut payload = Reader { rest: payload };
        let item = decode_item(tag, &mut payload).map_err(|refusal| match refusal {
            Refusal::Damaged(what) => damaged(what),
            Refusal::Unsupported(what) => Error::Unsupported(format!(
                "{file} uses {what}, which needs a newer version of this program; nothing was changed"
            )),
        })?;
        if !payload.rest.is_empty() {
            return Err(damaged("an item of a version edit has bytes left over"));
        }
        items.push(item);
    }
    Ok(items)
}

enum Refusal {
    Damaged(&'static str),
    Unsupported(&'static str),
}

fn decode_item(tag: u8, reader: &mut Reader<'_>) -> Result<Item, Refusal> {
    const CUT: Refusal = Refusal::Damaged("an item of a version edit is cut short");
    let word = |reader: &mut Reader<'_>| reader.u64().ok_or(CUT);
    Ok(match tag {
        1 => Item::Header(Header {
            epoch: word(reader)?,
            next_file: FileNumber(word(reader)?),
            last_sequence: sequence(word(reader)?)?,
            names_durable: match reader.u8().ok_or(CUT)? {
                0 => false,
                1 => true,
                _ => return Err(Refusal::Damaged("a flag is neither 0 nor 1")),
            },
        }),
        2 => {
            let id = KeyspaceId(reader.u32().ok_or(CUT)?);
            let flushed_through = sequence(word(reader)?)?;
            let options = reader.take(4).ok_or(CUT)?;
            let &[memtable, flags, 0, 0] = options else {
                return Err(Refusal::Unsupported("a keyspace option"));
            };
            if flags & !(HAS_TTL | HAS_COMPACTION) != 0 {
                return Err(Refusal::Unsupported("a keyspace option"));
            }
            let memtable = match memtable {
                0 => MemtableKind::Sorted,
                1 => MemtableKind::SkipList,
                2 => MemtableKind::Trie,
                _ => return Err(Refusal::Unsupported("a kind of memtable")),
            };
            let text = |bytes: Option<&[u8]>, what| {
                let text = std::str::from_utf8(bytes.ok_or(CUT)?).map_err(|_| Refusal::Damaged(what))?;
                Ok(text.to_owned())
            };
            let name = text(reader.bytes(), "the name of a keyspace is not text")?;
            if check_name(&name).is_err() {
                return Err(Refusal::Damaged("the name of a keyspace is not valid"));
            }
            if !reader.bytes().ok_or(CUT)?.is_empty() {
                return Err(Refusal::Unsupported("a typed keyspace"));
            }
            let merge_operator = text(reader.bytes(), "the name of a merge operator is not text")?;
            let ttl_ms = if flags & HAS_TTL != 0 { word(reader)? } else { 0 };
            let compaction = match flags & HAS_COMPACTION {
                0 => None,
                _ => {
                    let text = text(reader.bytes(), "a compaction strategy is not text")?;
                    Some(text.parse().map_err(|_| Refusal::Unsupported("a compaction strategy"))?)
                }
            };
            let facts = KeyspaceFacts { name, flushed_through, merge_operator, ttl_ms, memtable, compaction };
            Item::Keyspace(id, facts)
        }
        3 => Item::KeyspaceDropped(KeyspaceId(reader.u32().ok_or(CUT)?)),
        4 => {
            let level = reader.u32().ok_or(CUT)?;
            let run = word(reader)?;
            let keyspace = KeyspaceId(reader.u32().ok_or(CUT)?);
            let meta = TableMeta {
                number: FileNumber(word(reader)?),
                keyspace,
                bytes: word(reader)?,
                tail_offset: word(reader)?,
                tail_checksum: word(reader)?,
                seq_min: sequence(word(reader)?)?,
                seq_max: sequence(word(reader)?)?,
                puts: word(reader)?,
                deletes: word(reader)?,
                merges: word(reader)?,
                range_deletes: word(reader)?,
                expires_min: word(reader)?,
                expires_max: word(reader)?,
                key_min: reader.bytes().ok_or(CUT)?.to_vec(),
                key_max: reader.bytes().ok_or(CUT)?.to_vec(),
            };
            check_meta(&meta)?;
            Item::TableAdded(Placed { level, run, meta })
        }
        5 => Item::TableRemoved(KeyspaceId(reader.u32().ok_or(CUT)?), FileNumber(word(reader)?)),
        6 => Item::WalAdded(FileNumber(word(reader)?), sequence(word(reader)?)?),
        7 => Item::WalEnded(
            FileNumber(word(reader)?),
            WalEnd { bytes: word(reader)?, last_sequence: sequence(word(reader)?)? },
        ),
        8 => Item::WalRemoved(FileNumber(word(reader)?)),
        9 => Item::CleanClose(sequence(word(reader)?)?),
        _ => return Err(Refusal::Unsupported("an unknown kind of version edit")),
    })
}

fn sequence(value: u64) -> Result<SequenceNumber, Refusal> {
    let seq = SequenceNumber(value);
    if seq >= SequenceNumber::MAX {
        return Err(Refusal::Damaged("a sequence number is past the largest one"));
    }
    Ok(seq)
}

fn check_meta(meta: &TableMeta) -> Result<(), Refusal> {
    let entries =
        [meta.deletes, meta.merges].iter().try_fold(meta.puts, |sum, count| sum.checked_add(*count));
    let sound = entries.is_some()
        && meta.tail_offset <= meta.bytes
        && meta.key_min <= meta.key_max
        && meta.key_max.len() <= KEY_BYTES_MAX + usize::from(meta.range_deletes > 0)
        && meta.key_min.len() <= KEY_BYTES_MAX
        && meta.seq_min <= meta.seq_max;
    if !sound {
        return Err(Refusal::Damaged("the description of an SSTable contradicts itself"));
    }
    Ok(())
}

/// Checks the name of a keyspace.
///
/// # Errors
/// `InvalidArgument` unless it is 1 to 255 bytes without control characters.
pub fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "the name of a keyspace is 1 to {NAME_BYTES_MAX} bytes of text without control characters"
        )));
    }
    Ok(())
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()? as usize;
        self.take(len)
    }
}

/// The fold of all edits: the durable state of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The latest header.
    pub header: Header,
    /// Live keyspaces.
    pub keyspaces: BTreeMap<KeyspaceId, KeyspaceRecord>,
    /// The highest id that a keyspace has or had.
    pub keyspace_max: KeyspaceId,
    /// WALs that recovery reads, in order of their numbers.
    pub wals: BTreeMap<FileNumber, WalRecord>,
    /// Sequence number of a clean close, if that was the last edit.
    pub clean_close: Option<SequenceNumber>,
}

/// A keyspace in a [`State`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceRecord {
    /// Name and options.
    pub facts: KeyspaceFacts,
    /// Live SSTables.
    pub tables: BTreeMap<FileNumber, Placed>,
}

/// A WAL in a [`State`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalRecord {
    /// Sequence number of its first record; 0 if that was not known.
    pub first_sequence: SequenceNumber,
    /// Where it ends, if a recovery has decided that.
    pub end: Option<WalEnd>,
}

impl State {
    /// Applies an edit; the state is undefined after an error, which says what
    /// contradicts what.
    pub fn apply(&mut self, items: &[Item]) -> Result<(), String> {
        self.clean_close = None;
        for item in items {
            self.apply_item(item)?;
        }
        Ok(())
    }

    fn apply_item(&mut self, item: &Item) -> Result<(), String> {
        match item {
            Item::Header(header) => self.header = *header,
            Item::Keyspace(id, facts) => {
                self.keyspaces.entry(*id).or_default().facts = facts.clone();
                self.keyspace_max = self.keyspace_max.max(*id);
            }
            Item::KeyspaceDropped(id) => {
                // A new manifest names one that it never had.
                if self.keyspaces.remove(id).is_none() && *id <= self.keyspace_max {
                    return Err(format!("keyspace {} is dropped twice", id.0));
                }
                self.keyspace_max = self.keyspace_max.max(*id);
            }
            Item::TableAdded(placed) => {
                let (keyspace, number) = (placed.meta.keyspace, placed.meta.number);
                let added = self.tables(keyspace)?.insert(number, placed.clone());
                if added.is_some() {
                    return Err(format!("SSTable {} is added twice", number.0));
                }
            }
            Item::TableRemoved(keyspace, number) => {
                let removed = self.tables(*keyspace)?.remove(number);
                removed.ok_or_else(|| format!("SSTable {} is removed and was not there", number.0))?;
            }
            Item::WalAdded(number, first_sequence) => {
                let record = WalRecord { first_sequence: *first_sequence, end: None };
                if self.wals.insert(*number, record).is_some() {
                    return Err(format!("WAL {} is added twice", number.0));
                }
            }
            Item::WalEnded(number, end) => {
                let wal = self.wals.get_mut(number);
                wal.ok_or_else(|| format!("WAL {} ends and was not there", number.0))?.end = Some(*end);
            }
            Item::WalRemoved(number) => {
                let removed = self.wals.remove(number);
                removed.ok_or_else(|| format!("WAL {} is removed and was not there", number.0))?;
            }
            Item::CleanClose(last) => self.clean_close = Some(*last),
        }
        Ok(())
    }

    fn tables(&mut self, keyspace: KeyspaceId) -> Result<&mut BTreeMap<FileNumber, Placed>, String> {
        let record = self.keyspaces.get_mut(&keyspace);
        Ok(&mut record.ok_or_else(|| format!("keyspace {} is not there", keyspace.0))?.tables)
    }

    /// The edit that makes this state out of nothing; without a clean close.
    pub fn snapshot(&self) -> Vec<Item> {
        let mut items = vec![Item::Header(self.header)];
        for (id, record) in &self.keyspaces {
            items.push(Item::Keyspace(*id, record.facts.clone()));
            items.extend(record.tables.values().cloned().map(Item::TableAdded));
        }
        if !self.keyspaces.contains_key(&self.keyspace_max) && self.keyspace_max > KeyspaceId(0) {
            items.push(Item::KeyspaceDropped(self.keyspace_max));
        }
        for (number, wal) in &self.wals {
            items.push(Item::WalAdded(*number, wal.first_sequence));
            items.extend(wal.end.map(|end| Item::WalEnded(*number, end)));
        }
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> TableMeta {
        TableMeta {
            number: FileNumber(9),
            keyspace: KeyspaceId(1),
            bytes: 1000,
            tail_offset: 900,
            tail_checksum: 0xfeed,
            key_min: b"a".to_vec(),
            key_max: b"zz".to_vec(),
            seq_min: SequenceNumber(1),
            seq_max: SequenceNumber(70),
            puts: 60,
            deletes: 8,
            merges: 2,
            range_deletes: 0,
            expires_min: 0,
            expires_max: 0,
        }
    }

    fn edit() -> Vec<Item> {
        let header = Header {
            epoch: 3,
            next_file: FileNumber(12),
            last_sequence: SequenceNumber(70),
            names_durable: true,
        };
        let end = WalEnd { bytes: 77, last_sequence: SequenceNumber(80) };
        vec![
            Item::Header(header),
            Item::Keyspace(
                KeyspaceId(1),
                KeyspaceFacts {
                    name: "flights".to_owned(),
                    flushed_through: SequenceNumber(70),
                    merge_operator: "i64.add".to_owned(),
                    ttl_ms: 1000,
                    memtable: MemtableKind::SkipList,
                    compaction: Some("T8/L4".parse().unwrap()),
                },
            ),
            Item::TableAdded(Placed { level: 1, run: 1, meta: meta() }),
            Item::WalAdded(FileNumber(10), SequenceNumber(71)),
            Item::WalEnded(FileNumber(10), end),
        ]
    }

    #[test]
    fn edits_round_trip() {
        let mut items = edit();
        items.extend([
            Item::TableRemoved(KeyspaceId(1), FileNumber(9)),
            Item::WalRemoved(FileNumber(10)),
            Item::KeyspaceDropped(KeyspaceId(1)),
            Item::CleanClose(SequenceNumber(80)),
        ]);
        assert_eq!(decode(&encode(&items), "m", 0).unwrap(), items);
    }

    #[test]
    fn a_snapshot_restores_the_state() {
        let mut state = State::default();
        state.apply(&edit()).unwrap();
        let mut again = State::default();
        again.apply(&state.snapshot()).unwrap();
        assert_eq!(state, again);
        assert_eq!(state.snapshot(), edit());
    }

    #[test]
    fn contradictions_are_refused() {
        let mut state = State::default();
        assert!(state.apply(&edit()[2..3]).is_err(), "no keyspace");
        state.apply(&edit()).unwrap();
        for item in [
            Item::TableAdded(Placed { level: 1, run: 1, meta: meta() }),
            Item::TableRemoved(KeyspaceId(1), FileNumber(1)),
            Item::WalRemoved(FileNumber(1)),
            Item::WalAdded(FileNumber(10), SequenceNumber(1)),
        ] {
            assert!(state.clone().apply(std::slice::from_ref(&item)).is_err(), "{item:?}");
        }
    }

    #[test]
    fn every_cut_is_corruption_or_a_shorter_edit() {
        let bytes = encode(&edit());
        for cut in 0..bytes.len() {
            match decode(&bytes[..cut], "m", 100) {
                Ok(items) => assert_eq!(items, edit()[..items.len()]),
                Err(Error::Corruption { offset, .. }) => assert!(offset >= 100 && offset < 100 + cut as u64),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn newer_items_are_unsupported() {
        let unknown = [200, 0, 0, 0, 0];
        assert!(matches!(decode(&unknown, "m", 0), Err(Error::Unsupported(_))));
        let keyspace = encode(&edit()[1..2]);
        // After tag and length: id, flushed through, kind of memtable, flags.
        for (at, known) in [(17, 0..3), (18, 0..4), (19, 0..1), (20, 0..1)] {
            for byte in 0..=255 {
                let mut changed = keyspace.clone();
                changed[at] = byte;
                let refused = matches!(decode(&changed, "m", 0), Err(Error::Unsupported(_)));
                assert!(refused || known.contains(&byte), "{at}: {byte}");
            }
        }
    }

    #[test]
    fn ids_of_dropped_keyspaces_are_remembered() {
        let mut state = State::default();
        state.apply(&edit()).unwrap();
        let dropped = Item::KeyspaceDropped(KeyspaceId(1));
        state.apply(&[Item::TableRemoved(KeyspaceId(1), FileNumber(9)), dropped.clone()]).unwrap();
        assert!(state.clone().apply(&[dropped]).is_err(), "twice");
        let mut again = State::default();
        again.apply(&state.snapshot()).unwrap();
        assert_eq!((again.keyspaces.len(), again.keyspace_max), (0, KeyspaceId(1)));
    }
}
