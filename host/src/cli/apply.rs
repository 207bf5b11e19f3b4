//! apply: the operations of a file of JSON lines, as one transaction.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use duramen::{Database, DatabaseTransaction, Durability, Error, KeyspaceId, WriteBatch};
use serde_json::{Map, Value};

use super::args::Apply;
use super::rows::Lines;
use super::{Failure, Home, Outcome, Result, find, text};

/// Times that a transaction is begun before a conflict is the answer. Nobody
/// else has the database open, so one is enough as a rule.
const ATTEMPTS: usize = 5;

type Fields = Map<String, Value>;

/// A line of the file.
struct Line {
    number: u64,
    keyspace: Option<String>,
    step: Step,
}

#[derive(Debug, PartialEq)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Merge(Vec<u8>, Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
    Expect(Vec<u8>, Option<Vec<u8>>),
}

/// How an attempt ended that the database did not refuse.
enum Attempt {
    Committed,
    /// An expectation that was not met, in words.
    Unexpected(String),
}

pub fn apply(home: &Home<'_>, apply: &Apply) -> Result<Outcome> {
    let (name, lines) = read(&apply.file)?;
    let db = home.open()?;
    let mut steps = Vec::with_capacity(lines.len());
    for line in &lines {
        let keyspace = line.keyspace.as_ref().unwrap_or(&apply.keyspace.keyspace);
        let id = find(&*db, keyspace).map_err(|failure| at(&name, line.number, failure))?;
        steps.push((line, id));
    }
    let attempt = || attempt(&*db, &name, &steps, apply.durability.into());
    let outcome = retried(attempt).inspect_err(|_| {
        // The reason to report is that of the attempt.
        let _ = db.close();
    })?;
    db.close()?;
    match outcome {
        Attempt::Unexpected(what) => Ok(Outcome::Unexpected(what)),
        Attempt::Committed => {
            let operations = lines.iter().filter(|line| !matches!(line.step, Step::Expect(..))).count();
            if !apply.quiet {
                println!("{operations} operations committed");
            }
            Ok(Outcome::Done)
        }
    }
}

/// Every line of the file, before anything is opened, and the name of the file.
fn read(path: &Path) -> Result<(String, Vec<Line>)> {
    let (name, reader): (String, Box<dyn BufRead>) = if path == Path::new("-") {
        ("standard input".to_owned(), Box::new(io::stdin().lock()))
    } else {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| Failure::Failed(format!("{name}: {error}")))?;
        (name, Box::new(BufReader::new(file)))
    };
    let mut rows = Lines::new(name.clone(), reader);
    let mut lines = Vec::new();
    while let Some(mut fields) = rows.next()? {
        let line = line(&mut fields, rows.number()).map_err(|what| rows.failure(what))?;
        lines.push(line);
    }
    Ok((name, lines))
}

fn at(name: &str, number: u64, failure: Failure) -> Failure {
    match failure {
        Failure::Failed(what) => {
            Failure::Failed(format!("{name}, line {number}: {what}; nothing was changed"))
        }
        other => other,
    }
}

/// Runs attempts until one does not conflict.
fn retried(attempt: impl Fn() -> Result<Attempt, Refusal>) -> Result<Attempt> {
    let mut conflict = None;
    for _ in 0..ATTEMPTS {
        match attempt() {
            Ok(attempt) => return Ok(attempt),
            Err(Refusal::Commit(error @ Error::Conflict { .. })) => conflict = Some(error),
            Err(Refusal::Commit(error)) => return Err(error.into()),
            Err(Refusal::Line(failure)) => return Err(failure),
        }
    }
    let conflict = conflict.map_or_else(String::new, |error| error.to_string());
    Err(Failure::Failed(format!("{conflict}, {ATTEMPTS} times in a row; nothing was changed")))
}

/// Why an attempt came to nothing.
enum Refusal {
    /// A line was refused, which is named.
    Line(Failure),
    /// All were accepted, and the commit was not.
    Commit(Error),
}

