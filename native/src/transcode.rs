//! OTLP/JSON as OTLP/protobuf, so that one decoder reads both.
//!
//! As everywhere here `None` means "not for this decoder". Unknown names, names that come twice, numbers in unusual
//! forms and values of another type than expected are among it, as is whatever is no JSON.
//! Source: opentelemetry-proto docs/specification.md, "JSON Protobuf Encoding"; proto3 JSON mapping; RFC 8259.

use crate::wire::Maybe;

/// Deeper messages go to the other decoder.
const MAX_DEPTH: u32 = 64;

/// Integers in longer texts, with zeros in front of them or out of range, go to the other decoder.
const MAX_DIGITS: usize = 24;

/// What a field holds, and how JSON writes it.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    /// Hex.
    Id,
    /// Base64.
    Bytes,
    Bool,
    /// A number or decimal text.
    Int64,
    Uint32,
    Fixed32,
    Fixed64,
    /// A number only.
    Int32,
    Double,
    Message(Shape),
    Messages(Shape),
    Texts,
}

type Fields = &'static [(&'static str, u32, Kind)];

/// A message, by its fields: JSON name, number, kind.
#[derive(Clone, Copy)]
struct Shape(fn() -> Fields);

use Kind::{Bool, Bytes, Double, Fixed32, Fixed64, Id, Int32, Int64, Message, Messages, Text, Texts, Uint32};

const REQUEST: Shape = Shape(|| &[("resourceSpans", 1, Messages(RESOURCE_SPANS))]);
const RESOURCE_SPANS: Shape =
    Shape(|| &[("resource", 1, Message(RESOURCE)), ("scopeSpans", 2, Messages(SCOPE_SPANS)), ("schemaUrl", 3, Text)]);
const SCOPE_SPANS: Shape =
    Shape(|| &[("scope", 1, Message(SCOPE)), ("spans", 2, Messages(SPAN)), ("schemaUrl", 3, Text)]);
const RESOURCE: Shape = Shape(|| {
    &[("attributes", 1, Messages(PAIR)), ("droppedAttributesCount", 2, Uint32), ("entityRefs", 3, Messages(ENTITY_REF))]
});
const ENTITY_REF: Shape =
    Shape(|| &[("schemaUrl", 1, Text), ("type", 2, Text), ("idKeys", 3, Texts), ("descriptionKeys", 4, Texts)]);
const SCOPE: Shape = Shape(|| {
    &[("name", 1, Text), ("version", 2, Text), ("attributes", 3, Messages(PAIR)), ("droppedAttributesCount", 4, Uint32)]
});
const SPAN: Shape = Shape(|| {
    &[
        ("traceId", 1, Id),
        ("spanId", 2, Id),
        ("traceState", 3, Text),
        ("parentSpanId", 4, Id),
        ("name", 5, Text),
        ("kind", 6, Int32),
        ("startTimeUnixNano", 7, Fixed64),
        ("endTimeUnixNano", 8, Fixed64),
        ("attributes", 9, Messages(PAIR)),
        ("droppedAttributesCount", 10, Uint32),
        ("events", 11, Messages(EVENT)),
        ("droppedEventsCount", 12, Uint32),
        ("links", 13, Messages(LINK)),
        ("droppedLinksCount", 14, Uint32),
        ("status", 15, Message(STATUS)),
        ("flags", 16, Fixed32),
    ]
});
const STATUS: Shape = Shape(|| &[("message", 2, Text), ("code", 3, Int32)]);
const EVENT: Shape = Shape(|| {
    &[
        ("timeUnixNano", 1, Fixed64),
        ("name", 2, Text),
        ("attributes", 3, Messages(PAIR)),
        ("droppedAttributesCount", 4, Uint32),
    ]
});
const LINK: Shape = Shape(|| {
    &[
        ("traceId", 1, Id),
        ("spanId", 2, Id),
        ("traceState", 3, Text),
        ("attributes", 4, Messages(PAIR)),
        ("droppedAttributesCount", 5, Uint32),
        ("flags", 6, Fixed32),
    ]
});
const PAIR: Shape = Shape(|| &[("key", 1, Text), ("value", 2, Message(VALUE)), ("keyStrindex", 3, Int32)]);
const VALUE: Shape = Shape(|| {
    &[
        ("stringValue", 1, Text),
        ("boolValue", 2, Bool),
        ("intValue", 3, Int64),
        ("doubleValue", 4, Double),
        ("arrayValue", 5, Message(ARRAY)),
        ("kvlistValue", 6, Message(MAP)),
        ("bytesValue", 7, Bytes),
    ]
});
const ARRAY: Shape = Shape(|| &[("values", 1, Messages(VALUE))]);
const MAP: Shape = Shape(|| &[("values", 1, Messages(PAIR))]);

