//! A save or restore that runs on a thread of its own.
//!
//! The thread coordinates, as the calling thread does otherwise: it runs the call with its helpers and
//! makes the calls of the progress callback. Others look at the job through its
//! [`Monitor`](crate::transfer::Monitor) and, once it has ended, at what came of it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::device::Event;
use crate::error::{Code, Error, Result};
use crate::io::with_signals_blocked;
use crate::transfer::{
    Call, Context, Monitor, Progress, ProgressFn, Stage, Stats, Update, check_limit,
};

/// Called on a job's thread only; `false` cancels the job.
pub type JobProgressFn = dyn FnMut(&Update) -> bool + Send;

/// Called last, on a job's thread, with what came of the job.
pub type JobEndFn = dyn FnOnce(&Result<()>) + Send;

/// What a job is given besides what it saves or restores.
pub struct JobOptions {
    /// Threads and budget. The job keeps it.
    pub context: Arc<Context>,
    /// The job's own limit in bytes, 0 for the context's.
    pub max_host_bytes: u64,
    /// What the first copy from or to a GPU waits for.
    pub after: Vec<Event>,
    /// Dropped when the job has ended.
    pub holds: Vec<Box<dyn Any + Send>>,
    /// Told how far the job is.
    pub progress: Option<Box<JobProgressFn>>,
    /// Told what came of it.
    pub on_end: Option<Box<JobEndFn>>,
}

impl JobOptions {
    /// A job on `context`, without a limit of its own and without progress.
    pub fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            max_host_bytes: 0,
            after: Vec::new(),
            holds: Vec::new(),
            progress: None,
            on_end: None,
        }
    }
}

/// What came of a job.
#[derive(Debug)]
pub(crate) struct Done {
    /// Whether it succeeded.
    pub result: Result<()>,
    /// The path by which a saved checkpoint is restored.
    pub path: Option<PathBuf>,
    /// What came of each tensor of a restore.
    pub tensors: Vec<Result<()>>,
}

impl Done {
    /// A save that has ended; without a path if there was nothing to save.
    pub fn saved(saved: Result<Option<PathBuf>>) -> Self {
        let (result, path) = match saved {
            Ok(path) => (Ok(()), path),
            Err(error) => (Err(error), None),
        };
        Self {
            result,
            path,
            tensors: Vec::new(),
        }
    }
}

/// What a job and those who look at it share.
#[derive(Debug)]
pub(crate) struct JobState {
    monitor: Arc<Monitor>,
    ended: OnceLock<Ended>,
    /// Whether somebody was given the job's error.
    fetched: AtomicBool,
}

#[derive(Debug)]
struct Ended {
    done: Done,
    stats: Stats,
    /// Whether the arguments were found to fit together.
    accepted: bool,
}

impl JobState {
    /// Asks the job to stop.
    pub fn cancel(&self) {
        self.monitor.cancel();
    }

    /// Waits for the end, for so long at most. Returns whether it has come.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        self.monitor.wait_for(Stage::Ended, timeout)
    }

    /// The error of a job that has ended, unless somebody has it already, or asked the job to stop:
    /// then nobody is surprised.
    pub fn take_unfetched(&self) -> Option<Error> {
        let error = self.ended.get()?.done.result.as_ref().err()?;
        let was_fetched = self.fetched.swap(true, Ordering::Relaxed);
        let was_asked_for = error.code() == Code::Cancelled && self.monitor.is_cancelled();
        (!was_fetched && !was_asked_for).then(|| error.clone())
    }

    fn end(&self, done: Done, stats: Stats) {
        let accepted = self.monitor.has_reached(Stage::Accepted);
        let ended = Ended {
            done,
            stats,
            accepted,
        };
        // It is set once: what comes second is the guard's.
        let _ = self.ended.set(ended);
        self.monitor.reach(Stage::Ended);
    }
}

/// An asynchronous save or restore. Any number of threads may look at it at once.
///
/// Dropping it waits for its end; [`cancel`](Self::cancel) shortens that.
#[derive(Debug)]
pub struct Job {
    state: Arc<JobState>,
    thread: Option<JoinHandle<()>>,
}

