//! The slow half of [`PeerFilters`]: moving filters into columns and out of them, changing their size,
//! and giving memory back, each in bounded steps. Nothing here decides what a filter says.

use super::bit_sliced::Bank;
use super::bloom::{Bloom, ReshapeError};
use super::peer_filters::{Copying, FilterError, FilterKey, Home, PeerFilters, Place, SEPARATE_MAX};
use super::size::{BLOCK_WORDS, Block, Size};
use std::mem;

/// Blocks that one step copies into or out of a column: 256 KiB of rows, tens of µs.
const COLUMN_BLOCKS_PER_STEP: usize = 64;

impl PeerFilters {
    /// Moves filters of a size that lie apart into columns: into free ones of a bank that is there anyway,
    /// into a new bank if more than [`SEPARATE_MAX`] wait for one. If it does not fit, they stay apart.
    pub(super) fn slice(&mut self, size: Size) {
        let is_settled = |key: &FilterKey| {
            self.peers.get(*key).is_some_and(|peer| {
                let idle = matches!(peer.copying, Copying::No) && peer.resize.is_none();
                idle && self.home_size(peer) == Some(size)
            })
        };
        let settled: Vec<FilterKey> = self.separate.iter().copied().filter(is_settled).collect();
        for (moved, key) in settled.iter().copied().enumerate() {
            let waiting = settled.len() - moved;
            let Some(place) = self.free_column(key, size, waiting) else { return };
            if let Some(peer) = self.peers.get_mut(key) {
                peer.copying = Copying::IntoColumn { place, next: 0 };
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

    fn release(&mut self, place: Place) {
        let Some(bank) = self.banks.get_mut(place.bank) else { return };
        bank.release(place.column);
        if bank.columns_taken() == 0 {
            let bank = self.banks.remove(place.bank);
            self.bytes -= Bank::bytes(bank.size());
            self.disposal.put(bank.into_words());
        }
    }

    fn dispose(&mut self, filter: Bloom) {
        self.bytes -= filter.bytes();
        filter.into_words().into_iter().for_each(|words| self.disposal.put(words));
    }

    pub(super) fn drop_incoming(&mut self, key: FilterKey) {
        if let Some(filter) = self.peers.get_mut(key).and_then(|peer| peer.incoming.take()) {
            self.dispose(filter);
        }
    }

    /// Ends a copy or a change of size where it stands. A filter that lies apart may be left between two
    /// sizes: it can be searched, and the caller is about to replace it.
    pub(super) fn cancel(&mut self, key: FilterKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.resize = None;
        peer.held.clear();
        match mem::replace(&mut peer.copying, Copying::No) {
            Copying::No => {}
            Copying::IntoColumn { place, .. } => self.release(place),
            Copying::OutOfColumn { filter, .. } => self.dispose(filter),
        }
    }

    pub(super) fn drop_home(&mut self, key: FilterKey) {
        self.cancel(key);
        let Some(peer) = self.peers.get_mut(key) else { return };
        match mem::replace(&mut peer.home, Home::Unknown) {
            Home::Unknown => {}
            Home::Separate(filter) => {
                self.separate.retain(|other| *other != key);
                self.dispose(filter);
            }
            Home::Sliced(place) => self.release(place),
        }
    }

    /// Begins to change the size of a filter that lies apart, as its peer's `resize` says.
    pub(super) fn reshape(&mut self, key: FilterKey) -> Result<(), FilterError> {
        let peer = self.peers.get(key).ok_or(FilterError::Stale)?;
        let (Home::Separate(filter), Some(size)) = (&peer.home, peer.resize) else { return Ok(()) };
        if size > filter.size() && !self.fits(size.bytes()) {
            self.forget(key);
            return Err(FilterError::OverBudget);
        }
        let peer = self.peers.get_mut(key).ok_or(FilterError::Stale)?;
        let Home::Separate(filter) = &mut peer.home else { return Ok(()) };
        let before = filter.bytes();
        let started = if size > filter.size() { filter.start_stretch() } else { filter.start_fold() };
        self.bytes += filter.bytes() - before;
        match started {
            Ok(()) => Ok(()),
            Err(ReshapeError::NoMemory) => {
                self.forget(key);
                Err(FilterError::OverBudget)
            }
            Err(ReshapeError::Busy | ReshapeError::AtLimit) => {
                self.forget(key);
                Err(FilterError::WrongSize)
            }
        }
    }

    /// One piece of a peer's work; true if there is more.
    pub(super) fn step_peer(&mut self, key: FilterKey) -> bool {
        let Some(peer) = self.peers.get(key) else { return false };
        match &peer.copying {
            Copying::IntoColumn { .. } => self.step_into_column(key),
            Copying::OutOfColumn { .. } => self.step_out_of_column(key),
            Copying::No => peer.resize.is_some() && self.step_reshape(key),
        }
    }

    fn step_into_column(&mut self, key: FilterKey) -> bool {
        let Some(peer) = self.peers.get_mut(key) else { return false };
        let (Home::Separate(filter), Copying::IntoColumn { place, next }) = (&peer.home, &mut peer.copying)
        else {
            return false;
        };
        let (Some(words), Some(bank)) = (filter.words(), self.banks.get_mut(place.bank)) else {
            return false;
        };
        let blocks: &[Block] = words.as_chunks::<BLOCK_WORDS>().0;
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
        peer.copying = Copying::No;
        if let Home::Separate(filter) = mem::replace(&mut peer.home, Home::Sliced(place)) {
            self.separate.retain(|other| *other != key);
            self.dispose(filter);
        }
        false
    }

    fn step_out_of_column(&mut self, key: FilterKey) -> bool {
        let Some(peer) = self.peers.get_mut(key) else { return false };
        let (Home::Sliced(place), Copying::OutOfColumn { filter, next }) = (&peer.home, &mut peer.copying)
        else {
            return false;
        };
        let Some(bank) = self.banks.get(place.bank) else { return false };
        let blocks = filter.size().blocks();
        let until = blocks.min(*next + COLUMN_BLOCKS_PER_STEP);
        for number in *next..until {
            filter.replace_block(number, &bank.read_block(place.column, number));
        }
        *next = until;
        if until < blocks {
            return true;
        }
        let place = *place;
        if let Copying::OutOfColumn { filter, .. } = mem::replace(&mut peer.copying, Copying::No) {
            peer.home = Home::Separate(filter);
            self.separate.push(key);
            self.release(place);
        }
        self.reshape(key).is_ok()
    }

    fn step_reshape(&mut self, key: FilterKey) -> bool {
        let Some(peer) = self.peers.get_mut(key) else { return false };
        let Home::Separate(filter) = &mut peer.home else { return false };
        let before = filter.bytes();
        let more = filter.step();
        self.bytes = self.bytes + filter.bytes() - before;
        if more {
            return true;
        }
        for (number, image) in mem::take(&mut peer.held) {
            filter.replace_block(number as usize, &image);
        }
        peer.resize = None;
        let size = filter.size();
        self.slice(size);
        false
    }
}
