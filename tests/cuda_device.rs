//! How GPUs are reached: what is said without one, what a thread is left with, and what becomes of memory,
//! streams and errors.

#![cfg(feature = "cuda")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, also outside of its #[test] function"
)]

#[path = "support/fake_cuda.rs"]
mod fake_cuda;

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use fake_cuda::{Session, Stats, fake_session, in_own_process, load_fake, session};
use tfckpt::device::{
    CallerStream, DeviceContext, DeviceMemory, DeviceSpan, Entered, Event, Locator, PinnedBuffer,
    PinnedCopy, Place, Stream, describe, driver, locate,
};
use tfckpt::{Code, Error, Result};

/// Bytes of one buffer.
const LEN: usize = 64 << 10;

/// Copies of a round trip, of different lengths.
const PARTS: [(usize, usize); 4] = [(0, 1), (1, 4095), (4096, 0), (4096, LEN - 4096)];

/// Bytes that tell one buffer from the next.
fn pattern(seed: usize) -> Vec<u8> {
    (0..LEN)
        .map(|i| u8::try_from((i * 31 + seed * 7) % 251).unwrap())
        .collect()
}

fn parts<'a>(memory: &DeviceSpan<'a>) -> Vec<PinnedCopy<'a>> {
    let part = |&(offset, len)| PinnedCopy {
        offset,
        device: memory.get(offset, len).unwrap(),
    };
    PARTS.iter().map(part).collect()
}

/// Sends `rounds` buffers through one page-locked one to a device, from there to other memory of it, and
/// back. All that was made is gone afterwards.
fn round_trip(device: i32, rounds: usize) -> Result<()> {
    let context = DeviceContext::primary(device)?;
    let entered = context.enter()?;
    let there = DeviceMemory::new(&entered, rounds * LEN)?;
    let beyond = DeviceMemory::new(&entered, rounds * LEN)?;
    let stream = Stream::new(&entered)?;
    let result = send(&entered, &stream, &there, &beyond, rounds);
    // As after every error: no memory goes while a copy may be under way.
    result.and(stream.synchronize(&entered))
}

fn send(
    entered: &Entered<'_>,
    stream: &Arc<Stream>,
    there: &DeviceMemory,
    beyond: &DeviceMemory,
    rounds: usize,
) -> Result<()> {
    let part = |memory: &DeviceMemory, i| {
        // SAFETY: the memory outlives this function and what it enqueues.
        let span = unsafe {
            let all = memory.span();
            DeviceSpan::from_raw_parts(all.addresses().start, all.len(), all.device())
        };
        span.get(i * LEN, LEN).unwrap()
    };
    let mut buffer = PinnedBuffer::new(entered, LEN)?;
    for i in 0..rounds {
        bytes(&mut buffer, entered)?.copy_from_slice(&pattern(i));
        buffer.upload(entered, stream, &parts(&part(there, i)))?;
    }
    let spans: Vec<_> = (0..rounds)
        .map(|i| (part(there, i), part(beyond, i)))
        .collect();
    stream.copy_within_device(entered, &spans)?;
    for i in 0..rounds {
        bytes(&mut buffer, entered)?.fill(0);
        buffer.download(entered, stream, &parts(&part(beyond, i)))?;
        assert!(
            bytes(&mut buffer, entered)? == pattern(i),
            "round {i} came back changed"
        );
    }
    Ok(())
}

/// The bytes of a buffer, once its copies have run.
fn bytes<'b>(buffer: &'b mut PinnedBuffer, entered: &Entered<'_>) -> Result<&'b mut [u8]> {
    while !buffer.is_idle(entered)? {
        std::thread::sleep(Duration::from_micros(50));
    }
    Ok(buffer.bytes().expect("it is idle"))
}

fn error<T>(result: Result<T>) -> Error {
    result.err().expect("this must not succeed")
}

#[track_caller]
fn assert_error<T>(result: Result<T>, code: Code, part: &str) {
    let error = error(result);
    assert_eq!(error.code(), code, "{error}");
    assert!(error.message().contains(part), "{error}");
}

