//! TensorFlow's device strings, such as `/job:worker/task:1/device:GPU:0`, in their canonical form.
//!
//! Source: `tensorflow/python/framework/device_spec.py`.

use crate::error::{Error, Result};

/// The canonical form of a device string: `/cpu:1` is `/device:CPU:1`, parts stand in the order job,
/// replica, task, device, and a part given twice takes its last value. The empty string stays empty.
///
/// # Errors
///
/// INVALID_ARGUMENT with TensorFlow's text for a part it does not know.
pub fn canonical(device: &str) -> Result<String> {
    let unknown = |part: &str| {
        Error::invalid_argument(format!(
            "Unknown attribute '{part}' is encountered while parsing the device spec: '{device}'."
        ))
    };
    let (mut job, mut replica, mut task, mut kind) = (None, None, None, None);
    for part in device.split('/').filter(|part| !part.is_empty()) {
        let mut fields = part.split(':');
        let name = fields.next().unwrap_or_default();
        let values: Vec<&str> = fields.collect();
        match (name.to_ascii_lowercase().as_str(), values.as_slice()) {
            ("job", [value]) if name == "job" => job = Some((*value).to_owned()),
            ("replica", [value]) if name == "replica" => {
                replica = Some(number(value).ok_or_else(|| unknown(part))?)
            }
            ("task", [value]) if name == "task" => {
                task = Some(number(value).ok_or_else(|| unknown(part))?)
            }
            ("device", [value]) => kind = Some((value.to_ascii_uppercase(), "*".to_owned())),
            ("device", [value, "*"]) => kind = Some((value.to_ascii_uppercase(), "*".to_owned())),
            ("device", [value, index]) => {
                let index = number(index).ok_or_else(|| unknown(part))?;
                kind = Some((value.to_ascii_uppercase(), index.to_string()));
            }
            ("cpu" | "gpu" | "tpu" | "xla_cpu" | "xla_gpu", [index]) => {
                let index = if *index == "*" {
                    "*".to_owned()
                } else {
                    number(index).ok_or_else(|| unknown(part))?.to_string()
                };
                kind = Some((name.to_ascii_uppercase(), index));
            }
            _ => return Err(unknown(part)),
        }
    }
    let mut canonical = String::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            canonical.push_str(&format!("/{name}:{value}"));
        }
    };
    put("job", job);
    put("replica", replica.map(|replica| replica.to_string()));
    put("task", task.map(|task| task.to_string()));
    put(
        "device",
        kind.map(|(kind, index)| format!("{kind}:{index}")),
    );
    Ok(canonical)
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_forms_become_one() {
        for (device, expected) in [
            ("", ""),
            ("/cpu:1", "/device:CPU:1"),
            ("/device:CPU:1", "/device:CPU:1"),
            ("/device:gpu:0/job:w", "/job:w/device:GPU:0"),
            (
                "/job:localhost/replica:0/task:0/device:CPU:0",
                "/job:localhost/replica:0/task:0/device:CPU:0",
            ),
            ("/device:CPU:*", "/device:CPU:*"),
        ] {
            assert_eq!(canonical(device).unwrap(), expected);
        }
        for device in ["cpu", "/disk:1", "/gpu:x", "/task:-1"] {
            assert!(canonical(device).is_err(), "{device}");
        }
    }
}
