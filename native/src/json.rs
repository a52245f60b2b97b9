//! Attribute values as the JSON text that is stored: msgtrace/otlp/values.py says which.

use std::collections::HashSet;

use crate::wire::{Fields, Maybe, Value};

/// Deeper values go to the other decoder, which knows protobuf's own limit.
const MAX_DEPTH: u32 = 16;

/// JavaScript's largest exact integer.
const MAX_PLAIN_INT: i64 = (1 << 53) - 1;

/// Up to so many keys are compared each with each.
const FEW_KEYS: usize = 16;

/// U+2400 in UTF-8. It stands for U+0000 in stored text, and so for itself only when doubled
/// (msgtrace/model/text.py).
const MARK: &[u8] = "\u{2400}".as_bytes();

/// One pair of a map, its value not yet read.
#[derive(Clone, Copy)]
pub struct Pair<'a> {
    /// Not yet checked to be UTF-8; empty where the key is a string index.
    pub key: &'a [u8],
    value: &'a [u8],
    index: i32,
}

impl<'a> Pair<'a> {
    /// A KeyValue.
    pub fn read(message: &'a [u8]) -> Maybe<Self> {
        let mut pair = Pair { key: &[], value: &[], index: 0 };
        let mut has_value = false;
        let mut fields = Fields::of(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => pair.key = value.bytes()?,
                2 if has_value => return None, // two messages would have to be merged
                2 => (pair.value, has_value) = (value.bytes()?, true),
                3 => pair.index = value.varint()? as i32,
                _ => {}
            }
        }
        Some(pair)
    }
}

/// Write a map: a plain one if nothing gets lost, else a tagged one.
pub fn write_map(out: &mut Vec<u8>, pairs: &[Pair]) -> Maybe<()> {
    write_map_at(out, pairs, 0)
}

fn write_map_at(out: &mut Vec<u8>, pairs: &[Pair], depth: u32) -> Maybe<()> {
    if is_plain(pairs) {
        out.push(b'{');
        for (number, pair) in pairs.iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            write_string(out, pair.key)?;
            out.push(b':');
            write_value(out, pair.value, depth + 1)?;
        }
        out.push(b'}');
        return Some(());
    }
    out.extend_from_slice(b"{\"$map\":[");
    for (number, pair) in pairs.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.push(b'[');
        match strindex(pair) {
            0 => write_string(out, pair.key)?,
            index => write_tagged_number(out, b"$strindex", i64::from(index)),
        }
        out.push(b',');
        write_value(out, pair.value, depth + 1)?;
        out.push(b']');
    }
    out.extend_from_slice(b"]}");
    Some(())
}

/// A text wins over an index beside it, which OTLP does not allow.
fn strindex(pair: &Pair) -> i32 {
    if pair.key.is_empty() { pair.index } else { 0 }
}

fn is_plain(pairs: &[Pair]) -> bool {
    let looks_tagged = pairs.len() == 1 && pairs[0].key.starts_with(b"$");
    !looks_tagged && pairs.iter().all(|pair| strindex(pair) == 0) && are_distinct(pairs)
}

fn are_distinct(pairs: &[Pair]) -> bool {
    if pairs.len() <= FEW_KEYS {
        let is_new = |(place, pair): (usize, &Pair)| pairs[..place].iter().all(|other| other.key != pair.key);
        return pairs.iter().enumerate().all(is_new);
    }
    let mut seen = HashSet::with_capacity(pairs.len());
    pairs.iter().all(|pair| seen.insert(pair.key))
}

/// Write an AnyValue.
fn write_value(out: &mut Vec<u8>, message: &[u8], depth: u32) -> Maybe<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    let mut fields = Fields::of(message);
    let mut found = None;
    while let Some((number, value)) = fields.next()? {
        if (1..=8).contains(&number) {
            if found.is_some() {
                return None; // the last one would win, or be merged
            }
            found = Some((number, value));
        }
    }
    let Some((number, value)) = found else {
        out.extend_from_slice(b"null");
        return Some(());
    };
    write_kind(out, number, value, depth)
}