mod without_a_driver {
    use super::*;

    #[track_caller]
    fn assert_unavailable(part: &str) {
        for _ in 0..2 {
            assert_error(driver(), Code::Unavailable, part);
        }
        assert_error(describe(), Code::Unavailable, "CUDA is unavailable: ");
        assert_error(DeviceContext::primary(0), Code::Unavailable, part);
    }

    #[test]
    fn no_library_is_unavailable() {
        in_own_process("without_a_driver::no_library_is_unavailable", &[], || {
            // SAFETY: looks for the driver of a machine that has one.
            if unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_LAZY) }.is_null() {
                assert_unavailable("there is no libcuda.so.1");
            }
        });
    }

    #[test]
    fn what_cu_init_refuses_is_unavailable_and_says_why() {
        let name = "without_a_driver::what_cu_init_refuses_is_unavailable_and_says_why";
        for (code, reason) in [
            ("34", "is the toolkit's stub"),
            ("100", "there is no device; cuInit: CUDA error 100"),
            (
                "803",
                "cuInit: CUDA error 803 (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)",
            ),
            ("999", "cuInit: CUDA error 999"),
            ("950", "cuInit: CUDA error 950"),
        ] {
            let variables = [("FAKECUDA_INIT_CODE", code), ("REASON", reason)];
            in_own_process(name, &variables, || {
                load_fake("full");
                assert_unavailable(&std::env::var("REASON").unwrap());
            });
        }
    }

    #[test]
    fn no_device_is_unavailable() {
        let name = "without_a_driver::no_device_is_unavailable";
        in_own_process(name, &[("FAKECUDA_DEVICES", "0")], || {
            load_fake("full");
            assert_unavailable("there is no device");
        });
    }

    #[test]
    fn an_old_driver_is_unavailable() {
        let name = "without_a_driver::an_old_driver_is_unavailable";
        in_own_process(name, &[("FAKECUDA_DRIVER_VERSION", "11030")], || {
            load_fake("full");
            assert_unavailable("is too old, it is of CUDA 11.3 and 11.4 is the least");
        });
    }

    #[test]
    fn a_driver_without_a_function_is_unavailable() {
        let name = "without_a_driver::a_driver_without_a_function_is_unavailable";
        in_own_process(name, &[], || {
            load_fake("missing-required");
            assert_unavailable("is too old, it has no cuMemcpyHtoDAsync_v2");
        });
    }
}

mod batches {
    use super::*;

    fn run(variant: &str, batches: u64) {
        let cuda = load_fake(variant);
        let has = describe().unwrap().has_batch_copies;
        assert_eq!(has, batches > 0);
        round_trip(0, 2).unwrap();
        let stats = cuda.stats();
        stats.assert_clean();
        assert_eq!(stats.batches, batches);
        // Of each buffer's parts one is empty.
        assert_eq!(
            (stats.h2d_copies, stats.d2d_copies, stats.d2h_copies),
            (6, 2, 6)
        );
        assert_eq!(stats.h2d_bytes, 2 * LEN as u64);
    }

    #[test]
    fn many_copies_are_one_call() {
        let name = "batches::many_copies_are_one_call";
        in_own_process(name, &[], || run("full", 5));
    }

    #[test]
    fn the_older_form_of_the_call_serves_as_well() {
        let name = "batches::the_older_form_of_the_call_serves_as_well";
        in_own_process(name, &[], || run("batch-12.8", 5));
    }

    #[test]
    fn a_driver_without_the_call_gets_one_by_one() {
        let name = "batches::a_driver_without_the_call_gets_one_by_one";
        in_own_process(name, &[], || run("no-batch", 0));
    }
}