impl Job {
    /// Starts `work` on a thread of its own, watched by `monitor`, and waits until it reaches `stage`.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED if there is no thread to be had; INVALID_ARGUMENT for a limit below the
    /// minimum; the error of arguments that do not fit together: there is no job then.
    pub(crate) fn start(
        options: JobOptions,
        monitor: Monitor,
        stage: Stage,
        work: impl FnOnce(&mut Call<'_>) -> Done + Send + 'static,
    ) -> Result<Self> {
        check_limit(options.max_host_bytes)?;
        let state = Arc::new(JobState {
            monitor: Arc::new(monitor),
            ended: OnceLock::new(),
            fetched: AtomicBool::new(false),
        });
        let guard = EndGuard(state.clone());
        let run = move || {
            let (done, stats) = run(options, &guard.0.monitor, work);
            guard.0.end(done, stats);
        };
        let builder = std::thread::Builder::new().name("tfckpt-job".to_owned());
        let thread = with_signals_blocked(|| builder.spawn(run)).map_err(|error| {
            Error::resource_exhausted(format!("no thread for the job; {error}"))
        })?;
        let job = Self {
            state,
            thread: Some(thread),
        };
        job.state.monitor.wait_for(stage, None);
        match job.state.ended.get() {
            Some(ended) if !ended.accepted => ended.done.result.clone().map(|()| job),
            _ => Ok(job),
        }
    }

    /// Whether the job has ended.
    pub fn is_done(&self) -> bool {
        self.state.monitor.has_reached(Stage::Ended)
    }

    /// Waits for the end, for so long at most (`None` = as long as it takes), and returns what came of
    /// the job, each time anew; `None` if it has not ended. A job that waits for itself, in its progress
    /// callback, is told that it has not.
    pub fn wait(&self, timeout: Option<Duration>) -> Option<Result<()>> {
        let timeout = self.patience(timeout);
        if !self.state.wait(timeout) {
            return None;
        }
        let result = self.state.ended.get()?.done.result.clone();
        if result.is_err() {
            self.state.fetched.store(true, Ordering::Relaxed);
        }
        Some(result)
    }

    /// Waits until the tensors of a save may change again, for so long at most. Returns whether they
    /// may. They also may when the job has ended, however.
    pub fn wait_snapshot(&self, timeout: Option<Duration>) -> bool {
        let timeout = self.patience(timeout);
        self.state.monitor.wait_for(Stage::Copied, timeout)
    }

    /// Waits until tensor `index` of a restore is complete and verified, or has failed, or the job has
    /// ended, for so long at most. Returns what came of the tensor, ABORTED if it was not attempted;
    /// `None` as long as that is not known.
    pub fn wait_tensor(&self, index: usize, timeout: Option<Duration>) -> Option<Result<()>> {
        let monitor = &self.state.monitor;
        let num_tensors = monitor.num_arrivals();
        if index >= num_tensors {
            return Some(Err(Error::invalid_argument(format!(
                "the job restores no such tensor; index={index} num_tensors={num_tensors}"
            ))));
        }
        let timeout = self.patience(timeout);
        // A time that no clock shows is no limit.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        if !monitor.wait_for_tensor(index, timeout) {
            return None;
        }
        // At the end more is known of an error than when it was met.
        let known = self.state.ended.get().map(|ended| {
            let result = ended.done.tensors.get(index).cloned();
            result.unwrap_or_else(|| Err(not_restored(index)))
        });
        if known.is_some() {
            return known;
        }
        // In a GPU's memory it is complete when the copies have run.
        match monitor.arrival(index)? {
            Ok(()) => match monitor.wait_for_copies(index, deadline) {
                // It may have been lost meanwhile.
                Ok(true) => monitor.arrival(index),
                Ok(false) => None,
                Err(error) => Some(Err(error.with_tensor_index(index))),
            },
            failed => Some(failed),
        }
    }