/// An ExportTraceServiceRequest in JSON as one in protobuf.
pub fn to_protobuf(body: &[u8]) -> Maybe<Vec<u8>> {
    let text = std::str::from_utf8(body).ok()?;
    let mut reader = Reader { text, place: 0, out: Vec::with_capacity(body.len()) };
    reader.skip_space();
    reader.message(REQUEST, 0)?;
    reader.skip_space();
    (reader.place == body.len()).then_some(reader.out)
}

struct Reader<'a> {
    text: &'a str,
    place: usize,
    out: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn message(&mut self, shape: Shape, depth: u32) -> Maybe<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        let fields = shape.0();
        let mut seen = 0u32;
        self.expect(b'{')?;
        if self.take_if(b'}') {
            return Some(());
        }
        // Fields mostly come in the order of the table: the search goes on where the last one was found.
        let mut guess = 0;
        loop {
            let name = self.plain_string()?;
            let found = (guess..fields.len()).chain(0..guess).find(|&index| fields[index].0 == name)?;
            guess = found + 1;
            let (_, number, kind) = fields[found];
            if seen & (1 << number) != 0 {
                return None;
            }
            seen |= 1 << number;
            self.expect(b':')?;
            if !self.take_null() {
                self.field(number, kind, depth)?;
            }
            if self.take_if(b'}') {
                return Some(());
            }
            self.expect(b',')?;
        }
    }

    fn field(&mut self, number: u32, kind: Kind, depth: u32) -> Maybe<()> {
        match kind {
            Text => self.sized(number, |reader| reader.string())?,
            Id => self.sized(number, |reader| reader.hex())?,
            Bytes => self.sized(number, |reader| reader.base64())?,
            Message(shape) => self.sized(number, |reader| reader.message(shape, depth + 1))?,
            Messages(shape) => {
                self.list(|reader| reader.sized(number, |reader| reader.message(shape, depth + 1)))?;
            }
            Texts => self.list(|reader| reader.sized(number, |reader| reader.string()))?,
            Bool => {
                let is_true = self.boolean()?;
                self.varint_field(number, u64::from(is_true));
            }
            Int64 => {
                let value: i64 = self.integer()?;
                self.varint_field(number, value as u64);
            }
            Uint32 => {
                let value: u32 = self.integer()?;
                self.varint_field(number, u64::from(value));
            }
            Int32 => {
                let value: i32 = self.number()?.parse().ok()?;
                self.varint_field(number, i64::from(value) as u64);
            }
            Fixed32 => {
                let value: u32 = self.integer()?;
                self.tag(number, 5);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            Fixed64 => {
                let value: u64 = self.integer()?;
                self.tag(number, 1);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            Double => {
                let value = self.double()?;
                self.tag(number, 1);
                self.out.extend_from_slice(&value.to_bits().to_le_bytes());
            }
        }
        Some(())
    }

    fn list(&mut self, mut element: impl FnMut(&mut Self) -> Maybe<()>) -> Maybe<()> {
        self.expect(b'[')?;
        if self.take_if(b']') {
            return Some(());
        }
        loop {
            self.skip_space();
            element(self)?;
            if self.take_if(b']') {
                return Some(());
            }
            self.expect(b',')?;
        }
    }

    // Values

    /// A string without escapes, as the names of fields are.
    fn plain_string(&mut self) -> Maybe<&'a str> {
        self.expect(b'"')?;
        let start = self.place;
        let length = self.bytes()[start..].iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20)?;
        if self.bytes()[start + length] != b'"' {
            return None;
        }
        self.place = start + length + 1;
        Some(&self.text[start..start + length])
    }

    /// Write a string's characters.
    fn string(&mut self) -> Maybe<()> {
        self.expect(b'"')?;
        loop {
            let rest = &self.bytes()[self.place..];
            let length = rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20)?;
            self.out.extend_from_slice(&rest[..length]);
            let stop = rest[length];
            self.place += length + 1;
            match stop {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Maybe<()> {
        let kind = *self.bytes().get(self.place)?;
        self.place += 1;
        let character = match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.escaped_character()?,
            _ => return None,
        };
        self.out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Some(())
    }

    fn escaped_character(&mut self) -> Maybe<char> {
        let first = self.four_hex()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first); // None for a surrogate that stands alone
        }
        if !self.bytes()[self.place..].starts_with(b"\\u") {
            return None;
        }
        self.place += 2;
        let second = self.four_hex()?;
        if !(0xdc00..0xe000).contains(&second) {
            return None;
        }
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    }

    fn four_hex(&mut self) -> Maybe<u32> {
        let digits = self.bytes().get(self.place..self.place + 4)?;
        self.place += 4;
        digits.iter().try_fold(0, |number, &digit| Some(number << 4 | u32::from(hex_value(digit)?)))
    }

    fn hex(&mut self) -> Maybe<()> {
        let digits = self.plain_string()?.as_bytes();
        if digits.len() % 2 != 0 {
            return None;
        }
        for pair in digits.chunks_exact(2) {
            self.out.push(hex_value(pair[0])? << 4 | hex_value(pair[1])?);
        }
        Some(())
    }

    fn base64(&mut self) -> Maybe<()> {
        let text = self.plain_string()?.trim_end_matches('=').as_bytes();
        for chunk in text.chunks(4) {
            let mut bits = 0;
            for place in 0..4 {
                bits = bits << 6 | chunk.get(place).map_or(Some(0), |&digit| base64_value(digit))?;
            }
            let [_, bytes @ ..] = bits.to_be_bytes();
            let count = chunk.len() * 6 / 8;
            // A digit that stands for nothing, or bits that do.
            if chunk.len() == 1 || bytes[count..].iter().any(|&byte| byte != 0) {
                return None;
            }
            self.out.extend_from_slice(&bytes[..count]);
        }
        Some(())
    }

    fn boolean(&mut self) -> Maybe<bool> {
        let rest = &self.bytes()[self.place..];
        let is_true = rest.starts_with(b"true");
        if !is_true && !rest.starts_with(b"false") {
            return None;
        }
        self.place += if is_true { 4 } else { 5 };
        Some(is_true)
    }

    /// A whole number, or decimal text.
    fn integer<T: std::str::FromStr>(&mut self) -> Maybe<T> {
        if self.bytes().get(self.place) != Some(&b'"') {
            return self.number()?.parse().ok();
        }
        let text = self.plain_string()?;
        (is_decimal(text) && text.len() <= MAX_DIGITS).then(|| text.parse().ok())?
    }

    /// The text of a whole number.
    fn number(&mut self) -> Maybe<&'a str> {
        let text = self.any_number()?;
        let digits = text.strip_prefix('-').unwrap_or(text);
        let is_json = is_decimal(text) && (digits == "0" || !digits.starts_with('0'));
        is_json.then_some(text)
    }

    fn any_number(&mut self) -> Maybe<&'a str> {
        let start = self.place;
        let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
        let length = self.bytes()[start..].iter().take_while(|byte| is_part(byte)).count();
        self.place += length;
        Some(&self.text[start..start + length])
    }

    fn double(&mut self) -> Maybe<f64> {
        if self.bytes().get(self.place) == Some(&b'"') {
            return match self.plain_string()? {
                "NaN" => Some(f64::NAN),
                "Infinity" => Some(f64::INFINITY),
                "-Infinity" => Some(f64::NEG_INFINITY),
                _ => None,
            };
        }
        let text = self.any_number()?;
        // Python reads a whole number first, and so no negative zero.
        if !is_json_number(text) || text == "-0" {
            return None;
        }
        text.parse().ok().filter(|number: &f64| number.is_finite())
    }

    // Protobuf

    fn tag(&mut self, number: u32, wire_type: u32) {
        self.varint(u64::from(number << 3 | wire_type));
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.out.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.out.push(number as u8);
    }

    fn varint_field(&mut self, number: u32, value: u64) {
        self.tag(number, 0);
        self.varint(value);
    }

    /// A length-delimited field. Its length always takes five bytes, as it is known only afterwards.
    fn sized(&mut self, number: u32, content: impl FnOnce(&mut Self) -> Maybe<()>) -> Maybe<()> {
        self.tag(number, 2);
        let start = self.out.len() + 5;
        self.out.extend_from_slice(&[0x80, 0x80, 0x80, 0x80, 0]);
        content(self)?;
        let length = u32::try_from(self.out.len() - start).ok()?;
        for (place, byte) in self.out[start - 5..start].iter_mut().enumerate() {
            *byte |= (length >> (7 * place)) as u8 & 0x7f;
        }
        Some(())
    }

    // Bytes

    #[inline]
    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    #[inline]
    fn skip_space(&mut self) {
        while matches!(self.bytes().get(self.place), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.place += 1;
        }
    }

    /// The byte comes next, with space on both sides of it perhaps; what stands behind a quote is no space.
    #[inline]
    fn expect(&mut self, wanted: u8) -> Maybe<()> {
        self.skip_space();
        if self.bytes().get(self.place) != Some(&wanted) {
            return None;
        }
        self.place += 1;
        if wanted != b'"' {
            self.skip_space();
        }
        Some(())
    }

    #[inline]
    fn take_if(&mut self, wanted: u8) -> bool {
        self.skip_space();
        let is_there = self.bytes().get(self.place) == Some(&wanted);
        self.place += usize::from(is_there);
        is_there
    }

    #[inline]
    fn take_null(&mut self) -> bool {
        let is_there = self.bytes()[self.place..].starts_with(b"null");
        self.place += if is_there { 4 } else { 0 };
        is_there
    }
}

fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// RFC 8259, section 6.
fn is_json_number(text: &str) -> bool {
    let (whole, power) = text.split_once(['e', 'E']).map_or((text, None), |(whole, power)| (whole, Some(power)));
    let (integer, fraction) = whole.split_once('.').map_or((whole, None), |(integer, part)| (integer, Some(part)));
    let digits = integer.strip_prefix('-').unwrap_or(integer);
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits(digits)
        && (digits == "0" || !digits.starts_with('0'))
        && fraction.is_none_or(is_digits)
        && power.is_none_or(|power| is_digits(power.strip_prefix(['+', '-']).unwrap_or(power)))
}

fn hex_value(digit: u8) -> Maybe<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Standard or URL-safe.
fn base64_value(digit: u8) -> Maybe<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_out_of_its_escapes() {
        let body = br#" {"resourceSpans" : [ {"schemaUrl":"\u00e9\ud83d\ude00\n\/x"} ] } "#;
        let out = to_protobuf(body).unwrap();
        let url = "é\u{1f600}\n/x".as_bytes();
        assert!(out.ends_with(&[&[0x1a, 0x80 | url.len() as u8, 0x80, 0x80, 0x80, 0][..], url].concat()));
    }

    #[test]
    fn what_is_odd_or_no_json_is_left_alone() {
        for body in [
            "",
            "[]",
            "{} x",
            "{\"resourceSpans\":[],}",
            "{\"unknown\":1}",
            "{\"resourceSpans\":[],\"resourceSpans\":[]}",
            "{\"resourceSpans\":[null]}",
            "{\"resourceSpans\":[{\"schemaUrl\":\"\\ud800\"}]}",
            "{\"resourceSpans\":[{\"schemaUrl\":\"\n\"}]}",
            "{\"resourceSpans\":[{\"resource\":{\"droppedAttributesCount\":01}}]}",
            "{\"resourceSpans\":[{\"resource\":{\"droppedAttributesCount\":1e2}}]}",
            "{\"resourceSpans\":[{\"resource\":{\"droppedAttributesCount\":-1}}]}",
        ] {
            assert!(to_protobuf(body.as_bytes()).is_none(), "{body}");
        }
    }
}
