//! What jobs promise, tried at every moment that can be told from outside.

mod restores;
mod saves;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::dtype::DType;
use crate::error::Code;
use crate::io::fault::{Disk, Plan, Watch};
use crate::memory::keep;
use crate::shape::Shape;
use crate::transfer::{Call, Context, ContextOptions};

/// Memory that a job may use.
fn kept(value: u8, len: usize) -> &'static mut [u8] {
    keep(vec![value; len].into_boxed_slice())
}

fn tensor(key: &'static str, bytes: &'static [u8]) -> SaveTensor<'static> {
    SaveTensor {
        key: key.as_bytes(),
        dtype: DType::Uint8,
        shape: Shape::new([i64::try_from(bytes.len()).unwrap()]).unwrap(),
        slice_spec: "",
        device_name: "",
        data: SaveData::Bytes(bytes.into()),
    }
}

fn destination(key: &'static str, bytes: &'static mut [u8]) -> RestoreTensor<'static> {
    RestoreTensor {
        key: key.as_bytes(),
        dtype: DType::Uint8,
        shape: Shape::new([i64::try_from(bytes.len()).unwrap()]).unwrap(),
        slice_spec: "",
        device_name: "",
        data: RestoreData::Bytes(bytes.into()),
    }
}

/// Memory that a test and a job use in turns. Raw addresses, as those of a caller in C are.
struct Shared(Vec<std::sync::atomic::AtomicU8>);

impl Shared {
    fn new(len: usize) -> Self {
        Self(std::iter::repeat_with(Default::default).take(len).collect())
    }

    fn set(&self, value: u8) {
        for byte in &self.0 {
            byte.store(value, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn is_all(&self, value: u8) -> bool {
        let mut bytes = self.0.iter();
        bytes.all(|byte| byte.load(std::sync::atomic::Ordering::Relaxed) == value)
    }
}

fn context() -> Arc<Context> {
    Arc::new(
        Context::new(ContextOptions {
            num_threads: 2,
            ..ContextOptions::default()
        })
        .unwrap(),
    )
}

/// A job whose progress callback says when it is called, and goes on when it is told to.
fn stepped() -> (JobOptions, Steps) {
    let (called, calls) = sync_channel(0);
    let (go_on, told) = sync_channel::<()>(0);
    let options = JobOptions {
        progress: Some(Box::new(move |_| {
            // The other side is gone when the test no longer cares.
            let _ = called.send(());
            let _ = told.recv();
            true
        })),
        ..JobOptions::new(context())
    };
    (options, Steps { calls, go_on })
}

struct Steps {
    calls: Receiver<()>,
    go_on: SyncSender<()>,
}

impl Steps {
    /// Waits for the next report; `false` if there are no more.
    fn next(&self) -> bool {
        self.calls.recv().is_ok()
    }

    fn go_on(&self) -> bool {
        self.go_on.send(()).is_ok()
    }
}

fn restored(prefix: &Path, key: &'static str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut tensors = [RestoreTensor {
        key: key.as_bytes(),
        dtype: DType::Uint8,
        shape: Shape::new([i64::try_from(len).unwrap()]).unwrap(),
        slice_spec: "",
        device_name: "",
        data: RestoreData::Bytes(bytes.as_mut_slice().into()),
    }];
    let context = context();
    let reader = Reader::open(prefix).unwrap();
    let options = RestoreOptions::default();
    let outcome = reader.restore(&mut tensors, &options, &mut Call::new(&context));
    outcome.unwrap().into_result().unwrap();
    bytes
}

fn in_dir() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("m");
    (dir, prefix)
}

const NOW: Option<Duration> = Some(Duration::ZERO);
