//! A whole request: its envelopes first, then the rows of its spans and the sums of its traces.

use std::collections::HashSet;

use crate::span::{Place, Rejection, Span};
use crate::sums::{Summing, Sums};
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
    names: HashSet<Vec<u8>>,
    /// By first byte: which lengths there are, so that most names need no hash.
    lengths: [u64; 256],
}

impl Keys {
    /// Of these names.
    pub fn of(names: Vec<String>) -> Self {
        let names: HashSet<Vec<u8>> = names.into_iter().map(String::into_bytes).collect();
        let mut lengths = [0u64; 256];
        for name in &names {
            if let Some(&first) = name.first() {
                lengths[usize::from(first)] |= length_bit(name);
            }
        }
        Keys { names, lengths }
    }

    #[inline]
    fn holds(&self, name: &[u8]) -> bool {
        name.first().is_some_and(|&first| self.lengths[usize::from(first)] & length_bit(name) != 0)
            && self.names.contains(name)
    }
}

#[inline]
fn length_bit(name: &[u8]) -> u64 {
    1 << name.len().min(63)
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
    /// Of the spans that have rows.
    pub sums: Sums,
    /// Spans left out for their trace id, span id and parent id.
    pub rejected: [u64; 3],
    /// The spans that have one of the keys.
    pub noted: Vec<Noted>,
}

/// A span that has one of the keys.
pub struct Noted {
    /// Its row.
    pub row: usize,
    /// The place of its trace in the sums.
    pub trace: usize,
    /// Its message.
    pub message: Vec<u8>,
}

/// Decode all spans. `destinations` has one for each inner envelope, in order.
pub fn decode(
    outline: &Outline,
    destinations: &[Destination],
    services: &[String],
    tenant_id: i32,
    keys: &Keys,
) -> Maybe<Decoded> {
    let summing = Summing::new(tenant_id, services.to_vec());
    let mut decoder = Decoder { keys, decoded: Decoded::default(), summing };
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
    Some(Decoded { sums: decoder.summing.end(), ..decoder.decoded })
}

struct Decoder<'a> {
    keys: &'a Keys,
    decoded: Decoded,
    summing: Summing<'a>,
}

impl<'a> Decoder<'a> {
    fn add(&mut self, span: &Span<'a>, message: &[u8], place: &Place, service: usize) -> Maybe<()> {
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
        let trace = self.summing.add(span, service)?;
        if span.attributes.iter().any(|pair| self.keys.holds(pair.key)) {
            self.decoded.noted.push(Noted { row: self.decoded.row_count, trace, message: message.to_vec() });
        }
        self.decoded.row_count += 1;
        Some(())
    }
}
