//! Malformed checkpoints; see `tests/golden-errors/README.md`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use tfckpt::{
    Call, Code, Context, DType, Error, Reader, RestoreData, RestoreOptions, RestoreTensor, Result,
};
use tfckpt::{Shape, TensorInfo, Verify};

use super::support::{
    Request, Value, context, json_file, json_key, json_value, list, restore_one, tests_dir, verify,
};

/// A case of the manifest.
pub struct Case {
    row: Json,
    pub name: String,
    pub folder: PathBuf,
}

pub fn cases() -> Vec<Case> {
    let root = tests_dir().join("golden-errors");
    let rows = json_file(&root.join("cases.json"));
    let cases: Vec<Case> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let name = row["case"].as_str().unwrap().to_owned();
            Case {
                row: row.clone(),
                folder: root.join(&name),
                name,
            }
        })
        .collect();
    assert!(cases.len() > 250);
    cases
}

/// Where a checkpoint turned out to be damaged.
struct Outcome {
    opened: Result<()>,
    listed: Result<()>,
    /// What the listing says of the case's key, if it comes to it.
    entry: Option<Result<TensorInfo>>,
    restored: Result<Value>,
    sound: Option<Result<Value>>,
    damage: Vec<Error>,
}

/// The tensor that a row is about; where it names none, the one that every case has.
fn key_of(row: &Json) -> Vec<u8> {
    row.get("key").map_or(b"t".to_vec(), |_| json_key(row))
}

/// A request for a tensor, with the shape that its entry says.
fn request(reader: &Reader, row: &Json) -> Request {
    let number = row["dtype"].as_i64().unwrap_or(1);
    let found = reader.find(&key_of(row)).ok();
    Request {
        key: key_of(row),
        dtype: DType::from_number(i32::try_from(number).unwrap()).unwrap_or(DType::Float),
        shape: found.map_or_else(Shape::default, |info| info.shape),
        spec: String::new(),
    }
}

/// As [`restore_one`]; a tensor that no machine could hold gets an address that must not be touched.
fn restore_row(reader: &Reader, row: &Json, context: &Context) -> Result<Value> {
    let request = request(reader, row);
    let size = request.dtype.size();
    let size = size.map_or(Some(0), |size| request.shape.byte_size(size));
    if size.is_some_and(|size| size <= 64 << 20) {
        return restore_one(reader, &request, Verify::Full, context);
    }
    let address = std::ptr::without_provenance_mut(1 << 12);
    let size = size.unwrap_or(0) as usize;
    // SAFETY: not sound, and meant to be: the call has to fail before it writes, which nothing can
    // do to this address without the process dying.
    let dest = unsafe { tfckpt::DestSpan::from_raw_parts(address, size) };
    let mut tensors = [RestoreTensor {
        key: &request.key,
        dtype: request.dtype,
        shape: request.shape,
        slice_spec: "",
        device_name: "",
        data: RestoreData::Bytes(dest),
    }];
    let outcome = reader.restore(
        &mut tensors,
        &RestoreOptions::default(),
        &mut Call::new(context),
    )?;
    outcome.into_result()?;
    Ok(Value::Bytes(b"nobody has so much memory".to_vec()))
}

impl Case {
    fn text(&self, field: &str) -> &str {
        self.row
            .get(field)
            .map_or("", |text| text.as_str().unwrap())
    }

    pub fn prefix(&self) -> PathBuf {
        self.folder.join("m")
    }

    /// Opens, lists, restores and verifies.
    fn run(&self, context: &Context) -> Outcome {
        let reader = match Reader::open(&self.prefix()) {
            Ok(reader) => reader,
            Err(error) => {
                return Outcome {
                    opened: Err(error.clone()),
                    listed: Err(error.clone()),
                    entry: None,
                    restored: Err(error),
                    sound: None,
                    damage: Vec::new(),
                };
            }
        };
        let (entries, ended) = list(&reader);
        let key = key_of(&self.row);
        Outcome {
            opened: Ok(()),
            listed: ended.map_or(Ok(()), Err),
            entry: entries
                .into_iter()
                .find_map(|(listed, info)| (listed == key).then_some(info)),
            restored: restore_row(&reader, &self.row, context),
            sound: self
                .row
                .get("sound")
                .map(|row| restore_row(&reader, row, context)),
            damage: verify(&reader, context).unwrap(),
        }
    }

