//! A whole request: its envelopes first, then the rows of its spans and the sums of its traces.

use std::collections::{HashMap, HashSet};

use crate::span::{Place, Rejection, Span};
use crate::wire::{Fields, Maybe};

/// A ResourceSpans or ScopeSpans: what stands around its children.
#[derive(Default)]
pub struct Envelope<'a> {
    /// The message of the resource or scope.
    pub content: &'a [u8],
    /// Not checked to be UTF-8.
    pub schema_url: &'a [u8],
    /// ScopeSpans or spans.
    pub children: Vec<&'a [u8]>,
}

impl<'a> Envelope<'a> {
    /// Both messages have the same shape.
    fn read(message: &'a [u8]) -> Maybe<Self> {
        let mut envelope = Envelope::default();
        let mut has_content = false;
        let mut fields = Fields::of(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 if has_content => return None, // two messages would have to be merged
                1 => (envelope.content, has_content) = (value.bytes()?, true),
                2 => envelope.children.push(value.bytes()?),
                3 => envelope.schema_url = value.bytes()?,
                _ => {}
            }
        }
        Some(envelope)
    }
}

/// The envelopes of a request, outer and inner.
pub type Outline<'a> = Vec<(Envelope<'a>, Vec<Envelope<'a>>)>;

/// Read the envelopes; spans are not looked into.
pub fn outline(body: &[u8]) -> Maybe<Outline<'_>> {
    let mut found = Vec::new();
    let mut fields = Fields::of(body);
    while let Some((number, value)) = fields.next()? {
        if number == 1 {
            let outer = Envelope::read(value.bytes()?)?;
            let inner = outer.children.iter().map(|each| Envelope::read(each)).collect::<Maybe<_>>()?;
            found.push((outer, inner));
        }
    }
    Some(found)
}

/// Where the spans of one scope go.
pub struct Destination {
    /// Content hash.
    pub resource_id: i64,
    /// Content hash.
    pub scope_id: i64,
    /// Index into the service names.
    pub service: usize,
}

/// The attribute names that make a span worth a second look.
pub struct Keys {
    names: HashSet<String>,
    /// By first byte: which lengths there are, so that most names need no hash.
    lengths: [u64; 256],
}

impl Keys {
    /// Of these names.
    pub fn of(names: Vec<String>) -> Self {
        let mut lengths = [0u64; 256];
        for name in &names {
            if let Some(&first) = name.as_bytes().first() {
                lengths[usize::from(first)] |= length_bit(name);
            }
        }
        Keys { names: names.into_iter().collect(), lengths }
    }

    #[inline]
    fn holds(&self, name: &str) -> bool {
        name.as_bytes().first().is_some_and(|&first| self.lengths[usize::from(first)] & length_bit(name) != 0)
            && self.names.contains(name)
    }
}

#[inline]
fn length_bit(name: &str) -> u64 {
    1 << name.len().min(63)
}

/// What some spans add to their trace (msgtrace.model.batch.TraceDelta, without GenAI).
pub struct TraceSum {
    /// 16 bytes.
    pub trace_id: [u8; 16],
    /// Least start.
    pub start_ns: i64,
    /// Greatest end.
    pub end_ns: i64,
    /// Spans.
    pub span_count: u64,
    /// Spans with an error.
    pub error_count: u64,
    /// (has a parent, start, span id): the least one is the root.
    pub root: (bool, i64, [u8; 8]),
    /// Its name as it was sent, and its service.
    pub root_name: String,
    /// Index into the service names.
    pub root_service: usize,
    /// Indexes into the service names, each with the distinct names of its spans as they were sent.
    pub services: Vec<(usize, HashSet<String>)>,
}

/// The rows of a request and what follows from them.
#[derive(Default)]
pub struct Decoded {
    /// Tuples of binary COPY, one behind the other.
    pub rows: Vec<u8>,
    /// How many.
    pub row_count: usize,
    /// Characters of events and links.
    pub text_chars: usize,
    /// In the order in which they first appear.
    pub traces: Vec<TraceSum>,
    /// Spans left out for their trace id, span id and parent id.
    pub rejected: [u64; 3],
    /// Row number and bytes of each span that has one of the keys.
    pub noted: Vec<(usize, Vec<u8>)>,
    /// What the spans are called.
    pub operations: Operations,
}

/// (index of the service, kind, day of the start since the epoch) with the distinct names, as they were sent but cut.
pub type Operations = HashMap<(usize, i32, i64), HashSet<String>>;

