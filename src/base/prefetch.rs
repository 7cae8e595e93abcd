//! Processor instructions without a safe function: prefetch of a cache line, and comparisons of 16 bytes. Each has a
//! plain form for other processors.
//!
//! A lookup in a store larger than the caches waits some 150 ns for memory. A load blocks the processor as soon as its
//! window is full; a prefetch does not, so that the cache misses of 16 keys overlap: 112 ns per key with loads, 53 with
//! prefetches (1 M items, `cargo bench --bench store -- get`).
//! Comparing the 12 tags of a bucket takes 6 instructions instead of some 30; to see whether 64 bytes need quotes takes
//! 90 instead of 200.
//!
//! Not here: when to prefetch.
#![expect(unsafe_code, reason = "each use has its argument beside it")]

/// Bytes of a cache line on common processors. A wrong value costs one prefetch, or too many.
pub const CACHE_LINE_BYTES: usize = 64;

/// Begins to fetch the cache line of `place` without waiting for it. No visible effect. Some 0.3 ns; up to a few dozen
/// can be in flight.
#[inline(always)]
pub fn prefetch<T>(place: &T) {
    prefetch_at(std::ptr::from_ref(place).cast());
}

/// Begins to fetch all cache lines of a value.
#[inline]
pub fn prefetch_value<T>(value: &T) {
    let begin = std::ptr::from_ref(value).cast::<u8>();
    for at in (0..size_of::<T>()).step_by(CACHE_LINE_BYTES) {
        prefetch_at(begin.wrapping_add(at));
    }
}

#[inline(always)]
fn prefetch_at(place: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction is a hint: it writes nothing, and faults at no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(place.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) place, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = place;
}

/// One bit per byte that equals `byte`; the bit of the first byte is the lowest.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn equal_bytes(bytes: &[u8; 16], byte: u8) -> u32 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};
    // SAFETY: every x86-64 processor has SSE2, and 16 bytes can be read at `bytes`; their alignment does
    // not matter to this load.
    unsafe {
        let line = _mm_loadu_si128(bytes.as_ptr().cast());
        _mm_movemask_epi8(_mm_cmpeq_epi8(line, _mm_set1_epi8(byte.cast_signed()))).cast_unsigned()
    }
}

/// Whether each byte is from `least` to `most` and none of `others`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn are_between<const N: usize>(bytes: &[u8; 16], least: u8, most: u8, others: [u8; N]) -> bool {
    use std::arch::x86_64::{
        _mm_andnot_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_max_epu8, _mm_min_epu8, _mm_movemask_epi8,
        _mm_set1_epi8,
    };
    // SAFETY: as for `equal_bytes`.
    unsafe {
        let all = |byte: u8| _mm_set1_epi8(byte.cast_signed());
        let line = _mm_loadu_si128(bytes.as_ptr().cast());
        let between = _mm_cmpeq_epi8(_mm_max_epu8(_mm_min_epu8(line, all(most)), all(least)), line);
        let right = others
            .into_iter()
            .fold(between, |right, other| _mm_andnot_si128(_mm_cmpeq_epi8(line, all(other)), right));
        _mm_movemask_epi8(right) == 0xFFFF
    }
}

/// Whether each byte is from `least` to `most` and none of `others`.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub fn are_between<const N: usize>(bytes: &[u8; 16], least: u8, most: u8, others: [u8; N]) -> bool {
    bytes.iter().all(|byte| (least..=most).contains(byte) && !others.contains(byte))
}

/// One bit per byte that equals `byte`; the bit of the first byte is the lowest.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub fn equal_bytes(bytes: &[u8; 16], byte: u8) -> u32 {
    plainly_equal_bytes(bytes, byte)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn plainly_equal_bytes(bytes: &[u8; 16], byte: u8) -> u32 {
    bytes.iter().rev().fold(0, |bits, &other| bits << 1 | u32::from(other == byte))
}

#[cfg(test)]
mod tests {
    use super::{equal_bytes, plainly_equal_bytes};
    use crate::base::rng::Rng;

    #[test]
    fn both_forms_find_the_same_bytes() {
        let mut rng = Rng::new(1);
        for _ in 0..1_000 {
            let mut bytes = [0; 17];
            rng.fill(&mut bytes);
            // Few values, so that there is something to find; and not only at even addresses.
            bytes.iter_mut().for_each(|byte| *byte |= 0xFC);
            for line in bytes.windows(16).filter_map(<[u8]>::first_chunk) {
                for byte in 0xFB..=0xFF {
                    assert_eq!(equal_bytes(line, byte), plainly_equal_bytes(line, byte));
                }
            }
        }
        assert_eq!(equal_bytes(&[7; 16], 7), 0xFFFF);
    }
}
