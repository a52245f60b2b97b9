//! What the spans of a request add to the summaries of their traces: msgtrace.model.batch.TraceDelta.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::json::write_stored;
use crate::span::Span;
use crate::wire::Maybe;

/// OTLP's number.
const STATUS_ERROR: i32 = 2;

const NS_PER_DAY: i64 = 86_400_000_000_000;

/// What spans are called, and the terms by which that is found (msgtrace/model/terms.py).
#[derive(Clone)]
pub struct Name {
    /// Index into the services.
    pub service: usize,
    /// As it is stored.
    pub text: String,
    /// Of the name, and of the name and its service.
    pub terms: [i64; 2],
}

impl Name {
    fn of(service: usize, service_name: &str, name: &[u8]) -> Maybe<Self> {
        let mut stored = Vec::with_capacity(name.len());
        write_stored(&mut stored, name)?;
        let text = String::from_utf8(stored).ok()?;
        let whole = format!("{} {service_name}{text}", service_name.chars().count());
        let terms = [term(text.as_bytes(), b"name"), term(whole.as_bytes(), b"operation")];
        Some(Name { service, text, terms })
    }
}

fn term(text: &[u8], kind: &[u8]) -> i64 {
    let digest = blake2b_simd::Params::new().hash_length(8).personal(kind).hash(text);
    digest.as_bytes().try_into().map_or(0, i64::from_be_bytes)
}

/// (has a parent, start, span id): the least one is the root.
pub type RootRank = (bool, i64, [u8; 8]);

/// (start of the span that said so, value): the least one counts.
pub type Ranked = Option<(i64, String)>;

/// What spans of a trace say about models, tokens, cost and who ran it, summed up.
#[derive(Clone, Default)]
pub struct GenAi {
    /// Workflow, session and user.
    pub ranked: [Ranked; 3],
    /// Models, providers, operations, agents and tools.
    pub labels: [BTreeSet<String>; 5],
    /// Spans with usage, then tokens: input, output, cached, reasoning.
    pub counts: [i64; 5],
    /// Cost, and the part of it that nobody sent.
    pub costs: [f64; 2],
}

impl GenAi {
    /// Add what other spans say.
    pub fn merge(&mut self, other: &GenAi) {
        for (own, theirs) in self.ranked.iter_mut().zip(&other.ranked) {
            if theirs.is_some() && (own.is_none() || theirs < own) {
                own.clone_from(theirs);
            }
        }
        for (own, theirs) in self.labels.iter_mut().zip(&other.labels) {
            own.extend(theirs.iter().cloned());
        }
        for (own, theirs) in self.counts.iter_mut().zip(other.counts) {
            *own = own.saturating_add(theirs);
        }
        for (own, theirs) in self.costs.iter_mut().zip(other.costs) {
            *own += theirs;
        }
    }
}

/// What some spans add to their trace.
pub struct TraceSum {
    /// 16 bytes.
    pub trace_id: [u8; 16],
    /// Least start.
    pub start_ns: i64,
    /// Greatest end.
    pub end_ns: i64,
    /// Spans.
    pub span_count: i64,
    /// Spans with an error.
    pub error_count: i64,
    /// The least rank of its spans.
    pub root: RootRank,
    /// Index into the names.
    pub root_name: usize,
    /// Indexes into the names, sorted, each once.
    pub names: Vec<usize>,
    /// None if no span says anything of the kind.
    pub genai: Option<Box<GenAi>>,
}

/// The sums of one request, by trace.
#[derive(Default)]
pub struct Sums {
    /// Whose they are.
    pub tenant_id: i32,
    /// As they are stored.
    pub services: Vec<String>,
    /// Each name of each service once.
    pub names: Vec<Name>,
    /// In the order in which they first appear.
    pub traces: Vec<TraceSum>,
    /// (index into the names, kind, day of the start since the epoch)
    pub operations: HashSet<(usize, i32, i64)>,
}