#[test]
fn a_forked_process_is_refused_and_gives_nothing_back() {
    let name = "a_forked_process_is_refused_and_gives_nothing_back";
    in_own_process(name, &[], || {
        let cuda = session();
        let context = DeviceContext::primary(0).unwrap();
        let entered = context.enter().unwrap();
        let memory = DeviceMemory::new(&entered, LEN).unwrap();
        let stream = Stream::new(&entered).unwrap();
        let mut buffer = PinnedBuffer::new(&entered, LEN).unwrap();
        buffer
            .upload(&entered, &stream, &parts(&memory.span()))
            .unwrap();
        stream.synchronize(&entered).unwrap();

        // SAFETY: the child calls nothing that another thread may have left locked, and no destructors.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let calls = cuda.calls("*");
            let refused = [
                driver().err(),
                describe().err(),
                DeviceContext::primary(0).err(),
                context.enter().err(),
            ];
            let refused = refused.iter().all(|error| {
                let code = error.as_ref().map(Error::code);
                code == Some(Code::FailedPrecondition)
            });
            drop((buffer, memory, stream, entered));
            drop(context);
            let is_quiet = cuda.calls("*") == calls;
            // SAFETY: ends the child, and nothing of the parent's.
            unsafe { libc::_exit(i32::from(!refused) + 2 * i32::from(!is_quiet)) };
        }
        let mut status = -1;
        // SAFETY: waits for the child.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status >> 8, 0, "1: not refused, 2: calls after the fork");
        assert_eq!(status & 0xff, 0, "it ended by a signal");
        drop((buffer, memory, stream, entered));
        drop(context);
        cuda.stats().assert_clean();
    });
}

#[test]
fn devices_are_described() {
    let cuda = session();
    let description = describe().unwrap();
    println!("{description:#?}");
    assert!(description.driver_version >= 11_040);
    for device in &description.devices {
        assert!(!device.name.is_empty());
        assert!(device.total_memory >= 1 << 30);
    }
    if cuda.is_fake() {
        assert_eq!(cuda.stats().retains, [0; 8]);
    }
}

#[test]
fn bytes_come_back_as_they_went() {
    let cuda = session();
    round_trip(0, 4).unwrap();
    if !cuda.is_fake() {
        return;
    }
    for seed in 1..=8 {
        cuda.set("seed", seed);
        cuda.set("delay_us", 300);
        round_trip(1, 6).unwrap();
    }
    cuda.stats().assert_clean();
}

/// The caller's current context and capture mode, and the thread they are of.
struct Guest<'s> {
    cuda: &'s Session,
    before: (usize, i32, i32),
}

impl<'s> Guest<'s> {
    /// Has device 1's primary context current, as an engine does, if `has_context`.
    fn new(cuda: &'s Session, has_context: bool) -> Self {
        if has_context {
            let mut context = ptr::null_mut();
            let code = cuda_call!(cuda, cuDevicePrimaryCtxRetain(
                &raw mut context => *mut *mut c_void, 1 => i32
            ) -> u32);
            assert_eq!(code, 0);
            let code = cuda_call!(cuda, cuCtxSetCurrent(context => *mut c_void) -> u32);
            assert_eq!(code, 0);
        }
        let before = cuda.thread_state();
        assert_eq!(before.0 != 0, has_context);
        Self { cuda, before }
    }

    /// Fails if the thread is not as it was; otherwise what was counted, without this guest's own context.
    #[track_caller]
    fn end(self) -> Stats {
        assert_eq!(self.cuda.thread_state(), self.before);
        if self.before.0 != 0 {
            cuda_call!(self.cuda, cuCtxSetCurrent(ptr::null_mut() => *mut c_void) -> u32);
            cuda_call!(self.cuda, cuDevicePrimaryCtxRelease_v2(1 => i32) -> u32);
        }
        self.cuda.stats()
    }
}

