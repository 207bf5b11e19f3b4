//! put, get and delete.

use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use super::args::{Delete, Get, Put};
use super::{Failure, Home, Outcome, Result, find, text};

pub fn put(home: &Home<'_>, put: &Put) -> Result<Outcome> {
    let key = text::argument(&put.key, put.hex)?;
    let value = match (&put.value, &put.value_file) {
        (Some(value), _) => text::argument(value, put.hex)?,
        (None, Some(file)) => read_value(file, home.value_bytes_max())?,
        (None, None) => return Err(Failure::Usage("a value is needed".into())),
    };
    let db = home.open_or_create()?;
    let keyspace = db.create_keyspace(&put.keyspace.keyspace)?;
    db.put(keyspace, &key, &value, put.durability.into())?;
    db.close()?;
    Ok(Outcome::Done)
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
    if get.hex {
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

pub fn delete(home: &Home<'_>, delete: &Delete) -> Result<Outcome> {
    let key = text::argument(&delete.key, delete.hex)?;
    let db = home.open()?;
    let keyspace = find(&*db, &delete.keyspace.keyspace)?;
    db.delete(keyspace, &key, delete.durability.into())?;
    db.close()?;
    Ok(Outcome::Done)
}
