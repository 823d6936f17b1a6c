//! The shards of a V1 checkpoint, which are written side by side.

use std::path::Path;

use tfckpt::{Call, Code, Context, ContextOptions, Format, Progress, Reader, SaveOptions, Verify};

use super::support::{Item, context, quick, restore_one, save, temp_dir};

/// Eight tensors that get a file each.
fn items() -> Vec<Item> {
    (0..8)
        .map(|i| {
            let elements: Vec<f32> = (0..1 << 18).map(|j| (i * j) as f32).collect();
            Item::floats(&format!("t{i}"), &[1 << 18], &elements)
        })
        .collect()
}

fn options() -> SaveOptions {
    SaveOptions {
        format: Format::V1,
        max_shard_size: 1 << 20,
        ..quick()
    }
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(dir)
        .unwrap()
        .map(|file| {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            (name, std::fs::read(file.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn the_number_of_threads_and_the_budget_change_no_byte() {
    let items = items();
    let mut expected = None;
    for (num_threads, max_host_bytes, used) in [
        (1, 0, 1),
        (3, 0, 3),
        (16, 0, 8),
        (16, 2 << 20, 1),
        (16, 8 << 20, 3),
    ] {
        let dir = temp_dir();
        let context = Context::new(ContextOptions {
            max_host_bytes,
            num_threads,
        })
        .unwrap();
        let mut call = Call::new(&context);
        let mut last = None;
        call.progress = Progress::new(Some(Box::new(|update| {
            last = Some(*update);
            true
        })));
        let saved = save(&dir.path().join("m"), &items, &options(), &mut call).unwrap();
        assert_eq!(call.stats.num_threads, used);
        assert!(
            call.stats.peak_host_bytes <= max_host_bytes.max(2 << 20).max(u64::from(used) << 22)
        );
        drop(call);
        let last = last.unwrap();
        assert_eq!((last.bytes_done, last.tensors_done), (8 << 20, 8));
        assert_eq!((last.bytes_total, last.tensors_total), (8 << 20, 8));
        let written = files(dir.path());
        assert_eq!(written.len(), 8);
        assert!(expected.get_or_insert_with(|| written.clone()) == &written);
        let reader = Reader::open(&saved).unwrap();
        for item in &items {
            let value = restore_one(&reader, &item.request(), Verify::Full, &context).unwrap();
            assert!(value == item.value);
        }
    }
}

#[test]
fn a_save_that_ends_early_leaves_nothing_of_any_shard() {
    let items = items();
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let context = context(4);
    save(&prefix, &items[..2], &options(), &mut Call::new(&context)).unwrap();
    let before = files(dir.path());
    for allowed in 0..3 {
        let mut reports = 0;
        let mut call = Call::new(&context);
        call.progress = Progress::new(Some(Box::new(|_| {
            reports += 1;
            reports <= allowed
        })));
        let saved = save(&prefix, &items, &options(), &mut call);
        drop(call);
        // How many reports there are depends on how long it takes, but there are at least two.
        match saved {
            Err(error) => assert_eq!(error.code(), Code::Cancelled, "{error}"),
            Ok(_) => {
                assert!(allowed >= 2);
                return;
            }
        }
        assert!(files(dir.path()) == before, "cancelled at report {allowed}");
    }
}
