//! import: rows of a file into a keyspace, in the order of the file.

use duramen::key::KEY_BYTES_MAX;
use duramen::{Database, Durability, KeyspaceId, WriteBatch};
use serde_json::Value;

use super::args::Import;
use super::rows::{Cell, Row, Rows};
use super::{Failure, Home, Outcome, Result, text};

/// Bytes of one commit: wide rows make batches of fewer rows.
const BATCH_BYTES: usize = 4 << 20;

pub fn import(home: &Home<'_>, import: &Import) -> Result<Outcome> {
    let mut rows = Rows::open(&import.file, import.quiet || import.progress_every.is_some())?;
    if let Some(columns) = rows.columns() {
        check_columns(import, &columns)?;
    }
    let db = home.open_or_create()?;
    let mut batches = Batches {
        keyspace: db.create_keyspace(&import.keyspace.keyspace)?,
        db: &*db,
        durability: import.durability.into(),
        batch: WriteBatch::new(),
        pending: 0,
        committed: 0,
        every: import.progress_every,
    };
    let mut row = Row::default();
    let value_bytes_max = home.value_bytes_max();
    let outcome = loop {
        match rows.next(&mut row) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(failure) => break Err(failure),
        }
        let pair = pair(import, &row).and_then(|(key, value)| {
            // A dump may hold the empty key; columns that are all empty are a mistake.
            if key.is_empty() && !import.key.is_empty() {
                return Err("the key is empty".into());
            }
            check_sizes(&key, &value, value_bytes_max)?;
            Ok((key, value))
        });
        match pair {
            Ok((key, value)) => batches.add(&key, &value, import.batch_rows)?,
            Err(what) => break Err(rows.failure(&row.place, what)),
        }
    };
    if let Err(failure) = outcome {
        let committed = batches.committed;
        db.close()?;
        return Err(match failure {
            Failure::Failed(what) => {
                Failure::Failed(format!("{what} ({committed} rows before were committed)"))
            }
            other => other,
        });
    }
    batches.commit()?;
    let committed = batches.committed;
    db.close()?;
    if import.progress_every.is_some() {
        println!("committed {committed}");
    } else if !import.quiet {
        println!("{committed} rows imported into keyspace {}", import.keyspace.keyspace);
    }
    Ok(Outcome::Done)
}

/// Rows that wait for their commit.
struct Batches<'a> {
    db: &'a dyn Database,
    keyspace: KeyspaceId,
    durability: Durability,
    batch: WriteBatch,
    pending: u64,
    committed: u64,
    every: Option<u64>,
}

impl Batches<'_> {
    fn add(&mut self, key: &[u8], value: &[u8], batch_rows: u64) -> Result<()> {
        self.batch.put(self.keyspace, key, value);
        self.pending += 1;
        if self.pending >= batch_rows || self.batch.encoded_bytes() >= BATCH_BYTES {
            self.commit()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        self.db.write(std::mem::take(&mut self.batch), self.durability)?;
        let before = self.committed;
        self.committed += std::mem::take(&mut self.pending);
        if self.every.is_some_and(|every| self.committed / every > before / every) {
            println!("committed {}", self.committed);
        }
        Ok(())
    }
}

/// Refuses columns that do not exist before anything is opened.
fn check_columns(import: &Import, columns: &[String]) -> Result<()> {
    let there = || columns.join(", ");
    if import.key.is_empty() {
        let has = |name: &str| columns.iter().any(|column| column == name);
        if (has("key") || has("key_hex")) && (has("value") || has("value_hex") || import.value.is_some()) {
            return Ok(());
        }
        return Err(Failure::Usage(format!("--key must name the columns of the key; there are {}", there())));
    }
    for name in import.key.iter().chain(&import.value) {
        if !columns.contains(name) {
            return Err(Failure::Usage(format!("there is no column {name}; there are {}", there())));
        }
    }
    Ok(())
}

