//! The codec of all services: Protobuf, with a bound on what a message becomes in memory.
//!
//! The length of a message does not bound that. An event without a field takes 2 bytes on the wire and
//! more than 2 KB decoded; so a message is read through before it is decoded, and refused when it has
//! too many elements for its length. An element is one field of a message, at any depth.

use std::marker::PhantomData;

use bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

/// Most elements of the outermost message: twice the most events, or answers, of one message.
pub const MAX_OUTER_ELEMENTS: usize = 8_192;
/// Most elements of a message of any length; one more for each [`BYTES_PER_ELEMENT`].
pub const MAX_ELEMENTS: usize = 65_536;
/// Bytes of a message that allow it one element more. Those of honest messages take some 16 bytes.
pub const BYTES_PER_ELEMENT: usize = 4;

/// What a field holds that is more than one element.
#[derive(Clone, Copy)]
enum Inner {
    /// A message, by its place in [`SHAPES`].
    Message(usize),
    /// Numbers as varints, one after the other: each 8 bytes decoded.
    Numbers,
}

/// A message's fields with more in them, by their numbers.
type Fields = &'static [(u32, Inner)];

// `static SHAPES: [(&str, Fields); N]`: every message, by its name within the package.
include!(concat!(env!("OUT_DIR"), "/shapes.rs"));

/// What tonic's own Protobuf codec does, within the bounds.
#[derive(Debug, Clone)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        BoundedCodec(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> BoundedDecoder<U> {
        BoundedDecoder(PhantomData)
    }
}

/// Decodes messages within the bounds.
#[derive(Debug, Clone)]
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Name + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // Tonic hands over whole messages, each one piece.
        if buffer.chunk().len() != buffer.remaining() {
            return Err(Status::internal("a message in more than one piece"));
        }
        check::<U>(buffer.chunk())?;
        U::decode(buffer).map(Some).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// Why a message is not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Unfit {
    #[error("the message is no Protobuf: {0}")]
    NotProtobuf(&'static str),
    #[error(
        "a message of {0} bytes with more than {MAX_OUTER_ELEMENTS} elements, or, at all depths, with more than {MAX_ELEMENTS} and one for each {BYTES_PER_ELEMENT} bytes"
    )]
    TooMany(usize),
}

/// Whether an encoded message of type `U` is within the bounds.
///
/// # Errors
/// OUT_OF_RANGE beyond them; INTERNAL for bytes that are no Protobuf.
pub fn check<U: Name>(bytes: &[u8]) -> Result<(), Status> {
    let outermost = SHAPES.iter().position(|(name, _)| *name == U::NAME);
    let mut reading = Reading { left: MAX_ELEMENTS + bytes.len() / BYTES_PER_ELEMENT, len: bytes.len() };
    let read = reading.message(bytes, outermost);
    let beyond = read.and_then(|outer| if outer <= MAX_OUTER_ELEMENTS { Ok(()) } else { Err(reading.too_many()) });
    beyond.map_err(|unfit| match unfit {
        Unfit::NotProtobuf(_) => Status::internal(unfit.to_string()),
        Unfit::TooMany(_) => Status::out_of_range(unfit.to_string()),
    })
}

/// A message being read through.
struct Reading {
    /// Elements that may still come.
    left: usize,
    /// Length of the whole message.
    len: usize,
}

impl Reading {
    fn too_many(&self) -> Unfit {
        Unfit::TooMany(self.len)
    }

    /// Counts the elements of a message and, against the bound, those in it; gives its own number. The
    /// depth is that of the definitions, in which no message holds itself.
    fn message(&mut self, mut bytes: &[u8], shape: Option<usize>) -> Result<usize, Unfit> {
        let fields = shape.and_then(|at| SHAPES.get(at)).map_or(&[][..], |(_, fields)| fields);
        let mut count = 0;
        while !bytes.is_empty() {
            self.left = self.left.checked_sub(1).ok_or(self.too_many())?;
            count += 1;
            let (field, wire_type) = decode_key(&mut bytes).map_err(|_| Unfit::NotProtobuf("a broken key"))?;
            let content = skip(wire_type, &mut bytes)?;
            let inner = fields.iter().find(|(number, _)| *number == field);
            match (content, inner) {
                (Some(content), Some((_, Inner::Message(place)))) => drop(self.message(content, Some(*place))?),
                (Some(content), Some((_, Inner::Numbers))) => {
                    let numbers = content.iter().filter(|byte| **byte < 0x80).count();
                    self.left = self.left.checked_sub(numbers).ok_or(self.too_many())?;
                }
                _ => {}
            }
        }
        Ok(count)
    }
}

/// Steps over a field's value; gives what is in it, where its length stands before it.
fn skip<'a>(wire_type: WireType, bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Unfit> {
    let mut varint = || decode_varint(bytes).map_err(|_| Unfit::NotProtobuf("a broken number"));
    let len = match wire_type {
        WireType::Varint => return varint().map(|_| None),
        WireType::ThirtyTwoBit => 4,
        WireType::SixtyFourBit => 8,
        WireType::LengthDelimited => varint()?,
        // No field of ours is one, and an unknown one is skipped by prost to any depth.
        WireType::StartGroup | WireType::EndGroup => return Err(Unfit::NotProtobuf("a group")),
    };
    let cut = usize::try_from(len).ok().and_then(|len| bytes.split_at_checked(len));
    let (content, rest) = cut.ok_or(Unfit::NotProtobuf("a value beyond the end"))?;
    *bytes = rest;
    Ok((wire_type == WireType::LengthDelimited).then_some(content))
}

#[cfg(test)]
mod tests;
