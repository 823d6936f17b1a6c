//! That progress ends at its totals, whatever a call moves and how.

use std::cell::Cell;

use tfckpt::{
    Call, Context, ContextOptions, DType, Format, Progress, Reader, RestoreOptions, SaveOptions,
    Shape, Update,
};

use super::support::{Item, Request, VERIFY_MODES, Value, quick, restore_with, save, temp_dir};

/// Small and large tensors, an empty one, strings, and a partitioned one.
fn items() -> Vec<Item> {
    let bytes = |len: usize| Value::Bytes((0..len).map(|i| i as u8).collect());
    let mut items: Vec<Item> = (0..50)
        .map(|i| Item::new(&format!("s{i:02}"), DType::Uint8, &[i], bytes(i as usize)))
        .collect();
    items.push(Item::new(
        "large",
        DType::Uint8,
        &[700, 1000],
        bytes(700_000),
    ));
    let strings = (0..300).map(|i| vec![b'x'; i * 3]).collect();
    items.push(Item::new(
        "strings",
        DType::String,
        &[300],
        Value::Strings(strings),
    ));
    for part in 0..3 {
        let mut item = Item::new("parts", DType::Uint8, &[100, 1000], bytes(100_000));
        item.spec = format!("300 1000 {},100:-", part * 100);
        items.push(item);
    }
    for part in 0..2 {
        let strings = (0..40).map(|i| vec![b'y'; i + part]).collect();
        let mut item = Item::new("names", DType::String, &[40], Value::Strings(strings));
        item.spec = format!("80 {},40", part * 40);
        items.push(item);
    }
    items
}

fn requests(items: &[Item]) -> Vec<Request> {
    let mut requests: Vec<Request> = items.iter().map(Item::request).collect();
    let slice = |key: &str, dims: &[i64], spec: &str| Request {
        key: key.into(),
        dtype: DType::Uint8,
        shape: Shape::new(dims).unwrap(),
        spec: spec.to_owned(),
    };
    requests.push(slice("large", &[700, 10], "700 1000 -:5,10"));
    requests.push(slice("large", &[3, 1000], "700 1000 1,3:-"));
    requests.push(slice("parts", &[150, 1000], "300 1000 75,150:-"));
    requests.push(slice("parts", &[300, 999], "300 1000 -:1,999"));
    requests.push(slice("parts", &[300, 1000], "300 1000 -:-"));
    requests
}

/// Runs `work` with progress; returns the last report.
fn last_report(context: &Context, work: impl FnOnce(&mut Call<'_>)) -> Update {
    let last = Cell::new(Update::default());
    let mut call = Call::new(context);
    call.progress = Progress::new(Some(Box::new(|update| {
        assert!(update.bytes_done >= last.get().bytes_done);
        assert!(update.bytes_done <= update.bytes_total, "{update:?}");
        assert!(update.tensors_done <= update.tensors_total, "{update:?}");
        last.set(*update);
        true
    })));
    work(&mut call);
    drop(call);
    last.get()
}

fn assert_ended(update: Update, what: &str) {
    assert_eq!(update.bytes_done, update.bytes_total, "{what}: {update:?}");
    assert_eq!(
        update.tensors_done, update.tensors_total,
        "{what}: {update:?}"
    );
    assert!(update.bytes_total > 0, "{what}");
}

#[test]
fn every_save_and_restore_ends_at_its_totals() {
    let items = items();
    for (format, alignment) in [
        (Format::V2, 0),
        (Format::V2, 64),
        (Format::V2, 1 << 20),
        (Format::V1, 0),
    ] {
        for max_shard_size in [0, 300_000] {
            let dir = temp_dir();
            let prefix = dir.path().join("m");
            let options = SaveOptions {
                format,
                alignment,
                max_shard_size,
                ..quick()
            };
            let context = Context::new(ContextOptions {
                max_host_bytes: 2 << 20,
                num_threads: 2,
            })
            .unwrap();
            let mut saved = None;
            let what = format!("{format:?} alignment={alignment} shard={max_shard_size}");
            let update = last_report(&context, |call| {
                saved = Some(save(&prefix, &items, &options, call).unwrap());
            });
            assert_ended(update, &what);
            assert_eq!(update.tensors_total, items.len() as u64);
            let reader = Reader::open(&saved.unwrap()).unwrap();
            for verify in VERIFY_MODES {
                let options = RestoreOptions {
                    verify,
                    ..RestoreOptions::default()
                };
                for sequentially in [false, true] {
                    let options = RestoreOptions {
                        restore_sequentially: sequentially,
                        ..options
                    };
                    let requests = requests(&items);
                    let update = last_report(&context, |call| {
                        let restored = restore_with(&reader, &requests, &options, call).unwrap();
                        restored.complete().unwrap();
                    });
                    assert_ended(update, &format!("{what} {verify:?} {sequentially}"));
                }
            }
            let update = last_report(&context, |call| {
                reader.verify(&mut |error| panic!("{error}"), call).unwrap();
            });
            assert_ended(update, &format!("{what} verified"));
        }
    }
}

/// With its padding, no file of several tensors is larger than it may be.
#[test]
fn the_largest_data_file_counts_its_alignment() {
    let value = || Value::Bytes(vec![1; 10]);
    let items: Vec<Item> = (0..10)
        .map(|i| Item::new(&format!("t{i}"), DType::Uint8, &[10], value()))
        .collect();
    let context = super::support::context(1);
    for (alignment, max_shard_size, expected) in [
        (0, 20, 5),
        (64, 20, 10),
        (64, 127, 10),
        (64, 128, 5),
        (64, 640, 1),
        (1, 100, 1),
    ] {
        let dir = temp_dir();
        let options = SaveOptions {
            alignment,
            max_shard_size,
            ..quick()
        };
        save(
            &dir.path().join("m"),
            &items,
            &options,
            &mut Call::new(&context),
        )
        .unwrap();
        let data: Vec<u64> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|file| file.unwrap())
            .filter(|file| !file.path().ends_with("m.index"))
            .map(|file| file.metadata().unwrap().len())
            .collect();
        assert_eq!(data.len(), expected, "{alignment} {max_shard_size}");
        let alone = 10u64.next_multiple_of(alignment.max(1));
        assert!(
            data.iter().all(|&size| size <= max_shard_size.max(alone)),
            "{data:?}"
        );
    }
}
