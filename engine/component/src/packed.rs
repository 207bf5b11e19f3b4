//! Packed values of a multi-get; the WIT has their grammar. Keys, batches and
//! pages have the engine's own encodings.

use bytes::Bytes;
use duramen_bindings::exports::duramen::db::engine as wit;

/// Length that stands for "no value".
const ABSENT: u32 = u32::MAX;

/// The packed answer. All of it has to fit beside the values themselves; where
/// it does not, the caller hears about it and the instance lives on.
pub fn values(values: &[Option<Bytes>]) -> Result<Vec<u8>, wit::Error> {
    let bytes: usize = values.iter().map(|value| 4 + value.as_ref().map_or(0, Bytes::len)).sum();
    let mut packed = Vec::new();
    packed.try_reserve_exact(bytes).map_err(|_| {
        wit::Error::InvalidArgument(format!(
            "the values asked for, {bytes} bytes, do not fit in the sandbox's memory; ask for fewer keys"
        ))
    })?;
    for value in values {
        match value {
            None => packed.extend_from_slice(&ABSENT.to_le_bytes()),
            Some(value) => {
                packed.extend_from_slice(&(value.len() as u32).to_le_bytes());
                packed.extend_from_slice(value);
            }
        }
    }
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_empty_values_differ() {
        let answer = values(&[None, Some(Bytes::new()), Some(Bytes::from_static(b"v"))]).unwrap();
        assert_eq!(answer, b"\xff\xff\xff\xff\0\0\0\0\x01\0\0\0v");
    }
}
