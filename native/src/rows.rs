//! Rows as Python tuples, read back from the tuples of COPY: for SQLite, and for all that must look at a row.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString, PyTuple};

use crate::json::{write_number, write_stored_string};
use crate::{span, summaries};

/// What a column holds.
#[derive(Clone, Copy)]
pub enum Kind {
    /// integer, bigint
    Integer,
    /// boolean
    Boolean,
    /// double precision
    Double,
    /// bytea
    Bytes,
    /// text, json
    Text,
    /// text that is most often the same as in the row before
    Label,
    /// text[]
    TextList,
    /// bigint[]
    IntegerList,
}

use Kind::{Boolean, Bytes, Double, Integer, IntegerList, Label, Text, TextList};

/// In the order of SPAN_COLUMNS.
pub const SPAN_COLUMNS: [Kind; span::COLUMN_COUNT as usize] = [
    Integer, Bytes, Bytes, Bytes, Integer, Integer, Integer, Integer, Integer, Integer, Integer, Integer, Integer,
    Integer, Label, Text, Text, Text, Text, Text, Text,
];

/// In the order of TRACE_COLUMNS.
pub const TRACE_COLUMNS: [Kind; summaries::COLUMN_COUNT as usize] = [
    Integer,
    Bytes,
    Integer,
    Integer,
    Integer,
    Integer,
    Integer,
    Integer,
    Double,
    Integer,
    Integer,
    Double,
    Integer,
    Boolean,
    Integer,
    Boolean,
    Integer,
    Bytes,
    Text,
    Text,
    Integer,
    Text,
    Integer,
    Text,
    Integer,
    Text,
    IntegerList,
    TextList,
    TextList,
    TextList,
    TextList,
    TextList,
    TextList,
];

/// One tuple a row.
pub fn to_tuples<'py>(
    py: Python<'py>,
    copy: &[u8],
    count: usize,
    columns: &[Kind],
) -> PyResult<Vec<Bound<'py, PyTuple>>> {
    let mut rest = copy;
    let mut rows = Vec::with_capacity(count);
    let mut label: Option<(&[u8], Bound<'py, PyAny>)> = None;
    for _ in 0..count {
        rest = rest.get(2..).ok_or_else(torn)?;
        let mut values = Vec::with_capacity(columns.len());
        for kind in columns {
            let content = take_value(&mut rest)?;
            values.push(match (kind, content) {
                (_, None) => py.None().into_bound(py),
                (Label, Some(content)) => match &label {
                    Some((last, text)) if *last == content => text.clone(),
                    _ => label.insert((content, to_text(py, content)?)).1.clone(),
                },
                (_, Some(content)) => to_value(py, *kind, content)?,
            });
        }
        rows.push(PyTuple::new(py, values)?);
    }
    Ok(rows)
}

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
        Boolean => PyBool::new(py, content != [0]).to_owned().into_any(),
        Double => PyFloat::new(py, f64::from_be_bytes(content.try_into().map_err(|_| torn())?)).into_any(),
        Bytes => PyBytes::new(py, content).into_any(),
        Text | Label => to_text(py, content)?,
        TextList => to_text(py, &texts_as_json(content)?)?,
        IntegerList => to_text(py, &integers_as_json(content)?)?,
    })
}

fn to_text<'py>(py: Python<'py>, content: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    Ok(PyString::new(py, std::str::from_utf8(content).map_err(|_| torn())?).into_any())
}

/// As msgtrace.storage.sqlite.writer.json_list writes them.
fn texts_as_json(array: &[u8]) -> PyResult<Vec<u8>> {
    as_json(elements(array)?)
}

/// The same; they are written as texts, and in the order of texts.
fn integers_as_json(array: &[u8]) -> PyResult<Vec<u8>> {
    let mut texts = Vec::new();
    for element in elements(array)? {
        let mut text = Vec::with_capacity(20);
        write_number(&mut text, i64::from_be_bytes(element.try_into().map_err(|_| torn())?));
        texts.push(text);
    }
    texts.sort_unstable();
    as_json(texts.iter().map(Vec::as_slice))
}

fn as_json<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> PyResult<Vec<u8>> {
    let mut out = vec![b'['];
    for text in texts {
        if out.len() > 1 {
            out.push(b',');
        }
        write_stored_string(&mut out, std::str::from_utf8(text).map_err(|_| torn())?);
    }
    out.push(b']');
    Ok(out)
}

/// The elements of an array of one dimension, or of none.
fn elements(array: &[u8]) -> PyResult<Vec<&[u8]>> {
    const EMPTY_BYTES: usize = 12;
    const HEADER_BYTES: usize = 20;
    let mut found = Vec::new();
    if array.len() == EMPTY_BYTES {
        return Ok(found);
    }
    let mut rest = array.get(HEADER_BYTES..).ok_or_else(torn)?;
    while !rest.is_empty() {
        found.push(take_value(&mut rest)?.ok_or_else(torn)?);
    }
    Ok(found)
}

fn torn() -> PyErr {
    PyValueError::new_err("rows of a decoder that do not end where they should")
}
