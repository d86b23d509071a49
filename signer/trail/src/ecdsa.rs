//! The one place where the two encodings of an ECDSA P-256 signature meet.
//!
//! PKCS#11, COSE and JWS carry `r || s`, each 32 bytes big-endian. DSSE verifiers, X.509 and C2SP
//! carry `Ecdsa-Sig-Value` in DER (RFC 3279, 2.2.3: `SEQUENCE { r INTEGER, s INTEGER }`). The wire
//! form of this project is the DER with low S (`s <= n/2`), and exactly one byte string is accepted
//! for one pair `(r, s)`: minimal lengths, minimal integers, nothing after them. Without that rule
//! anyone could turn one valid signature into another one.
//!
//! All values here are public, so nothing is constant-time.

pub(crate) mod checker;
mod multiples;

/// SHA-256 of a message that is signed.
pub(crate) type Digest = [u8; 32];

/// Length in bytes of `r || s`.
pub const RAW_LEN: usize = 64;

/// Longest DER of a P-256 signature in bytes: SEQUENCE header 2, and twice an INTEGER header 2 and
/// 33 bytes (32 and a leading zero). A low S never needs its leading zero, so our own are at most
/// 71.
pub const DER_MAX_LEN: usize = 72;

/// The order `n` of P-256, big-endian (SP 800-186, 3.2.1.3).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// `(n - 1) / 2`, the largest low S.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xde, 0x73, 0x7d,
    0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];

/// DER tags of the two types in an `Ecdsa-Sig-Value`.
const TAG_SEQUENCE: u8 = 0x30;
const TAG_INTEGER: u8 = 0x02;

