//! The native decoder of msgtrace: OTLP requests to rows of PostgreSQL's binary COPY.
//!
//! It reads what senders send and leaves the rest, whatever is malformed, oddly encoded or very deep,
//! to the Python decoder, which decides alone what becomes of it: `outline` and `Outline.decode`
//! then return None. Resources, scopes and the meaning of GenAI attributes are Python's too: there
//! are few of them, and so there is one place that decides.

mod copy;
mod json;
mod request;
mod rows;
mod span;
mod summaries;
mod sums;
mod transcode;
mod wire;

use std::collections::BTreeSet;

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use request::{Decoded, Destination, Keys};
use rows::{SPAN_COLUMNS, TRACE_COLUMNS};
use summaries::{Summaries, Version};
use sums::{GenAi, Name, Ranked, Sums};

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
#[pyclass]
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
        rows::to_tuples(py, &self.0.rows, self.0.row_count, &SPAN_COLUMNS)
    }

    /// The sums by trace: (trace id, start, end, spans, errors, root's rank, (its service, its name),
    /// [(service, name)], what GenAI spans say or None). Services and names are as they are stored.
    fn traces<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let sums = &self.0.sums;
        let found = PyList::empty(py);
        for trace in &sums.traces {
            let (has_parent, start_ns, span_id) = &trace.root;
            found.append((
                PyBytes::new(py, &trace.trace_id),
                trace.start_ns,
                trace.end_ns,
                trace.span_count,
                trace.error_count,
                (*has_parent, *start_ns, PyBytes::new(py, span_id)),
                operation(sums, trace.root_name),
                trace.names.iter().map(|&name| operation(sums, name)).collect::<Vec<_>>(),
                trace.genai.as_deref().map(facts),
            ))?;
        }
        Ok(found)
    }

    /// (service, name, kind, day of the start): what the spans are called, each once.
    fn operations(&self) -> Vec<(&str, &str, i32, i64)> {
        let sums = &self.0.sums;
        let found = sums.operations.iter().map(|&(name, kind, day)| (operation(sums, name), kind, day));
        found.map(|((service, name), kind, day)| (service, name, kind, day)).collect()
    }

    /// (row, the span's bytes) for each span that has one of the keys.
    fn noted<'py>(&self, py: Python<'py>) -> Vec<(usize, Bound<'py, PyBytes>)> {
        self.0.noted.iter().map(|noted| (noted.row, PyBytes::new(py, &noted.message))).collect()
    }

    /// Add what one of `noted` says to the sum of its trace. facts: as `traces` gives them.
    fn add_facts(&mut self, number: usize, facts: Facts) -> PyResult<()> {
        let (ranked, labels, counts, costs) = facts;
        let said = GenAi { ranked, labels: labels.map(BTreeSet::from_iter), counts, costs };
        let decoded = &mut self.0;
        let trace = decoded.noted.get(number).and_then(|noted| decoded.sums.traces.get_mut(noted.trace));
        trace.ok_or_else(|| PyIndexError::new_err(number))?.genai.get_or_insert_default().merge(&said);
        Ok(())
    }
}

/// (workflow, session and user; models, providers, operations, agents and tools; spans with usage and
/// tokens: input, output, cached, reasoning; cost and the part of it that nobody sent)
type Facts = ([Ranked; 3], [Vec<String>; 5], [i64; 5], [f64; 2]);

fn facts(genai: &GenAi) -> Facts {
    let labels = genai.labels.each_ref().map(|names| names.iter().cloned().collect());
    (genai.ranked.clone(), labels, genai.counts, genai.costs)
}

fn operation(sums: &Sums, name: usize) -> (&str, &str) {
    let Name { service, text, .. } = &sums.names[name];
    (&sums.services[*service], text)
}

/// The summaries of several requests; None if they have more than a row can hold.
///
/// aliases_version, max_terms: see msgtrace.storage.summary.trace_row.
#[pyfunction]
fn summarize(
    py: Python<'_>,
    requests: Vec<PyRef<'_, Rows>>,
    aliases_version: i32,
    max_terms: usize,
) -> Option<PySummaries> {
    let sums: Vec<&Sums> = requests.iter().map(|rows| &rows.0.sums).collect();
    let version = Version { aliases: aliases_version, max_terms };
    py.detach(|| summaries::summarize(&sums, version)).map(PySummaries)
}

/// What `summarize` makes: rows of traces.
#[pyclass(frozen, name = "Summaries")]
struct PySummaries(Summaries);

#[pymethods]
impl PySummaries {
    fn __len__(&self) -> usize {
        self.0.times.len()
    }

    /// Start and end of each.
    fn times(&self) -> Vec<(i64, i64)> {
        self.0.times.clone()
    }

    /// The tuples of a binary COPY.
    fn to_copy<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.rows)
    }

    /// The rows as tuples, lists in them as JSON.
    fn to_tuples<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        rows::to_tuples(py, &self.0.rows, self.0.times.len(), &TRACE_COLUMNS)
    }
}

/// What the functions here take and give. msgtrace uses no other than its own, which stands in
/// msgtrace/otlp/native.py: raise both whenever either side changes.
const INTERFACE: u32 = 2;

/// The module.
#[pymodule]
fn msgtrace_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("INTERFACE", INTERFACE)?;
    module.add_class::<PyKeys>()?;
    module.add_class::<Rows>()?;
    module.add_class::<PySummaries>()?;
    module.add_function(wrap_pyfunction!(outline, module)?)?;
    module.add_function(wrap_pyfunction!(from_json, module)?)?;
    module.add_function(wrap_pyfunction!(summarize, module)?)?;
    module.add_function(wrap_pyfunction!(decode, module)?)
}