fn attempt(
    db: &dyn Database,
    name: &str,
    steps: &[(&Line, KeyspaceId)],
    durability: Durability,
) -> Result<Attempt, Refusal> {
    let mut transaction = db.transaction().map_err(Refusal::Commit)?;
    for (line, keyspace) in steps {
        let found = run(transaction.as_mut(), *keyspace, &line.step);
        let unmet = found.map_err(|error| Refusal::Line(at(name, line.number, error.into())))?;
        if let Some(what) = unmet {
            let what = format!("{name}, line {}: {what}; nothing was changed", line.number);
            return Ok(Attempt::Unexpected(what));
        }
    }
    transaction.commit(durability).map_err(Refusal::Commit)?;
    Ok(Attempt::Committed)
}

/// Carries a step out; answers what is not as it was expected.
fn run(
    transaction: &mut dyn DatabaseTransaction,
    keyspace: KeyspaceId,
    step: &Step,
) -> duramen::Result<Option<String>> {
    let mut batch = WriteBatch::new();
    match step {
        Step::Put(key, value) => batch.put(keyspace, key, value),
        Step::Delete(key) => batch.delete(keyspace, key),
        Step::Merge(key, operand) => batch.merge(keyspace, key, operand),
        Step::DeleteRange(start, end) => batch.delete_range(keyspace, start, end),
        Step::Expect(key, expected) => {
            let found = transaction.get(keyspace, key)?;
            if found.as_deref() == expected.as_deref() {
                return Ok(None);
            }
            let value = |value: Option<&[u8]>| {
                value.map_or_else(|| "no value".to_owned(), |value| format!("the value {}", shortened(value)))
            };
            let key = text::printable(key);
            let (found, expected) = (value(found.as_deref()), value(expected.as_deref()));
            return Ok(Some(format!("key {key} has {found}, not {expected}")));
        }
    };
    transaction.write(batch)?;
    Ok(None)
}

/// A value for a message.
fn shortened(value: &[u8]) -> String {
    const BYTES_MAX: usize = 64;
    let text = text::printable(value);
    match text.char_indices().nth(BYTES_MAX) {
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], value.len()),
        None => text,
    }
}

fn line(fields: &mut Fields, number: u64) -> Result<Line, String> {
    let keyspace = fields.remove("keyspace").map(|value| string(value, "keyspace")).transpose()?;
    let op = fields.remove("op").ok_or("op is missing")?;
    let op = string(op, "op")?;
    let step = match op.as_str() {
        "put" => Step::Put(bytes(fields, "key")?, value(fields)?),
        "delete" => Step::Delete(bytes(fields, "key")?),
        "merge" => Step::Merge(bytes(fields, "key")?, value(fields)?),
        "delete_range" => {
            let (start, end) = (bytes(fields, "start")?, bytes(fields, "end")?);
            if start >= end {
                return Err("start must be below end, which is not included".into());
            }
            Step::DeleteRange(start, end)
        }
        "expect" => {
            let key = bytes(fields, "key")?;
            match fields.remove("absent") {
                Some(Value::Bool(true)) => Step::Expect(key, None),
                Some(_) => return Err("absent can only be true".into()),
                None => Step::Expect(key, Some(value(fields)?)),
            }
        }
        other => {
            return Err(format!("{other:?} is not put, delete, merge, delete_range or expect"));
        }
    };
    // What is misspelt must not be overlooked.
    match fields.keys().next() {
        Some(name) => Err(format!("{name} is not a field of {op}, or one too many")),
        None => Ok(Line { number, keyspace, step }),
    }
}

fn string(value: Value, name: &str) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(format!("{name} is not a string")),
    }
}

/// The bytes of `name`, or of its hexadecimal digits.
fn bytes(fields: &mut Fields, name: &str) -> Result<Vec<u8>, String> {
    if let Some(text) = fields.remove(name) {
        return string(text, name).map(String::into_bytes);
    }
    let hex = format!("{name}_hex");
    let digits = fields.remove(&hex).ok_or_else(|| format!("{name} is missing"))?;
    let digits = string(digits, &hex)?;
    text::from_hex(&digits).ok_or_else(|| format!("{hex} is not an even number of hexadecimal digits"))
}

