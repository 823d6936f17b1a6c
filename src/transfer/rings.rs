//! How large the rings of page-locked buffers are that a call has for its GPUs.

use std::collections::BTreeMap;

use super::Call;
use super::budget::{For, LEAST_RING, WORK, check_limit};
use crate::error::{Error, Result};

/// Most bytes of a slot: a copy of this size runs at the speed of the bus.
const LARGEST_SLOT: u64 = 8 << 20;

/// Least bytes of a slot.
const SMALLEST_SLOT: u64 = 1 << 20;

/// Most bytes of a ring: enough to keep a bus busy.
const LARGEST_RING: u64 = 128 << 20;

/// Least slots of a device: one is filled while the other is sent.
const FEWEST_SLOTS: u64 = LEAST_RING / SMALLEST_SLOT;

/// Slots beyond those that threads are filling: one is sent, one comes next, and one is on its way back.
const UNDER_WAY: u64 = 3;

/// Announces the GPUs that take part in a call, and returns the most bytes that their rings may have
/// together.
///
/// # Errors
///
/// INVALID_ARGUMENT for a budget too small for so many devices.
pub fn announce(call: &Call<'_>, devices: &BTreeMap<i32, u64>) -> Result<u64> {
    let budget = call.context.budget();
    budget.announce(devices.keys().copied());
    let own_limit = check_limit(call.max_host_bytes)?.unwrap_or(u64::MAX);
    let limit = budget.limit_for(For::Rings).min(own_limit - WORK);
    let (num, least) = (devices.len(), least_bytes(devices.len()));
    if limit < least {
        return Err(Error::invalid_argument(format!(
            "max_host_bytes is below the minimum; devices={num} minimum={}",
            least + WORK
        )));
    }
    Ok(limit)
}

/// Least bytes of the rings of so many devices.
pub fn least_bytes(num_devices: usize) -> u64 {
    num_devices as u64 * LEAST_RING
}

/// The rings of a call, before it is known how many bytes it gets for them.
pub struct Rings<'b> {
    /// The devices, with the bytes that each of them moves.
    bytes: &'b BTreeMap<i32, u64>,
    num_threads: u64,
    /// Bytes that all rings of the context may have.
    limit: u64,
    /// Bytes of the largest ring of the call.
    share: u64,
}

impl<'b> Rings<'b> {
    /// Rings for threads that fill a slot each: of `limit` bytes at most, less those that are `taken` for
    /// other things, but not below the least.
    pub fn new(bytes: &'b BTreeMap<i32, u64>, num_threads: usize, limit: u64, taken: u64) -> Self {
        let all = limit.saturating_sub(taken).max(least_bytes(bytes.len()));
        Self {
            bytes,
            num_threads: num_threads as u64,
            limit,
            share: all / (bytes.len() as u64).max(1),
        }
    }

    /// Bytes of all.
    pub fn wanted(&self) -> u64 {
        let slots = self.slots_within(self.share);
        slots.values().sum::<u64>() * self.slot_within(self.share)
    }

    /// Bytes of a slot if there are `granted` bytes for all.
    pub fn slot(&self, granted: u64) -> u64 {
        self.slot_within(self.share_of(granted))
    }

    /// Slots of each device if there are `granted` bytes for all.
    pub fn slots(&self, granted: u64) -> BTreeMap<i32, u64> {
        self.slots_within(self.share_of(granted))
    }

    fn share_of(&self, granted: u64) -> u64 {
        match granted < self.wanted() {
            true => granted / (self.bytes.len() as u64).max(1),
            false => self.share,
        }
    }

    /// Bytes of a slot in rings of `share` bytes.
    ///
    /// A thread keeps its slot while it fills it, so that there must be more slots than threads. What a call
    /// leaves in the context is of use to the next one if that has slots of the same size. So the size does
    /// not depend on what a call moves, nor on how many GPUs share the limit, unless these are very many, or
    /// other calls have most of it.
    fn slot_within(&self, share: u64) -> u64 {
        let fitting = self.limit.min(LARGEST_RING) / (self.num_threads + UNDER_WAY);
        let largest = fitting.min(share / UNDER_WAY);
        1 << largest.clamp(SMALLEST_SLOT, LARGEST_SLOT).ilog2()
    }

