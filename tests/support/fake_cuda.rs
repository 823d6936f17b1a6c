//! A CUDA driver for tests: the fake one of `tests/fake_cuda`, or the machine's.
//!
//! The driver is the process's. So a test that needs another one runs in [a process of its
//! own](in_own_process), and the others take turns ([`session`]), each beginning with a driver as new.
//!
//! | Variable | |
//! |---|---|
//! | `TFCKPT_TEST_GPU=real` | the machine's driver; tests that need the fake one say so and pass |
//! | `TFCKPT_FAKE_CUDA=<folder>` | where the fakes are, built by `tests/fake_cuda/build.sh`; else they are built |
//!
//! With both, processes of their own have the fake one all the same.

#![allow(dead_code, reason = "each test program uses a part")]

use std::ffi::{CString, OsString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::UNIX_EPOCH;
use std::{env, fs};

/// What the fake has counted. The same as `struct fakecuda_stats`, which says what each is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub struct Stats {
    pub live_device_bytes: u64,
    pub live_device_allocations: u64,
    pub peak_device_bytes: u64,
    pub live_pinned_bytes: u64,
    pub live_pinned_allocations: u64,
    pub peak_pinned_bytes: u64,
    pub live_registrations: u64,
    pub live_streams: u64,
    pub live_events: u64,
    pub live_contexts: u64,
    pub retains: [u64; 8],
    pub lost_device_allocations: u64,
    pub lost_pinned_allocations: u64,
    pub lost_registrations: u64,
    pub lost_streams: u64,
    pub lost_events: u64,
    pub h2d_copies: u64,
    pub h2d_bytes: u64,
    pub d2h_copies: u64,
    pub d2h_bytes: u64,
    pub d2d_copies: u64,
    pub d2d_bytes: u64,
    pub batches: u64,
    pub pageable_copies: u64,
    pub cross_device_copies: u64,
    pub write_combined: u64,
    pub host_functions: u64,
    pub calls: u64,
    pub calls_without_context: u64,
    pub calls_in_foreign_context: u64,
    pub calls_refused_by_capture: u64,
    pub captures_invalidated: u64,
    pub copies_executed: u64,
    pub stale_copies: u64,
    pub faults_fired: u64,
}

impl Stats {
    /// Fails unless everything was given back, in the right context and in time.
    #[track_caller]
    pub fn assert_clean(&self) {
        let kept = [
            ("device allocations", self.live_device_allocations),
            ("pinned allocations", self.live_pinned_allocations),
            ("streams", self.live_streams),
            ("events", self.live_events),
            ("retained contexts", self.retains.iter().sum()),
            ("lost device allocations", self.lost_device_allocations),
            ("lost pinned allocations", self.lost_pinned_allocations),
            ("lost streams", self.lost_streams),
            ("lost events", self.lost_events),
            ("calls without a context", self.calls_without_context),
            ("calls in a foreign context", self.calls_in_foreign_context),
            (
                "calls that a capture forbids",
                self.calls_refused_by_capture,
            ),
            ("captures that were broken", self.captures_invalidated),
            ("copies of freed memory", self.stale_copies),
            ("copies of pageable memory", self.pageable_copies),
            ("slow pinned allocations", self.write_combined),
        ];
        let kept: Vec<_> = kept.iter().filter(|(_, number)| *number != 0).collect();
        assert!(kept.is_empty(), "left or done wrong: {kept:?}");
    }
}

/// A loaded driver, whose functions are found by their names.
#[derive(Clone, Copy, Debug)]
pub struct Cuda {
    handle: usize,
    is_fake: bool,
}

/// Calls a function of a [`Cuda`] by its name, with the arguments' types as they are given.
#[macro_export]
macro_rules! cuda_call {
    ($cuda:expr, $name:ident($($value:expr => $argument:ty),*) -> $result:ty) => {{
        let address = $cuda.symbol(stringify!($name));
        type Function = extern "C" fn($($argument),*) -> $result;
        // SAFETY: the driver's, or the fake's, function of this name takes these arguments. Tests give it
        // nothing else than it expects.
        let function = unsafe { std::mem::transmute::<*mut c_void, Function>(address) };
        function($($value),*)
    }};
}

impl Cuda {
    /// Loads the library at `path` before this process looks for the driver.
    pub fn load(path: &Path, is_fake: bool) -> Option<Self> {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: a driver, whose initialisers are its own.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        (!handle.is_null()).then(|| Self {
            handle: handle.addr(),
            is_fake,
        })
    }

    /// The address of a function, which must be there.
    #[track_caller]
    pub fn symbol(&self, name: &str) -> *mut c_void {
        let text = CString::new(name).unwrap();
        let handle = std::ptr::without_provenance_mut(self.handle);
        // SAFETY: the library stays loaded.
        let address = unsafe { libc::dlsym(handle, text.as_ptr()) };
        assert!(!address.is_null(), "the driver has no {name}");
        address
    }

    pub fn is_fake(&self) -> bool {
        self.is_fake
    }

    /// Changes a setting of the fake.
    #[track_caller]
    pub fn set(&self, name: &str, value: i64) {
        let text = CString::new(name).unwrap();
        let known =
            cuda_call!(self, fakecuda_set(text.as_ptr() => *const c_char, value => i64) -> c_int);
        assert_eq!(known, 0, "the fake takes no {name}={value}");
    }