fn check_sizes(key: &[u8], value: &[u8], value_bytes_max: usize) -> Result<(), String> {
    if key.len() > KEY_BYTES_MAX {
        return Err(format!("key of {} bytes is over the limit of {KEY_BYTES_MAX} bytes", key.len()));
    }
    if value.len() > value_bytes_max {
        return Err(format!("value of {} bytes is over the limit of {value_bytes_max} bytes", value.len()));
    }
    Ok(())
}

/// Key and value of a row, or what is wrong with it.
fn pair(import: &Import, row: &Row) -> Result<(Vec<u8>, Vec<u8>), String> {
    let value = |key: &[String]| match &import.value {
        Some(name) => content(column(row, name)?),
        None => Ok(object(row, key)),
    };
    if import.key.is_empty() {
        let value = match &import.value {
            Some(name) => content(column(row, name)?)?,
            None => plain_or_hex(row, "value")?,
        };
        if row.columns.iter().any(|(name, cell)| name == "key" && *cell == Cell::Null) {
            return Err("key is null".into());
        }
        return Ok((plain_or_hex(row, "key")?, value));
    }
    let mut key = Vec::new();
    for (index, name) in import.key.iter().enumerate() {
        let cell = column(row, name)?;
        if matches!(cell, Cell::Null | Cell::Empty) {
            return Err(format!("column {name} of the key is null"));
        }
        if index > 0 {
            key.push(b'/');
        }
        key.extend_from_slice(&content(cell)?);
    }
    Ok((key, value(&import.key)?))
}

fn column<'r>(row: &'r Row, name: &str) -> Result<&'r Cell, String> {
    let found = row.columns.iter().find(|(column, _)| column == name);
    found.map(|(_, cell)| cell).ok_or_else(|| {
        let there: Vec<&str> = row.columns.iter().map(|(name, _)| name.as_str()).collect();
        format!("there is no column {name}; there are {}", there.join(", "))
    })
}

/// A cell as the bytes of a key or a value.
fn content(cell: &Cell) -> Result<Vec<u8>, String> {
    Ok(match cell {
        Cell::Null | Cell::Empty => Vec::new(),
        Cell::Text(text) | Cell::Literal(text) => text.clone().into_bytes(),
        Cell::Bytes(bytes) => bytes.clone(),
        Cell::Nested(value) => value.to_string().into_bytes(),
    })
}

/// The column `name`, or the one whose digits say the same.
fn plain_or_hex(row: &Row, name: &str) -> Result<Vec<u8>, String> {
    let hex = format!("{name}_hex");
    match row.columns.iter().find(|(column, _)| *column == hex) {
        Some((_, Cell::Text(digits) | Cell::Literal(digits))) => {
            text::from_hex(digits).ok_or_else(|| format!("{hex} is not an even number of hexadecimal digits"))
        }
        Some((_, Cell::Null | Cell::Empty)) => Ok(Vec::new()),
        _ => content(column(row, name)?),
    }
}

/// The columns that are not in the key, as a JSON object.
fn object(row: &Row, key: &[String]) -> Vec<u8> {
    let mut json = String::with_capacity(32 * row.columns.len());
    for (name, cell) in row.columns.iter().filter(|(name, _)| !key.contains(name)) {
        json.push(if json.is_empty() { '{' } else { ',' });
        json.push_str(&quoted(name));
        json.push(':');
        match cell {
            Cell::Null | Cell::Empty => json.push_str("null"),
            Cell::Literal(text) => json.push_str(text),
            Cell::Text(text) => json.push_str(&quoted(text)),
            Cell::Nested(value) => json.push_str(&value.to_string()),
            Cell::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => json.push_str(&quoted(text)),
                Err(_) => json.push_str(&quoted(&text::to_hex(bytes))),
            },
        }
    }
    json.push_str(if json.is_empty() { "{}" } else { "}" });
    json.into_bytes()
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