/// Sums up spans one by one.
pub struct Summing<'a> {
    sums: Sums,
    by_trace: HashMap<[u8; 16], usize>,
    by_name: HashMap<(usize, &'a [u8]), usize>,
    /// The trace of the span before, which most often is that of the next one.
    last: usize,
    /// By name: the kind and day that its last span had, most often those of the next one.
    last_seen: Vec<(i32, i64)>,
}

impl<'a> Summing<'a> {
    /// Of a tenant's spans.
    pub fn new(tenant_id: i32, services: Vec<String>) -> Self {
        let sums = Sums { tenant_id, services, ..Sums::default() };
        Summing { sums, by_trace: HashMap::new(), by_name: HashMap::new(), last: 0, last_seen: Vec::new() }
    }

    /// Add a span, whose ids must be right. Returns the place of its trace.
    pub fn add(&mut self, span: &Span<'a>, service: usize) -> Maybe<usize> {
        let trace_id: [u8; 16] = span.trace_id.try_into().ok()?;
        let (start_ns, end_ns) = (span.start_ns(), span.end_ns().max(span.start_ns()));
        let root = (span.parent().is_some(), start_ns, span.span_id.try_into().ok()?);
        let name = self.place_of_name(service, span.name)?;
        self.see(name, span.kind, start_ns / NS_PER_DAY);
        let traces = &mut self.sums.traces;
        if traces.get(self.last).is_none_or(|last| last.trace_id != trace_id) {
            self.last = *self.by_trace.entry(trace_id).or_insert(traces.len());
        }
        if self.last == traces.len() {
            traces.push(TraceSum {
                trace_id,
                start_ns,
                end_ns,
                span_count: 0,
                error_count: 0,
                root,
                root_name: name,
                names: Vec::new(),
                genai: None,
            });
        }
        let trace = &mut traces[self.last];
        trace.span_count += 1;
        trace.error_count += i64::from(span.status_code == STATUS_ERROR);
        trace.start_ns = trace.start_ns.min(start_ns);
        trace.end_ns = trace.end_ns.max(end_ns);
        if root < trace.root {
            (trace.root, trace.root_name) = (root, name);
        }
        trace.names.push(name);
        Some(self.last)
    }

    fn see(&mut self, name: usize, kind: i32, day: i64) {
        if name == self.last_seen.len() {
            self.last_seen.push((kind, day));
        } else if self.last_seen[name] == (kind, day) {
            return;
        }
        self.last_seen[name] = (kind, day);
        self.sums.operations.insert((name, kind, day));
    }

    fn place_of_name(&mut self, service: usize, name: &'a [u8]) -> Maybe<usize> {
        if let Some(&place) = self.by_name.get(&(service, name)) {
            return Some(place);
        }
        let place = self.sums.names.len();
        self.sums.names.push(Name::of(service, self.sums.services.get(service)?, name)?);
        self.by_name.insert((service, name), place);
        Some(place)
    }

    /// The sums of all spans.
    pub fn end(mut self) -> Sums {
        for trace in &mut self.sums.traces {
            trace.names.sort_unstable();
            trace.names.dedup();
            trace.names.shrink_to_fit();
        }
        self.sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_those_of_python() {
        let name = Name::of(0, "shop é", b"GET /").unwrap();

        assert_eq!(name.terms, TERMS);
    }

    /// msgtrace.model.terms.operation_terms("shop é", "GET /")
    const TERMS: [i64; 2] = [8779972136700317062, -1444793779165642968];

    #[test]
    fn the_least_that_was_said_counts_in_any_order() {
        let said = |start_ns, value: &str| {
            let mut genai = GenAi::default();
            genai.ranked[0] = Some((start_ns, value.to_owned()));
            genai
        };
        let (mut first, mut second) = (said(2, "a"), said(1, "b"));
        first.merge(&second.clone());
        second.merge(&said(2, "a"));
        second.merge(&GenAi::default());

        assert_eq!(first.ranked[0], Some((1, "b".to_owned())));
        assert_eq!(second.ranked[0], Some((1, "b".to_owned())));
    }
}
