//! The sizes of slots: every 8 bytes up to 512, then steps of 12.5 %, each the largest size of which as
//! many fit into a page; the last few, of which a page holds four to seven, are up to 25 % apart.
//!
//! Not here: pages, and what lies in a slot.

use super::item::SLOT_BYTES_MAX;

/// What addresses and sizes are counted in.
pub(super) const GRANULE_BYTES: usize = 8;

/// Bytes of a page.
pub(super) const PAGE_BYTES: usize = 64 * 1024;

/// Granules of a page.
pub(super) const PAGE_GRANULES: u32 = 8 * 1024;

/// How many sizes there are; a class is the number of one.
pub(super) const CLASSES: usize = count_classes();

const EXACT_GRANULES_MAX: usize = 512 / GRANULE_BYTES;

/// Sizes of slots in granules, smallest first.
const SIZES: [u16; CLASSES] = class_sizes();

/// Slots of a page of each class.
const SLOTS: [u16; CLASSES] = {
    let mut slots = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        slots[class] = small(PAGE_GRANULES as usize / SIZES[class] as usize);
        class += 1;
    }
    slots
};

const _: () = assert!(PAGE_GRANULES as usize * GRANULE_BYTES == PAGE_BYTES);
const _: () = assert!(CLASSES < 128 && SIZES[CLASSES - 1] as usize * GRANULE_BYTES == SLOT_BYTES_MAX);

/// The class with the smallest slots of at least so many bytes, which are at most those of the largest.
#[inline]
pub(super) fn class_of(bytes: usize) -> u8 {
    let granules = bytes.div_ceil(GRANULE_BYTES).max(2);
    if granules <= EXACT_GRANULES_MAX {
        return (granules - 2).to_le_bytes()[0];
    }
    SIZES.partition_point(|&size| usize::from(size) < granules).to_le_bytes()[0]
}

/// Granules of a slot of that class; `None` if there is no such class.
#[inline]
pub(super) fn granules_of(class: u8) -> Option<u32> {
    SIZES.get(usize::from(class)).map(|&size| u32::from(size))
}

/// Bytes of a slot of that class.
pub(super) fn bytes_of(class: u8) -> usize {
    usize::from(SIZES[usize::from(class)]) * GRANULE_BYTES
}

/// Slots of a page of that class.
#[inline]
pub(super) fn slots_of(class: u8) -> u32 {
    u32::from(SLOTS[usize::from(class)])
}

/// The size after `granules`: one granule more, or 12.5 %, rounded up to the largest of which as many
/// fit into a page.
const fn next_size(granules: usize) -> usize {
    if granules < EXACT_GRANULES_MAX {
        return granules + 1;
    }
    let wanted = granules + granules / 8;
    let fit = PAGE_GRANULES as usize / wanted;
    PAGE_GRANULES as usize / fit
}

const fn count_classes() -> usize {
    let (mut granules, mut classes) = (2, 1);
    while granules < SLOT_BYTES_MAX / GRANULE_BYTES {
        granules = next_size(granules);
        classes += 1;
    }
    classes
}

const fn class_sizes() -> [u16; CLASSES] {
    let mut sizes = [0; CLASSES];
    let (mut granules, mut class) = (2, 0);
    while class < CLASSES {
        sizes[class] = small(granules);
        granules = next_size(granules);
        class += 1;
    }
    sizes
}

const fn small(number: usize) -> u16 {
    assert!(number < 1 << 16);
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    let small = number as u16;
    small
}

#[cfg(test)]
mod tests {
    use super::{CLASSES, GRANULE_BYTES, PAGE_BYTES, SIZES, SLOT_BYTES_MAX, class_of};

    #[test]
    fn slot_is_never_smaller_and_at_most_a_quarter_larger_than_asked() {
        let slot_bytes = |class: usize| usize::from(SIZES[class]) * GRANULE_BYTES;
        for bytes in 12..=SLOT_BYTES_MAX {
            let slot = slot_bytes(class_of(bytes).into());
            assert!(slot >= bytes && (slot <= bytes + 7 || slot * 4 <= bytes * 5 + 12), "{bytes}: {slot}");
            assert!(bytes > 512 || slot < bytes + 8);
        }
        for class in 0..CLASSES {
            assert!(PAGE_BYTES % slot_bytes(class) < PAGE_BYTES / 100);
        }
    }
}
