//! The mask of client frames: an exclusive or with four bytes, over and over.

/// Masks or unmasks `bytes`, which are one operation, starting with the first byte of `mask`.
///
/// Sixteen bytes at a time, without a branch or a bound check inside, which the compiler turns into vector code.
pub(super) fn apply(bytes: &mut [u8], mask: [u8; 4]) {
    let wide = u128::from_ne_bytes(std::array::from_fn(|at| mask[at % 4]));
    let (chunks, rest) = bytes.as_chunks_mut::<16>();
    for chunk in chunks {
        *chunk = (u128::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    // Sixteen is a multiple of four, so the rest starts with the first byte of the mask again.
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// The mask as it goes on after `bytes` bytes.
pub(super) fn advance(mut mask: [u8; 4], bytes: usize) -> [u8; 4] {
    mask.rotate_left(bytes % 4);
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition in RFC 6455, 5.3, word for word.
    fn as_the_rfc_says(bytes: &[u8], mask: [u8; 4]) -> Vec<u8> {
        bytes.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect()
    }

    #[test]
    fn any_length_any_alignment_and_any_cut_agree_with_the_rfc() {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let bytes: Vec<u8> = (0..100).map(|at: u8| at.wrapping_mul(7)).collect();
        for start in 0..20 {
            for end in start..bytes.len() {
                let expected = as_the_rfc_says(&bytes[start..end], mask);
                for cut in [0, 1, 2, 3, 5, 16, 17].into_iter().filter(|cut| *cut <= end - start) {
                    let mut cut_bytes = bytes.clone();
                    let (head, tail) = cut_bytes[start..end].split_at_mut(cut);
                    apply(head, mask);
                    apply(tail, advance(mask, cut));
                    assert_eq!(cut_bytes[start..end], expected, "{start}..{end} cut at {cut}");
                }
            }
        }
    }
}
