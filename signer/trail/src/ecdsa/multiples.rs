//! ECDSA P-256 verification for a key that checks many signatures.
//!
//! A check adds up a multiple of the generator G and one of the public key Q (SEC 1, 4.1.4). Here
//! the multiples of both points by every digit at every place of a scalar are computed beforehand, and
//! 66 additions are left of some 256 doublings and 100 additions: a fifth of the time. The additions
//! are the p256 crate's, which are complete: no pair of points is an exception. Each check also
//! divides twice, and many checks share their divisions (Montgomery's trick).
//!
//! Everything here is public, so nothing is constant-time.

use std::sync::LazyLock;

use p256::ecdsa::Signature;
use p256::elliptic_curve::ff::BatchInvert as _;
use p256::elliptic_curve::group::Group as _;
use p256::elliptic_curve::ops::Reduce;
use p256::elliptic_curve::point::AffineCoordinates as _;
use p256::elliptic_curve::{BatchNormalize, PrimeField as _};
use p256::{AffinePoint, FieldBytes, ProjectivePoint, Scalar};

use super::Digest;

/// Digits of a scalar to the base 256, each with a row of multiples: its 32 bytes and a carry.
const ROWS: usize = 33;
/// Digits run from -127 to 128, and a negative one is a subtraction.
const COLUMNS: usize = 128;

static OF_GENERATOR: LazyLock<Multiples> = LazyLock::new(|| Multiples::of(ProjectivePoint::GENERATOR));

/// The multiples of one point: row `i`, column `d - 1` is `d · 256^i` times the point. 33 × 128
/// points of 72 bytes: 304 KB.
pub(super) struct Multiples {
    points: Vec<AffinePoint>,
}

impl Multiples {
    /// Computes the multiples of a point: some 3 ms.
    pub(super) fn of(point: ProjectivePoint) -> Multiples {
        let mut points = Vec::with_capacity(ROWS * COLUMNS);
        let (mut row, mut base) = (Vec::with_capacity(COLUMNS), point);
        for _ in 0..ROWS {
            row.clear();
            row.push(base);
            for at in 1..COLUMNS {
                row.push(row[at - 1] + base);
            }
            // 256 times the base: the next row's.
            base = row[COLUMNS - 1].double();
            points.extend(normalize(&row));
        }
        Multiples { points }
    }

    /// Adds `scalar` times the point to `sum`.
    fn add_to(&self, sum: &mut ProjectivePoint, scalar: &Scalar) {
        let bytes = scalar.to_repr();
        let mut carry = 0;
        // Big-endian: the last byte belongs to the first row.
        for (row, byte) in self.points.chunks_exact(COLUMNS).zip(bytes.iter().rev().chain([&0])) {
            let digit = usize::from(*byte) + carry;
            carry = usize::from(digit > COLUMNS);
            let size = if carry == 1 { 2 * COLUMNS - digit } else { digit };
            match size.checked_sub(1).and_then(|column| row.get(column)) {
                Some(multiple) if carry == 1 => *sum -= *multiple,
                Some(multiple) => *sum += *multiple,
                None => {}
            }
        }
    }

    /// Whether each signature is one over its digest (SHA-256 of the message) by the key whose
    /// multiples these are (SEC 1, 4.1.4; FIPS 186-5, 6.4.2).
    pub(super) fn verify(&self, signed: &[(Digest, Signature)]) -> Vec<bool> {
        // r and s are in 1..n: the type holds nothing else.
        let mut inverses: Vec<Scalar> = signed.iter().map(|(_, signature)| *signature.split_scalars().1).collect();
        inverses.iter_mut().batch_invert();
        let sum = |((digest, signature), inverse): (&(Digest, Signature), &Scalar)| {
            let mut sum = ProjectivePoint::IDENTITY;
            OF_GENERATOR.add_to(&mut sum, &(reduce(&(*digest).into()) * inverse));
            self.add_to(&mut sum, &(*signature.split_scalars().0 * inverse));
            sum
        };
        let sums: Vec<ProjectivePoint> = signed.iter().zip(&inverses).map(sum).collect();
        let points = normalize(&sums);
        let holds = |(point, (_, signature)): (&AffinePoint, &(Digest, Signature))| {
            !bool::from(point.is_identity()) && reduce(&point.x()) == *signature.split_scalars().0
        };
        points.iter().zip(signed).map(holds).collect()
    }
}

/// Affine coordinates, with one division for all of them.
fn normalize(points: &[ProjectivePoint]) -> Vec<AffinePoint> {
    <ProjectivePoint as BatchNormalize<[ProjectivePoint]>>::batch_normalize(points)
}

