//! The program `tfckpt`, run as a user runs it: on checkpoints that TensorFlow wrote and on damaged
//! ones.

#![cfg(feature = "cli")]
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, also outside of its #[test] function"
)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// The program, in the folder `tests`.
fn program<A: AsRef<OsStr>>(arguments: &[A]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tfckpt"));
    command.args(arguments).current_dir(tests());
    command
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

struct Run {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run<A: AsRef<OsStr>>(arguments: &[A]) -> Run {
    let Output {
        status,
        stdout,
        stderr,
    } = program(arguments).output().unwrap();
    Run {
        status: status.code(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// Standard output of a run that goes well.
fn output(arguments: &[&str]) -> String {
    let run = run(arguments);
    assert_eq!(
        (run.status, run.stderr.as_str()),
        (Some(0), ""),
        "{arguments:?}"
    );
    run.stdout
}

fn json_lines(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn read_json(path: &str) -> Value {
    serde_json::from_slice(&fs::read(tests().join(path)).unwrap()).unwrap()
}

/// Copies the files of `prefix`, relative to `tests`, and returns the copy's prefix.
fn copy_of(prefix: &str, folder: &Path) -> PathBuf {
    let prefix = tests().join(prefix);
    let name = prefix.file_name().unwrap().to_str().unwrap();
    for entry in fs::read_dir(prefix.parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        if file == "checkpoint" || file.starts_with(&format!("{name}.")) {
            fs::copy(&path, folder.join(file)).unwrap();
        }
    }
    folder.join(name)
}

const SAVER: &str = "fixtures/tf-2.21.0/saver/model.ckpt-11";

#[test]
fn ls_aligns_columns_and_shows_slices_below_their_tensor() {
    assert_eq!(
        output(&["ls", SAVER]),
        "\
KEY             DTYPE    SHAPE  SHARD  BYTES
dense/bias      float32  [4]        0     16
dense/kernel    float32  [3,4]      0     48
embedding/rows  float32  [7,2]      -     56
    0,3:0,2
    3,2:0,2
    5,2:0,2
global_step     int64    []         0      8
labels          string   [3]        0     15
table           int32    [5,2]      0     40
"
    );
}

#[test]
fn ls_json_says_of_every_fixture_what_tensorflow_says() {
    let mut num_compared = 0;
    for release in ["2.12.1", "2.15.1", "2.21.0"] {
        let folder = format!("fixtures/tf-{release}");
        let expected = read_json(&format!("{folder}/expected.json"));
        for (prefix, checkpoint) in expected["checkpoints"].as_object().unwrap() {
            // Of this one, four tensors are listed; of V1 the program knows nothing yet.
            if prefix.starts_with("multiblock") || prefix.starts_with("v1/") {
                continue;
            }
            let lines = json_lines(&output(&["ls", "--json", &format!("{folder}/{prefix}")]));
            let tensors = checkpoint["tensors"].as_array().unwrap();
            assert_eq!(lines.len(), tensors.len(), "{prefix}");
            for (line, tensor) in lines.iter().zip(tensors) {
                for (ours, theirs) in [
                    ("dtype", "dtype_name"),
                    ("shape", "shape"),
                    ("key_hex", "key_hex"),
                ] {
                    assert_eq!(line[ours], tensor[theirs], "{prefix} {line}");
                }
                if line.get("key_hex").is_none() {
                    assert_eq!(line["key"], tensor["key"], "{prefix}");
                }
                if let Some(hex) = tensor["hex"].as_str() {
                    assert_eq!(line["size"], hex.len() / 2, "{prefix} {line}");
                }
                num_compared += 1;
            }
        }
    }
    assert!(num_compared > 500, "{num_compared}");
}

#[test]
fn ls_json_has_the_documented_members_in_order() {
    let lines = json_lines(&output(&["ls", "--json", SAVER]));
    let members = |line: &Value| {
        line.as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let all = [
        "key", "dtype", "shape", "shard", "offset", "size", "crc32c", "slices",
    ];
    assert_eq!(members(&lines[0]), all[..7]);
    assert_eq!(members(&lines[2]), all);
    assert_eq!(lines[2]["slices"], json!(["0,3:0,2", "3,2:0,2", "5,2:0,2"]));
    assert_eq!(lines[3]["key"], "global_step");
    assert!(lines[3]["crc32c"].is_u64());
}

#[test]
fn ls_json_gives_a_key_that_is_not_utf8_in_hexadecimal() {
    let lines = json_lines(&output(&["ls", "--json", "fixtures/tf-2.21.0/keys/binary"]));
    assert_eq!(lines[1]["key"], "a\u{fffd}b");
    assert_eq!(lines[1]["key_hex"], "61ff62");
    assert_eq!(lines[3]["key"], "plain");
    assert_eq!(lines[3].get("key_hex"), None);
}

#[test]
fn ls_shows_a_damaged_entry_and_the_others() {
    let run_human = run(&["ls", "golden-errors/shape_dim_minus_1/m"]);
    assert_eq!((run_human.status, run_human.stderr.as_str()), (Some(1), ""));
    let lines: Vec<&str> = run_human.stdout.lines().collect();
    assert_eq!(lines[1], "ok   float32  [2]        0      8");
    assert!(
        lines[2].starts_with("t    error: Invalid tensor shape: t"),
        "{}",
        lines[2]
    );

    let run_json = run(&["ls", "--json", "golden-errors/shape_dim_minus_1/m"]);
    assert_eq!(run_json.status, Some(1));
    let lines = json_lines(&run_json.stdout);
    assert_eq!(lines[0]["key"], "ok");
    assert_eq!(lines[1]["key"], "t");
    assert_eq!(lines[1]["error"]["code"], "DATA_LOSS");
    assert_eq!(lines[1].get("dtype"), None);
}

#[test]
fn ls_lists_what_is_readable_around_a_damaged_block() {
    let run = run(&["ls", "golden-errors/many_blocks_middle_crc/m"]);
    assert_eq!(run.status, Some(1));
    assert!(
        run.stdout.contains("\nok ") && run.stdout.contains("\nv "),
        "{}",
        run.stdout
    );
    assert!(
        run.stderr.starts_with("tfckpt: block checksum mismatch"),
        "{}",
        run.stderr
    );
}

#[test]
fn keys_are_escaped_for_human_eyes_only() {
    let human = output(&["ls", "fixtures/tf-2.21.0/keys/binary"]);
    assert!(human.contains("\na\\xffb "), "{human}");
    assert!(human.contains("\nnul\\x00inside "), "{human}");
    let human = output(&["ls", "fixtures/tf-2.21.0/keys/text"]);
    assert!(
        human
            .lines()
            .all(|line| !line.chars().any(char::is_control)),
        "{human}"
    );
}

#[test]
fn inspect_lists_tensors_in_tensorflows_words() {
    assert_eq!(
        output(&["inspect", SAVER]),
        "\
dense/bias (DT_FLOAT) [4]
dense/kernel (DT_FLOAT) [3,4]
embedding/rows (DT_FLOAT) [7,2], 3 slices: 0,3:0,2 3,2:0,2 5,2:0,2
global_step (DT_INT64) []
labels (DT_STRING) [3]
table (DT_INT32) [5,2]

# Total number of params: 44
"
    );
}

/// What TensorFlow 2.21.0 with NumPy 2.4.6 prints.
const SAVER_VALUES: &str = "\
tensor: dense/bias (float32) [4]
[-1.5 -0.5  0.5  1.5]
tensor: dense/kernel (float32) [3, 4]
[[0.  0.5 1.  1.5]
 [2.  2.5 3.  3.5]
 [4.  4.5 5.  5.5]]
tensor: embedding/rows (float32) [7, 2]
[[100. 101.]
 [102. 103.]
 [104. 105.]
 [106. 107.]
 [108. 109.]
 [110. 111.]
 [112. 113.]]
tensor: global_step (int64) []
11
tensor: labels (string) [3]
[b'cat' b'' b'dog\\x00\\xff']
tensor: table (int32) [5, 2]
[[0 1]
 [2 3]
 [4 5]
 [6 7]
 [8 9]]
# Total number of params: 44
";

#[test]
fn inspect_prints_values_as_numpy_does() {
    assert_eq!(output(&["inspect", SAVER, "--all"]), SAVER_VALUES);
    assert_eq!(
        output(&["inspect", "--file_name", SAVER, "--all_tensors=True"]),
        SAVER_VALUES
    );
    let dtypes = output(&["inspect", "fixtures/tf-2.21.0/dtypes/all", "--all"]);
    for expected in [
        "tensor: float16/matrix (float16) [2, 3]\n[[ 1.00e+00 -0.00e+00       inf]\n [      nan  5.96e-08  6.55e+04]]\n",
        "tensor: bfloat16/matrix (bfloat16) [2, 3]\n[[1 -0 inf]\n [nan 9.18355e-41 3.38953e+38]]\n",
        "tensor: complex64/scalar (complex64) []\n(-0.75-0.5j)\n",
        "tensor: bool/matrix (bool) [2, 3]\n[[ True False  True]\n [ True False False]]\n",
        "tensor: int4/matrix (int4) [2, 3]\n[[-8 7 0]\n [1 -1 5]]\n",
        "tensor: uint8/empty (uint8) [0, 3]\n[]\n",
    ] {
        assert!(dtypes.contains(expected), "{expected}{dtypes}");
    }
}

#[test]
fn inspect_prints_one_tensor() {
    for option in ["--tensor", "--tensor_name"] {
        assert_eq!(
            output(&["inspect", SAVER, option, "dense/bias"]),
            "tensor: dense/bias (float32) [4]\n[-1.5 -0.5  0.5  1.5]\n# Total number of params: 44\n"
        );
    }
    let key = OsString::from_vec(b"a\xffb".to_vec());
    let binary = "fixtures/tf-2.21.0/keys/binary".into();
    let run_binary = run(&["inspect".into(), binary, "--tensor".into(), key]);
    assert!(
        run_binary
            .stdout
            .starts_with("tensor: a\\xffb (int32) []\n"),
        "{}",
        run_binary.stdout
    );

    let absent = run(&["inspect", SAVER, "--tensor", "zz"]);
    assert_eq!((absent.status, absent.stdout.as_str()), (Some(1), ""));
    assert_eq!(absent.stderr, "tfckpt: Tensor zz not found in checkpoint\n");
}

#[test]
fn inspect_counts_without_what_a_pattern_excludes() {
    let text = output(&[
        "inspect",
        SAVER,
        "--all_tensor_names",
        "--count_exclude_pattern",
        "^d.*s$|rows",
    ]);
    assert!(
        text.starts_with("tensor: dense/bias (float32) [4]\ntensor: dense/kernel"),
        "{text}"
    );
    assert!(
        text.ends_with(
            "# Excluding 2 tensors (18 params) that match ^d.*s$|rows when counting.\n\
             # Total number of params: 26\n"
        ),
        "{text}"
    );
    // Python knows the second one.
    for pattern in ["(", "(?=d)"] {
        let run = run(&["inspect", SAVER, "--count-exclude-pattern", pattern]);
        assert_eq!(run.status, Some(2), "{pattern}");
    }
}

#[test]
fn inspect_takes_numpys_print_options() {
    let text = output(&[
        "inspect",
        SAVER,
        "--all",
        "--printoptions",
        "threshold=5",
        "edgeitems=1",
    ]);
    assert!(
        text.contains("[[0.  ... 1.5]\n ...\n [4.  ... 5.5]]\n"),
        "{text}"
    );
    assert_eq!(
        run(&["inspect", SAVER, "--printoptions", "nonsense=1"]).status,
        Some(2)
    );
}

#[test]
fn inspect_says_what_cannot_be_shown_and_goes_on() {
    let text = output(&["inspect", "fixtures/tf-2.21.0/variant/lists", "--all"]);
    assert!(
        text.contains("tensor: list (variant) []\n<not convertible to a numpy dtype>\n"),
        "{text}"
    );

    let folder = tempfile::tempdir().unwrap();
    let prefix = copy_of(SAVER, folder.path());
    flip_first_byte(&prefix);
    let run = run(&["inspect".as_ref(), prefix.as_os_str(), "--all".as_ref()]);
    assert_eq!(run.status, Some(1));
    assert!(
        run.stderr.contains("Checksum does not match"),
        "{}",
        run.stderr
    );
    assert!(
        run.stdout
            .contains("tensor: table (int32) [5, 2]\n[[0 1]\n"),
        "{}",
        run.stdout
    );
}

#[test]
fn latest_prints_the_prefix_alone() {
    assert_eq!(
        output(&["latest", "fixtures/tf-2.21.0/saver"]),
        format!("{SAVER}\n")
    );
    let absent = run(&["latest", "fixtures"]);
    assert_eq!((absent.status, absent.stdout.as_str()), (Some(1), ""));
    assert!(
        absent
            .stderr
            .starts_with("tfckpt: no checkpoint state file"),
        "{}",
        absent.stderr
    );
}

#[test]
fn latest_falls_back_only_when_asked_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let newest = copy_of(SAVER, folder.path());
    let older = copy_of("fixtures/tf-2.21.0/saver/model.ckpt-10", folder.path());
    fs::remove_file(newest.with_extension("ckpt-11.index")).unwrap();
    let dir = folder.path().as_os_str();

    let refused = run(&["latest".as_ref(), dir]);
    assert_eq!((refused.status, refused.stdout.as_str()), (Some(1), ""));
    let fell_back = run(&["latest".as_ref(), dir, "--fall-back".as_ref()]);
    assert_eq!(fell_back.status, Some(0));
    assert_eq!(fell_back.stdout, format!("{}\n", older.display()));
    assert!(
        fell_back.stderr.starts_with(
            "tfckpt: fell back to an older checkpoint: latest checkpoint is incomplete"
        ),
        "{}",
        fell_back.stderr
    );
}

#[test]
fn latest_rebases_a_folder_that_was_moved() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = copy_of(SAVER, folder.path());
    let gone = tempfile::tempdir().unwrap();
    let path = gone.path().join("model.ckpt-11");
    let state = format!("model_checkpoint_path: \"{}\"\n", path.display());
    fs::write(folder.path().join("checkpoint"), state).unwrap();
    let dir = folder.path().as_os_str();
    assert_eq!(run(&["latest".as_ref(), dir]).status, Some(1));
    let rebased = run(&["latest".as_ref(), dir, "--rebase".as_ref()]);
    assert_eq!(rebased.stdout, format!("{}\n", prefix.display()));
}

#[test]
fn state_is_shown_parsed() {
    assert_eq!(
        output(&["state", "fixtures/tf-2.21.0/object"]),
        "\
model_checkpoint_path: fixtures/tf-2.21.0/object/ckpt-2
all_model_checkpoint_paths:
    fixtures/tf-2.21.0/object/ckpt-1  timestamp=1700002400.25
    fixtures/tf-2.21.0/object/ckpt-2  timestamp=1700005400.25
last_preserved_timestamp: 1699999999.25
"
    );
    assert_eq!(
        json_lines(&output(&["state", "--json", "fixtures/tf-2.21.0/saver"])),
        [json!({
            "model_checkpoint_path": SAVER,
            "all_model_checkpoint_paths": [
                "fixtures/tf-2.21.0/saver/model.ckpt-2",
                "fixtures/tf-2.21.0/saver/model.ckpt-10",
                SAVER,
            ],
            "all_model_checkpoint_timestamps": [],
            "last_preserved_timestamp": null,
        })]
    );
    let absent = run(&["state", "fixtures"]);
    assert_eq!(absent.status, Some(1));
    assert_eq!(
        absent.stderr,
        "tfckpt: no state file; file=fixtures/checkpoint\n"
    );
}

fn flip_first_byte(prefix: &Path) {
    let mut data = prefix.as_os_str().to_owned();
    data.push(".data-00000-of-00001");
    let mut bytes = fs::read(&data).unwrap();
    *bytes.first_mut().unwrap() ^= 1;
    fs::write(&data, bytes).unwrap();
}

#[test]
fn verify_passes_what_tensorflow_wrote() {
    let text = output(&["verify", SAVER]);
    assert!(text.starts_with("6 tensors, 183 bytes, "), "{text}");
    assert!(text.ends_with(" GB/s: all sound\n"), "{text}");
    let lines = json_lines(&output(&["verify", "--json", SAVER]));
    assert_eq!(lines.len(), 1);
    assert_eq!(
        (&lines[0]["tensors"], &lines[0]["broken"]),
        (&json!(6), &json!(0))
    );
}

#[test]
fn verify_names_what_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = copy_of(SAVER, folder.path());
    flip_first_byte(&prefix);
    let human = run(&["verify".as_ref(), prefix.as_os_str()]);
    assert_eq!((human.status, human.stderr.as_str()), (Some(1), ""));
    let lines: Vec<&str> = human.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{}", human.stdout);
    let place = format!(
        "file={}.data-00000-of-00001 offset=0 DATA_LOSS: ",
        prefix.display()
    );
    assert!(lines[0].contains(&place), "{}", lines[0]);
    assert!(lines[1].ends_with(": 1 broken"), "{}", lines[1]);

    let json = run(&["verify".as_ref(), prefix.as_os_str(), "--json".as_ref()]);
    assert_eq!(json.status, Some(1));
    let lines = json_lines(&json.stdout);
    assert!(
        human
            .stdout
            .starts_with(&format!("{}: ", lines[0]["key"].as_str().unwrap()))
    );
    assert_eq!(
        (&lines[0]["code"], &lines[0]["offset"]),
        (&json!("DATA_LOSS"), &json!(0))
    );
    assert_eq!(lines[1]["broken"], 1);
}

#[test]
fn a_damaged_sidecar_is_named_and_disturbs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = copy_of(SAVER, folder.path());
    let mut sidecar = prefix.as_os_str().to_owned();
    sidecar.push(".crc32c");
    fs::write(&sidecar, "damaged").unwrap();
    let human = run(&["verify".as_ref(), prefix.as_os_str()]);
    assert_eq!((human.status, human.stderr.as_str()), (Some(1), ""));
    let beginning = format!(
        "(sidecar): file={}.crc32c offset=0 DATA_LOSS: ",
        prefix.display()
    );
    assert!(human.stdout.starts_with(&beginning), "{}", human.stdout);
    assert!(human.stdout.ends_with(": 1 broken\n"), "{}", human.stdout);
    for command in ["ls", "inspect"] {
        let with = run(&[command.as_ref(), prefix.as_os_str()]);
        fs::remove_file(&sidecar).unwrap();
        let without = run(&[command.as_ref(), prefix.as_os_str()]);
        assert_eq!((with.status, &with.stdout), (Some(0), &without.stdout));
        fs::write(&sidecar, "damaged").unwrap();
    }
}

#[test]
fn malformed_checkpoints_end_every_command_in_an_orderly_way() {
    let cases = read_json("golden-errors/cases.json");
    let cases = cases.as_array().unwrap();
    assert!(cases.len() > 200);
    for case in cases {
        let name = case["case"].as_str().unwrap();
        let prefix = format!("golden-errors/{name}/m");
        let place = case["where"].as_str().unwrap();
        let or_accepted = case["or_accepted"].as_bool() == Some(true);
        for arguments in [
            &["ls"][..],
            &["ls", "--json"],
            &["inspect", "--all"],
            &["verify"],
        ] {
            let run = run(&[arguments, &[prefix.as_str()]].concat());
            let what = format!("{arguments:?} {prefix}: {}", run.stderr);
            assert!(matches!(run.status, Some(0 | 1)), "{what}");
            assert!(!run.stderr.contains("panicked"), "{what}");
            assert!(
                run.stderr.lines().all(|line| line.starts_with("tfckpt: ")),
                "{what}"
            );
            let must_fail = place == "open" || place == "list";
            if must_fail && !or_accepted {
                assert_eq!(run.status, Some(1), "{what}");
            }
            if place == "accepted" {
                assert_eq!(run.status, Some(0), "{what}");
            }
        }
    }
}

#[test]
fn errors_are_one_line_and_status_1_and_misuse_is_status_2() {
    for command in ["ls", "inspect", "verify"] {
        let run = run(&[command, "fixtures/absent"]);
        assert_eq!((run.status, run.stdout.as_str()), (Some(1), ""));
        assert!(
            run.stderr
                .starts_with("tfckpt: Unsuccessful TensorSliceReader"),
            "{}",
            run.stderr
        );
        assert_eq!(run.stderr.lines().count(), 1);
    }
    for arguments in [
        &[][..],
        &["ls"],
        &["frob"],
        &["ls", SAVER, "--frob"],
        &["inspect"],
    ] {
        let run = run(arguments);
        assert_eq!(
            (run.status, run.stdout.as_str()),
            (Some(2), ""),
            "{arguments:?}"
        );
    }
    assert!(output(&["--help"]).contains("verify"));
    assert!(output(&["--version"]).starts_with("tfckpt "));
    assert!(output(&["ls", "--help"]).contains("key_hex"));
}

#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    for arguments in [
        &["ls", "fixtures/tf-2.21.0/multiblock/m"][..],
        &["inspect", "--all", SAVER],
        &["latest", "fixtures/tf-2.21.0/saver"],
        &["verify", SAVER],
        &["verify", "golden-errors/crc_wrong/m"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = program(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(141), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = program(&["ls", SAVER])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("tfckpt: standard output: "), "{stderr}");
}

#[test]
fn merge_makes_one_checkpoint_of_several() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let fixtures = tests().join("fixtures/tf-2.21.0");
    for (part, fixture) in [("p0", "slices/cuts"), ("p1", "strings/all")] {
        for suffix in [".index", ".data-00000-of-00001"] {
            let from = fixtures.join(format!("{fixture}{suffix}"));
            fs::copy(from, path(&format!("{part}{suffix}"))).unwrap();
        }
    }
    let listed = |prefix: &str| output(&["ls", prefix]).lines().count();
    let expected = listed(&path("p0")) + listed(&path("p1"));

    let failed = run(&["merge", &path("m"), &path("p0"), &path("p1"), &path("p2")]);
    assert_eq!(failed.status, Some(1));
    assert!(
        failed
            .stderr
            .contains("allow_missing_files was set to false")
    );
    assert_eq!(run(&["merge", &path("m")]).status, Some(2));

    let merge = ["merge", "--update-state", "--allow-missing-files"];
    let parts = [path("m"), path("p0"), path("p1"), path("p2")];
    let arguments: Vec<&str> = merge
        .into_iter()
        .chain(parts.iter().map(String::as_str))
        .collect();
    assert_eq!(output(&arguments), "");
    assert_eq!(
        output(&["latest", dir.path().to_str().unwrap()]),
        path("m\n")
    );
    assert!(output(&["verify", &path("m")]).ends_with("all sound\n"));
    // Each listing has one line of headings.
    assert_eq!(listed(&path("m")), expected - 1);
    let names = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(names, 4);
}
