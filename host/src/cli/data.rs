//! put, get, merge and delete.

use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use duramen::key::prefix_end;
use duramen::range_delete::end_of_keys;
use duramen::{Expiry, WriteBatch};

use super::args::{Delete, Get, Merge, Put};
use super::{Failure, Home, Outcome, Result, find, text};

pub fn put(home: &Home<'_>, put: &Put) -> Result<Outcome> {
    let key = text::argument(&put.key, put.hex)?;
    let value = match (&put.value, &put.value_file) {
        (Some(value), _) => text::value(value, put.hex, put.int)?,
        (None, Some(file)) => read_value(file, home.value_bytes_max())?,
        (None, None) => return Err(Failure::Usage("a value is needed".into())),
    };
    let db = home.open_or_create()?;
    let keyspace = db.create_keyspace(&put.keyspace.keyspace)?;
    let mut batch = WriteBatch::new();
    batch.put_until(keyspace, &key, &value, put.ttl.map_or(Ok(Expiry::NEVER), expiry)?);
    db.write(batch, put.durability.into())?;
    db.close()?;
    Ok(Outcome::Done)
}

/// So many milliseconds from now.
fn expiry(ttl_ms: u64) -> Result<Expiry> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_err(|_| Failure::Failed("the clock is before 1970".into()))?;
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    Ok(Expiry(now_ms.saturating_add(ttl_ms)).min(Expiry::MAX))
}

/// Reads a value, and no more of a file than may be one.
fn read_value(file: &Path, most: usize) -> Result<Vec<u8>> {
    let mut value = Vec::new();
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let opened = fs::File::open(file);
        Box::new(opened.map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?)
    };
    source.take(most as u64 + 1).read_to_end(&mut value)?;
    if value.len() > most {
        let what = format!("{}: the value is over the limit of {most} bytes", file.display());
        return Err(Failure::Failed(what));
    }
    Ok(value)
}

pub fn get(home: &Home<'_>, get: &Get) -> Result<Outcome> {
    let key = text::argument(&get.key, get.hex)?;
    let db = home.open()?;
    let keyspace = find(&*db, &get.keyspace.keyspace)?;
    let found = db.get(keyspace, &key, None)?;
    db.close()?;
    let Some(value) = found else { return Ok(Outcome::NotFound) };
    let mut out = io::stdout().lock();
    if get.int {
        let int = text::int(&value).ok_or_else(|| {
            Failure::Failed(format!("the value has {} bytes, and an integer has 8", value.len()))
        })?;
        writeln!(out, "{int}")?;
    } else if get.hex {
        writeln!(out, "{}", text::to_hex(&value))?;
    } else {
        out.write_all(&value)?;
        // Into a pipe or a file goes the value and nothing else.
        if out.is_terminal() {
            writeln!(out)?;
        }
        out.flush()?;
    }
    Ok(Outcome::Done)
}

pub fn merge(home: &Home<'_>, merge: &Merge) -> Result<Outcome> {
    let key = text::argument(&merge.key, merge.hex)?;
    let operand = text::value(&merge.operand, merge.hex, merge.int)?;
    let db = home.open()?;
    let keyspace = find(&*db, &merge.keyspace.keyspace)?;
    db.merge(keyspace, &key, &operand, merge.durability.into())?;
    db.close()?;
    Ok(Outcome::Done)
}

pub fn delete(home: &Home<'_>, delete: &Delete) -> Result<Outcome> {
    let (what, start, end) = match delete {
        Delete { key: Some(key), .. } => return delete_key(home, delete, key),
        Delete { prefix: Some(prefix), .. } => {
            let prefix = text::argument(prefix, delete.hex)?;
            let what = match prefix.is_empty() {
                true => "all keys".to_owned(),
                false => format!("all keys that start with {}", text::printable(&prefix)),
            };
            let end = prefix_end(&prefix).unwrap_or_else(end_of_keys);
            (what, prefix, end)
        }
        Delete { start: Some(start), end: Some(end), .. } => {
            let (start, end) = (text::argument(start, delete.hex)?, text::argument(end, delete.hex)?);
            if start >= end {
                return Err(Failure::Usage("--start must be below --end, which is not included".into()));
            }
            let what =
                format!("all keys from {} on and below {}", text::printable(&start), text::printable(&end));
            (what, start, end)
        }
        _ => return Err(Failure::Usage("a key, --prefix, or --start and --end are needed".into())),
    };
    let db = home.open()?;
    let keyspace = find(&*db, &delete.keyspace.keyspace)?;
    db.delete_range(keyspace, &start, &end, delete.durability.into())?;
    db.close()?;
    println!("deleted from keyspace {}: {what}", delete.keyspace.keyspace);
    Ok(Outcome::Done)
}

fn delete_key(home: &Home<'_>, delete: &Delete, key: &str) -> Result<Outcome> {
    let key = text::argument(key, delete.hex)?;
    let db = home.open()?;
    let keyspace = find(&*db, &delete.keyspace.keyspace)?;
    db.delete(keyspace, &key, delete.durability.into())?;
    db.close()?;
    Ok(Outcome::Done)
}