fn value(fields: &mut Fields) -> Result<Vec<u8>, String> {
    match fields.remove("int") {
        Some(int) => {
            let int = int.as_i64().ok_or("int is not an integer of 64 bits")?;
            Ok(int.to_le_bytes().to_vec())
        }
        None => bytes(fields, "value"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn parse(json: &str) -> Result<Step, String> {
        let Ok(Value::Object(mut fields)) = serde_json::from_str(json) else { panic!("{json}") };
        line(&mut fields, 1).map(|line| line.step)
    }

    #[test]
    fn lines_are_what_the_help_says() {
        let step = parse(r#"{"op":"put","key_hex":"00ff","value":"v","keyspace":"k"}"#);
        assert_eq!(step, Ok(Step::Put(vec![0, 0xff], b"v".to_vec())));
        let step = parse(r#"{"op":"merge","key":"n","int":-2}"#);
        assert_eq!(step, Ok(Step::Merge(b"n".to_vec(), (-2i64).to_le_bytes().to_vec())));
        let step = parse(r#"{"op":"expect","key":"","absent":true}"#);
        assert_eq!(step, Ok(Step::Expect(vec![], None)));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (json, reason) in [
            (r#"{"key":"k"}"#, "op is missing"),
            (r#"{"op":1}"#, "op is not a string"),
            (r#"{"op":"upsert","key":"k"}"#, "\"upsert\" is not"),
            (r#"{"op":"put","key":"k"}"#, "value is missing"),
            (r#"{"op":"put","value":"v"}"#, "key is missing"),
            (r#"{"op":"put","key":"k","value":7}"#, "value is not a string"),
            (r#"{"op":"put","key":null,"value":"v"}"#, "key is not a string"),
            (r#"{"op":"put","key":"k","int":1.5}"#, "int is not"),
            (r#"{"op":"put","key":"k","int":9223372036854775808}"#, "int is not"),
            (r#"{"op":"put","key":"k","value":"v","value_hex":"00"}"#, "value_hex is not a field of put"),
            (r#"{"op":"put","key":"k","value":"v","keyspce":"x"}"#, "keyspce"),
            (r#"{"op":"delete","key":"k","value":"v"}"#, "value is not a field of delete"),
            (r#"{"op":"delete","key_hex":"0g"}"#, "key_hex is not"),
            (r#"{"op":"delete_range","start":"b","end":"b"}"#, "start must be below end"),
            (r#"{"op":"delete_range","start":"b"}"#, "end is missing"),
            (r#"{"op":"expect","key":"k"}"#, "value is missing"),
            (r#"{"op":"expect","key":"k","absent":false}"#, "absent"),
            (r#"{"op":"expect","key":"k","absent":true,"value":"v"}"#, "value is not a field of expect"),
        ] {
            let refused = parse(json).unwrap_err();
            assert!(refused.contains(reason), "{json}: {refused}");
        }
    }

    #[test]
    fn conflicts_are_tried_again_a_few_times() {
        let conflicts = |until: usize| {
            let attempts = Cell::new(0);
            let outcome = retried(|| {
                attempts.set(attempts.get() + 1);
                match attempts.get() > until {
                    true => Ok(Attempt::Committed),
                    false => Err(Refusal::Commit(Error::Conflict { key: b"k".to_vec() })),
                }
            });
            (outcome, attempts.get())
        };
        assert!(matches!(conflicts(2), (Ok(Attempt::Committed), 3)));
        let (outcome, attempts) = conflicts(usize::MAX);
        assert_eq!(attempts, ATTEMPTS);
        let Err(Failure::Failed(what)) = outcome else { panic!("a conflict is no success") };
        assert!(what.contains("conflict on key \"k\""), "{what}");
    }
}