/// Lets each call of the driver fail in turn with `code`; returns how many were tried.
fn fail_each_call(code: u32, mut check: impl FnMut(&Session, Result<()>)) -> u32 {
    for nth in 1.. {
        let Some(cuda) = fake_session() else {
            return u32::MAX;
        };
        let guest = Guest::new(&cuda, nth % 2 == 0);
        cuda.set_faults(&format!("*:{nth}:{code}"));
        let result = round_trip(0, 2);
        let fired = cuda.stats().faults_fired;
        cuda.set_faults("");
        guest.end().assert_clean();
        if fired == 0 {
            result.unwrap();
            return nth;
        }
        check(&cuda, result);
    }
    0
}

#[test]
fn each_failing_call_is_reported_and_leaves_nothing() {
    let tried = fail_each_call(2, |cuda, result| {
        // What fails while things are given back is nobody's business.
        if let Err(error) = result {
            assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
            assert!(
                error
                    .message()
                    .contains("CUDA error 2 (CUDA_ERROR_OUT_OF_MEMORY)"),
                "{error}"
            );
        }
        // And the next call of the caller's works.
        round_trip(0, 1).unwrap();
        cuda.stats().assert_clean();
    });
    assert!(tried > 40, "{tried}");
}

#[test]
fn a_code_that_nobody_knows_is_named_by_its_number() {
    let mut seen = 0;
    let tried = fail_each_call(950, |_, result| {
        if let Err(error) = result {
            assert_eq!(error.code(), Code::Internal, "{error}");
            assert!(error.message().ends_with(": CUDA error 950"), "{error}");
            seen += 1;
        }
    });
    assert!(seen > 20 || tried == u32::MAX, "{seen}");
}

#[test]
fn an_error_on_the_device_ends_the_context_but_hangs_nothing() {
    for nth in 1.. {
        let Some(cuda) = fake_session() else { return };
        cuda.set("delay_us", 100);
        cuda.set_faults(&format!("ASYNC:{nth}:700"));
        let result = round_trip(0, 2);
        let stats = cuda.stats();
        stats.assert_clean();
        if stats.faults_fired == 0 {
            assert!(nth > 10);
            return result.unwrap();
        }
        let error = error(result);
        assert_eq!(error.code(), Code::Internal, "{error}");
        let text = "CUDA error 700 (CUDA_ERROR_ILLEGAL_ADDRESS); the device can no longer";
        assert!(error.message().contains(text), "{error}");
    }
}

#[test]
fn a_capture_elsewhere_survives() {
    let Some(cuda) = fake_session() else { return };
    cuda.set("capture", 1);
    let guest = Guest::new(&cuda, false);
    round_trip(0, 2).unwrap();
    // Handles that are dropped on a thread that never entered anything.
    let context = DeviceContext::primary(1).unwrap();
    let entered = context.enter().unwrap();
    let kept = (
        Stream::new(&entered).unwrap(),
        PinnedBuffer::new(&entered, LEN).unwrap(),
        DeviceMemory::new(&entered, LEN).unwrap(),
        Event::new(&entered).unwrap(),
    );
    drop(entered);
    drop(context);
    std::thread::spawn(move || drop(kept)).join().unwrap();
    guest.end().assert_clean();
    cuda.set("capture", 0);
}

#[test]
fn what_is_dropped_on_another_thread_is_given_back_whatever_call_fails() {
    for nth in 1.. {
        let Some(cuda) = fake_session() else { return };
        let kept = {
            let context = DeviceContext::primary(1).unwrap();
            let entered = context.enter().unwrap();
            let memory = DeviceMemory::new(&entered, LEN).unwrap();
            let stream = Stream::new(&entered).unwrap();
            let event = Event::new(&entered).unwrap();
            let mut buffer = PinnedBuffer::new(&entered, LEN).unwrap();
            cuda.hold(true);
            let copies = parts(&memory.span());
            buffer.upload(&entered, &stream, &copies).unwrap();
            (buffer, event, stream, memory)
        };
        cuda.set_faults(&format!("*:{nth}:999"));
        cuda.hold(false);
        std::thread::spawn(move || drop(kept)).join().unwrap();
        let stats = cuda.stats();
        stats.assert_clean();
        if stats.faults_fired == 0 {
            assert!(nth > 20);
            return;
        }
    }
}

