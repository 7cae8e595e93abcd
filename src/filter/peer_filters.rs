//! The filters of all peers, and which of them claim a key.
//!
//! A peer's filter is separate, or a column of a bank if more than [`SEPARATE_MAX`] filters of its size are known;
//! callers do not see which. Large work is done in steps: a snapshot is written beside the known filter and then
//! replaces it; a filter that moves into a column is searched at its old place until the column is complete.
//!
//! A peer whose filter is unknown, or may lack keys, is listed by [`PeerFilters::unknown`]: it may hold any key. All
//! filters together have a budget; a filter above it is refused and stays unknown. Not here: positions in changelogs
//! ([`super::receiver`]).

use super::bit_sliced::{Bank, Column};
use super::bloom::Bloom;
use super::deferred_free::DeferredFree;
use super::key::{FilterKey, FilterTag};
use super::rate::false_positive_rate_at_fill;
use super::size::{BLOCK_WORDS, Block, Size};
use crate::base::slots::Slots;
use slab::Slab;
use std::collections::VecDeque;
use std::{fmt, mem};

/// Filters of one size above which they become columns of a bank. With fewer, a bank of 64 columns wastes memory and is
/// not faster.
pub const SEPARATE_MAX: usize = 8;

/// The highest fill of an accepted filter. Above, it has false-positive rates of 5.8 % and more.
pub const FILL_MAX: f64 = 0.7;

/// Blocks copied into a column per step: 256 KiB of rows, tens of µs.
const COLUMN_BLOCKS_PER_STEP: usize = 64;

/// An error about a peer's filter. Nothing was changed unless the variant states that the filter is dropped, which
/// makes it unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterError {
    /// The key is stale.
    Stale,
    /// A change of an unknown filter.
    NotKnown,
    /// The filter has no such block.
    NoSuchBlock,
    /// The filter exceeds the budget of all peers' filters, or the memory of the system. It is dropped.
    OverBudget,
    /// More than 70 % of its bits are set. The filter is dropped.
    Overfull,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stale => "no such peer",
            Self::NotKnown => "a change of an unknown filter",
            Self::NoSuchBlock => "a block beyond the filter",
            Self::OverBudget => "the filter does not fit into peer_filters_max",
            Self::Overfull => "more than 70 % of the filter's bits are set",
        })
    }
}

/// The memory of a filter.
#[derive(Debug)]
enum Home {
    Unknown,
    Separate(Bloom),
    Sliced(Place),
}

#[derive(Debug, Clone, Copy)]
struct Place {
    bank: usize,
    column: Column,
}

#[derive(Debug)]
struct Peer {
    home: Home,
    /// The column that a separate filter is being copied into, and the next block.
    copying: Option<(Place, usize)>,
    /// The incomplete snapshot.
    incoming: Option<Bloom>,
    /// The peer is in `work`.
    is_queued: bool,
}

/// The filters of all peers.
#[derive(Debug)]
pub struct PeerFilters {
    peers: Slots<FilterTag, Peer>,
    /// Peers whose filter is separate.
    separate: Vec<FilterKey>,
    /// Peers whose filter is unknown or may lack keys.
    unknown: Vec<FilterKey>,
    banks: Slab<Bank>,
    /// Peers whose filter is being copied.
    work: VecDeque<FilterKey>,
    freed: DeferredFree,
    bytes: u64,
    bytes_max: u64,
}