/// The number of 32 big-endian bytes, modulo the group order.
fn reduce(bytes: &FieldBytes) -> Scalar {
    <Scalar as Reduce<FieldBytes>>::reduce(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
    use p256::ecdsa::{SigningKey, VerifyingKey};
    use proptest::prelude::*;

    fn secret() -> Scalar {
        reduce(&[7; 32].into())
    }

    static KEY: LazyLock<(VerifyingKey, Multiples)> = LazyLock::new(|| {
        let key = *SigningKey::from_slice(&secret().to_repr()).unwrap().verifying_key();
        (key, Multiples::of(ProjectivePoint::from(*key.as_affine())))
    });

    /// What both implementations say, which must be the same.
    fn holds(digest: [u8; 32], r: Scalar, s: Scalar) -> bool {
        let Ok(signature) = Signature::from_scalars(r.to_repr(), s.to_repr()) else { return false };
        let [ours] = KEY.1.verify(&[(digest, signature)])[..] else { panic!("one verdict") };
        assert_eq!(ours, KEY.0.verify_prehash(&digest, &signature).is_ok(), "{signature:?} over {digest:02x?}");
        ours
    }

    /// The signature with nonce `k`.
    fn sign(digest: [u8; 32], k: Scalar) -> (Scalar, Scalar) {
        let r = reduce(&(ProjectivePoint::GENERATOR * k).to_affine().x());
        let s = k.invert_vartime().unwrap() * (reduce(&digest.into()) + r * secret());
        (r, s)
    }

    #[test]
    fn every_digit_at_every_place_counts() {
        for row in 0..32 {
            // Up to half of the base digits are added; above it they are subtracted, with a carry.
            for digit in [1, 2, 127, 128, 129, 255] {
                let mut bytes = [0; 32];
                bytes[31 - row] = digit;
                multiplies(&reduce(&bytes.into()));
            }
        }
        // A carry through all rows, into the last.
        multiplies(&-Scalar::ONE);
        multiplies(&reduce(&[0x80; 32].into()));
        multiplies(&Scalar::ZERO);
    }

    /// Both tables give `scalar` times their point.
    fn multiplies(scalar: &Scalar) {
        for (multiples, point) in [(&*OF_GENERATOR, ProjectivePoint::GENERATOR), (&KEY.1, KEY.0.as_affine().into())] {
            let mut sum = ProjectivePoint::IDENTITY;
            multiples.add_to(&mut sum, scalar);
            assert_eq!(sum, point * scalar, "{scalar:?}");
        }
    }

    #[test]
    fn sums_that_meet_the_identity_or_a_doubling() {
        // u1·G + u2·Q is the identity where hash = -r·d: no signature, whatever s is.
        let r = sign([1; 32], Scalar::from(5u64)).0;
        let digest: [u8; 32] = (-(r * secret())).to_repr().into();
        assert!(!holds(digest, r, Scalar::from(3u64)));
        // A digest of 0 leaves the key's part alone, and one of r·d adds the same point twice.
        for digest in [[0; 32], (r * secret()).to_repr().into()] {
            let (r, s) = sign(digest, Scalar::from(5u64));
            assert!(holds(digest, r, s));
        }
        // A digest above the order is taken modulo the order.
        let (r, s) = sign([0xff; 32], Scalar::from(9u64));
        assert!(holds([0xff; 32], r, s));
    }

    #[test]
    fn verdicts_do_not_depend_on_each_other() {
        // Three that hold, and between them a sum that is the identity, which has no division.
        let of = |(digest, (r, s)): (Digest, (Scalar, Scalar))| {
            (digest, Signature::from_scalars(r.to_repr(), s.to_repr()).unwrap())
        };
        let good = |n: u8| of(([n; 32], sign([n; 32], Scalar::from(u64::from(n) + 5))));
        let r = sign([1; 32], Scalar::from(5u64)).0;
        let nothing = of(((-(r * secret())).to_repr().into(), (r, Scalar::from(3u64))));
        let other = ([9; 32], good(1).1);
        assert_eq!(KEY.1.verify(&[good(1), nothing, good(2), other, good(3)]), [true, false, true, false, true]);
        assert_eq!(KEY.1.verify(&[]), [false; 0]);
    }

    proptest! {
        #[test]
        fn agrees_with_the_p256_crate(digest in any::<[u8; 32]>(), k in any::<[u8; 32]>(), bit in 0_usize..256) {
            let k = reduce(&k.into());
            prop_assume!(k != Scalar::ZERO);
            let (r, s) = sign(digest, k);
            prop_assert!(holds(digest, r, s));
            prop_assert!(holds(digest, r, -s), "the other s holds too; the encoding refuses it");
            let mut other = digest;
            other[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!holds(other, r, s));
            prop_assert!(!holds(digest, r + Scalar::ONE, s));
            prop_assert!(!holds(digest, r, s + Scalar::ONE));
            prop_assert!(!holds(digest, s, r));
        }
    }
}