#[test]
fn a_buffer_is_the_devices_until_its_copies_have_run() {
    let Some(cuda) = fake_session() else { return };
    let context = DeviceContext::primary(0).unwrap();
    let entered = context.enter().unwrap();
    let memory = DeviceMemory::new(&entered, LEN).unwrap();
    let stream = Stream::new(&entered).unwrap();
    let mut buffer = PinnedBuffer::new(&entered, LEN).unwrap();
    bytes(&mut buffer, &entered)
        .unwrap()
        .copy_from_slice(&pattern(1));
    assert!(buffer.is_idle(&entered).unwrap());

    cuda.hold(true);
    buffer
        .upload(&entered, &stream, &parts(&memory.span()))
        .unwrap();
    assert!(!buffer.is_idle(&entered).unwrap() && buffer.is_busy());
    assert!(buffer.bytes().is_none());
    assert!(!stream.is_idle(&entered).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Sooner or later; who wants the bytes waits as long as it takes.
            std::thread::sleep(std::time::Duration::from_millis(30));
            cuda.hold(false);
        });
        bytes(&mut buffer, &entered).unwrap().fill(0);
    });
    assert!(cuda.peek(memory.span().addresses().start, LEN) == pattern(1));
    assert!(buffer.is_idle(&entered).unwrap() && !buffer.is_busy());
    stream.synchronize(&entered).unwrap();
    assert!(stream.is_idle(&entered).unwrap());
}

#[test]
fn a_buffer_waits_also_for_copies_whose_end_could_not_be_recorded() {
    for is_dropped in [false, true] {
        let Some(cuda) = fake_session() else { return };
        let context = DeviceContext::primary(0).unwrap();
        let entered = context.enter().unwrap();
        let memory = DeviceMemory::new(&entered, LEN).unwrap();
        let stream = Stream::new(&entered).unwrap();
        let mut buffer = PinnedBuffer::new(&entered, LEN).unwrap();
        bytes(&mut buffer, &entered)
            .unwrap()
            .copy_from_slice(&pattern(2));
        cuda.set("delay_us", 2000);
        cuda.set_faults("cuEventRecord:1:999");
        let copies = parts(&memory.span());
        let result = buffer.upload(&entered, &stream, &copies);
        assert_error(result, Code::Internal, "cuEventRecord: CUDA error 999");
        if is_dropped {
            drop(buffer);
        } else {
            bytes(&mut buffer, &entered).unwrap().fill(0);
        }
        assert!(cuda.peek(memory.span().addresses().start, LEN) == pattern(2));
        assert_eq!(cuda.stats().stale_copies, 0);
    }
}

#[test]
fn a_buffer_may_change_its_stream() {
    let Some(cuda) = fake_session() else { return };
    cuda.set("delay_us", 500);
    let context = DeviceContext::primary(0).unwrap();
    let entered = context.enter().unwrap();
    let memory = DeviceMemory::new(&entered, 2 * LEN).unwrap();
    let [first, second] = [0, LEN].map(|offset| memory.span().get(offset, LEN).unwrap());
    let (up, down) = (
        Stream::new(&entered).unwrap(),
        Stream::new(&entered).unwrap(),
    );
    let mut buffer = PinnedBuffer::new(&entered, LEN).unwrap();
    for i in 0..8 {
        bytes(&mut buffer, &entered)
            .unwrap()
            .copy_from_slice(&pattern(i));
        buffer.upload(&entered, &up, &parts(&first)).unwrap();
        buffer.upload(&entered, &up, &parts(&second)).unwrap();
        buffer.download(&entered, &down, &parts(&second)).unwrap();
        assert!(bytes(&mut buffer, &entered).unwrap() == pattern(i));
    }
}

