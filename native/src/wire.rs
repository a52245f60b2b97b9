//! Protobuf's wire format, as far as a sender in its right mind uses it.
//!
//! `None` means "not for this decoder", which is also the answer for bytes that are malformed: the
//! caller then asks the other decoder, which decides. So nothing here has to agree with it about
//! what is an error, only about what is not.
//! Source: protobuf.dev, "Encoding".

/// A tag of a later version, a wrong type or a group: too rare to be read here.
pub type Maybe<T> = Option<T>;

/// The content of one field.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// int32, int64, uint32, bool, enum
    Varint(u64),
    /// fixed64, double
    Fixed64(u64),
    /// bytes, string, message
    Bytes(&'a [u8]),
    /// fixed32
    Fixed32(u32),
}

impl<'a> Value<'a> {
    /// The content of a field that must be length-delimited.
    #[inline]
    pub fn bytes(self) -> Maybe<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The content of a field that must be a varint.
    #[inline]
    pub fn varint(self) -> Maybe<u64> {
        match self {
            Value::Varint(number) => Some(number),
            _ => None,
        }
    }

    /// The content of a field that must have eight bytes.
    #[inline]
    pub fn fixed64(self) -> Maybe<u64> {
        match self {
            Value::Fixed64(number) => Some(number),
            _ => None,
        }
    }

    /// The content of a field that must have four bytes.
    #[inline]
    pub fn fixed32(self) -> Maybe<u32> {
        match self {
            Value::Fixed32(number) => Some(number),
            _ => None,
        }
    }
}

/// The fields of one message, in the order of the wire.
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Of a message's bytes.
    #[inline]
    pub fn of(message: &'a [u8]) -> Self {
        Fields { rest: message }
    }

    /// The number and content of the next field; `Some(None)` at the end.
    #[inline(always)]
    #[allow(clippy::type_complexity)]
    pub fn next(&mut self) -> Maybe<Option<(u32, Value<'a>)>> {
        if self.rest.is_empty() {
            return Some(None);
        }
        let tag = self.short_varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = self.short_varint()?;
                Value::Bytes(self.take(usize::try_from(length).ok()?)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        match tag >> 3 {
            0 => None,
            number => Some(Some((number, value))),
        }
    }

    #[inline(always)]
    fn take(&mut self, count: usize) -> Maybe<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    #[inline(always)]
    fn varint(&mut self) -> Maybe<u64> {
        let first = *self.rest.first()?;
        if first < 0x80 {
            self.rest = &self.rest[1..];
            return Some(u64::from(first));
        }
        self.long_varint()
    }

    /// A tag or a length, to which protobuf grants five bytes, however small the number in them.
    #[inline]
    fn short_varint(&mut self) -> Maybe<u32> {
        let before = self.rest.len();
        let number = self.varint()?;
        if before - self.rest.len() > 5 {
            return None;
        }
        u32::try_from(number).ok()
    }

    fn long_varint(&mut self) -> Maybe<u64> {
        let mut number = 0u64;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            if index == 9 && byte > 1 {
                return None;
            }
            number |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_of_ten_bytes_is_the_greatest_integer() {
        let message = [&[8u8][..], &[0xff; 9], &[1]].concat();
        let (number, value) = Fields::of(&message).next().unwrap().unwrap();
        assert_eq!((number, value.varint()), (1, Some(u64::MAX)));
    }

    #[test]
    fn what_is_cut_off_overlong_or_a_group_is_not_read() {
        for message in [
            &[8u8][..],
            &[8, 0x80],
            &[10, 5, 1],
            &[9, 1, 2, 3],
            &[13, 1],
            &[11],
            &[12],
            &[2, 0],
            &[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            &[0x88, 0x80, 0x80, 0x80, 0x80, 0, 1],
            &[10, 0x81, 0x80, 0x80, 0x80, 0x80, 0, 1],
        ] {
            assert!(Fields::of(message).next().is_none(), "{message:?}");
        }
    }
}