    /// Does all that a reader can do, for counting memory. Returns whether nothing panicked.
    pub fn exercise(&self, context: &Context) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.run(context))).is_ok()
    }

    /// What is not as the manifest says.
    fn deviations(&self, context: &Context) -> Vec<String> {
        let outcome = self.run(context);
        let mut wrong = Vec::new();
        let (place, code) = (self.text("where"), self.text("code"));
        let accepted = json_value(&self.row);
        let has_value = |value: &Value| Some(value) == accepted.as_ref();
        match (&outcome.restored, place) {
            (Ok(value), "accepted") if has_value(value) => {}
            (Ok(value), _) if has_value(value) && self.row["or_accepted"] == true => {}
            (Ok(value), _) => wrong.push(format!("restored with {value:?}")),
            (Err(error), "accepted") => wrong.push(format!("refused: {}", shown(error))),
            (Err(error), _) => wrong.extend(self.judge_error(error, code)),
        }
        let failed = outcome.restored.is_err();
        let (opens, lists) = (outcome.opened.is_ok(), outcome.listed.is_ok());
        match place {
            "open" if failed && opens => wrong.push("opens".to_owned()),
            "list" if !opens => wrong.push("does not open".to_owned()),
            "list" if failed && lists => wrong.push("is listed without an error".to_owned()),
            "any" | "open" | "list" => {}
            _ if !opens => wrong.push("does not open".to_owned()),
            _ if !lists => wrong.push("listing ends in an error".to_owned()),
            _ => {}
        }
        if let Err(error) = &outcome.listed {
            wrong.extend(self.judge_error(error, code));
        }
        match (self.text("listing"), &outcome.entry) {
            ("", _) | ("marked", Some(Err(_))) | ("ok", Some(Ok(_))) => {}
            (want, got) => wrong.push(format!("listing should be {want}, is {got:?}")),
        }
        if let Some(sound) = self.row.get("sound") {
            match &outcome.sound {
                Some(Ok(value)) if Some(value) == json_value(sound).as_ref() => {}
                got => wrong.push(format!("the sound tensor: {got:?}")),
            }
        }
        for error in &outcome.damage {
            if error.file().is_none() && error.key().is_none() {
                wrong.push(format!("damage without a place: {}", shown(error)));
            }
        }
        // Absent, unsupported and incomplete are not damaged; a variant's bytes are not swapped.
        let damaged = ["DATA_LOSS", "OUT_OF_RANGE"].contains(&code) && failed && opens;
        if damaged && outcome.damage.is_empty() {
            wrong.push("verify finds nothing".to_owned());
        }
        if place == "accepted" && !outcome.damage.is_empty() {
            wrong.push(format!("verify finds {}", shown(&outcome.damage[0])));
        }
        wrong
    }

    fn judge_error(&self, error: &Error, code: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        if error.code().name() != code {
            wrong.push(format!("expected {code}, got {}", shown(error)));
        }
        let named = error
            .file()
            .is_some_and(|file| file.starts_with(&self.folder));
        if !named || !error.to_string().contains("file=") {
            wrong.push(format!("names no file: {}", shown(error)));
        }
        if error.message().contains('\n') {
            wrong.push("has a message of several lines".to_owned());
        }
        wrong
    }
}

fn shown(error: &Error) -> String {
    format!("{}: {error}", error.code())
}

#[test]
fn every_malformed_checkpoint_becomes_what_the_manifest_says() {
    let mut failures = Vec::new();
    for num_threads in [1, 3] {
        let context = context(num_threads);
        for case in cases() {
            // A panic is one deviation more, and no reason to leave out the other cases.
            let deviations = AssertUnwindSafe(|| case.deviations(&context));
            let deviations = catch_unwind(deviations).unwrap_or_else(|_| vec!["panics".to_owned()]);
            for wrong in deviations {
                let line = format!("{} ({}): {wrong}", case.name, case.text("description"));
                if !failures.contains(&line) {
                    failures.push(line);
                }
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} deviations:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// The tests above compare with the manifest; this one keeps the manifest from becoming empty of
/// what matters.
#[test]
fn the_manifest_has_cases_of_every_kind() {
    let cases = cases();
    let num = |place: &str| {
        let same = |case: &&Case| case.text("where").starts_with(place);
        cases.iter().filter(same).count()
    };
    assert!(num("open") > 50 && num("list") > 5 && num("restore:") > 50 && num("accepted") > 20);
    for case in &cases {
        assert!(case.folder.is_dir(), "{}", case.name);
    }
}

#[test]
fn the_path_of_a_checkpoints_file_is_explained() {
    let fixture = tests_dir().join("fixtures/tf-2.21.0/saver/model.ckpt-11");
    for suffix in [".index", ".data-00000-of-00001"] {
        let mut path = fixture.clone();
        path.as_mut_os_string().push(suffix);
        let error = Reader::open(&path).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(
            error.message().contains(fixture.to_str().unwrap()),
            "{error}"
        );
    }
    let error = Reader::open(Path::new("")).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let error = Reader::open(&fixture.with_file_name("nothing-here")).unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(
        error.message().starts_with(
            "Unsuccessful TensorSliceReader constructor: Failed to find any matching files for "
        ),
        "{error}"
    );
}