#[test]
fn copies_stay_inside_their_buffer() {
    let cuda = session();
    let context = DeviceContext::primary(0).unwrap();
    let entered = context.enter().unwrap();
    let memory = DeviceMemory::new(&entered, LEN).unwrap();
    let stream = Stream::new(&entered).unwrap();
    let mut buffer = PinnedBuffer::new(&entered, LEN).unwrap();
    for offset in [1, LEN, usize::MAX] {
        let device = memory.span();
        let copies = [
            PinnedCopy { offset: 0, device },
            PinnedCopy { offset, device },
        ];
        for result in [
            buffer.upload(&entered, &stream, &copies),
            buffer.download(&entered, &stream, &copies),
        ] {
            assert_error(result, Code::Internal, "beyond its buffer");
        }
    }
    let half = memory.span().get(0, LEN / 2).unwrap();
    let result = stream.copy_within_device(&entered, &[(memory.span(), half)]);
    assert_error(result, Code::Internal, "differ in length");
    assert!(memory.span().get(1, LEN).is_none());
    assert!(memory.span().get(usize::MAX, 2).is_none());
    if cuda.is_fake() {
        assert_eq!(cuda.stats().h2d_copies, 0);
    }
}

#[test]
fn memory_that_is_not_there_is_resource_exhausted() {
    let Some(cuda) = fake_session() else { return };
    cuda.set("memory", 1 << 20);
    cuda.set("pinned_limit", 1 << 20);
    let context = DeviceContext::primary(0).unwrap();
    let entered = context.enter().unwrap();
    let free = entered.free_memory().unwrap();
    assert!(free <= 1 << 20);
    let result = DeviceMemory::new(&entered, free + 1);
    let text = format!(
        "allocating {} bytes on CUDA device 0: cuMemAlloc_v2",
        free + 1
    );
    assert_error(result, Code::ResourceExhausted, &text);
    let result = PinnedBuffer::new(&entered, 2 << 20);
    assert_error(
        result,
        Code::ResourceExhausted,
        "page-locking 2097152 bytes: cuMemHostAlloc",
    );
    DeviceMemory::new(&entered, free / 2).unwrap();
    DeviceMemory::new(&entered, 0).unwrap();
}

#[test]
fn there_is_no_device_beyond_the_last() {
    let _cuda = session();
    let devices = driver().unwrap().num_devices();
    for device in [-1, devices, i32::MAX] {
        let text = format!("there is no CUDA device {device}; devices={devices}");
        assert_error(DeviceContext::primary(device), Code::InvalidArgument, &text);
    }
}

#[test]
fn a_context_of_the_callers_is_used_and_left_alone() {
    let Some(cuda) = fake_session() else { return };
    let mut handle = ptr::null_mut();
    let code = cuda_call!(cuda, cuCtxCreate_v2(
        &raw mut handle => *mut *mut c_void, 0 => u32, 1 => i32
    ) -> u32);
    assert_eq!(code, 0);
    let before = cuda.thread_state();
    // SAFETY: the context lives to the end of this test.
    let given = unsafe { DeviceContext::borrow(handle) }.unwrap();
    assert_eq!(given.device(), 1);
    {
        let entered = given.enter().unwrap();
        let _stream = Stream::new(&entered).unwrap();
    }
    drop(given);
    assert_eq!(cuda.thread_state(), before);
    let stats = cuda.stats();
    stats.assert_clean();
    assert_eq!(stats.live_contexts, 1);
    assert_eq!(
        cuda_call!(cuda, cuCtxDestroy_v2(handle => *mut c_void) -> u32),
        0
    );
}

/// A stream that is the caller's.
struct Theirs<'s> {
    cuda: &'s Session,
    handle: *mut c_void,
}

impl<'s> Theirs<'s> {
    fn new(cuda: &'s Session, context: &Arc<DeviceContext>) -> Self {
        let _entered = context.enter().unwrap();
        let mut handle = ptr::null_mut();
        let code = cuda_call!(cuda, cuStreamCreate(
            &raw mut handle => *mut *mut c_void, 1 => u32
        ) -> u32);
        assert_eq!(code, 0);
        Self { cuda, handle }
    }

