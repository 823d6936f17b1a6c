//! What the tests share: values, saving and restoring them, and a test in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;
use tfckpt::{
    Call, Context, ContextOptions, DType, Error, Reader, RestoreData, RestoreOptions,
    RestoreTensor, Result, SaveData, SaveOptions, SaveTensor, Shape, StringTensor, TensorInfo,
    Verify,
};

pub const VERIFY_MODES: [Verify; 3] = [Verify::Full, Verify::Fetched, Verify::None];

/// The elements of a tensor, row-major.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// Little-endian elements of a fixed size.
    Bytes(Vec<u8>),
    Strings(Vec<Vec<u8>>),
}

/// Short enough to be read in a failure.
impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self {
            Value::Bytes(bytes) => format!("{} bytes {}", bytes.len(), to_hex(bytes)),
            Value::Strings(items) => {
                let items: Vec<String> = items.iter().map(|item| to_hex(item)).collect();
                format!("{} strings {}", items.len(), items.join(","))
            }
        };
        f.write_str(text.get(..200).unwrap_or(&text))
    }
}

pub fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "odd hex: {text}");
    let pair = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits");
    (0..text.len()).step_by(2).map(pair).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The value that a manifest gives as `hex` or `strings_hex`.
pub fn json_value(row: &Json) -> Option<Value> {
    if let Some(text) = row.get("hex") {
        return Some(Value::Bytes(hex(text.as_str().unwrap())));
    }
    let items = row.get("strings_hex")?.as_array().unwrap();
    let items = items.iter().map(|item| hex(item.as_str().unwrap()));
    Some(Value::Strings(items.collect()))
}

/// The key that a manifest gives as `key` or `key_hex`.
pub fn json_key(row: &Json) -> Vec<u8> {
    match row.get("key") {
        Some(key) => key.as_str().unwrap().into(),
        None => hex(row["key_hex"].as_str().unwrap()),
    }
}

pub fn json_shape(row: &Json) -> Shape {
    let dims = row["shape"].as_array().unwrap();
    Shape::new(
        dims.iter()
            .map(|dim| dim.as_i64().unwrap())
            .collect::<Vec<_>>(),
    )
    .unwrap()
}

pub fn json_file(path: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The folder of this repository's tests.
pub fn tests_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// A folder that vanishes, in memory where the system has such a place.
pub fn temp_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

pub fn context(num_threads: u32) -> Context {
    let options = ContextOptions {
        num_threads,
        ..ContextOptions::default()
    };
    Context::new(options).unwrap()
}

/// A request for one tensor or a slice of it.
#[derive(Clone, Debug)]
pub struct Request {
    pub key: Vec<u8>,
    pub dtype: DType,
    /// That of the slice if there is a spec.
    pub shape: Shape,
    pub spec: String,
}

impl Request {
    /// For all of a tensor as it is listed.
    pub fn whole(info: &TensorInfo) -> Self {
        Self {
            key: info.key.clone(),
            dtype: info.dtype,
            shape: info.shape.clone(),
            spec: String::new(),
        }
    }
}

/// Memory that a restore fills; bytes that it leaves alone stay `0xa5`.
enum Memory {
    Bytes(Vec<u8>),
    Strings(StringTensor),
}

impl Memory {
    fn new(request: &Request) -> Self {
        match request.dtype.size() {
            Some(size) => {
                let size = request.shape.byte_size(size).unwrap() as usize;
                assert!(
                    size < 1 << 30,
                    "refusing to allocate {size} bytes for a test"
                );
                Self::Bytes(vec![0xa5; size])
            }
            None => Self::Strings(StringTensor::default()),
        }
    }

    fn data(&mut self) -> RestoreData<'_> {
        match self {
            Self::Bytes(bytes) => RestoreData::Bytes(bytes.as_mut_slice().into()),
            Self::Strings(strings) => RestoreData::Strings(strings),
        }
    }

    fn into_value(self) -> Value {
        match self {
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Strings(strings) => Value::Strings(strings.iter().map(Into::into).collect()),
        }
    }
}

/// What came of a restore of several tensors.
pub struct Restored {
    pub results: Vec<Result<()>>,
    pub ended: Option<Error>,
    /// The memory of each, whatever came of it.
    pub values: Vec<Value>,
}

impl Restored {
    /// All values, if every tensor was restored.
    pub fn complete(self) -> Result<Vec<Value>> {
        if let Some(error) = self.ended {
            return Err(error);
        }
        self.results.into_iter().collect::<Result<Vec<()>>>()?;
        Ok(self.values)
    }
}

pub fn restore(
    reader: &Reader,
    requests: &[Request],
    verify: Verify,
    keep_going: bool,
    context: &Context,
) -> Result<Restored> {
    let options = RestoreOptions {
        verify,
        keep_going,
        ..RestoreOptions::default()
    };
    restore_with(reader, requests, &options, &mut Call::new(context))
}