fn write_kind(out: &mut Vec<u8>, number: u32, value: Value, depth: u32) -> Maybe<()> {
    match number {
        1 => write_string(out, value.bytes()?)?,
        2 => out.extend_from_slice(if value.varint()? != 0 { b"true" } else { b"false" }),
        3 => write_int(out, value.varint()? as i64),
        4 => write_double(out, f64::from_bits(value.fixed64()?)),
        5 => write_array(out, value.bytes()?, depth)?,
        6 => {
            let pairs = repeated(value.bytes()?)?;
            let pairs: Vec<Pair> = pairs.into_iter().map(Pair::read).collect::<Maybe<_>>()?;
            write_map_at(out, &pairs, depth)?;
        }
        7 => {
            out.extend_from_slice(b"{\"$bytes\":\"");
            write_base64(out, value.bytes()?);
            out.extend_from_slice(b"\"}");
        }
        _ => write_tagged_number(out, b"$strindex", i64::from(value.varint()? as i32)),
    }
    Some(())
}

fn write_array(out: &mut Vec<u8>, message: &[u8], depth: u32) -> Maybe<()> {
    out.push(b'[');
    for (number, value) in repeated(message)?.into_iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        write_value(out, value, depth + 1)?;
    }
    out.push(b']');
    Some(())
}

/// The messages in field 1 of an ArrayValue or KeyValueList.
fn repeated(message: &[u8]) -> Maybe<Vec<&[u8]>> {
    let mut found = Vec::new();
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        if number == 1 {
            found.push(value.bytes()?);
        }
    }
    Some(found)
}

fn write_int(out: &mut Vec<u8>, number: i64) {
    if (-MAX_PLAIN_INT..=MAX_PLAIN_INT).contains(&number) {
        write_number(out, number);
    } else {
        out.extend_from_slice(b"{\"$int\":\"");
        write_number(out, number);
        out.extend_from_slice(b"\"}");
    }
}

fn write_double(out: &mut Vec<u8>, number: f64) {
    if number.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(number).as_bytes());
        return;
    }
    let word = match number {
        number if number.is_nan() => "NaN",
        number if number > 0.0 => "Infinity",
        _ => "-Infinity",
    };
    out.extend_from_slice(b"{\"$double\":\"");
    out.extend_from_slice(word.as_bytes());
    out.extend_from_slice(b"\"}");
}

fn write_tagged_number(out: &mut Vec<u8>, tag: &[u8], number: i64) {
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(tag);
    out.extend_from_slice(b"\":");
    write_number(out, number);
    out.push(b'}');
}

/// Write an integer in decimal.
pub fn write_number(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    write_unsigned(out, number.unsigned_abs());
}

/// Write an unsigned integer in decimal.
pub fn write_unsigned(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Write a JSON string, escaped for JSON and for storage. The text must be UTF-8; the other decoder
/// repairs what is not.
#[inline]
pub fn write_string(out: &mut Vec<u8>, text: &[u8]) -> Maybe<()> {
    out.push(b'"');
    if is_plain_ascii(text) {
        out.extend_from_slice(text);
    } else {
        std::str::from_utf8(text).ok()?;
        write_escaped(out, text);
    }
    out.push(b'"');
    Some(())
}

/// Whether it is ASCII without anything that JSON or storage would escape; most text is.
#[inline]
pub fn is_plain_ascii(text: &[u8]) -> bool {
    let Some((last, _)) = text.split_last_chunk::<8>().map(|(rest, last)| (last, rest)) else {
        return !text.iter().any(|&byte| !(0x20..0x80).contains(&byte) || byte == b'"' || byte == b'\\');
    };
    let words = text.chunks_exact(8).filter_map(|chunk| chunk.first_chunk::<8>());
    // The last eight bytes may have been looked at before: that costs less than one by one.
    words.chain([last]).fold(0, |found, word| found | not_plain(u64::from_le_bytes(*word))) == 0
}

/// A word that is 0 if all eight bytes are plain: in each byte the highest bit says what it is not.
/// Source: Hacker's Delight, 6-1, "Find First 0-Byte".
#[inline]
fn not_plain(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let below_space = word.wrapping_sub(ONES * 0x20);
    // A borrow can only come from a byte that is found itself.
    (word | below_space | quote.wrapping_sub(ONES) | backslash.wrapping_sub(ONES)) & HIGH
}

fn write_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut written = 0;
    for (place, &byte) in text.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' && byte != MARK[0] {
            continue;
        }
        out.extend_from_slice(&text[written..place]);
        written = place + 1;
        match byte {
            0 => write_stored_zero(out),
            _ => {
                if text[place..].starts_with(MARK) {
                    out.extend_from_slice(MARK);
                }
                write_json_byte(out, byte);
            }
        }
    }
    out.extend_from_slice(&text[written..]);
}

