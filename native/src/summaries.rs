//! The sums of several requests as rows of `traces`: tuples of binary COPY in the order of
//! msgtrace.storage.summary.TRACE_COLUMNS, by `trace_row` and `TraceDelta.merged_with`.

use std::borrow::Cow;

use crate::copy::{write_bool, write_bytes, write_f64, write_i32, write_i64, write_null, write_sized};
use crate::sums::{GenAi, Ranked, RootRank, Sums, TraceSum};
use crate::wire::Maybe;

/// Columns of a row.
pub const COLUMN_COUNT: u16 = 33;

/// pg_type.oid of int8 and text.
const INT8: i32 = 20;
const TEXT: i32 = 25;

/// What is the same for all rows.
#[derive(Clone, Copy)]
pub struct Version {
    /// Of the alias table.
    pub aliases: i32,
    /// A trace that would have more terms has none.
    pub max_terms: usize,
}

/// Rows, each trace once, in the order of tenant and trace id.
#[derive(Default)]
pub struct Summaries {
    /// Tuples of binary COPY, one behind the other.
    pub rows: Vec<u8>,
    /// Start and end of each.
    pub times: Vec<(i64, i64)>,
}

/// Sum up requests, in their order.
pub fn summarize(requests: &[&Sums], version: Version) -> Maybe<Summaries> {
    let mut parts: Vec<Part> =
        requests.iter().flat_map(|sums| sums.traces.iter().map(|trace| Part { sums, trace })).collect();
    parts.sort_by(|one, other| one.key().cmp(&other.key())); // stable: costs are added in the order of arrival
    let mut summaries = Summaries::default();
    summaries.rows.reserve(parts.len() * 512);
    for group in parts.chunk_by(|one, other| one.key() == other.key()) {
        let whole = Whole::of(group)?;
        whole.write(&mut summaries.rows, version)?;
        summaries.times.push((whole.start_ns, whole.end_ns));
    }
    Some(summaries)
}

/// A trace of a request.
struct Part<'a> {
    sums: &'a Sums,
    trace: &'a TraceSum,
}

impl<'a> Part<'a> {
    fn key(&self) -> (i32, &'a [u8; 16]) {
        (self.sums.tenant_id, &self.trace.trace_id)
    }

    fn service(&self, name: usize) -> &'a str {
        &self.sums.services[self.sums.names[name].service]
    }
}

/// A trace of all requests.
struct Whole<'a> {
    tenant_id: i32,
    trace_id: &'a [u8; 16],
    start_ns: i64,
    end_ns: i64,
    span_count: i64,
    error_count: i64,
    root: RootRank,
    root_name: &'a str,
    root_service: &'a str,
    terms: Vec<i64>,
    services: Vec<&'a str>,
    genai: Cow<'a, GenAi>,
}

impl<'a> Whole<'a> {
    fn of(parts: &[Part<'a>]) -> Maybe<Self> {
        let first = parts.iter().min_by_key(|part| part.trace.root)?;
        let mut whole = Whole {
            tenant_id: first.sums.tenant_id,
            trace_id: &first.trace.trace_id,
            start_ns: first.trace.start_ns,
            end_ns: first.trace.end_ns,
            span_count: 0,
            error_count: 0,
            root: first.trace.root,
            root_name: &first.sums.names[first.trace.root_name].text,
            root_service: first.service(first.trace.root_name),
            terms: Vec::new(),
            services: Vec::new(),
            genai: Cow::Owned(GenAi::default()),
        };
        let mut said = parts.iter().filter_map(|part| part.trace.genai.as_deref());
        if let Some(genai) = said.next() {
            whole.genai = Cow::Borrowed(genai);
            said.for_each(|more| whole.genai.to_mut().merge(more));
        }
        for part in parts {
            whole.add(part);
        }
        whole.terms.sort_unstable();
        whole.terms.dedup();
        whole.services.sort_unstable();
        whole.services.dedup();
        Some(whole)
    }

    fn add(&mut self, part: &Part<'a>) {
        self.start_ns = self.start_ns.min(part.trace.start_ns);
        self.end_ns = self.end_ns.max(part.trace.end_ns);
        self.span_count += part.trace.span_count;
        self.error_count += part.trace.error_count;
        for &name in &part.trace.names {
            self.terms.extend_from_slice(&part.sums.names[name].terms);
            let service = part.service(name);
            if self.services.last() != Some(&service) {
                self.services.push(service);
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>, version: Version) -> Maybe<()> {
        let genai = &*self.genai;
        let [usage_count, tokens @ ..] = genai.counts;
        let [cost, estimated_cost] = genai.costs;
        out.extend_from_slice(&COLUMN_COUNT.to_be_bytes());
        write_i32(out, self.tenant_id);
        write_bytes(out, self.trace_id);
        write_i64(out, self.start_ns);
        write_i64(out, self.end_ns);
        write_i64(out, self.span_count);
        write_i64(out, self.error_count);
        write_i64(out, tokens[0]);
        write_i64(out, tokens[1]);
        write_f64(out, cost);
        write_i64(out, tokens[2]);
        write_i64(out, tokens[3]);
        write_f64(out, estimated_cost);
        write_i64(out, usage_count);
        write_bool(out, usage_count > 0);
        write_i32(out, version.aliases);
        let (has_parent, root_start_ns, root_span_id) = &self.root;
        write_bool(out, *has_parent);
        write_i64(out, *root_start_ns);
        write_bytes(out, root_span_id);
        write_bytes(out, self.root_name.as_bytes());
        write_bytes(out, self.root_service.as_bytes());
        genai.ranked.iter().for_each(|ranked| write_ranked(out, ranked));
        if self.terms.len() > version.max_terms {
            write_null(out);
        } else {
            write_array(out, INT8, self.terms.len(), self.terms.iter(), |out, term| write_i64(out, *term))?;
        }
        write_texts(out, self.services.len(), self.services.iter())?;
        let [models, others @ ..] = &genai.labels;
        write_texts(out, models.len(), models.iter())?;
        for names in others {
            if names.is_empty() {
                write_null(out);
            } else {
                write_texts(out, names.len(), names.iter())?;
            }
        }
        Some(())
    }
}

fn write_ranked(out: &mut Vec<u8>, ranked: &Ranked) {
    match ranked {
        Some((start_ns, value)) => {
            write_i64(out, *start_ns);
            write_bytes(out, value.as_bytes());
        }
        None => {
            write_null(out);
            write_null(out);
        }
    }
}

fn write_texts<T: AsRef<str>>(out: &mut Vec<u8>, count: usize, texts: impl Iterator<Item = T>) -> Maybe<()> {
    write_array(out, TEXT, count, texts, |out, text| write_bytes(out, text.as_ref().as_bytes()))
}

/// An array as PostgreSQL sends and receives it: dimensions, whether there are NULLs, the type of the
/// elements, then for each dimension its length and first index. Source: array_recv in arrayfuncs.c.
fn write_array<T>(
    out: &mut Vec<u8>,
    element_type: i32,
    count: usize,
    elements: impl Iterator<Item = T>,
    write: impl Fn(&mut Vec<u8>, T),
) -> Maybe<()> {
    let length = i32::try_from(count).ok()?;
    write_sized(out, |out| {
        for number in [i32::from(count > 0), 0, element_type] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        if count > 0 {
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&1i32.to_be_bytes());
        }
        elements.for_each(|element| write(out, element));
        Some(())
    })
}