/// msgtrace.model.text.MAX_LABEL_CHARS.
const MAX_LABEL_CHARS: usize = 255;

const NS_PER_DAY: i64 = 86_400_000_000_000;

/// OTLP's number.
const STATUS_ERROR: i32 = 2;

/// Decode all spans. `destinations` has one for each inner envelope, in order.
pub fn decode(
    outline: &Outline,
    destinations: &[Destination],
    services: &[String],
    tenant_id: i32,
    keys: &Keys,
) -> Maybe<Decoded> {
    let mut decoder = Decoder { keys, decoded: Decoded::default(), by_trace: HashMap::new(), last: 0 };
    let bytes: usize = outline.iter().flat_map(|(outer, _)| &outer.children).map(|each| each.len()).sum();
    decoder.decoded.rows.reserve(bytes * 3 / 2);
    let mut span = Span::default();
    let inner = outline.iter().flat_map(|(_, inner)| inner);
    for (envelope, destination) in inner.zip(destinations) {
        let place = Place {
            tenant_id,
            resource_id: destination.resource_id,
            scope_id: destination.scope_id,
            service_name: services.get(destination.service)?.as_bytes(),
        };
        for message in &envelope.children {
            span.read(message)?;
            decoder.add(&span, message, &place, destination.service)?;
        }
    }
    Some(decoder.decoded)
}

struct Decoder<'k> {
    keys: &'k Keys,
    decoded: Decoded,
    by_trace: HashMap<[u8; 16], usize>,
    /// The trace of the span before, which most often is that of the next one.
    last: usize,
}

impl Decoder<'_> {
    fn add(&mut self, span: &Span, message: &[u8], place: &Place, service: usize) -> Maybe<()> {
        let start = self.decoded.rows.len();
        let chars = span.write_row(&mut self.decoded.rows, place)?;
        if let Some(rejection) = span.rejection() {
            // It was written nevertheless: whatever in it is malformed must be found.
            self.decoded.rows.truncate(start);
            self.decoded.rejected[match rejection {
                Rejection::Trace => 0,
                Rejection::Span => 1,
                Rejection::Parent => 2,
            }] += 1;
            return Some(());
        }
        self.decoded.text_chars += chars;
        if span.attributes.iter().any(|pair| self.keys.holds(pair.key)) {
            self.decoded.noted.push((self.decoded.row_count, message.to_vec()));
        }
        self.decoded.row_count += 1;
        self.note_operation(span, service);
        self.sum(span, service)
    }

    fn note_operation(&mut self, span: &Span, service: usize) {
        let key = (service, span.kind, span.start_ns() / NS_PER_DAY);
        let names = self.decoded.operations.entry(key).or_default();
        let name = cut(span.name);
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
    }

    fn sum(&mut self, span: &Span, service: usize) -> Maybe<()> {
        let trace_id: [u8; 16] = span.trace_id.try_into().ok()?;
        let (start_ns, end_ns) = (span.start_ns(), span.end_ns().max(span.start_ns()));
        let root = (span.parent().is_some(), start_ns, span.span_id.try_into().ok()?);
        let traces = &mut self.decoded.traces;
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
                root_name: span.name.to_owned(),
                root_service: service,
                services: Vec::new(),
            });
        }
        let trace = &mut traces[self.last];
        trace.span_count += 1;
        trace.error_count += u64::from(span.status_code == STATUS_ERROR);
        trace.start_ns = trace.start_ns.min(start_ns);
        trace.end_ns = trace.end_ns.max(end_ns);
        if root < trace.root {
            trace.root = root;
            span.name.clone_into(&mut trace.root_name);
            trace.root_service = service;
        }
        let known = trace.services.iter().position(|(each, _)| *each == service);
        let place = known.unwrap_or_else(|| {
            trace.services.push((service, HashSet::new()));
            trace.services.len() - 1
        });
        let names = &mut trace.services[place].1;
        if !names.contains(span.name) {
            names.insert(span.name.to_owned());
        }
        Some(())
    }
}

/// The first MAX_LABEL_CHARS characters.
#[inline]
fn cut(text: &str) -> &str {
    if text.len() <= MAX_LABEL_CHARS {
        return text; // it has no more characters than bytes
    }
    text.char_indices().nth(MAX_LABEL_CHARS).map_or(text, |(end, _)| &text[..end])
}
