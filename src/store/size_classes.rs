//! Size classes. Slots in pages: steps of 8 bytes up to 512, then of 12.5 %, each rounded up to the largest size with
//! the same number of slots per page; the largest classes, with four to seven slots per page, are up to 25 % apart.
//! Slots of large objects in slabs of 1 MiB: steps of 12.5 % from 16 to 128 KiB.
//!
//! Not here: pages, and the content of a slot.

use super::item::SLOT_BYTES_MAX;

/// Unit of handles and sizes.
pub(super) const GRANULE_BYTES: usize = 8;

/// Bytes of a page.
pub(super) const PAGE_BYTES: usize = 64 * 1024;

/// Granules of a page.
pub(super) const PAGE_GRANULES: u32 = 8 * 1024;

/// Bytes of a slab, which has slots of large objects.
pub(super) const SLAB_BYTES: usize = 1 << 20;

/// Bytes above which a large object has a map of its own.
pub(super) const LARGE_BYTES_MAX: usize = SLAB_BYTES / 8;

/// Number of classes, in pages and in slabs.
pub(super) const CLASSES: usize = PAGE_CLASSES + SLAB_CLASSES;

/// Number of classes in pages, which have the lowest numbers.
pub(super) const PAGE_CLASSES: usize = count_classes(2, SLOT_BYTES_MAX, PAGE_BYTES);

const SLAB_CLASSES: usize = count_classes(SLOT_BYTES_MAX / GRANULE_BYTES, LARGE_BYTES_MAX, SLAB_BYTES);

const EXACT_GRANULES_MAX: usize = 512 / GRANULE_BYTES;

/// Sizes of slots in pages, in granules, smallest first.
const SIZES: [u16; PAGE_CLASSES] = class_sizes(2, PAGE_BYTES);

/// Sizes of slots in slabs, in granules, smallest first.
const SLAB_SIZES: [u16; SLAB_CLASSES] = class_sizes(SLOT_BYTES_MAX / GRANULE_BYTES, SLAB_BYTES);

/// Slots per page, or slab, of each class.
const SLOTS: [u16; CLASSES] = {
    let mut slots = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        slots[class] = small(if class < PAGE_CLASSES {
            PAGE_BYTES / GRANULE_BYTES / SIZES[class] as usize
        } else {
            SLAB_BYTES / GRANULE_BYTES / SLAB_SIZES[class - PAGE_CLASSES] as usize
        });
        class += 1;
    }
    slots
};

/// Slots of a slab at most.
pub(super) const SLAB_SLOTS_MAX: usize = SLAB_BYTES / SLOT_BYTES_MAX;

const _: () = assert!(PAGE_GRANULES as usize * GRANULE_BYTES == PAGE_BYTES);
const _: () = assert!(CLASSES < 128 && SIZES[PAGE_CLASSES - 1] as usize * GRANULE_BYTES == SLOT_BYTES_MAX);
const _: () = assert!(SLAB_SIZES[SLAB_CLASSES - 1] as usize * GRANULE_BYTES == LARGE_BYTES_MAX);

/// The class in pages with the smallest slots of at least `bytes` bytes, at most [`SLOT_BYTES_MAX`].
#[inline]
pub(super) fn class_of(bytes: usize) -> u8 {
    let granules = bytes.div_ceil(GRANULE_BYTES).max(2);
    if granules <= EXACT_GRANULES_MAX {
        return (granules - 2).to_le_bytes()[0];
    }
    SIZES.partition_point(|&size| usize::from(size) < granules).to_le_bytes()[0]
}

/// The class in slabs with the smallest slots of at least `bytes` bytes; `None` if there is none.
pub(super) fn large_class_of(bytes: usize) -> Option<u8> {
    let granules = bytes.div_ceil(GRANULE_BYTES);
    let class = PAGE_CLASSES + SLAB_SIZES.partition_point(|&size| usize::from(size) < granules);
    (class < CLASSES).then_some(class.to_le_bytes()[0])
}

/// Granules of a slot of a class in pages; `None` if there is no such class.
#[inline]
pub(super) fn granules_of(class: u8) -> Option<u32> {
    SIZES.get(usize::from(class)).map(|&size| u32::from(size))
}

/// Bytes of a slot of a class.
pub(super) fn bytes_of(class: u8) -> usize {
    let class = usize::from(class);
    let granules = if class < PAGE_CLASSES { SIZES[class] } else { SLAB_SIZES[class - PAGE_CLASSES] };
    usize::from(granules) * GRANULE_BYTES
}

/// Slots of a page, or slab, of a class.
#[inline]
pub(super) fn slots_of(class: u8) -> u32 {
    u32::from(SLOTS[usize::from(class)])
}

/// The size after `granules`: one granule or 12.5 % more, rounded up to the largest size with the same number of
/// slots per page.
const fn next_size(granules: usize, page_bytes: usize) -> usize {
    if granules < EXACT_GRANULES_MAX {
        return granules + 1;
    }
    let wanted = granules + granules / 8;
    let page_granules = page_bytes / GRANULE_BYTES;
    page_granules / (page_granules / wanted)
}

/// Number of sizes from `first` granules up to `last_bytes`.
const fn count_classes(first: usize, last_bytes: usize, page_bytes: usize) -> usize {
    let (mut granules, mut classes) = (first, 1);
    while granules < last_bytes / GRANULE_BYTES {
        granules = next_size(granules, page_bytes);
        classes += 1;
    }
    classes
}

const fn class_sizes<const COUNT: usize>(first: usize, page_bytes: usize) -> [u16; COUNT] {
    let mut sizes = [0; COUNT];
    let (mut granules, mut class) = (first, 0);
    while class < COUNT {
        sizes[class] = small(granules);
        granules = next_size(granules, page_bytes);
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
    use super::{
        CLASSES, GRANULE_BYTES, LARGE_BYTES_MAX, PAGE_BYTES, PAGE_CLASSES, SIZES, SLAB_BYTES, SLOT_BYTES_MAX,
        bytes_of, class_of, large_class_of, slots_of,
    };

    #[test]
    fn slot_is_never_smaller_and_at_most_a_quarter_larger_than_needed() {
        let slot_bytes = |class: usize| usize::from(SIZES[class]) * GRANULE_BYTES;
        for bytes in 12..=SLOT_BYTES_MAX {
            let slot = slot_bytes(class_of(bytes).into());
            assert!(slot >= bytes && (slot <= bytes + 7 || slot * 4 <= bytes * 5 + 12), "{bytes}: {slot}");
            assert!(bytes > 512 || slot < bytes + 8);
        }
        for class in 0..PAGE_CLASSES {
            assert!(PAGE_BYTES % slot_bytes(class) < PAGE_BYTES / 100);
        }
    }

    #[test]
    fn block_in_a_slab_wastes_at_most_an_eighth_and_a_bit() {
        for bytes in SLOT_BYTES_MAX + 1..=LARGE_BYTES_MAX {
            let class = large_class_of(bytes).unwrap();
            assert!(usize::from(class) >= PAGE_CLASSES && usize::from(class) < CLASSES);
            let slot = bytes_of(class);
            assert!(slot >= bytes && slot * 100 <= bytes * 126, "{bytes}: {slot}");
            assert!(slots_of(class) as usize * slot <= SLAB_BYTES);
        }
        assert_eq!(large_class_of(LARGE_BYTES_MAX + 1), None);
    }
}