    fn get(&self, default: &Arc<DeviceContext>) -> Result<CallerStream> {
        // SAFETY: it lives as long as this.
        unsafe { CallerStream::new(self.handle, default) }
    }

    fn end(self, context: &Arc<DeviceContext>) {
        let _entered = context.enter().unwrap();
        let code = cuda_call!(self.cuda, cuStreamDestroy_v2(self.handle => *mut c_void) -> u32);
        assert_eq!(code, 0);
    }
}

#[test]
fn a_stream_of_another_device_is_refused() {
    let Some(cuda) = fake_session() else { return };
    let [zero, one] = [0, 1].map(|device| DeviceContext::primary(device).unwrap());
    let theirs = Theirs::new(&cuda, &one);
    let stream = theirs.get(&zero).unwrap();
    assert_eq!(stream.device(), 1);
    stream.expect_device(1).unwrap();
    let text = "the stream is of CUDA device 1, not of 0";
    assert_error(stream.expect_device(0), Code::InvalidArgument, text);
    for special in 0..=2 {
        // SAFETY: CUDA's own streams.
        let stream = unsafe { CallerStream::new(ptr::without_provenance_mut(special), &zero) };
        stream.unwrap().expect_device(0).unwrap();
    }
    drop(stream);
    theirs.end(&one);
}

#[test]
fn a_stream_that_is_captured_is_refused_and_its_capture_survives() {
    let cuda = session();
    let context = DeviceContext::primary(0).unwrap();
    let theirs = Theirs::new(&cuda, &context);
    theirs.get(&context).unwrap();
    let entered = context.enter().unwrap();
    let code = cuda_call!(cuda, cuStreamBeginCapture_v2(
        theirs.handle => *mut c_void, 0 => u32
    ) -> u32);
    assert_eq!(code, 0);
    drop(entered);
    let refused = theirs.get(&context);
    assert_error(
        refused,
        Code::FailedPrecondition,
        "is being captured into a graph",
    );
    let _entered = context.enter().unwrap();
    let mut graph = ptr::null_mut();
    let code = cuda_call!(cuda, cuStreamEndCapture(
        theirs.handle => *mut c_void, &raw mut graph => *mut *mut c_void
    ) -> u32);
    assert_eq!(code, 0);
    drop(_entered);
    theirs.end(&context);
}

#[test]
fn streams_of_the_caller_and_of_the_library_wait_for_each_other_across_devices() {
    let Some(cuda) = fake_session() else { return };
    let [zero, one] = [0, 1].map(|device| DeviceContext::primary(device).unwrap());
    let theirs = Theirs::new(&cuda, &one);
    let entered = zero.enter().unwrap();
    let memory = DeviceMemory::new(&entered, LEN).unwrap();
    let ours = Stream::new(&entered).unwrap();
    let mut buffer = PinnedBuffer::new(&entered, LEN).unwrap();
    bytes(&mut buffer, &entered)
        .unwrap()
        .copy_from_slice(&pattern(3));
    let (theirs_done, ours_done);
    {
        let stream = theirs.get(&zero).unwrap();
        // The caller's work takes until it is released.
        cuda.hold_stream(theirs.handle, true);
        theirs_done = stream.mark().unwrap();
        ours.wait_for(&entered, &theirs_done).unwrap();
        buffer
            .upload(&entered, &ours, &parts(&memory.span()))
            .unwrap();
        ours_done = Event::new(&entered).unwrap();
        ours.record(&entered, &ours_done).unwrap();
        stream.wait_for(&ours_done).unwrap();
        let after = stream.mark().unwrap();
        // Time enough for a copy that waits for nothing.
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert!(!buffer.is_idle(&entered).unwrap());
        let at_one = one.enter().unwrap();
        assert!(!after.is_reached(&at_one).unwrap());
        cuda.hold_stream(theirs.handle, false);
        after.wait(&at_one).unwrap();
        assert!(after.is_reached(&at_one).unwrap());
    }
    assert!(cuda.peek(memory.span().addresses().start, LEN) == pattern(3));
    drop((theirs_done, ours_done, buffer, ours, memory, entered));
    theirs.end(&one);
    drop((zero, one));
    cuda.stats().assert_clean();
}

