//! One span: its fields as they lie on the wire, and its row as a tuple of binary COPY.

use crate::copy::{write_bytes, write_i32, write_i64, write_null, write_sized};
use crate::json::{Pair, write_hex, write_map, write_stored, write_string, write_unsigned};
use crate::wire::{Fields, Maybe};

/// Columns of a row, in the order of msgtrace.model.span.SPAN_COLUMNS.
pub const COLUMN_COUNT: u16 = 21;

/// Which id a span is left out for; msgtrace/otlp/rows.py decides the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rejection {
    /// Not 16 bytes, or all zero.
    Trace,
    /// Not 8 bytes, or all zero.
    Span,
    /// Neither empty nor 8 bytes.
    Parent,
}

/// What a span's envelopes say about it.
pub struct Place<'a> {
    /// Whose it is.
    pub tenant_id: i32,
    /// Content hash.
    pub resource_id: i64,
    /// Content hash.
    pub scope_id: i64,
    /// As it is stored.
    pub service_name: &'a [u8],
}

/// The fields of a span, texts and values unread.
#[derive(Default)]
pub struct Span<'a> {
    /// As it was sent.
    pub trace_id: &'a [u8],
    /// As it was sent.
    pub span_id: &'a [u8],
    parent_span_id: &'a [u8],
    trace_state: &'a [u8],
    /// As it was sent, not yet checked to be UTF-8.
    pub name: &'a [u8],
    /// OTLP's number, or any other.
    pub kind: i32,
    start_time_ns: u64,
    end_time_ns: u64,
    flags: u32,
    dropped_attributes_count: u32,
    dropped_events_count: u32,
    dropped_links_count: u32,
    /// OTLP's number.
    pub status_code: i32,
    status_message: &'a [u8],
    /// In the order of the wire.
    pub attributes: Vec<Pair<'a>>,
    events: Vec<&'a [u8]>,
    links: Vec<&'a [u8]>,
}

impl<'a> Span<'a> {
    /// Take the place of the span before, whose memory is used again.
    pub fn read(&mut self, message: &'a [u8]) -> Maybe<()> {
        let (mut attributes, mut events, mut links) =
            (std::mem::take(&mut self.attributes), std::mem::take(&mut self.events), std::mem::take(&mut self.links));
        attributes.clear();
        events.clear();
        links.clear();
        *self = Span { attributes, events, links, ..Span::default() };
        let mut has_status = false;
        let mut fields = Fields::of(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => self.trace_id = value.bytes()?,
                2 => self.span_id = value.bytes()?,
                3 => self.trace_state = value.bytes()?,
                4 => self.parent_span_id = value.bytes()?,
                5 => self.name = value.bytes()?,
                6 => self.kind = value.varint()? as i32,
                7 => self.start_time_ns = value.fixed64()?,
                8 => self.end_time_ns = value.fixed64()?,
                9 => self.attributes.push(Pair::read(value.bytes()?)?),
                10 => self.dropped_attributes_count = value.varint()? as u32,
                11 => self.events.push(value.bytes()?),
                12 => self.dropped_events_count = value.varint()? as u32,
                13 => self.links.push(value.bytes()?),
                14 => self.dropped_links_count = value.varint()? as u32,
                15 if has_status => return None, // two messages would have to be merged
                15 => {
                    has_status = true;
                    self.read_status(value.bytes()?)?;
                }
                16 => self.flags = value.fixed32()?,
                _ => {}
            }
        }
        Some(())
    }

    fn read_status(&mut self, message: &'a [u8]) -> Maybe<()> {
        let mut fields = Fields::of(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                2 => self.status_message = value.bytes()?,
                3 => self.status_code = value.varint()? as i32,
                _ => {}
            }
        }
        Some(())
    }

    /// What is wrong with its ids.
    pub fn rejection(&self) -> Option<Rejection> {
        if self.trace_id.len() != 16 || is_zero(self.trace_id) {
            Some(Rejection::Trace)
        } else if self.span_id.len() != 8 || is_zero(self.span_id) {
            Some(Rejection::Span)
        } else if !matches!(self.parent_span_id.len(), 0 | 8) {
            Some(Rejection::Parent)
        } else {
            None
        }
    }

    /// The parent, if there is one.
    pub fn parent(&self) -> Option<&'a [u8]> {
        (!is_zero(self.parent_span_id)).then_some(self.parent_span_id)
    }

    /// Nanoseconds since the epoch; the year 2262 at most.
    pub fn start_ns(&self) -> i64 {
        i64::try_from(self.start_time_ns).unwrap_or(i64::MAX)
    }

    /// As `start_ns`.
    pub fn end_ns(&self) -> i64 {
        i64::try_from(self.end_time_ns).unwrap_or(i64::MAX)
    }

    /// Write the row. Returns the characters of its events and links, which are no part of the
    /// measure of the request.
    pub fn write_row(&self, out: &mut Vec<u8>, place: &Place) -> Maybe<usize> {
        out.extend_from_slice(&COLUMN_COUNT.to_be_bytes());
        write_i32(out, place.tenant_id);
        write_bytes(out, self.trace_id);
        write_bytes(out, self.span_id);
        match self.parent() {
            Some(parent) => write_bytes(out, parent),
            None => write_null(out),
        }
        write_i64(out, self.start_ns());
        write_i64(out, self.end_ns());
        write_i64(out, place.resource_id);
        write_i64(out, place.scope_id);
        write_i32(out, self.kind);
        write_i32(out, self.status_code);
        write_count(out, self.flags);
        write_count(out, self.dropped_attributes_count);
        write_count(out, self.dropped_events_count);
        write_count(out, self.dropped_links_count);
        write_bytes(out, place.service_name);
        write_stored_sized(out, self.name)?;
        write_text(out, self.status_message)?;
        write_text(out, self.trace_state)?;
        if self.attributes.is_empty() {
            write_null(out);
        } else {
            write_sized(out, |out| write_map(out, &self.attributes))?;
        }
        let events = write_list(out, &self.events, write_event)?;
        let links = write_list(out, &self.links, write_link)?;
        Some(events + links)
    }
}

