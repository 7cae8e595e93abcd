//! Bit-sliced filters of up to 64 peers: one row per bit position, one column per peer.
//!
//! A key has the same eight bit positions in every filter of one size, so ANDing eight rows finds all claimants among
//! 64 peers: eight cache lines instead of one per peer. A bank holds the rows of one size; [`super::PeerFilters`]
//! assigns the columns, and writes every block of a column before it is switched on. After Faloutsos,
//! Christodoulakis: "Signature files", 1984.

use super::bloom::zeroes;
use super::key::FilterKey;
use super::size::{BLOCK_BITS, Block, Size, ones_of, positions};
use crate::base::prefetch::prefetch;
use std::fmt;

/// Columns of a bank: the bits of a row.
pub(super) const COLUMNS: usize = 64;

/// A column of a bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column(u8);

/// The bit-sliced filters of up to 64 peers.
pub(super) struct Bank {
    size: Size,
    rows: Vec<u64>,
    owners: [Option<FilterKey>; COLUMNS],
    /// Set bits of each column that is switched on or being written.
    ones: [u64; COLUMNS],
    /// Columns that are searched.
    live: u64,
}

impl Bank {
    /// Bytes of the rows of a bank of this size.
    pub(super) const fn bytes(size: Size) -> u64 {
        size.bits() * 8
    }

    /// An empty bank; `None` if there is no memory for it. O(1): memory is touched only as columns are written.
    pub(super) fn try_new(size: Size) -> Option<Self> {
        let rows = zeroes(size.blocks() * BLOCK_BITS)?;
        Some(Self { size, rows, owners: [None; COLUMNS], ones: [0; COLUMNS], live: 0 })
    }

    pub(super) const fn size(&self) -> Size {
        self.size
    }

    pub(super) fn columns_taken(&self) -> usize {
        self.owners.iter().flatten().count()
    }

    pub(super) const fn columns_live(&self) -> usize {
        self.live.count_ones() as usize
    }

    /// The columns that claim the hash, one bit per column.
    #[inline]
    fn claiming(&self, hash: u64) -> u64 {
        let first = self.size.block_of(hash) * BLOCK_BITS;
        let mut claims = self.live;
        // One bounds check instead of eight.
        let Some(block) = self.rows.get(first..first + BLOCK_BITS) else { return 0 };
        for (lane, position) in block.as_chunks::<64>().0.iter().zip(positions(hash)) {
            claims &= lane[position as usize & 63];
        }
        claims
    }

    /// Whether any column claims the hash. Eight cache lines.
    #[inline]
    pub(super) fn is_claimed(&self, hash: u64) -> bool {
        self.claiming(hash) != 0
    }

    /// Whether a column that is switched on claims the hash. Eight cache lines.
    pub(super) fn claims(&self, column: Column, hash: u64) -> bool {
        self.claiming(hash) >> column.0 & 1 == 1
    }

    /// Appends the owners of the columns that claim the hash. O(1) and eight cache lines, and O(claims).
    #[inline]
    pub(super) fn claimants(&self, hash: u64, out: &mut Vec<FilterKey>) {
        let mut claims = self.claiming(hash);
        while claims != 0 {
            out.extend(self.owners[claims.trailing_zeros() as usize]);
            claims &= claims - 1;
        }
    }

    /// Takes a free column for a peer; `None` if there is none. It is not searched before [`Bank::switch_on`]; its
    /// content is undefined until each of its blocks was written.
    pub(super) fn take(&mut self, owner: FilterKey) -> Option<Column> {
        let at = self.owners.iter().position(Option::is_none)?;
        self.owners[at] = Some(owner);
        self.ones[at] = 0;
        u8::try_from(at).ok().map(Column)
    }

    /// Begins to search a column, which has `ones` set bits.
    pub(super) const fn switch_on(&mut self, column: Column, ones: u64) {
        self.live |= 1 << column.0;
        self.ones[column.0 as usize] = ones;
    }

    /// Frees a column.
    pub(super) fn release(&mut self, column: Column) {
        self.live &= !(1 << column.0);
        self.owners[column.0 as usize] = None;
    }

    pub(super) const fn ones(&self, column: Column) -> u64 {
        self.ones[column.0 as usize]
    }

    /// Prefetches the rows of a hash.
    pub(super) fn fetch(&self, hash: u64) {
        let first = self.size.block_of(hash) * BLOCK_BITS;
        let Some(block) = self.rows.get(first..first + BLOCK_BITS) else { return };
        for (lane, position) in block.as_chunks::<64>().0.iter().zip(positions(hash)) {
            prefetch(&lane[position as usize & 63]);
        }
    }

    /// Adds a hash to a column.
    pub(super) fn insert(&mut self, column: Column, hash: u64) {
        let first = self.size.block_of(hash) * BLOCK_BITS;
        let Some(block) = self.rows.get_mut(first..first + BLOCK_BITS) else { return };
        let mut added = 0;
        for (lane, position) in block.as_chunks_mut::<64>().0.iter_mut().zip(positions(hash)) {
            let row = &mut lane[position as usize & 63];
            added += !(*row >> column.0) & 1;
            *row |= 1 << column.0;
        }
        self.ones[column.0 as usize] += added;
    }

    /// Overwrites a block of a column. Touches 4 KiB of rows.
    pub(super) fn write_block(&mut self, column: Column, number: usize, block: &Block) {
        let rows = self.rows.get_mut(number * BLOCK_BITS..(number + 1) * BLOCK_BITS);
        for (lane, rows) in block.iter().zip(rows.into_iter().flat_map(|rows| rows.chunks_exact_mut(64))) {
            for (position, row) in rows.iter_mut().enumerate() {
                *row = *row & !(1 << column.0) | (lane >> position & 1) << column.0;
            }
        }
    }

    /// A block of a column.
    pub(super) fn read_block(&self, column: Column, number: usize) -> Block {
        let rows = self.rows.get(number * BLOCK_BITS..(number + 1) * BLOCK_BITS);
        let mut block = Block::default();
        for (lane, rows) in block.iter_mut().zip(rows.into_iter().flat_map(|rows| rows.chunks_exact(64))) {
            *lane = rows.iter().rev().fold(0, |bits, row| bits << 1 | (row >> column.0 & 1));
        }
        block
    }

    /// Overwrites a block of a column that is switched on, and updates the count of its set bits.
    pub(super) fn replace_block(&mut self, column: Column, number: usize, block: &Block) {
        let old = ones_of(&self.read_block(column, number));
        self.write_block(column, number, block);
        let ones = &mut self.ones[column.0 as usize];
        *ones = ones.saturating_sub(old) + ones_of(block);
    }

    pub(super) fn into_words(self) -> Vec<u64> {
        self.rows
    }
}

impl fmt::Debug for Bank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bank")
            .field("size", &self.size)
            .field("columns", &self.columns_taken())
            .finish_non_exhaustive()
    }
}
