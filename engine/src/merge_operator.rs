//! Merge operators: how a key's value takes in an operand without being read
//! first.
//!
//! A merge writes its operand alone; reads and compactions fold operands into
//! the value below them. Operators are associative, so that operands may be
//! folded with each other before the value is known.

use std::fmt::Debug;
use std::sync::Arc;

use crate::error::{DisplayBytes, Error, Result};

/// How operands and values are folded. An operator must be associative:
/// `apply(apply(v, a), b)` is `apply(v, combine(a, b))`.
pub trait MergeOperator: Send + Sync + Debug {
    /// Its name, which the database remembers with the keyspace: 1 to 255 bytes.
    fn name(&self) -> &str;

    /// The value after `operand`; `base` is the value before, if there is one.
    ///
    /// # Errors
    /// Why the two do not go together, for people. The read that needed it
    /// fails with `InvalidArgument`, and nothing is lost.
    fn apply(&self, base: Option<&[u8]>, operand: &[u8]) -> Result<Vec<u8>, String>;

    /// One operand that does what `older` and then `newer` do.
    ///
    /// # Errors
    /// As [`MergeOperator::apply`].
    fn combine(&self, older: &[u8], newer: &[u8]) -> Result<Vec<u8>, String>;

    /// Refuses an operand before it is written.
    ///
    /// # Errors
    /// Why, for people.
    fn check(&self, operand: &[u8]) -> Result<(), String> {
        let _ = operand;
        Ok(())
    }
}

/// The operators that every database has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltIn {
    /// `i64.add`: values and operands are 64-bit integers, little-endian. A key
    /// without a value counts from 0; sums wrap around.
    Add,
    /// `i64.min`: the least of 64-bit integers, little-endian.
    Min,
    /// `i64.max`: the greatest of 64-bit integers, little-endian.
    Max,
    /// `append`: operands are appended to the value.
    Append,
}

impl BuiltIn {
    /// All of them.
    pub const ALL: [BuiltIn; 4] = [BuiltIn::Add, BuiltIn::Min, BuiltIn::Max, BuiltIn::Append];
}

fn int(bytes: &[u8]) -> Result<i64, String> {
    let word = bytes.try_into().map_err(|_| {
        format!("{} is not a 64-bit integer: 8 bytes, least significant first", DisplayBytes(bytes))
    })?;
    Ok(i64::from_le_bytes(word))
}

impl MergeOperator for BuiltIn {
    fn name(&self) -> &str {
        match self {
            BuiltIn::Add => "i64.add",
            BuiltIn::Min => "i64.min",
            BuiltIn::Max => "i64.max",
            BuiltIn::Append => "append",
        }
    }

    fn apply(&self, base: Option<&[u8]>, operand: &[u8]) -> Result<Vec<u8>, String> {
        match base {
            Some(base) => self.combine(base, operand),
            None => self.check(operand).map(|()| operand.to_vec()),
        }
    }

    fn combine(&self, older: &[u8], newer: &[u8]) -> Result<Vec<u8>, String> {
        let fold = match self {
            BuiltIn::Append => return Ok([older, newer].concat()),
            BuiltIn::Add => i64::wrapping_add,
            BuiltIn::Min => Ord::min,
            BuiltIn::Max => Ord::max,
        };
        Ok(fold(int(older)?, int(newer)?).to_le_bytes().to_vec())
    }

    fn check(&self, operand: &[u8]) -> Result<(), String> {
        match self {
            BuiltIn::Append => Ok(()),
            _ => int(operand).map(drop),
        }
    }
}

/// Stands for an operator that the keyspace has and this program does not.
#[derive(Debug)]
struct Unknown(String);

impl Unknown {
    fn refuse<T>(&self) -> Result<T, String> {
        Err(format!(
            "the keyspace has the merge operator {:?}, which `Options::merge_operators` must supply",
            self.0
        ))
    }
}

impl MergeOperator for Unknown {
    fn name(&self) -> &str {
        &self.0
    }

