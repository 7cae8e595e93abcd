//! Keys and values that are too large for a slot, each pair in a block from the allocator.
//!
//! Not here: the header of such an item, which lies in a slot as every other.

use super::item::SLOT_BYTES_MAX;

/// Keys and values in blocks of their own; see the module.
#[derive(Debug, Default)]
pub(super) struct Outside {
    blocks: Vec<Block>,
    first_free: Option<u32>,
    used: usize,
    bytes: usize,
}

#[derive(Debug)]
enum Block {
    Used(Box<[u8]>),
    Free { next: Option<u32> },
}

impl Outside {
    /// Copies key and value into a block; its number.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) -> u32 {
        let mut bytes = Vec::with_capacity(key.len() + value.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        self.bytes += bytes.len();
        self.used += 1;
        let block = Block::Used(bytes.into());
        if let Some(at) = self.first_free
            && let Block::Free { next } = self.blocks[at as usize]
        {
            self.first_free = next;
            self.blocks[at as usize] = block;
            return at;
        }
        self.blocks.push(block);
        u32::try_from(self.blocks.len() - 1).unwrap_or_else(|_| panic!("2^32 blocks of over 16 KiB"))
    }

    /// Frees a block.
    pub(super) fn free(&mut self, at: u32) {
        let free = Block::Free { next: self.first_free };
        if let Block::Used(bytes) = std::mem::replace(&mut self.blocks[at as usize], free) {
            self.bytes -= bytes.len();
            self.used -= 1;
            self.first_free = Some(at);
        }
        if self.used == 0 {
            *self = Self::default();
        }
    }

    /// The bytes of a block in use.
    pub(super) fn bytes(&self, at: u32) -> &[u8] {
        match &self.blocks[at as usize] {
            Block::Used(bytes) => bytes,
            Block::Free { .. } => &[],
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes + self.blocks.capacity() * size_of::<Block>()
    }

    /// What [`Outside::memory_bytes`] grows by at most.
    pub(super) fn growth_bytes_max(&self, items: usize, bytes: usize) -> usize {
        let items = items.min(bytes / (SLOT_BYTES_MAX / 2));
        if items == 0 { 0 } else { bytes + (self.blocks.len() + 2 * items + 4) * size_of::<Block>() }
    }

    /// Frees one block, whatever means it; false when there is none left.
    pub(super) fn drop_step(&mut self) -> bool {
        let Some(block) = self.blocks.pop() else { return false };
        if let Block::Used(bytes) = block {
            self.bytes -= bytes.len();
        }
        true
    }

    /// Blocks in use, counted.
    pub(super) fn audit(&self) -> usize {
        let lens = self.blocks.iter().filter_map(|block| match block {
            Block::Used(bytes) => Some(bytes.len()),
            Block::Free { .. } => None,
        });
        assert_eq!((lens.clone().count(), lens.clone().sum()), (self.used, self.bytes), "outside blocks");
        self.used
    }
}
