//! Reads a whole table and checks what the checksums cannot: that pages,
//! indexes, filters and the manifest tell the same story.

use super::TableMeta;
use super::cache::Passed;
use super::filter::hash_key;
use super::index::MAGIC;
use super::schema::{EXPIRY, KEY, KIND, SEQ};
use super::table::Table;
use crate::error::Result;
use crate::key::{Expiry, SequenceNumber, ValueKind, compare_internal};

/// Checks every byte of `table`; answers how many there are.
pub(super) fn verify(table: &Table) -> Result<u64> {
    if table.read(0, MAGIC.len())? != MAGIC[..] {
        return Err(table.corrupt_at(0, "the file does not begin as a Parquet file"));
    }
    let mut windows = super::cursor::Windows::default();
    let mut before: Option<(Vec<u8>, SequenceNumber)> = None;
    let mut found = TableMeta {
        puts: 0,
        deletes: 0,
        merges: 0,
        seq_min: SequenceNumber::MAX,
        seq_max: SequenceNumber(0),
        expires_min: u64::MAX,
        expires_max: 0,
        ..table.meta().clone()
    };
    let mut first = true;
    for (ordinal, group) in table.index.groups.iter().enumerate() {
        let end = table.index.groups.get(ordinal + 1).map_or(table.index.pages.len(), |next| next.first_page);
        let filter = table.read_filter(group)?;
        for page in group.first_page..end {
            let rows = windows.rows(table, page, true, Passed::default())?;
            windows.check_crcs(table, page)?;
            let kinds = windows.ints(table, page, KIND)?;
            let expiries = match table.index.expires {
                true => Some(windows.ints(table, page, EXPIRY)?),
                false => None,
            };
            let entry = &table.index.pages[page];
            let lower = table.index.bound(page);
            if rows.keys.get(0) < lower || before.as_ref().is_some_and(|(key, _)| key.as_slice() > lower) {
                return Err(table.corrupt(page, KEY, "keys outside the bounds in the index"));
            }
            let (mut seq_min, mut seq_max) = (i64::MAX, i64::MIN);
            let (mut expiry_min, mut expiry_max) = (i64::MAX, i64::MIN);
            for row in 0..rows.keys.rows() {
                let (key, seq) = (rows.keys.get(row), rows.seqs.get(row));
                (seq_min, seq_max) = (seq_min.min(seq), seq_max.max(seq));
                let Ok(number) = u64::try_from(seq) else {
                    return Err(table.corrupt(page, SEQ, "a negative sequence number"));
                };
                let seq = SequenceNumber(number);
                if let Some((before_key, before_seq)) = &before
                    && compare_internal((before_key, *before_seq), (key, seq)).is_ge()
                {
                    return Err(table.corrupt(page, KEY, "entries out of order"));
                }
                if !filter.may_hold(hash_key(key)) {
                    return Err(
                        table.corrupt_at(group.filter_offset, "the filter lacks a key of its row group")
                    );
                }
                let kind = table.kind(page, kinds.get(row))?;
                if entry.kind.is_some_and(|uniform| uniform != kind) {
                    return Err(table.corrupt(page, KIND, "a kind outside the bounds in the index"));
                }
                match kind {
                    ValueKind::Put => found.puts += 1,
                    ValueKind::Delete => found.deletes += 1,
                    ValueKind::Merge => found.merges += 1,
                }
                let expiry = expiries.as_ref().map_or(0, |expiries| expiries.get(row));
                (expiry_min, expiry_max) = (expiry_min.min(expiry), expiry_max.max(expiry));
                found.note_expiry(Expiry(expiry as u64));
                if std::mem::take(&mut first) {
                    found.key_min = key.to_vec();
                }
                let (last_key, last_seq) = before.get_or_insert_with(|| (Vec::new(), seq));
                last_key.clear();
                last_key.extend_from_slice(key);
                *last_seq = seq;
            }
            if (seq_min, seq_max) != (entry.seq_min, entry.seq_max) {
                return Err(table.corrupt(page, SEQ, "sequence numbers outside the bounds in the index"));
            }
            if (expiry_min, expiry_max) != entry.expiries || expiry_min < 0 {
                return Err(table.corrupt(page, EXPIRY, "expiries outside the bounds in the index"));
            }
            found.seq_min = found.seq_min.min(SequenceNumber(seq_min as u64));
            found.seq_max = found.seq_max.max(SequenceNumber(seq_max as u64));
        }
    }
    match before {
        Some((key, _)) => found.key_max = key,
        // Nothing but range tombstones, which give the bounds.
        None => {
            let (start, _) = table.range_deletes().bounds().unzip();
            let start = start.map(|start| start.to_vec()).unwrap_or_default();
            (found.key_min, found.key_max) = (start.clone(), start);
            found.note_expiry(Expiry::NEVER);
        }
    }
    found.settle_expiry();
    found.cover(table.range_deletes());
    if found != *table.meta() {
        return Err(table.corrupt_at(0, "the entries are not those that the manifest describes"));
    }
    Ok(table.meta().bytes)
}
