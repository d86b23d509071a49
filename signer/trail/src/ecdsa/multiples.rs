//! ECDSA P-256 verification for a key that checks many signatures.
//!
//! A check adds up a multiple of the generator G and one of the public key Q (SEC 1, 4.1.4). Here
//! the multiples of both points by every byte at every place of a scalar are computed beforehand, and
//! 64 additions are left of some 256 doublings and 100 additions: a fifth of the time. The additions
//! are the p256 crate's, which are complete: no pair of points is an exception.
//!
//! Everything here is public, so nothing is constant-time.

use std::sync::LazyLock;

use p256::ecdsa::Signature;
use p256::elliptic_curve::group::Group as _;
use p256::elliptic_curve::ops::Reduce;
use p256::elliptic_curve::point::AffineCoordinates as _;
use p256::elliptic_curve::{BatchNormalize as _, PrimeField as _};
use p256::{AffinePoint, FieldBytes, ProjectivePoint, Scalar};

/// Bytes of a scalar, each with a row of multiples.
const ROWS: usize = 32;
/// Values of a byte that are not 0.
const COLUMNS: usize = 255;

static OF_GENERATOR: LazyLock<Multiples> = LazyLock::new(|| Multiples::of(ProjectivePoint::GENERATOR));

/// The multiples of one point: row `i`, column `b - 1` is `b · 256^i` times the point. 32 × 255
/// points of 72 bytes: 590 KB.
pub(super) struct Multiples {
    points: Vec<AffinePoint>,
}

impl Multiples {
    /// Computes the multiples of a point: some 5 ms.
    pub(super) fn of(point: ProjectivePoint) -> Multiples {
        let mut points = Vec::with_capacity(ROWS * COLUMNS);
        let (mut row, mut base) = (Vec::with_capacity(COLUMNS), point);
        for _ in 0..ROWS {
            row.clear();
            let mut multiple = base;
            for _ in 0..COLUMNS {
                row.push(multiple);
                multiple += base;
            }
            // 256 times the base: the next row's.
            base = multiple;
            let affine: Vec<AffinePoint> = ProjectivePoint::batch_normalize(row.as_slice());
            points.extend(affine);
        }
        Multiples { points }
    }

    /// Adds `scalar` times the point to `sum`.
    fn add_to(&self, sum: &mut ProjectivePoint, scalar: &Scalar) {
        // Big-endian: the last byte belongs to the first row.
        for (row, byte) in self.points.chunks_exact(COLUMNS).zip(scalar.to_repr().iter().rev()) {
            if let Some(multiple) = usize::from(*byte).checked_sub(1).and_then(|column| row.get(column)) {
                *sum += *multiple;
            }
        }
    }

    /// Whether `signature` is one over `digest` (SHA-256 of the message) by the key whose multiples
    /// these are (SEC 1, 4.1.4; FIPS 186-5, 6.4.2).
    pub(super) fn verify(&self, digest: [u8; 32], signature: &Signature) -> bool {
        // Both are in 1..n: the type holds nothing else.
        let (r, s) = signature.split_scalars();
        let (r, s): (&Scalar, &Scalar) = (r.as_ref(), s.as_ref());
        let Some(inverse) = Option::<Scalar>::from(s.invert_vartime()) else { return false };
        let hash = reduce(&digest.into());
        let mut sum = ProjectivePoint::IDENTITY;
        OF_GENERATOR.add_to(&mut sum, &(hash * inverse));
        self.add_to(&mut sum, &(*r * inverse));
        !bool::from(sum.is_identity()) && reduce(&sum.to_affine().x()) == *r
    }
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
        let ours = KEY.1.verify(digest, &signature);
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
    fn every_row_and_column_is_its_multiple() {
        for (row, column) in [(0, 1), (0, 255), (1, 1), (17, 128), (31, 1), (31, 255)] {
            let mut bytes = [0; 32];
            bytes[31 - row] = column;
            let scalar = reduce(&bytes.into());
            for (multiples, point) in [(&*OF_GENERATOR, ProjectivePoint::GENERATOR), (&KEY.1, KEY.0.as_affine().into())]
            {
                let mut sum = ProjectivePoint::IDENTITY;
                multiples.add_to(&mut sum, &scalar);
                assert_eq!(sum, point * scalar, "row {row}, column {column}");
            }
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