    fn apply(&self, _: Option<&[u8]>, _: &[u8]) -> Result<Vec<u8>, String> {
        self.refuse()
    }

    fn combine(&self, _: &[u8], _: &[u8]) -> Result<Vec<u8>, String> {
        self.refuse()
    }

    fn check(&self, _: &[u8]) -> Result<(), String> {
        self.refuse()
    }
}

/// The operator of a keyspace.
pub(crate) type Operator = Option<Arc<dyn MergeOperator>>;

/// The operator of that name: built in, or one of `supplied`; an empty name is
/// none.
pub(crate) fn find(name: &str, supplied: &[Arc<dyn MergeOperator>]) -> Operator {
    if name.is_empty() {
        return None;
    }
    let built_in = BuiltIn::ALL.into_iter().find(|operator| operator.name() == name);
    let found = match built_in {
        Some(operator) => Some(Arc::new(operator) as Arc<dyn MergeOperator>),
        None => supplied.iter().find(|operator| operator.name() == name).cloned(),
    };
    Some(found.unwrap_or_else(|| Arc::new(Unknown(name.to_owned()))))
}

/// True if a keyspace may be given the operator of that name.
pub(crate) fn exists(name: &str, supplied: &[Arc<dyn MergeOperator>]) -> bool {
    BuiltIn::ALL.iter().any(|operator| operator.name() == name)
        || supplied.iter().any(|operator| operator.name() == name)
}

/// The value of `key` after `operands`, newest first, over `base`.
///
/// # Errors
/// `InvalidArgument` with the key, where the operator refuses or there is none.
pub(crate) fn resolve(
    operator: &Operator,
    key: &[u8],
    base: Option<&[u8]>,
    operands: &[impl AsRef<[u8]>],
) -> Result<Option<Vec<u8>>> {
    let mut value = base.map(<[u8]>::to_vec);
    for operand in operands.iter().rev() {
        let applied = match operator {
            Some(operator) => operator.apply(value.as_deref(), operand.as_ref()),
            None => Err("the keyspace has no merge operator".to_owned()),
        };
        value = Some(applied.map_err(|what| refused(key, &what))?);
    }
    Ok(value)
}

pub(crate) fn refused(key: &[u8], what: &str) -> Error {
    Error::invalid(format!("merge into key {}: {what}", DisplayBytes(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_operators_are_associative() {
        let ints: Vec<Vec<u8>> =
            [0, 1, -1, 7, i64::MAX, i64::MIN].iter().map(|n: &i64| n.to_le_bytes().to_vec()).collect();
        for operator in BuiltIn::ALL {
            for base in ints.iter().map(Some).chain([None]) {
                for a in &ints {
                    for b in &ints {
                        let base = base.map(Vec::as_slice);
                        let one_by_one = operator.apply(base, a).unwrap();
                        let one_by_one = operator.apply(Some(&one_by_one), b).unwrap();
                        let together = operator.apply(base, &operator.combine(a, b).unwrap()).unwrap();
                        assert_eq!(one_by_one, together, "{operator:?}");
                    }
                }
            }
        }
        let add = |base: i64, operand: i64| {
            BuiltIn::Add.apply(Some(&base.to_le_bytes()), &operand.to_le_bytes()).unwrap()
        };
        assert_eq!(add(40, 2), 42i64.to_le_bytes());
        assert!(BuiltIn::Add.check(b"1").unwrap_err().contains("\"1\""));
        assert!(BuiltIn::Max.apply(Some(b"text"), &[0; 8]).is_err());
    }

    #[test]
    fn unknown_operators_say_what_they_need() {
        assert!(find("", &[]).is_none());
        let error = resolve(&find("mine", &[]), b"k", None, &[b"x"]).unwrap_err();
        assert!(error.to_string().contains("\"mine\""), "{error}");
        assert_eq!(resolve(&find("append", &[]), b"k", Some(b"a"), &["c", "b"]).unwrap().unwrap(), b"abc");
    }
}