impl PeerFilters {
    /// No filters, with a budget of `bytes_max` bytes.
    pub const fn new(bytes_max: u64) -> Self {
        Self {
            peers: Slots::new(),
            separate: Vec::new(),
            unknown: Vec::new(),
            banks: Slab::new(),
            work: VecDeque::new(),
            freed: DeferredFree::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Changes the budget. Filters above a lower budget stay.
    pub const fn set_bytes_max(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// Adds a peer, whose filter is unknown.
    pub fn join(&mut self) -> FilterKey {
        let peer = Peer { home: Home::Unknown, copying: None, incoming: None, is_queued: false };
        let key = self.peers.insert(peer);
        self.unknown.push(key);
        key
    }

    /// Removes a peer.
    pub fn leave(&mut self, key: FilterKey) {
        self.forget(key);
        self.unknown.retain(|other| *other != key);
        self.peers.remove(key);
    }

    /// Drops a peer's filter, which makes it unknown.
    pub fn forget(&mut self, key: FilterKey) {
        self.drop_snapshot(key);
        self.drop_home(key);
        self.mark_outdated(key);
    }

    /// Drops an incomplete snapshot, and frees its memory in steps. The known filter stays.
    pub fn drop_snapshot(&mut self, key: FilterKey) {
        if let Some(filter) = self.peers.get_mut(key).and_then(|peer| peer.incoming.take()) {
            self.dispose(filter);
        }
    }

    /// Bytes held by the filters and by the deferred free.
    pub const fn bytes(&self) -> u64 {
        self.bytes + self.freed.bytes()
    }

    /// Appends the claimants of a hash: the peers whose filter contains it. A few cache lines per 64 filters of one
    /// size.
    #[inline]
    pub fn claimants(&self, hash: u64, out: &mut Vec<FilterKey>) {
        let filter = |key: &FilterKey| match self.peers.get(*key) {
            Some(Peer { home: Home::Separate(filter), .. }) => Some(filter),
            Some(_) | None => None,
        };
        for keys in self.separate.chunks(64) {
            // No branch depends on the loads, so that they overlap.
            let mut candidates = 0u64;
            for (at, filter) in keys.iter().map(filter).enumerate() {
                let claims = filter.is_some_and(|filter| filter.first_lane_contains(hash));
                candidates |= u64::from(claims) << at;
            }
            while candidates != 0 {
                let key = keys[candidates.trailing_zeros() as usize];
                if filter(&key).is_some_and(|filter| filter.contains(hash)) {
                    out.push(key);
                }
                candidates &= candidates - 1;
            }
        }
        for (_, bank) in &self.banks {
            bank.claimants(hash, out);
        }
    }

    /// The hashes, of at most 64, that any peer's filter claims: one bit per hash, in order. Tests all hashes filter by
    /// filter, so that the cache misses of many hashes overlap.
    pub fn claimed(&self, hashes: &[u64]) -> u64 {
        let mut claimed = 0;
        for key in &self.separate {
            let Some(Peer { home: Home::Separate(filter), .. }) = self.peers.get(*key) else { continue };
            // No branch depends on the loads.
            let lanes = hashes.iter().rev().map(|hash| filter.first_lane_contains(*hash));
            let mut candidates = lanes.fold(0, |bits, is_set| bits << 1 | u64::from(is_set)) & !claimed;
            while candidates != 0 {
                let at = candidates.trailing_zeros();
                claimed |= u64::from(filter.contains(hashes[at as usize])) << at;
                candidates &= candidates - 1;
            }
        }
        for (_, bank) in &self.banks {
            let rows = hashes.iter().rev().map(|hash| bank.is_claimed(*hash));
            claimed |= rows.fold(0, |bits, is_claimed| bits << 1 | u64::from(is_claimed));
        }
        claimed
    }

    /// Whether one peer's filter claims the hash. One cache line, or eight.
    pub fn claims(&self, key: FilterKey, hash: u64) -> bool {
        match self.peers.get(key).map(|peer| &peer.home) {
            None | Some(Home::Unknown) => false,
            Some(Home::Separate(filter)) => filter.contains(hash),
            Some(Home::Sliced(place)) => {
                self.banks.get(place.bank).is_some_and(|bank| bank.claims(place.column, hash))
            }
        }
    }

    /// The peers that may hold any key, since their filter is unknown or may lack keys. The latter can also be
    /// claimants.
    pub fn unknown(&self) -> &[FilterKey] {
        &self.unknown
    }

    /// Whether the peer may hold keys that its filter does not claim.
    pub fn is_unknown(&self, key: FilterKey) -> bool {
        self.unknown.contains(&key)
    }

    /// Marks a filter as outdated: the peer may hold keys that it does not claim.
    pub fn mark_outdated(&mut self, key: FilterKey) {
        if self.peers.get(key).is_some() && !self.is_unknown(key) {
            self.unknown.push(key);
        }
    }

    /// Marks a filter as up to date: the peer holds no key that it does not claim.
    ///
    /// # Errors
    /// `NotKnown` for an unknown filter, which stays unknown.
    pub fn trust(&mut self, key: FilterKey) -> Result<(), FilterError> {
        match self.peers.get(key).ok_or(FilterError::Stale)?.home {
            Home::Unknown => Err(FilterError::NotKnown),
            Home::Separate(_) | Home::Sliced(_) => {
                self.unknown.retain(|other| *other != key);
                Ok(())
            }
        }
    }

    /// The size of the known filter.
    pub fn size(&self, key: FilterKey) -> Option<Size> {
        self.home_size(self.peers.get(key)?)
    }

    /// The size of the incomplete snapshot.
    pub fn incoming_size(&self, key: FilterKey) -> Option<Size> {
        self.peers.get(key)?.incoming.as_ref().map(Bloom::size)
    }

    /// The share of set bits of the known filter, 0 to 1.
    pub fn fill(&self, key: FilterKey) -> Option<f64> {
        match &self.peers.get(key)?.home {
            Home::Unknown => None,
            Home::Separate(filter) => Some(filter.fill()),
            Home::Sliced(place) => {
                let bank = self.banks.get(place.bank)?;
                Some(bank.ones(place.column) as f64 / bank.size().bits() as f64)
            }
        }
    }

    /// The expected false-positive rate of the known filter. Takes microseconds.
    pub fn predicted_false_positive_rate(&self, key: FilterKey) -> Option<f64> {
        self.fill(key).map(false_positive_rate_at_fill)
    }

    /// A block of the known filter, for audits.
    pub fn block(&self, key: FilterKey, number: usize) -> Option<Block> {
        match &self.peers.get(key)?.home {
            Home::Unknown => None,
            Home::Separate(filter) => filter.block(number).copied(),
            Home::Sliced(place) => {
                let bank = self.banks.get(place.bank).filter(|bank| number < bank.size().blocks())?;
                Some(bank.read_block(place.column, number))
            }
        }
    }

    /// The numbers of separate filters and of columns.
    pub fn layout(&self) -> (usize, usize) {
        (self.separate.len(), self.banks.iter().map(|(_, bank)| bank.columns_live()).sum())
    }

    /// Begins a snapshot beside the known filter, which stays searched. An incomplete snapshot is dropped. If both do
    /// not fit the budget, the known filter is dropped.
    ///
    /// # Errors
    /// `OverBudget`: the peer's filter is dropped.
    pub fn begin_snapshot(&mut self, key: FilterKey, size: Size) -> Result<(), FilterError> {
        self.drop_snapshot(key);
        if !self.fits(size.bytes()) {
            self.forget(key);
        }
        let Some(incoming) = self.fits(size.bytes()).then(|| Bloom::try_new(size)).flatten() else {
            self.forget(key);
            return Err(FilterError::OverBudget);
        };
        let peer = self.peers.get_mut(key).ok_or(FilterError::Stale)?;
        peer.incoming = Some(incoming);
        self.bytes += size.bytes();
        Ok(())
    }

    /// Writes a block of the snapshot. Additions since its beginning are in the image, or follow.
    ///
    /// # Errors
    /// Nothing is changed.
    pub fn snapshot_block(
        &mut self,
        key: FilterKey,
        number: usize,
        image: &Block,
    ) -> Result<(), FilterError> {
        let peer = self.peers.get_mut(key).ok_or(FilterError::Stale)?;
        let filter = peer.incoming.as_mut().ok_or(FilterError::NotKnown)?;
        if number >= filter.size().blocks() {
            return Err(FilterError::NoSuchBlock);
        }
        filter.replace_block(number, image);
        Ok(())
    }

    /// Replaces the known filter by the snapshot. The caller states whether it lacks keys ([`PeerFilters::trust`]).
    ///
    /// # Errors
    /// `Overfull`: snapshot and filter are dropped.
    pub fn finish_snapshot(&mut self, key: FilterKey) -> Result<(), FilterError> {
        let peer = self.peers.get_mut(key).ok_or(FilterError::Stale)?;
        let incoming = peer.incoming.as_ref().ok_or(FilterError::NotKnown)?;
        if incoming.fill() > FILL_MAX {
            self.forget(key);
            return Err(FilterError::Overfull);
        }
        let filter = peer.incoming.take();
        self.drop_home(key);
        if let (Some(filter), Some(peer)) = (filter, self.peers.get_mut(key)) {
            let size = filter.size();
            peer.home = Home::Separate(filter);
            self.separate.push(key);
            self.slice(size);
        }
        Ok(())
    }

    /// Adds a hash to a peer's filter, and to its incomplete snapshot.
    ///
    /// # Errors
    /// `NotKnown` changes nothing; `Overfull` drops the filter.
    pub fn add(&mut self, key: FilterKey, hash: u64) -> Result<(), FilterError> {
        let peer = self.peers.get_mut(key).ok_or(FilterError::Stale)?;
        if let Some(filter) = &mut peer.incoming {
            filter.insert(hash);
        } else if matches!(peer.home, Home::Unknown) {
            return Err(FilterError::NotKnown);
        }
        if let Some((place, _)) = peer.copying {
            self.banks[place.bank].insert(place.column, hash);
        }
        match &mut peer.home {
            Home::Unknown => {}
            Home::Separate(filter) => {
                filter.insert(hash);
            }
            Home::Sliced(place) => self.banks[place.bank].insert(place.column, hash),
        }
        self.check_fill(key)
    }

    /// Prefetches the cache lines that adding this hash changes.
    #[inline]
    pub fn fetch(&self, key: FilterKey, hash: u64) {
        let Some(peer) = self.peers.get(key) else { return };
        if let Some(filter) = &peer.incoming {
            filter.fetch(hash);
        }
        match &peer.home {
            Home::Unknown => {}
            Home::Separate(filter) => filter.fetch(hash),
            Home::Sliced(place) => self.banks[place.bank].fetch(hash),
        }
    }

    /// Replaces a block of the known filter.
    ///
    /// # Errors
    /// `NotKnown` and `NoSuchBlock` change nothing; `Overfull` drops the filter.
    pub fn replace_block(&mut self, key: FilterKey, number: u32, image: &Block) -> Result<(), FilterError> {
        let size = self.size(key).ok_or(FilterError::NotKnown)?;
        let at = number as usize;
        if at >= size.blocks() {
            return Err(FilterError::NoSuchBlock);
        }
        let peer = self.peers.get_mut(key).ok_or(FilterError::Stale)?;
        if let Some((place, _)) = peer.copying {
            self.banks[place.bank].write_block(place.column, at, image);
        }
        match &mut peer.home {
            Home::Unknown => {}
            Home::Separate(filter) => {
                filter.replace_block(at, image);
            }
            Home::Sliced(place) => self.banks[place.bank].replace_block(place.column, at, image),
        }
        self.check_fill(key)
    }

    /// Does one bounded piece of work, tens of µs; false if there was none.
    pub fn step(&mut self) -> bool {
        let Some(key) = self.work.pop_front() else { return self.freed.step() };
        if let Some(peer) = self.peers.get_mut(key) {
            peer.is_queued = false;
            if self.copy_into_column(key) {
                self.enqueue(key);
            }
        }
        true
    }

    /// Whether [`PeerFilters::step`] has work.
    pub fn has_work(&self) -> bool {
        !self.work.is_empty() || !self.freed.is_empty()
    }

    fn home_size(&self, peer: &Peer) -> Option<Size> {
        match &peer.home {
            Home::Unknown => None,
            Home::Separate(filter) => Some(filter.size()),
            Home::Sliced(place) => self.banks.get(place.bank).map(Bank::size),
        }
    }

    const fn fits(&self, bytes: u64) -> bool {
        self.bytes().saturating_add(bytes) <= self.bytes_max
    }

    fn check_fill(&mut self, key: FilterKey) -> Result<(), FilterError> {
        if self.fill(key).is_some_and(|fill| fill > FILL_MAX) {
            self.forget(key);
            return Err(FilterError::Overfull);
        }
        Ok(())
    }

    fn enqueue(&mut self, key: FilterKey) {
        if let Some(peer) = self.peers.get_mut(key)
            && !mem::replace(&mut peer.is_queued, true)
        {
            self.work.push_back(key);
        }
    }
}

/// Moving filters into columns of banks.
impl PeerFilters {
    /// Begins to copy separate filters of a size into free columns, or into a new bank if more than [`SEPARATE_MAX`]
    /// are separate. Filters that do not fit stay separate.
    fn slice(&mut self, size: Size) {
        let is_settled = |key: &FilterKey| {
            let peer = self.peers.get(*key);
            peer.is_some_and(|peer| peer.copying.is_none() && self.home_size(peer) == Some(size))
        };
        let settled: Vec<FilterKey> = self.separate.iter().copied().filter(is_settled).collect();
        for (moved, key) in settled.iter().copied().enumerate() {
            let Some(place) = self.free_column(key, size, settled.len() - moved) else { return };
            if let Some(peer) = self.peers.get_mut(key) {
                peer.copying = Some((place, 0));
                self.enqueue(key);
            }
        }
    }

    fn free_column(&mut self, key: FilterKey, size: Size, waiting: usize) -> Option<Place> {
        let banks = self.banks.iter_mut().filter(|(_, bank)| bank.size() == size);
        let taken = banks.into_iter().find_map(|(bank, rows)| Some((bank, rows.take(key)?)));
        if let Some((bank, column)) = taken {
            return Some(Place { bank, column });
        }
        if waiting <= SEPARATE_MAX || !self.fits(Bank::bytes(size)) {
            return None;
        }
        let mut rows = Bank::try_new(size)?;
        let column = rows.take(key)?;
        self.bytes += Bank::bytes(size);
        Some(Place { bank: self.banks.insert(rows), column })
    }

    /// Copies some blocks of a separate filter into its column; true if there are more.
    fn copy_into_column(&mut self, key: FilterKey) -> bool {
        let Some(peer) = self.peers.get_mut(key) else { return false };
        let (Home::Separate(filter), Some((place, next))) = (&peer.home, &mut peer.copying) else {
            return false;
        };
        let Some(bank) = self.banks.get_mut(place.bank) else { return false };
        let blocks: &[Block] = filter.words().as_chunks::<BLOCK_WORDS>().0;
        let until = blocks.len().min(*next + COLUMN_BLOCKS_PER_STEP);
        for (number, block) in blocks.iter().enumerate().take(until).skip(*next) {
            bank.write_block(place.column, number, block);
        }
        *next = until;
        if until < blocks.len() {
            return true;
        }
        let place = *place;
        bank.switch_on(place.column, filter.ones());
        peer.copying = None;
        if let Home::Separate(filter) = mem::replace(&mut peer.home, Home::Sliced(place)) {
            self.separate.retain(|other| *other != key);
            self.dispose(filter);
        }
        false
    }

    fn release(&mut self, place: Place) {
        let Some(bank) = self.banks.get_mut(place.bank) else { return };
        bank.release(place.column);
        if bank.columns_taken() == 0 {
            let bank = self.banks.remove(place.bank);
            self.bytes -= Bank::bytes(bank.size());
            self.freed.put(bank.into_words());
        }
    }

    fn dispose(&mut self, filter: Bloom) {
        self.bytes -= filter.bytes();
        self.freed.put(filter.into_words());
    }

    fn drop_home(&mut self, key: FilterKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let copying = peer.copying.take();
        let home = mem::replace(&mut peer.home, Home::Unknown);
        copying.into_iter().for_each(|(place, _)| self.release(place));
        match home {
            Home::Unknown => {}
            Home::Separate(filter) => {
                self.separate.retain(|other| *other != key);
                self.dispose(filter);
            }
            Home::Sliced(place) => self.release(place),
        }
    }
}