    /// Waits until the copies of tensor `index` to a GPU are enqueued and its checksum is known, as
    /// [`wait_tensor`](Self::wait_tensor) waits for the tensor. Returns events behind the copies; `None` to a
    /// job that waits for itself.
    pub(crate) fn wait_enqueued(&self, index: usize) -> Option<Result<Vec<Event>>> {
        let monitor = &self.state.monitor;
        if index < monitor.num_arrivals() && !monitor.has_reached(Stage::Ended) {
            monitor.wait_for_tensor(index, self.patience(None));
            if let Some(arrived) = monitor.arrival(index) {
                let marked = arrived.and_then(|()| monitor.mark_copies(index));
                // It may have been lost meanwhile.
                let arrived = monitor.arrival(index).unwrap_or(Ok(()));
                return Some(arrived.and(marked));
            }
        }
        let result = self.wait_tensor(index, None)?;
        Some(result.map(|()| Vec::new()))
    }

    /// The GPU that tensor `index` of a restore goes to, if one does.
    pub(crate) fn device(&self, index: usize) -> Option<i32> {
        self.state.monitor.device(index)
    }

    /// Asks the job to stop, which it does within a chunk of data: it then ends with CANCELLED, and
    /// nothing new is visible on disk. What has been published stays.
    pub fn cancel(&self) {
        self.state.cancel();
    }

    /// How far the job is.
    pub fn progress(&self) -> Update {
        self.state.monitor.update()
    }

    /// What the job did, once it has ended.
    pub fn stats(&self) -> Option<&Stats> {
        Some(&self.state.ended.get()?.stats)
    }

    /// The path by which the checkpoint that it has saved is restored.
    pub fn path(&self) -> Option<&Path> {
        self.state.ended.get()?.done.path.as_deref()
    }

    /// What came of each tensor of a restore that has ended; empty if it ended before it looked at them.
    pub fn results(&self) -> Option<&[Result<()>]> {
        Some(&self.state.ended.get()?.done.tensors)
    }

    /// Number of tensors of a restore; 0 of a save.
    pub fn num_tensors(&self) -> usize {
        self.state.monitor.num_arrivals()
    }

    /// What the saver whose job it is keeps of it.
    pub(crate) fn state(&self) -> Arc<JobState> {
        self.state.clone()
    }

    /// How long this thread may wait: not at all for itself.
    fn patience(&self, timeout: Option<Duration>) -> Option<Duration> {
        if self.is_own_thread() {
            return Some(Duration::ZERO);
        }
        timeout
    }

    fn is_own_thread(&self) -> bool {
        let own = self.thread.as_ref().map(|thread| thread.thread().id());
        own == Some(std::thread::current().id())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.is_own_thread() {
            return;
        }
        if let Some(thread) = self.thread.take() {
            // What came of it has been noted.
            let _ = thread.join();
        }
    }
}

/// Why there is nothing of a tensor.
fn not_restored(index: usize) -> Error {
    Error::aborted("not restored: the call ended early").with_tensor_index(index)
}

/// Runs the work; all that it was given is gone when this returns.
fn run(
    options: JobOptions,
    monitor: &Arc<Monitor>,
    work: impl FnOnce(&mut Call<'_>) -> Done,
) -> (Done, Stats) {
    let JobOptions {
        context,
        max_host_bytes,
        after,
        holds,
        progress,
        on_end,
    } = options;
    let mut call = Call::new(&context);
    call.max_host_bytes = max_host_bytes;
    call.after = after;
    let progress = progress.map(|progress| -> Box<ProgressFn<'static>> { progress });
    call.progress = Progress::watched(progress, monitor.clone());
    let failed = |payload: Box<dyn Any + Send>| Done::saved(Err(panicked(payload.as_ref())));
    let done = catch_unwind(AssertUnwindSafe(|| work(&mut call)));
    let mut done = done.unwrap_or_else(failed);
    drop(holds);
    if let Some(on_end) = on_end {
        let told = catch_unwind(AssertUnwindSafe(|| on_end(&done.result)));
        if let Err(payload) = told {
            done = failed(payload);
        }
    }
    (done, call.stats)
}

fn panicked(payload: &(dyn Any + Send)) -> Error {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    Error::internal(format!(
        "panic on the job's thread: {}",
        text.unwrap_or_default()
    ))
}

/// Whatever happens on the job's thread, those who wait are woken.
struct EndGuard(Arc<JobState>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        if self.0.ended.get().is_none() {
            let error = Error::internal("the job's thread has died");
            self.0.end(Done::saved(Err(error)), Stats::default());
        }
    }
}
