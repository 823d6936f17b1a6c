//! What `merge` promises, tried with every fault that the file system may have.

mod faults;
mod refusals;
mod shards;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{
    MergeOptions, Reader, RestoreData, RestoreOptions, RestoreTensor, SaveData, SaveOptions,
    SaveTensor, merge, save, save_shard,
};
use crate::dtype::DType;
use crate::error::{Code, Result};
use crate::io::fault::{Disk, Plan, Record, Watch, crash_states};
use crate::shape::Shape;
use crate::state::get_checkpoint_state;
use crate::transfer::{Call, Context, ContextOptions};

fn with_call<T>(act: impl FnOnce(&mut Call<'_>) -> T) -> T {
    let context = Context::new(ContextOptions::default()).unwrap();
    act(&mut Call::new(&context))
}

/// A tensor of floats: key, slice spec and values.
type Floats<'a> = (&'a str, &'a str, &'a [f32]);

fn bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn with_tensors<T>(floats: &[Floats<'_>], act: impl FnOnce(&[SaveTensor<'_>]) -> T) -> T {
    let data: Vec<Vec<u8>> = floats.iter().map(|(_, _, values)| bytes(values)).collect();
    let tensors: Vec<SaveTensor<'_>> = floats
        .iter()
        .zip(&data)
        .map(|((key, slice_spec, values), data)| SaveTensor {
            key: key.as_bytes(),
            dtype: DType::Float,
            shape: Shape::new([i64::try_from(values.len()).unwrap()]).unwrap(),
            slice_spec,
            device_name: "",
            data: SaveData::Bytes(data.as_slice().into()),
        })
        .collect();
    act(&tensors)
}

const QUICK: SaveOptions = SaveOptions {
    global_step: None,
    format: crate::checkpoint::Format::V2,
    pad_step_number: false,
    update_state: false,
    save_relative_paths: false,
    no_sync: true,
    shard_by_device: false,
    max_shard_size: 0,
    alignment: 0,
    chunk_checksums: false,
};

