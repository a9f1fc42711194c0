//! Half-precision numbers, as the file stores the matrices.

/// The nearest half-precision number, ties to even; too large becomes infinite.
#[must_use]
pub(super) fn to_f16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = bits & 0x7FFF_FFFF;
    // 65520 and up rounds past the largest half; not-a-number keeps a mantissa bit.
    if magnitude >= 0x477F_F000 {
        return sign | if magnitude > 0x7F80_0000 { 0x7E00 } else { 0x7C00 };
    }
    if magnitude < 0x3880_0000 {
        // Below 2^-14 the steps are 2^-24 apart: let the float unit do the rounding.
        let shifted = f32::from_bits(magnitude) + 0.5;
        return sign | (shifted.to_bits() - 0x3F00_0000) as u16;
    }
    let odd = (magnitude >> 13) & 1;
    let rounded = magnitude + 0xFFF + odd - 0x3800_0000;
    sign | (rounded >> 13) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_bits(bits: u16) -> f64 {
        let (exponent, mantissa) = (i32::from((bits >> 10) & 31), f64::from(bits & 1023));
        let size = if exponent == 0 {
            mantissa * 2f64.powi(-24)
        } else {
            (1024.0 + mantissa) * 2f64.powi(exponent - 25)
        };
        if bits & 0x8000 == 0 { size } else { -size }
    }

    #[test]
    fn every_finite_half_survives_and_neighbours_round_to_the_nearest() {
        for bits in (0..0x7C00u16).chain(0x8000..0xFC00) {
            assert_eq!(to_f16_bits(from_bits(bits) as f32), bits);
        }
        for bits in 0..0x7BFFu16 {
            let (low, high) = (from_bits(bits), from_bits(bits + 1));
            assert_eq!(to_f16_bits((low + 0.49 * (high - low)) as f32), bits);
            assert_eq!(to_f16_bits((low + 0.51 * (high - low)) as f32), bits + 1);
            let even = bits + (bits & 1);
            assert_eq!(to_f16_bits((low + 0.5 * (high - low)) as f32), even);
        }
        assert_eq!(to_f16_bits(1e6), 0x7C00);
    }
}
