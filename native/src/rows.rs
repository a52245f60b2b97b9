//! Rows as Python tuples, read back from the tuples of COPY: for SQLite, and for all that must look at a row.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString, PyTuple};

use crate::span::COLUMN_COUNT;

#[derive(Clone, Copy)]
enum Kind {
    Integer,
    Bytes,
    Text,
}

use Kind::{Bytes, Integer, Text};

/// In the order of SPAN_COLUMNS.
const KINDS: [Kind; COLUMN_COUNT as usize] = [
    Integer, Bytes, Bytes, Bytes, Integer, Integer, Integer, Integer, Integer, Integer, Integer, Integer, Integer,
    Integer, Text, Text, Text, Text, Text, Text, Text,
];

/// One tuple a row.
pub fn to_tuples<'py>(py: Python<'py>, copy: &[u8], count: usize) -> PyResult<Vec<Bound<'py, PyTuple>>> {
    let mut rest = copy;
    let mut rows = Vec::with_capacity(count);
    let mut service: Option<(&[u8], Bound<'py, PyAny>)> = None;
    for _ in 0..count {
        rest = rest.get(2..).ok_or_else(torn)?;
        let mut values = Vec::with_capacity(KINDS.len());
        for (column, kind) in KINDS.iter().enumerate() {
            let content = take_value(&mut rest)?;
            values.push(match content {
                None => py.None().into_bound(py),
                // Most often the same as in the row before.
                Some(content) if column == SERVICE_NAME => match &service {
                    Some((last, text)) if *last == content => text.clone(),
                    _ => service.insert((content, to_value(py, *kind, content)?)).1.clone(),
                },
                Some(content) => to_value(py, *kind, content)?,
            });
        }
        rows.push(PyTuple::new(py, values)?);
    }
    Ok(rows)
}

const SERVICE_NAME: usize = 14;

fn take_value<'a>(rest: &mut &'a [u8]) -> PyResult<Option<&'a [u8]>> {
    let (length, behind) = rest.split_first_chunk::<4>().ok_or_else(torn)?;
    *rest = behind;
    let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
        return Ok(None);
    };
    let (content, behind) = rest.split_at_checked(length).ok_or_else(torn)?;
    *rest = behind;
    Ok(Some(content))
}

fn to_value<'py>(py: Python<'py>, kind: Kind, content: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    Ok(match kind {
        Integer => {
            let number = match content {
                [a, b, c, d] => i64::from(i32::from_be_bytes([*a, *b, *c, *d])),
                _ => i64::from_be_bytes(content.try_into().map_err(|_| torn())?),
            };
            PyInt::new(py, number).into_any()
        }
        Bytes => PyBytes::new(py, content).into_any(),
        Text => PyString::new(py, std::str::from_utf8(content).map_err(|_| torn())?).into_any(),
    })
}

fn torn() -> PyErr {
    PyValueError::new_err("rows of a decoder that do not end where they should")
}