fn save_floats(prefix: &Path, floats: &[Floats<'_>], options: &SaveOptions) {
    with_tensors(floats, |tensors| {
        with_call(|call| save(prefix, tensors, options, call)).unwrap();
    });
}

fn restore(prefix: &Path, floats: &[(&str, usize)]) -> Result<Vec<Vec<u8>>> {
    let mut data: Vec<Vec<u8>> = floats.iter().map(|(_, len)| vec![0; len * 4]).collect();
    let mut tensors: Vec<RestoreTensor<'_>> = floats
        .iter()
        .zip(&mut data)
        .map(|((key, len), data)| RestoreTensor {
            key: key.as_bytes(),
            dtype: DType::Float,
            shape: Shape::new([i64::try_from(*len).unwrap()]).unwrap(),
            slice_spec: "",
            device_name: "",
            data: RestoreData::Bytes(data.as_mut_slice().into()),
        })
        .collect();
    let reader = Reader::open(prefix)?;
    let options = RestoreOptions::default();
    with_call(|call| reader.restore(&mut tensors, &options, call))?.into_result()?;
    drop(tensors);
    Ok(data)
}

/// Saves what is to be merged as `p0` and `p1`.
fn save_parts(dir: &Path, sidecars: bool) {
    let options = SaveOptions {
        chunk_checksums: sidecars,
        ..QUICK
    };
    save_floats(&dir.join("p0"), &PART_0, &options);
    save_floats(&dir.join("p1"), &PART_1, &options);
}

const PART_0: [Floats<'_>; 2] = [("a", "", &[1.0]), ("x", "4 0,2", &[10.0, 11.0])];
const PART_1: [Floats<'_>; 2] = [("b", "", &[2.0]), ("x", "4 2,2", &[12.0, 13.0])];

fn parts(dir: &Path) -> [PathBuf; 2] {
    ["p0", "p1"].map(|name| dir.join(name))
}

/// Whether the part has exactly what was saved.
fn is_whole(dir: &Path, number: usize) -> bool {
    let part = &parts(dir)[number];
    let (key, value) = [("a", 1.0), ("b", 2.0)][number];
    restore(part, &[(key, 1)]).is_ok_and(|found| found == [bytes(&[value])])
        && super::find::check_complete(part).is_ok()
}

/// Which checkpoint `m` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Old,
    New,
}

/// What a reader of `m` finds; an error says what is wrong with it.
fn found(dir: &Path) -> std::result::Result<Found, String> {
    let prefix = dir.join("m");
    let new = restore(&prefix, &[("a", 1), ("b", 1), ("x", 4)]);
    let old = restore(&prefix, &[("a", 1), ("old", 1)]);
    let expected_new = [
        bytes(&[1.0]),
        bytes(&[2.0]),
        bytes(&[10.0, 11.0, 12.0, 13.0]),
    ];
    match (new, old) {
        (Ok(new), Err(_)) if new == expected_new => Ok(Found::New),
        (Err(_), Ok(old)) if old == [bytes(&[5.0]), bytes(&[6.0])] => Ok(Found::Old),
        (Err(new), Err(old)) if new.code() == Code::NotFound && old.code() == Code::NotFound => {
            match Reader::open(&prefix) {
                Err(error) if error.code() == Code::NotFound => Ok(Found::Nothing),
                other => Err(format!("{other:?}")),
            }
        }
        other => Err(format!("{other:?}")),
    }
}

/// What there is before the merge.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// Data files of the checkpoint that is overwritten; 0 for none.
    old: usize,
    /// All of them have sidecars, which list nothing: their tensors are small.
    sidecars: bool,
    refuse_links: bool,
}

const CASES: [Case; 7] = [
    Case {
        old: 0,
        sidecars: false,
        refuse_links: false,
    },
    Case {
        old: 1,
        sidecars: false,
        refuse_links: false,
    },
    Case {
        old: 2,
        sidecars: false,
        refuse_links: false,
    },
    Case {
        old: 0,
        sidecars: false,
        refuse_links: true,
    },
    Case {
        old: 2,
        sidecars: false,
        refuse_links: true,
    },
    Case {
        old: 0,
        sidecars: true,
        refuse_links: false,
    },
    Case {
        old: 2,
        sidecars: true,
        refuse_links: false,
    },
];

impl Case {
    fn set_up(self) -> TempDir {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
        save_parts(dir.path(), self.sidecars);
        if self.old > 0 {
            let options = SaveOptions {
                update_state: true,
                max_shard_size: if self.old > 1 { 1 } else { 0 },
                chunk_checksums: self.sidecars,
                ..QUICK
            };
            let floats: [Floats<'_>; 2] = [("a", "", &[5.0]), ("old", "", &[6.0])];
            save_floats(&dir.path().join("m"), &floats, &options);
        }
        dir
    }

    fn merge(self, dir: &Path, sync: bool) -> Result<()> {
        let options = MergeOptions {
            no_sync: !sync,
            update_state: true,
            save_relative_paths: true,
            ..MergeOptions::default()
        };
        with_call(|call| merge(&parts(dir), &dir.join("m"), &options, call))
    }

    fn plan(self) -> Plan {
        Plan {
            refuse_links: self.refuse_links,
            ..Plan::default()
        }
    }

    fn before(self) -> Found {
        if self.old > 0 {
            Found::Old
        } else {
            Found::Nothing
        }
    }

    /// What holds after a crash, and that the merge can be made again.
    fn check_after_crash(self, dir: &Path) -> std::result::Result<(), String> {
        let first = found(dir)?;
        let whole = is_whole(dir, 0) && is_whole(dir, 1);
        if first != Found::New && (first != self.before() || !whole) {
            return Err(format!("{first:?}, parts whole: {whole}"));
        }
        let again = {
            let _watch = Watch::on(dir, self.plan());
            self.merge(dir, false)
        };
        match again {
            Ok(()) => {}
            Err(error) if error.message().contains("; the checkpoint exists") => {
                if first != Found::New {
                    return Err(error.to_string());
                }
            }
            Err(error) => return Err(error.to_string()),
        }
        let last = found(dir)?;
        if last != Found::New {
            return Err(format!("{last:?} in the end"));
        }
        Ok(())
    }
}

/// Not one descriptor for each part: a process may have no more than 1024.
#[test]
fn a_thousand_parts_take_few_descriptors() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let prefix = dir.path().join("m");
    let saved: Vec<PathBuf> = (0..1000u32)
        .map(|shard| {
            let key = shard.to_string();
            with_tensors(&[(&key, "", &[1.0])], |tensors| {
                with_call(|call| save_shard(&prefix, shard, 1000, None, tensors, &QUICK, call))
            })
            .unwrap()
        })
        .collect();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let most = std::cell::Cell::new(0);
    let context = Context::new(ContextOptions::default()).unwrap();
    let mut call = Call::new(&context);
    call.progress = crate::transfer::Progress::new(Some(Box::new(|_| {
        most.set(open().max(most.get()));
        true
    })));
    let options = MergeOptions {
        no_sync: true,
        ..MergeOptions::default()
    };
    merge(&saved, &prefix, &options, &mut call).unwrap();
    drop(call);
    // Other tests run at the same time.
    assert!(
        most.get() > 0 && most.get() < before + 500,
        "{before} {}",
        most.get()
    );
}

#[test]
fn parts_on_another_file_system_are_copied() {
    let dir = tempfile::tempdir().unwrap();
    // Memory, while the other folder is on a disk, as a rule.
    let elsewhere = CASES[0].set_up();
    let options = MergeOptions {
        no_sync: true,
        ..MergeOptions::default()
    };
    let prefix = dir.path().join("m");
    with_call(|call| merge(&parts(elsewhere.path()), &prefix, &options, call)).unwrap();
    assert_eq!(found(dir.path()), Ok(Found::New));
    assert!(!elsewhere.path().exists());
}
