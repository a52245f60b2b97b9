//! The values of a tuple of PostgreSQL's binary COPY: a length, then the content.
//! Source: PostgreSQL's documentation of COPY, "Binary Format".

use crate::wire::Maybe;

const NULL: i32 = -1;

/// NULL.
#[inline]
pub fn write_null(out: &mut Vec<u8>) {
    out.extend_from_slice(&NULL.to_be_bytes());
}

/// boolean
#[inline]
pub fn write_bool(out: &mut Vec<u8>, is_true: bool) {
    write_bytes(out, &[u8::from(is_true)]);
}

/// integer
#[inline]
pub fn write_i32(out: &mut Vec<u8>, number: i32) {
    write_bytes(out, &number.to_be_bytes());
}

/// bigint
#[inline]
pub fn write_i64(out: &mut Vec<u8>, number: i64) {
    write_bytes(out, &number.to_be_bytes());
}

/// double precision
#[inline]
pub fn write_f64(out: &mut Vec<u8>, number: f64) {
    write_bytes(out, &number.to_be_bytes());
}

/// bytea, or text that may be stored.
#[inline]
pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// A value of which the length is known afterwards.
#[inline]
pub fn write_sized(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Maybe<()>) -> Maybe<()> {
    let start = out.len();
    write_null(out);
    write(out)?;
    let length = i32::try_from(out.len() - start - 4).ok()?;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Some(())
}
