//! A gRPC codec that sends bytes which are encoded already, so that a repeat costs a copy.

use std::marker::PhantomData;

use bytes::{BufMut as _, Bytes};
use countersign_proto::codec::{BoundedCodec, BoundedDecoder};
use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};

/// Sends encoded messages, receives `R`.
pub(crate) struct EncodedCodec<R>(PhantomData<R>);

impl<R> Default for EncodedCodec<R> {
    fn default() -> EncodedCodec<R> {
        EncodedCodec(PhantomData)
    }
}

impl<R: Message + Name + Default + Send + 'static> Codec for EncodedCodec<R> {
    type Encode = Bytes;
    type Decode = R;
    type Encoder = Copy;
    type Decoder = BoundedDecoder<R>;

    fn encoder(&mut self) -> Copy {
        Copy
    }

    fn decoder(&mut self) -> BoundedDecoder<R> {
        BoundedCodec::<(), R>::default().decoder()
    }
}

/// Copies a message as it is.
pub(crate) struct Copy;

impl Encoder for Copy {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}
