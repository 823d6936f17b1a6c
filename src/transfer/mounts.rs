//! What is learned of the mounts that files are on: whether bytes go faster through the page cache or past it.
//!
//! That cannot be told from the outside: a local disk of a server gives twice as much past the cache, a
//! network file system nearly nothing, and the disk of a virtual machine now one and now the other. So
//! either way is tried, the better one kept, and the other tried again from time to time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Bytes that are read either way before one is chosen: reading ahead takes some to get going, as it may
/// go by 8 MiB at a time. With a quarter of it the slower way was chosen where they differ by 2.5 to 1.4 GiB/s.
const PROBE: u64 = 64 << 20;

/// Bytes after which what is known of a way to read counts for half, and the other one is tried anew.
const MEMORY: u64 = 4 << 30;

/// Saves after which what is known of a way to write counts for half, and the other one is tried anew.
const SAVES: u64 = 16;

/// What is known of the mounts that files were on.
#[derive(Debug, Default)]
pub struct Mounts(Mutex<BTreeMap<u64, Arc<Mount>>>);

impl Mounts {
    /// The mount with this number.
    pub fn of(&self, device: u64) -> Arc<Mount> {
        self.0.lock().entry(device).or_default().clone()
    }
}

/// How fast bytes come from one mount, and get there.
#[derive(Debug, Default)]
pub struct Mount {
    reads: Mutex<Rates>,
    writes: Mutex<Rates>,
}

#[derive(Debug, Default)]
struct Rates {
    buffered: Rate,
    direct: Rate,
}

/// What was moved in one way, and how long that took.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    bytes: u64,
    nanos: u64,
}

impl Mount {
    /// Whether the next cold bytes are to be read past the cache.
    pub fn reads_direct(&self) -> bool {
        self.reads.lock().prefers_direct(PROBE)
    }

    /// Notes for how long a thread waited for cold bytes.
    pub fn note_read(&self, past_cache: bool, bytes: u64, took: Duration) {
        self.reads.lock().note(past_cache, bytes, took, MEMORY);
    }

    /// Notes that nothing can be read past the cache: as if it took for ever.
    pub fn note_no_direct_reads(&self) {
        self.note_read(true, PROBE, Duration::from_secs(1 << 30));
    }

    /// Whether the next durable save is to be written past the cache.
    pub fn writes_direct(&self) -> bool {
        self.writes.lock().prefers_direct(1)
    }
}

impl Rates {
    fn note(&mut self, past_cache: bool, bytes: u64, took: Duration, memory: u64) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let (this, other) = match past_cache {
            true => (&mut self.direct, &mut self.buffered),
            false => (&mut self.buffered, &mut self.direct),
        };
        this.bytes += bytes;
        this.nanos = this.nanos.saturating_add(nanos);
        // Disks change their minds, and the first try may have been bad luck.
        if this.bytes > memory {
            (this.bytes, this.nanos) = (this.bytes / 2, this.nanos / 2);
            *other = Rate::default();
        }
    }

    /// The faster way, once either was tried with so many bytes.
    fn prefers_direct(&self, probe: u64) -> bool {
        let Self { buffered, direct } = self;
        if direct.bytes < probe || buffered.bytes < probe {
            return direct.bytes < probe;
        }
        let product = |rate: &Rate, other: &Rate| u128::from(rate.bytes) * u128::from(other.nanos);
        product(direct, buffered) >= product(buffered, direct)
    }
}

/// A durable save that is being written, to be timed until it is on disk.
#[derive(Debug)]
pub struct DurableWrite {
    mount: Arc<Mount>,
    past_cache: bool,
    bytes: u64,
    started: Instant,
}

impl DurableWrite {
    /// From now on.
    pub fn begin(mount: Arc<Mount>, past_cache: bool, bytes: u64) -> Self {
        Self {
            mount,
            past_cache,
            bytes,
            started: Instant::now(),
        }
    }

    /// Whether it goes past the cache.
    pub fn past_cache(&self) -> bool {
        self.past_cache
    }

    /// It is on disk now.
    pub fn end(self) {
        let memory = self.bytes.saturating_mul(SAVES);
        let took = self.started.elapsed();
        let mut rates = self.mount.writes.lock();
        rates.note(self.past_cache, self.bytes, took, memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_way_is_tried_and_the_faster_one_kept() {
        for (direct_ms, expected) in [(10, true), (30, false)] {
            let mount = Mount::default();
            assert!(mount.reads_direct());
            mount.note_read(true, PROBE, Duration::from_millis(direct_ms));
            assert!(!mount.reads_direct());
            mount.note_read(false, PROBE, Duration::from_millis(20));
            assert_eq!(mount.reads_direct(), expected);
            // Of writing nothing is known yet.
            assert!(mount.writes_direct());
        }
    }

    #[test]
    fn the_other_way_gets_another_chance() {
        let mount = Mount::default();
        mount.note_read(true, PROBE, Duration::from_millis(10));
        // Bad luck.
        mount.note_read(false, PROBE, Duration::from_millis(100));
        let mut tries = 0;
        while mount.reads_direct() {
            mount.note_read(true, PROBE, Duration::from_millis(10));
            tries += 1;
        }
        assert!(tries <= MEMORY / PROBE, "{tries}");
        mount.note_read(false, PROBE, Duration::from_millis(5));
        assert!(!mount.reads_direct());
    }

    #[test]
    fn a_durable_save_is_written_as_the_faster_one_before_it() {
        let mount = Arc::new(Mount::default());
        let save = || {
            let past_cache = mount.writes_direct();
            let write = DurableWrite::begin(mount.clone(), past_cache, 1 << 30);
            let took = Duration::from_secs(if past_cache { 5 } else { 2 });
            let started = write.started.checked_sub(took).unwrap();
            DurableWrite { started, ..write }.end();
            past_cache
        };
        assert_eq!([save(), save()], [true, false]);
        let later: Vec<bool> = (0..SAVES + 2).map(|_| save()).collect();
        let direct = later.iter().filter(|&&direct| direct).count();
        assert_eq!(direct, 1, "tried once more: {later:?}");
    }
}