pub fn restore_with(
    reader: &Reader,
    requests: &[Request],
    options: &RestoreOptions,
    call: &mut Call<'_>,
) -> Result<Restored> {
    let mut memory: Vec<Memory> = requests.iter().map(Memory::new).collect();
    let mut tensors: Vec<RestoreTensor<'_>> = requests
        .iter()
        .zip(&mut memory)
        .map(|(request, memory)| RestoreTensor {
            key: &request.key,
            dtype: request.dtype,
            shape: request.shape.clone(),
            slice_spec: &request.spec,
            device_name: "",
            data: memory.data(),
        })
        .collect();
    let outcome = reader.restore(&mut tensors, options, call)?;
    drop(tensors);
    assert_eq!(outcome.results.len(), requests.len());
    Ok(Restored {
        results: outcome.results,
        ended: outcome.ended,
        values: memory.into_iter().map(Memory::into_value).collect(),
    })
}

pub fn restore_one(
    reader: &Reader,
    request: &Request,
    verify: Verify,
    context: &Context,
) -> Result<Value> {
    let restored = restore(
        reader,
        std::slice::from_ref(request),
        verify,
        false,
        context,
    )?;
    Ok(restored.complete()?.remove(0))
}

/// A key, and what the index says of it or what is wrong with its entry.
pub type Listed = (Vec<u8>, Result<TensorInfo>);

/// Everything that a listing delivers, and the error that ended it.
pub fn list(reader: &Reader) -> (Vec<Listed>, Option<Error>) {
    let mut entries = reader.entries();
    let mut all = Vec::new();
    loop {
        match entries.next() {
            Ok(Some((key, entry))) => all.push((key.to_owned(), entry)),
            Ok(None) => return (all, None),
            Err(error) => return (all, Some(error)),
        }
    }
}

pub fn verify(reader: &Reader, context: &Context) -> Result<Vec<Error>> {
    let mut damage = Vec::new();
    reader.verify(&mut |error| damage.push(error), &mut Call::new(context))?;
    Ok(damage)
}

/// A tensor, or a slice of one, to be saved.
#[derive(Clone, Debug)]
pub struct Item {
    pub key: Vec<u8>,
    pub dtype: DType,
    pub shape: Shape,
    pub spec: String,
    pub device: String,
    pub value: Value,
}

impl Item {
    pub fn new(key: &str, dtype: DType, dims: &[i64], value: Value) -> Self {
        Self {
            key: key.into(),
            dtype,
            shape: Shape::new(dims).unwrap(),
            spec: String::new(),
            device: String::new(),
            value,
        }
    }

    pub fn floats(key: &str, dims: &[i64], elements: &[f32]) -> Self {
        let bytes = elements.iter().flat_map(|element| element.to_le_bytes());
        Self::new(key, DType::Float, dims, Value::Bytes(bytes.collect()))
    }

    pub fn request(&self) -> Request {
        Request {
            key: self.key.clone(),
            dtype: self.dtype,
            shape: self.shape.clone(),
            spec: self.spec.clone(),
        }
    }
}

pub fn save(
    prefix: &Path,
    items: &[Item],
    options: &SaveOptions,
    call: &mut Call<'_>,
) -> Result<PathBuf> {
    let tensors: Vec<SaveTensor<'_>> = items
        .iter()
        .map(|item| SaveTensor {
            key: &item.key,
            dtype: item.dtype,
            shape: item.shape.clone(),
            slice_spec: &item.spec,
            device_name: &item.device,
            data: match &item.value {
                Value::Bytes(bytes) => SaveData::Bytes(bytes.as_slice().into()),
                Value::Strings(items) => {
                    SaveData::Strings(items.iter().map(|item| item.as_slice().into()).collect())
                }
            },
        })
        .collect();
    tfckpt::save(prefix, &tensors, options, call)
}

/// Saves without waiting for the disk.
pub fn quick() -> SaveOptions {
    SaveOptions {
        no_sync: true,
        ..SaveOptions::default()
    }
}

/// Runs `body` in a process in which nothing else happens, because it measures something of the
/// whole process. `name` is the test's full name. Returns what the process wrote to standard error.
pub fn alone(name: &str, body: impl FnOnce()) -> String {
    const VARIABLE: &str = "TFCKPT_TEST_ALONE";
    if std::env::var_os(VARIABLE).is_some_and(|value| value == name) {
        body();
        return String::new();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--test-threads=1", "--nocapture"])
        .env(VARIABLE, name)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stdout}\n{stderr}");
    // A wrong name would run nothing and succeed.
    assert!(stdout.contains("1 passed"), "{stdout}");
    stderr
}