/// Write a JSON string of text that is escaped for storage already.
pub fn write_stored_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    text.bytes().for_each(|byte| write_json_byte(out, byte));
    out.push(b'"');
}

#[inline]
fn write_json_byte(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        0x08 => out.extend_from_slice(b"\\b"),
        b'\t' => out.extend_from_slice(b"\\t"),
        b'\n' => out.extend_from_slice(b"\\n"),
        0x0c => out.extend_from_slice(b"\\f"),
        b'\r' => out.extend_from_slice(b"\\r"),
        0..0x20 => {
            out.extend_from_slice(b"\\u00");
            write_hex(out, &[byte]);
        }
        _ => out.push(byte),
    }
}

/// Write text as a text column holds it. It must be UTF-8, as for `write_string`.
#[inline]
pub fn write_stored(out: &mut Vec<u8>, bytes: &[u8]) -> Maybe<()> {
    if is_plain_ascii(bytes) {
        out.extend_from_slice(bytes);
        return Some(());
    }
    std::str::from_utf8(bytes).ok()?;
    for (place, &byte) in bytes.iter().enumerate() {
        if byte == 0 {
            write_stored_zero(out);
        } else {
            if bytes[place..].starts_with(MARK) {
                out.extend_from_slice(MARK);
            }
            out.push(byte);
        }
    }
    Some(())
}

fn write_stored_zero(out: &mut Vec<u8>) {
    out.extend_from_slice(MARK);
    out.push(b'0');
}

/// Write bytes as lowercase hex.
pub fn write_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// Standard alphabet, padded (RFC 4648, section 4).
fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let mut group = [0u8; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            out.push(if place <= chunk.len() { DIGITS[(bits >> (18 - 6 * place)) as usize & 63] } else { b'=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_escaped_for_json_and_for_storage() {
        let text = "a\"\\\u{8}\t\n\u{c}\r\u{1}\u{1f}\0\u{2400}\u{2401}é/\u{7f}";
        let wanted = "\"a\\\"\\\\\\b\\t\\n\\f\\r\\u0001\\u001f\u{2400}0\u{2400}\u{2400}\u{2401}é/\u{7f}\"";
        assert_eq!(written(|out| write_string(out, text.as_bytes()).unwrap()), wanted);
    }

    #[test]
    fn text_that_is_not_utf_8_is_left_alone() {
        assert!(write_string(&mut Vec::new(), b"eight or more \xff").is_none());
        assert!(write_stored(&mut Vec::new(), b"\xc3").is_none());
    }

    #[test]
    fn what_must_be_escaped_is_found_wherever_it_stands() {
        for length in 0..20 {
            let plain: Vec<u8> = (0..length).map(|place| b" !#[]~\x7fz"[place % 8]).collect();
            assert!(is_plain_ascii(&plain), "{plain:?}");
            for (place, odd) in (0..length).flat_map(|place| [0, 0x1f, b'"', b'\\', 0x80, 0xff].map(|odd| (place, odd)))
            {
                let mut text = plain.clone();
                text[place] = odd;
                assert!(!is_plain_ascii(&text), "{text:?}");
            }
        }
    }

    #[test]
    fn base64_is_padded() {
        for (given, wanted) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(written(|out| write_base64(out, given.as_bytes())), wanted);
        }
    }

    #[test]
    fn integers_have_no_digit_too_many() {
        for number in [0, 1, -1, 9, 10, MAX_PLAIN_INT, -MAX_PLAIN_INT] {
            assert_eq!(written(|out| write_int(out, number)), number.to_string());
        }
        assert_eq!(written(|out| write_int(out, i64::MIN)), "{\"$int\":\"-9223372036854775808\"}");
    }

    #[test]
    fn doubles_that_json_cannot_say_are_tagged() {
        assert_eq!(written(|out| write_double(out, f64::NAN)), "{\"$double\":\"NaN\"}");
        assert_eq!(written(|out| write_double(out, f64::NEG_INFINITY)), "{\"$double\":\"-Infinity\"}");
        assert_eq!(written(|out| write_double(out, -0.0)), "-0.0");
    }
}