/// Why bytes are not an ECDSA P-256 signature of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EcdsaError {
    /// `r || s` has another length than 64 bytes.
    #[error("a raw ECDSA P-256 signature is 64 bytes (r || s), this one has {0}")]
    RawLength(usize),
    /// The DER is longer than any P-256 signature.
    #[error("a DER ECDSA P-256 signature is at most 72 bytes, this one has {0}")]
    DerTooLong(usize),
    /// The bytes are not the minimal DER of two positive integers; the text names the rule.
    #[error("an ECDSA signature is not minimal DER: {0}")]
    NotMinimalDer(&'static str),
    /// `r` or `s` is zero, or not below the group order.
    #[error("{0} of an ECDSA signature is outside 1..n of P-256")]
    OutOfRange(&'static str),
    /// `s` is above half the group order.
    #[error("an ECDSA signature has a high S; only the low one of the two is accepted")]
    HighS,
}

/// Turns `r || s` (64 bytes, as PKCS#11 returns it) into minimal DER with low S: `s` above `n/2`
/// becomes `n - s`, which is valid for the same message and key.
///
/// # Errors
/// Another length than 64, and `r` or `s` outside `1..n`.
pub fn raw_to_der_low_s(raw: &[u8]) -> Result<Vec<u8>, EcdsaError> {
    let (r, s) = split(raw)?;
    let s = if s > HALF_ORDER { negate(&s) } else { s };
    let mut der = Vec::with_capacity(DER_MAX_LEN);
    der.extend_from_slice(&[TAG_SEQUENCE, 0]);
    push_integer(&mut der, &r);
    push_integer(&mut der, &s);
    // At most 70, so the short form of a length always fits.
    der[1] = (der.len() - 2) as u8;
    Ok(der)
}

/// Turns minimal DER with low S into `r || s` (64 bytes).
///
/// # Errors
/// Everything but the one encoding that [`raw_to_der_low_s`] makes: long-form lengths, padded or
/// negative integers, trailing bytes, `r` or `s` outside `1..n`, a high S.
pub fn der_to_raw(der: &[u8]) -> Result<[u8; RAW_LEN], EcdsaError> {
    if der.len() > DER_MAX_LEN {
        return Err(EcdsaError::DerTooLong(der.len()));
    }
    let (body, rest) = take_value(der, TAG_SEQUENCE)?;
    if !rest.is_empty() {
        return Err(EcdsaError::NotMinimalDer("bytes follow the sequence"));
    }
    let (r, rest) = take_value(body, TAG_INTEGER)?;
    let (s, rest) = take_value(rest, TAG_INTEGER)?;
    if !rest.is_empty() {
        return Err(EcdsaError::NotMinimalDer("bytes follow the second integer"));
    }
    let (r, s) = (integer(r, "r")?, integer(s, "s")?);
    if s > HALF_ORDER {
        return Err(EcdsaError::HighS);
    }
    let mut raw = [0; RAW_LEN];
    raw[..32].copy_from_slice(&r);
    raw[32..].copy_from_slice(&s);
    Ok(raw)
}

fn split(raw: &[u8]) -> Result<([u8; 32], [u8; 32]), EcdsaError> {
    let wrong = EcdsaError::RawLength(raw.len());
    let (r, s) = raw.split_at_checked(32).ok_or(wrong)?;
    let r = in_range(r.try_into().map_err(|_| wrong)?, "r")?;
    let s = in_range(s.try_into().map_err(|_| wrong)?, "s")?;
    Ok((r, s))
}

/// Big-endian arrays of one length compare as the numbers that they are.
fn in_range(value: [u8; 32], name: &'static str) -> Result<[u8; 32], EcdsaError> {
    if value == [0; 32] || value >= ORDER {
        return Err(EcdsaError::OutOfRange(name));
    }
    Ok(value)
}

/// `n - s` for `s` in `1..n`.
fn negate(s: &[u8; 32]) -> [u8; 32] {
    let mut difference = [0; 32];
    let mut borrow = false;
    for i in (0..32).rev() {
        let (d, under) = ORDER[i].overflowing_sub(s[i]);
        let (d, under_again) = d.overflowing_sub(u8::from(borrow));
        difference[i] = d;
        borrow = under || under_again;
    }
    difference
}

/// Appends the minimal INTEGER of a number that is not zero.
fn push_integer(der: &mut Vec<u8>, value: &[u8; 32]) {
    let zeros = value.iter().take_while(|b| **b == 0).count().min(31);
    let digits = &value[zeros..];
    let padded = digits[0] >= 0x80;
    // At most 33.
    let len = digits.len() + usize::from(padded);
    der.extend_from_slice(&[TAG_INTEGER, len as u8]);
    if padded {
        der.push(0);
    }
    der.extend_from_slice(digits);
}

/// Splits off one value: its content, and what follows it.
fn take_value(bytes: &[u8], tag: u8) -> Result<(&[u8], &[u8]), EcdsaError> {
    let [found, len, rest @ ..] = bytes else {
        return Err(EcdsaError::NotMinimalDer("it ends within a header"));
    };
    if *found != tag {
        return Err(EcdsaError::NotMinimalDer("a tag is not that of a signature"));
    }
    // Everything here is shorter than 128 bytes, so the long form is never minimal.
    if *len >= 0x80 {
        return Err(EcdsaError::NotMinimalDer("a length is in the long form"));
    }
    rest.split_at_checked(usize::from(*len)).ok_or(EcdsaError::NotMinimalDer("it ends within a value"))
}

fn integer(content: &[u8], name: &'static str) -> Result<[u8; 32], EcdsaError> {
    let digits = match content {
        [] => return Err(EcdsaError::NotMinimalDer("an integer is empty")),
        [0x80..=0xff, ..] => return Err(EcdsaError::NotMinimalDer("an integer is negative")),
        [0] => return Err(EcdsaError::OutOfRange(name)),
        [0, 0..=0x7f, ..] => {
            return Err(EcdsaError::NotMinimalDer("an integer has a leading zero too many"));
        }
        [0, digits @ ..] => digits,
        digits => digits,
    };
    let start = 32_usize.checked_sub(digits.len()).ok_or(EcdsaError::OutOfRange(name))?;
    let mut value = [0; 32];
    value[start..].copy_from_slice(digits);
    in_range(value, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use p256::ecdsa::Signature;
    use proptest::prelude::*;

    fn raw(r: [u8; 32], s: [u8; 32]) -> [u8; 64] {
        let mut raw = [0; 64];
        raw[..32].copy_from_slice(&r);
        raw[32..].copy_from_slice(&s);
        raw
    }

    fn small(value: u8) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[31] = value;
        bytes
    }

    #[test]
    fn half_order_is_half_of_the_order() {
        // 2 * half + 1 = n, hence n - half = half + 1.
        let mut successor = HALF_ORDER;
        successor[31] += 1;
        assert_eq!(negate(&HALF_ORDER), successor);
        assert_eq!(negate(&successor), HALF_ORDER);
    }

    #[test]
    fn boundaries_of_s() {
        let low = raw(small(1), HALF_ORDER);
        assert_eq!(der_to_raw(&raw_to_der_low_s(&low).unwrap()).unwrap(), low);
        let mut high = low;
        high[63] += 1;
        assert_eq!(raw_to_der_low_s(&high).unwrap(), raw_to_der_low_s(&low).unwrap());
        let high = Signature::from_slice(&high).unwrap().to_der();
        assert_eq!(der_to_raw(high.as_bytes()), Err(EcdsaError::HighS));
    }

    #[test]
    fn range_of_both_components() {
        for bad in [[0; 32], ORDER, [0xff; 32]] {
            assert_eq!(raw_to_der_low_s(&raw(bad, small(1))), Err(EcdsaError::OutOfRange("r")));
            assert_eq!(raw_to_der_low_s(&raw(small(1), bad)), Err(EcdsaError::OutOfRange("s")));
        }
        for len in [0, 1, 32, 63, 65, 128] {
            assert_eq!(raw_to_der_low_s(&vec![1; len]), Err(EcdsaError::RawLength(len)));
        }
    }

    #[test]
    fn other_encodings_of_one_signature_are_refused() {
        assert_eq!(der_to_raw(&[0x30, 6, 2, 1, 1, 2, 1, 1]).unwrap(), raw(small(1), small(1)));
        let refused: [(&[u8], EcdsaError); 12] = [
            (&[], EcdsaError::NotMinimalDer("it ends within a header")),
            (&[0x31, 6, 2, 1, 1, 2, 1, 1], EcdsaError::NotMinimalDer("a tag is not that of a signature")),
            (&[0x30, 0x81, 6, 2, 1, 1, 2, 1, 1], EcdsaError::NotMinimalDer("a length is in the long form")),
            (&[0x30, 0x80, 2, 1, 1, 2, 1, 1, 0, 0], EcdsaError::NotMinimalDer("a length is in the long form")),
            (&[0x30, 6, 2, 1, 1, 2, 1, 1, 0], EcdsaError::NotMinimalDer("bytes follow the sequence")),
            (&[0x30, 7, 2, 1, 1, 2, 1, 1, 0], EcdsaError::NotMinimalDer("bytes follow the second integer")),
            (&[0x30, 7, 2, 2, 0, 1, 2, 1, 1], EcdsaError::NotMinimalDer("an integer has a leading zero too many")),
            (&[0x30, 6, 2, 1, 0x80, 2, 1, 1], EcdsaError::NotMinimalDer("an integer is negative")),
            (&[0x30, 5, 2, 0, 2, 1, 1], EcdsaError::NotMinimalDer("an integer is empty")),
            (&[0x30, 6, 2, 1, 0, 2, 1, 1], EcdsaError::OutOfRange("r")),
            (&[0x30, 6, 2, 1, 1, 2, 1, 0], EcdsaError::OutOfRange("s")),
            (&[0x30, 7, 2, 1, 1, 2, 1, 1], EcdsaError::NotMinimalDer("it ends within a value")),
        ];
        for (der, error) in refused {
            assert_eq!(der_to_raw(der), Err(error), "{der:02x?}");
        }
        assert_eq!(der_to_raw(&[0x30; 73]), Err(EcdsaError::DerTooLong(73)));
        let mut long = vec![0x30, 38, 2, 33];
        long.extend([0x7f; 33]);
        long.extend([2, 1, 1]);
        long[1] = (long.len() - 2) as u8;
        assert_eq!(der_to_raw(&long), Err(EcdsaError::OutOfRange("r")));
    }

    /// Numbers of every length, so that leading zeros and pad bytes occur often.
    fn scalar() -> impl Strategy<Value = [u8; 32]> {
        (any::<[u8; 32]>(), 0_usize..32).prop_map(|(mut bytes, zeros)| {
            bytes[..zeros].fill(0);
            bytes
        })
    }

    proptest! {
        /// The p256 crate's DER is another implementation of the same clause.
        #[test]
        fn agrees_with_another_der(r in scalar(), s in scalar()) {
            let raw = raw(r, s);
            let theirs = Signature::from_slice(&raw);
            let ours = raw_to_der_low_s(&raw);
            prop_assert_eq!(theirs.is_ok(), ours.is_ok());
            if let (Ok(theirs), Ok(ours)) = (theirs, ours) {
                let low = theirs.normalize_s();
                let der = low.to_der();
                prop_assert_eq!(der.as_bytes(), &ours[..]);
                prop_assert_eq!(&der_to_raw(&ours).unwrap()[..], &low.to_bytes()[..]);
                if low != theirs {
                    prop_assert_eq!(der_to_raw(theirs.to_der().as_bytes()), Err(EcdsaError::HighS));
                }
            }
        }

        #[test]
        fn whatever_is_accepted_is_the_canonical_encoding(
            r in scalar(), s in scalar(), at in 0_usize..72, flip in 1_u8..=255,
        ) {
            if let Ok(mut der) = raw_to_der_low_s(&raw(r, s)) {
                let at = at % der.len();
                der[at] ^= flip;
                if let Ok(raw) = der_to_raw(&der) {
                    prop_assert_eq!(raw_to_der_low_s(&raw).unwrap(), der);
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = der_to_raw(&bytes);
            let _ = raw_to_der_low_s(&bytes);
        }
    }
}