#[test]
fn addresses_are_located() {
    let cuda = session();
    let context = DeviceContext::primary(0).unwrap();
    let entered = context.enter().unwrap();
    let memory = DeviceMemory::new(&entered, LEN).unwrap();
    let mut buffer = PinnedBuffer::new(&entered, LEN).unwrap();
    let host = vec![0u8; LEN];
    let device = memory.span();
    let pinned = bytes(&mut buffer, &entered).unwrap().as_ptr().addr();
    let place = |address| locate(&entered, address).unwrap().place;
    assert_eq!(place(host.as_ptr().addr()), Place::Host);
    assert_eq!(place(pinned), Place::Pinned);
    assert_eq!(place(device.addresses().start), Place::Device(0));
    assert_eq!(place(device.addresses().end - 1), Place::Device(0));
    let range = locate(&entered, device.addresses().start + 5)
        .unwrap()
        .range;
    assert!(range.start <= device.addresses().start && range.end >= device.addresses().end);

    let check = |address, len, device| {
        // SAFETY: nothing is copied.
        let span = unsafe { DeviceSpan::from_raw_parts(address, len, device) };
        Locator::default().check(&entered, &span)
    };
    let start = device.addresses().start;
    check(start, LEN, 0).unwrap();
    check(start + LEN - 1, 1, 0).unwrap();
    check(host.as_ptr().addr(), 0, 0).unwrap();
    check(0, 0, 0).unwrap();
    let refused = |result, text: &str| assert_error(result, Code::InvalidArgument, text);
    refused(
        check(start, LEN, 1),
        "memory of CUDA device 1 is of CUDA device 0",
    );
    refused(
        check(pinned, LEN, 0),
        "memory of CUDA device 0 is page-locked host memory",
    );
    refused(
        check(host.as_ptr().addr(), LEN, 0),
        "memory of CUDA device 0 is host memory",
    );
    refused(check(0, 1, 0), "is host memory");
    let text = format!("too small; size={}, needed={}", LEN - 8, 1usize << 40);
    if cuda.is_fake() {
        refused(check(start + 8, 1 << 40, 0), &text);
        let asked = cuda.calls("cuPointerGetAttributes");
        let mut locator = Locator::default();
        for offset in 0..100 {
            locator
                .check(&entered, &device.get(offset, 1).unwrap())
                .unwrap();
        }
        assert_eq!(cuda.calls("cuPointerGetAttributes"), asked + 1);
    }
}

#[test]
fn memory_in_turn_of_several_allocations_and_devices_is_asked_for_once() {
    let Some(cuda) = fake_session() else { return };
    let contexts = [0, 1].map(|device| DeviceContext::primary(device).unwrap());
    let memory = |i: usize| DeviceMemory::new(&contexts[i % 2].enter().unwrap(), LEN).unwrap();
    let memory: Vec<DeviceMemory> = (0..20).map(memory).collect();
    let entered = contexts[0].enter().unwrap();
    let mut locator = Locator::default();
    let asked = cuda.calls("cuPointerGetAttributes");
    for offset in 0..100 {
        for part in &memory {
            let span = part.span().get(offset, 1).unwrap();
            assert_eq!(locator.knows(&span), offset > 0);
            locator.check(&entered, &span).unwrap();
        }
    }
    assert_eq!(cuda.calls("cuPointerGetAttributes") - asked, 20);
    // What lies behind an allocation, and what is another device's, is not known.
    let end = memory[0].span().addresses().end;
    let wrong = |address, device| {
        // SAFETY: nothing is copied.
        let span = unsafe { DeviceSpan::from_raw_parts(address, 2, device) };
        !locator.knows(&span)
    };
    assert!(wrong(end - 1, 0) && wrong(end, 0) && wrong(end - 2, 1));
}