    fn slots_within(&self, share: u64) -> BTreeMap<i32, u64> {
        let slot = self.slot_within(share);
        let most = share.min(LARGEST_RING) / slot;
        let of_device = |(&device, &bytes): (&i32, &u64)| {
            // As many threads as a call of so many bytes has, each with one, while the others are being sent.
            let filling = (bytes >> 20).clamp(1, self.num_threads.max(1));
            let needed = bytes.div_ceil(slot).saturating_add(filling);
            (device, needed.min(most).max(FEWEST_SLOTS))
        };
        self.bytes.iter().map(of_device).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Bytes of a slot in MiB, and the slots of each device.
    fn sizes(rings: &Rings<'_>, granted: u64) -> (u64, Vec<u64>) {
        let slots = rings.slots(granted * MIB);
        let slot = rings.slot(granted * MIB);
        assert!(slots.values().sum::<u64>() * slot <= granted * MIB);
        (slot / MIB, slots.into_values().collect())
    }

    #[test]
    fn more_slots_than_threads_fill_if_the_limit_allows() {
        let bytes = BTreeMap::from([(0, 1 << 40)]);
        for (limit, num_threads, slot, num) in [
            (255, 4, 8, 16),
            (255, 8, 8, 16),
            (255, 16, 4, 32),
            (63, 16, 2, 31),
            (63, 8, 4, 15),
            (31, 16, 1, 31),
            (4, 16, 1, 4),
            (2, 1, 1, 2),
            (4095, 64, 1, 128),
        ] {
            let rings = Rings::new(&bytes, num_threads, limit * MIB, 0);
            let got = sizes(&rings, limit);
            assert_eq!(got, (slot, vec![num]), "{limit} {num_threads}");
        }
    }

    #[test]
    fn slots_are_as_large_for_one_gpu_as_for_several() {
        let one = BTreeMap::from([(0, 1 << 40)]);
        let two = BTreeMap::from([(0, 1 << 40), (1, 1 << 40)]);
        for limit in 4..300 {
            for num_threads in [4, 8, 16] {
                let of = |bytes| sizes(&Rings::new(bytes, num_threads, limit * MIB, 0), limit).0;
                assert_eq!(of(&one), of(&two), "{limit} MiB, {num_threads} threads");
            }
        }
        // Very many share what there is.
        let many = (0..17).map(|device| (device, 1 << 40)).collect();
        assert_eq!(sizes(&Rings::new(&many, 4, 255 * MIB, 0), 255).0, 4);
    }

    #[test]
    fn few_bytes_take_few_slots() {
        let of = |bytes| {
            let bytes = BTreeMap::from([(0, bytes)]);
            sizes(&Rings::new(&bytes, 16, 255 * MIB, 0), 255)
        };
        assert_eq!(of(0), (4, vec![2]));
        assert_eq!(of(4096), (4, vec![2]));
        assert_eq!(of(2 * MIB), (4, vec![3]));
        assert_eq!(of(9 * MIB), (4, vec![12]));
        assert_eq!(of(64 * MIB), (4, vec![32]));
    }

    #[test]
    fn a_ring_that_gets_less_has_smaller_slots_rather_than_too_few() {
        let bytes = BTreeMap::from([(0, 1 << 40), (1, 1 << 40)]);
        let rings = Rings::new(&bytes, 4, 255 * MIB, 0);
        assert_eq!(rings.wanted(), 30 * 8 * MIB);
        assert_eq!(sizes(&rings, 100), (8, vec![6, 6]));
        assert_eq!(sizes(&rings, 46), (4, vec![5, 5]));
        assert_eq!(sizes(&rings, 9), (1, vec![4, 4]));
        assert_eq!(sizes(&rings, 4), (1, vec![2, 2]));
        // The least is had, whatever the limit, and whatever is taken of it.
        for rings in [
            Rings::new(&bytes, 4, 0, 0),
            Rings::new(&bytes, 4, 255 * MIB, 254 * MIB),
        ] {
            assert_eq!(rings.wanted(), least_bytes(2));
            assert_eq!(sizes(&rings, 4), (1, vec![2, 2]));
        }
    }
}
