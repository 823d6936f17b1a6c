//! Memory near a device, on machines whose processors have memory of their own each (NUMA).

use std::fs;
use std::mem::{self, MaybeUninit};
use std::path::Path;

/// The system's nodes: <https://docs.kernel.org/admin-guide/abi-stable.html>, `/sys/devices/system/node`.
const NODES: &str = "/sys/devices/system/node";

/// Whether there is more than one node, so that it matters where memory is.
pub fn has_several_nodes() -> bool {
    let online = fs::read_to_string(Path::new(NODES).join("online"));
    online.is_ok_and(|online| cpus(&online).is_some_and(|nodes| nodes.len() > 1))
}

/// Runs `work`, which allocates memory, on the processors of a node, as far as this thread may run there:
/// the system gives memory of the node on which it is asked for. Wherever it runs, it is run.
pub fn on_node<T>(node: Option<i32>, work: impl FnOnce() -> T) -> T {
    let moved = node.and_then(|node| {
        let list = Path::new(NODES).join(format!("node{node}/cpulist"));
        Moved::to(&cpus(&fs::read_to_string(list).ok()?)?)
    });
    let done = work();
    drop(moved);
    done
}

/// The numbers of a list such as `0-3,8`; `None` if it is none. Numbers no set has room for are left out.
fn cpus(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for range in list.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        cpus.extend((first..=last).take_while(|&cpu| cpu < mem::size_of::<libc::cpu_set_t>() * 8));
    }
    Some(cpus)
}

/// This thread on some of the processors that it may run on, until this is dropped.
struct Moved {
    before: libc::cpu_set_t,
}

impl Moved {
    /// On those of `cpus`; `None` if it may run on none of them, or only on them, or if that cannot be said.
    fn to(cpus: &[usize]) -> Option<Self> {
        let before = affinity()?;
        // SAFETY: plain integers, of which none is set.
        let mut wanted: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
        for &cpu in cpus {
            // SAFETY: `cpus` left out what the sets have no room for.
            unsafe {
                if libc::CPU_ISSET(cpu, &before) {
                    libc::CPU_SET(cpu, &mut wanted);
                }
            }
        }
        // SAFETY: reads two sets.
        let is_needless =
            unsafe { libc::CPU_COUNT(&wanted) == 0 || libc::CPU_EQUAL(&wanted, &before) };
        (!is_needless && set_affinity(&wanted)).then_some(Self { before })
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        set_affinity(&self.before);
    }
}

/// The processors that this thread may run on; `None` if the system does not say, or has more than a set has
/// room for.
fn affinity() -> Option<libc::cpu_set_t> {
    // SAFETY: plain integers.
    let mut cpus: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: writes a set of the size given; 0 is this thread.
    let code = unsafe { libc::sched_getaffinity(0, mem::size_of_val(&cpus), &raw mut cpus) };
    (code == 0).then_some(cpus)
}

/// Returns whether the thread may now run on these alone.
fn set_affinity(cpus: &libc::cpu_set_t) -> bool {
    // SAFETY: reads a set of the size given; 0 is this thread.
    unsafe { libc::sched_setaffinity(0, mem::size_of_val(cpus), cpus) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read_as_the_system_writes_them() {
        assert_eq!(cpus("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(cpus("\n"), Some(vec![]));
        assert_eq!(cpus("1020-4000000000").map(|cpus| cpus.len()), Some(4));
        for bad in ["a", "1-", "-1", "1-2-3"] {
            assert_eq!(cpus(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_thread_is_moved_to_a_processor_and_back() {
        let may_run_on = |set: &libc::cpu_set_t| -> Vec<usize> {
            // SAFETY: a set has room for that many.
            (0..1024)
                .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, set) })
                .collect()
        };
        let before = may_run_on(&affinity().unwrap());
        let last = *before.last().unwrap();
        let moved = Moved::to(&[last]);
        assert_eq!(may_run_on(&affinity().unwrap()), [last]);
        // On a single processor there is nowhere to go.
        assert_eq!(moved.is_some(), before.len() > 1);
        drop(moved);
        assert_eq!(may_run_on(&affinity().unwrap()), before);
        assert!(Moved::to(&before).is_none());
        assert!(Moved::to(&[]).is_none());
    }

    #[test]
    fn work_is_done_for_a_node_that_is_not_there() {
        assert_eq!(on_node(Some(9999), || 7), 7);
        assert_eq!(on_node(None, || 6), 6);
        assert_eq!(on_node(Some(0), || 8), 8);
    }
}
