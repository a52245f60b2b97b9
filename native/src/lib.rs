//! The native decoder of msgtrace: OTLP requests to rows of PostgreSQL's binary COPY.
//!
//! It reads what senders send and leaves the rest, whatever is malformed, oddly encoded or very deep,
//! to the Python decoder, which decides alone what becomes of it: `outline` and `Outline.decode`
//! then return None. Resources, scopes and the meaning of GenAI attributes are Python's too: there
//! are few of them, and so there is one place that decides.

mod json;
mod request;
mod rows;
mod span;
mod transcode;
mod wire;

use std::collections::HashSet;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use request::{Decoded, Destination, Keys};

/// The names of attributes by which `Rows.noted` chooses spans.
#[pyclass(frozen, name = "Keys")]
struct PyKeys(Keys);

#[pymethods]
impl PyKeys {
    #[new]
    fn new(names: Vec<String>) -> Self {
        PyKeys(Keys::of(names))
    }
}

/// The envelopes of a request: (resource, schema URL, [(scope, schema URL, count of spans)]), all as bytes; None if the
/// request is not for this decoder.
#[pyfunction]
fn outline<'py>(py: Python<'py>, body: &Bound<'py, PyBytes>) -> PyResult<Option<Bound<'py, PyList>>> {
    let Some(found) = request::outline(body.as_bytes()) else {
        return Ok(None);
    };
    let envelopes = PyList::empty(py);
    for (outer, inner) in &found {
        let scopes = PyList::empty(py);
        for scope in inner {
            scopes.append((
                PyBytes::new(py, scope.content),
                PyBytes::new(py, scope.schema_url),
                scope.children.len(),
            ))?;
        }
        envelopes.append((PyBytes::new(py, outer.content), PyBytes::new(py, outer.schema_url), scopes))?;
    }
    Ok(Some(envelopes))
}

/// The rows of a request's spans; None if the request is not for this decoder.
///
/// destinations: (resource id, scope id, index of the service) for each ScopeSpans of the outline, in order.
/// services: names as they are stored.
#[pyfunction]
fn decode(
    py: Python<'_>,
    body: &Bound<'_, PyBytes>,
    destinations: Vec<(i64, i64, usize)>,
    services: Vec<String>,
    tenant_id: i32,
    keys: &Bound<'_, PyKeys>,
) -> Option<Rows> {
    let body = body.as_bytes();
    let keys = &keys.get().0;
    let destinations: Vec<Destination> = destinations
        .into_iter()
        .map(|(resource_id, scope_id, service)| Destination { resource_id, scope_id, service })
        .collect();
    py.detach(|| {
        let outline = request::outline(body)?;
        request::decode(&outline, &destinations, &services, tenant_id, keys)
    })
    .map(Rows)
}

/// A request in OTLP/JSON as one in protobuf; None if it is not for this decoder.
#[pyfunction]
fn from_json<'py>(py: Python<'py>, body: &Bound<'py, PyBytes>) -> Option<Bound<'py, PyBytes>> {
    let body = body.as_bytes();
    let found = py.detach(|| transcode::to_protobuf(body))?;
    Some(PyBytes::new(py, &found))
}

/// What `decode` makes.
#[pyclass(frozen)]
struct Rows(Decoded);

#[pymethods]
impl Rows {
    fn __len__(&self) -> usize {
        self.0.row_count
    }

    /// Characters of all events and links.
    #[getter]
    fn text_chars(&self) -> usize {
        self.0.text_chars
    }

    /// How many spans were left out for their trace id, their span id and their parent's id.
    #[getter]
    fn rejected(&self) -> (u64, u64, u64) {
        let [trace_id, span_id, parent_span_id] = self.0.rejected;
        (trace_id, span_id, parent_span_id)
    }

    /// The tuples of a binary COPY.
    fn to_copy<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.rows)
    }

    /// The rows as tuples.
    fn to_tuples<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        rows::to_tuples(py, &self.0.rows, self.0.row_count)
    }

    /// (trace id, start, end, spans, errors, root's rank, root's name as sent, its service,
    /// [(service, names as sent)]): sums by trace.
    fn traces<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let found = PyList::empty(py);
        for trace in &self.0.traces {
            let (has_parent, start_ns, span_id) = &trace.root;
            found.append((
                PyBytes::new(py, &trace.trace_id),
                trace.start_ns,
                trace.end_ns,
                trace.span_count,
                trace.error_count,
                (*has_parent, *start_ns, PyBytes::new(py, span_id)),
                trace.root_name.as_str(),
                trace.root_service,
                trace
                    .services
                    .iter()
                    .map(|(service, names)| (*service, names.iter().collect()))
                    .collect::<Vec<(usize, Vec<&String>)>>(),
            ))?;
        }
        Ok(found)
    }

    /// (service, kind, day, names as sent, cut to 255 characters): what the spans are called.
    fn operations(&self) -> Vec<(usize, i32, i64, Vec<&str>)> {
        let found = self.0.operations.iter();
        found.map(|((service, kind, day), names)| (*service, *kind, *day, texts(names))).collect()
    }

    /// (row, the span's bytes) for each span that has one of the keys.
    fn noted<'py>(&self, py: Python<'py>) -> Vec<(usize, Bound<'py, PyBytes>)> {
        self.0.noted.iter().map(|(row, bytes)| (*row, PyBytes::new(py, bytes))).collect()
    }
}

fn texts(names: &HashSet<String>) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// The module.
#[pymodule]
fn msgtrace_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<PyKeys>()?;
    module.add_class::<Rows>()?;
    module.add_function(wrap_pyfunction!(outline, module)?)?;
    module.add_function(wrap_pyfunction!(from_json, module)?)?;
    module.add_function(wrap_pyfunction!(decode, module)?)
}