fn is_zero(id: &[u8]) -> bool {
    id.iter().all(|&byte| byte == 0)
}

/// Write a JSON list of what `write` makes of each message; returns its characters.
fn write_list(out: &mut Vec<u8>, messages: &[&[u8]], write: fn(&mut Vec<u8>, &[u8]) -> Maybe<()>) -> Maybe<usize> {
    if messages.is_empty() {
        write_null(out);
        return Some(0);
    }
    let start = out.len() + 4;
    write_sized(out, |out| {
        for (number, message) in messages.iter().enumerate() {
            out.push(if number == 0 { b'[' } else { b',' });
            write(out, message)?;
        }
        out.push(b']');
        Some(())
    })?;
    // All bytes but those that go on with a character.
    Some(out[start..].iter().filter(|&&byte| byte & 0xc0 != 0x80).count())
}

fn write_event(out: &mut Vec<u8>, message: &[u8]) -> Maybe<()> {
    let (mut time_ns, mut name, mut pairs, mut dropped) = (0, &[][..], Vec::new(), 0);
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => time_ns = value.fixed64()?,
            2 => name = value.bytes()?,
            3 => pairs.push(Pair::read(value.bytes()?)?),
            4 => dropped = value.varint()? as u32,
            _ => {}
        }
    }
    out.extend_from_slice(b"{\"time_unix_nano\":\"");
    write_unsigned(out, time_ns);
    out.extend_from_slice(b"\",\"name\":");
    write_string(out, name)?;
    out.extend_from_slice(b",\"attributes\":");
    write_map(out, &pairs)?;
    out.extend_from_slice(b",\"dropped_attributes_count\":");
    write_unsigned(out, u64::from(dropped));
    out.push(b'}');
    Some(())
}

fn write_link(out: &mut Vec<u8>, message: &[u8]) -> Maybe<()> {
    let (mut trace_id, mut span_id, mut state) = (&[][..], &[][..], &[][..]);
    let (mut pairs, mut dropped, mut flags) = (Vec::new(), 0, 0);
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => trace_id = value.bytes()?,
            2 => span_id = value.bytes()?,
            3 => state = value.bytes()?,
            4 => pairs.push(Pair::read(value.bytes()?)?),
            5 => dropped = value.varint()? as u32,
            6 => flags = value.fixed32()?,
            _ => {}
        }
    }
    out.extend_from_slice(b"{\"trace_id\":\"");
    write_hex(out, trace_id);
    out.extend_from_slice(b"\",\"span_id\":\"");
    write_hex(out, span_id);
    out.extend_from_slice(b"\",\"trace_state\":");
    write_string(out, state)?;
    out.extend_from_slice(b",\"attributes\":");
    write_map(out, &pairs)?;
    out.extend_from_slice(b",\"dropped_attributes_count\":");
    write_unsigned(out, u64::from(dropped));
    out.extend_from_slice(b",\"flags\":");
    write_unsigned(out, u64::from(flags));
    out.push(b'}');
    Some(())
}

/// Zero is OTLP's default, which stands as NULL.
#[inline]
fn write_count(out: &mut Vec<u8>, count: u32) {
    if count == 0 { write_null(out) } else { write_i64(out, i64::from(count)) }
}

/// As `write_count`, for text.
fn write_text(out: &mut Vec<u8>, text: &[u8]) -> Maybe<()> {
    if text.is_empty() {
        write_null(out);
        return Some(());
    }
    write_stored_sized(out, text)
}

fn write_stored_sized(out: &mut Vec<u8>, text: &[u8]) -> Maybe<()> {
    write_sized(out, |out| write_stored(out, text))
}