    /// Lets calls fail from now on: `symbol:nth:code`, with commas between.
    #[track_caller]
    pub fn set_faults(&self, list: &str) {
        let text = CString::new(list).unwrap();
        let read = cuda_call!(self, fakecuda_set_faults(text.as_ptr() => *const c_char) -> c_int);
        assert_eq!(read, 0, "the fake takes no fault {list}");
    }

    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        cuda_call!(self, fakecuda_stats(
            &raw mut stats => *mut Stats, size_of::<Stats>() => usize
        ) -> ());
        stats
    }

    /// Stops all streams, or lets them go on.
    pub fn hold(&self, hold: bool) {
        cuda_call!(self, fakecuda_hold(c_int::from(hold) => c_int) -> ());
    }

    /// Stops one stream, or lets it go on.
    pub fn hold_stream(&self, stream: *mut c_void, hold: bool) {
        let hold = c_int::from(hold);
        let found = cuda_call!(self, fakecuda_hold_stream(
            stream => *mut c_void, hold => c_int
        ) -> c_int);
        assert_eq!(found, 0);
    }

    /// How often the symbol was called.
    pub fn calls(&self, symbol: &str) -> u64 {
        let symbol = CString::new(symbol).unwrap();
        cuda_call!(self, fakecuda_calls(symbol.as_ptr() => *const c_char) -> u64)
    }

    /// Bytes of device memory, past all streams.
    pub fn peek(&self, address: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0u8; len];
        let found = cuda_call!(self, fakecuda_peek(
            address as u64 => u64, bytes.as_mut_ptr() => *mut u8, len => usize
        ) -> c_int);
        assert_eq!(found, 0);
        bytes
    }

    /// What a guest must leave as it was on this thread: the current context, how many are below it, and
    /// the capture mode.
    pub fn thread_state(&self) -> (usize, c_int, c_int) {
        let mut context = std::ptr::null_mut();
        let code = cuda_call!(self, cuCtxGetCurrent(
            &raw mut context => *mut *mut c_void
        ) -> u32);
        assert_eq!(code, 0);
        let depth = cuda_call!(self, fakecuda_thread_context_depth() -> c_int);
        let mode = cuda_call!(self, fakecuda_thread_capture_mode() -> c_int);
        (context.addr(), depth, mode)
    }
}

/// A turn with the process's driver.
pub struct Session {
    cuda: Cuda,
    _turn: MutexGuard<'static, ()>,
}

impl std::ops::Deref for Session {
    type Target = Cuda;

    fn deref(&self) -> &Cuda {
        &self.cuda
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_fake {
            self.hold(false);
            self.set_faults("");
        }
    }
}

/// Devices of the fake in a [`session`]: the library counts them once.
pub const DEVICES: i64 = 2;

/// Waits for its turn. The fake is as new, and initialised.
pub fn session() -> Session {
    static CUDA: OnceLock<Cuda> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed has nothing to say to the next.
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let cuda = *CUDA.get_or_init(|| {
        if wants_real() {
            let real = Cuda::load(Path::new("libcuda.so.1"), false);
            println!("these tests run on the machine's CUDA driver");
            return real.expect("TFCKPT_TEST_GPU=real, and there is no libcuda.so.1");
        }
        println!("these tests run on the fake CUDA driver");
        load_fake("full")
    });
    if cuda.is_fake {
        cuda_call!(cuda, fakecuda_reset() -> ());
        cuda.set("devices", DEVICES);
        if let Some(seed) = env::var("TFCKPT_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
        {
            cuda.set("seed", seed);
        }
    }
    // The library does this once per process, before the fake forgot it.
    assert_eq!(cuda_call!(cuda, cuInit(0 => u32) -> u32), 0);
    Session { cuda, _turn: turn }
}

/// As [`session`], if the driver is the fake one.
pub fn fake_session() -> Option<Session> {
    if wants_real() {
        println!("skipped: it needs the fake CUDA driver");
        return None;
    }
    Some(session())
}

pub fn wants_real() -> bool {
    env::var_os("TFCKPT_TEST_GPU").is_some_and(|value| value == "real")
}

/// Makes a variant of the fake this process's driver.
pub fn load_fake(variant: &str) -> Cuda {
    let path = fakes().join(variant).join("libcuda.so");
    Cuda::load(&path, true).unwrap_or_else(|| panic!("{} does not load", path.display()))
}

/// The folder with the variants of the fake, which is built once.
fn fakes() -> PathBuf {
    if let Some(folder) = env::var_os("TFCKPT_FAKE_CUDA") {
        return folder.into();
    }
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_cuda");
    let changed = |entry: fs::DirEntry| entry.metadata().unwrap().modified().unwrap();
    let changed = fs::read_dir(&sources)
        .unwrap()
        .map(|entry| changed(entry.unwrap()));
    let age = changed.max().unwrap().duration_since(UNIX_EPOCH).unwrap();
    let folder = format!("fake_cuda-{}", age.as_nanos());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    if !folder.exists() {
        // Test programs may run side by side: each builds for itself, and the first is taken.
        let own = folder.with_extension(std::process::id().to_string());
        let built = Command::new("bash")
            .arg(sources.join("build.sh"))
            .arg(&own)
            .status();
        assert!(
            built.unwrap().success(),
            "the fake CUDA driver does not build"
        );
        if fs::rename(&own, &folder).is_err() {
            fs::remove_dir_all(&own).unwrap();
        }
    }
    folder
}

/// Runs `body`, which may fail, in a process of its own: the test `name` of this program again, with these
/// variables set.
pub fn in_own_process(name: &str, variables: &[(&str, &str)], body: impl FnOnce()) {
    const CHILD: &str = "TFCKPT_TEST_CHILD";
    if env::var_os(CHILD) == Some(OsString::from(name)) {
        return body();
    }
    if wants_real() && env::var_os("TFCKPT_FAKE_CUDA").is_none() {
        println!("skipped: it needs the fake CUDA driver");
        return;
    }
    let output = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, name)
        .env_remove("TFCKPT_TEST_GPU")
        .env("TFCKPT_FAKE_CUDA", fakes())
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success() && text(&output.stdout).contains("1 passed"),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}
