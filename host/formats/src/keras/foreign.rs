//! Files and folders that other tools wrote, told by their content: what they are, instead of what they are not.

use std::io::Cursor;
use std::path::Path;

use zip::ZipArchive;

use shiftwise_graph::error::Error;

/// What a folder holds, by a file in it.
const FOLDERS: &[(&str, &str)] =
    &[("saved_model.pb", SAVED_MODEL), ("saved_model.pbtxt", SAVED_MODEL), ("checkpoint", CHECKPOINT)];

const SAVED_MODEL: &str = "is a TensorFlow SavedModel, which is not read yet; save the model as .keras or .h5";
const CHECKPOINT: &str =
    "is a TensorFlow checkpoint: weights without a model; load it into its model and save that as .keras or .h5";
const GRAPH: &str = "is a TensorFlow graph, which is not read; save the Keras model as .keras or .h5";
const TFLITE: &str =
    "is a TensorFlow Lite model, which is not read; save the Keras model it was made of as .keras or .h5";
const ONNX: &str = "is an ONNX model, which is not read; a Keras model in a .keras or .h5 file is expected";
const PYTORCH: &str = "is a PyTorch file, which is not read; a Keras model in a .keras or .h5 file is expected";
const PICKLE: &str = "is a Python pickle, which is not read; a Keras model in a .keras or .h5 file is expected";
const COMPILED: &str = "is a compiled model; the Keras model that it was made of is expected";

fn foreign(path: &Path, message: &str) -> Error {
    Error::Foreign { path: path.to_owned(), message: message.to_owned() }
}

/// What a folder is, if it is known.
pub(crate) fn folder(path: &Path) -> Option<Error> {
    let found = FOLDERS.iter().find(|(file, _)| path.join(file).is_file());
    found.map(|(_, message)| foreign(path, message))
}

/// What a file is, if it is known and none of Keras'.
pub(crate) fn file(path: &Path, bytes: &[u8]) -> Option<Error> {
    /// The end of a table of LevelDB, as which checkpoints keep their index.
    const TABLE_END: &[u8] = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb";
    let message = if bytes.get(4..8) == Some(b"TFL3") {
        TFLITE
    } else if bytes.starts_with(b"SWM1") {
        COMPILED
    } else if bytes.ends_with(TABLE_END) || bytes.starts_with(b"model_checkpoint_path:") {
        CHECKPOINT
    } else if bytes.first() == Some(&0x80) && bytes.get(1).is_some_and(|version| (2..=5).contains(version)) {
        PICKLE
    } else {
        message_kind(bytes)?
    };
    Some(foreign(path, message))
}

/// What a zip file is that has no model of Keras' in it.
pub(crate) fn archive(path: &Path, bytes: &[u8]) -> Option<Error> {
    let archive = ZipArchive::new(Cursor::new(bytes)).ok()?;
    if archive.file_names().flatten().any(|name| name == "config.json") {
        return None;
    }
    let pytorch = archive.file_names().flatten().any(|name| name == "data.pkl" || name.ends_with("/data.pkl"));
    pytorch.then(|| foreign(path, PYTORCH))
}

/// Which of the messages without a header (protobuf) that hold networks this may be, by the fields of its outermost
/// level: ONNX' `ModelProto` has its graph in field 7, TensorFlow's `SavedModel` its version in 1 and its graphs in 2,
/// and a `GraphDef` nodes in 1.
fn message_kind(bytes: &[u8]) -> Option<&'static str> {
    const VARINT: u64 = 0;
    const BYTES: u64 = 2;
    let mut rest = bytes;
    let mut fields = [[false; 2]; 32];
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let (field, kind) = (usize::try_from(key >> 3).ok()?, key & 7);
        let seen = fields.get_mut(field).filter(|_| field > 0)?;
        match kind {
            VARINT => {
                varint(&mut rest)?;
                seen[0] = true;
            }
            BYTES => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
                seen[1] = true;
            }
            _ => return None,
        }
    }
    let numbers = |field: usize| fields[field][0];
    let messages = |field: usize| fields[field][1];
    if numbers(1) && messages(7) {
        Some(ONNX)
    } else if numbers(1) && messages(2) {
        Some(SAVED_MODEL)
    } else if messages(1) && !numbers(1) && named(bytes) {
        Some(GRAPH)
    } else {
        None
    }
}

/// Whether a message begins with a message that begins with a text: a node with its name.
fn named(bytes: &[u8]) -> bool {
    let Some((0x0a, mut rest)) = bytes.split_first().map(|(key, rest)| (*key, rest)) else { return false };
    varint(&mut rest).is_some() && rest.first() == Some(&0x0a)
}

/// The next number of a message, seven bits a byte.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for i in 0..10 {
        let (first, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(first & 0x7f).checked_shl(7 * i)?;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_files_are_named() {
        let table: [(&[u8], &str); 8] = [
            (b"\x1c\0\0\0TFL3rest", "TensorFlow Lite"),
            (b"\x08\x07\x12\x02ab\x3a\x03xyz\x42\x00", "ONNX"),
            (b"\x08\x01\x12\x03xyz", "SavedModel"),
            (b"\x0a\x05\x0a\x01n\x12\x00\x22\x02\x08\x01", "TensorFlow graph"),
            (b"model_checkpoint_path: \"m\"", "checkpoint"),
            (b"blocks\x57\xfb\x80\x8b\x24\x75\x47\xdb", "checkpoint"),
            (b"\x80\x02}q", "pickle"),
            (b"SWM1....", "compiled"),
        ];
        for (bytes, says) in table {
            let error = file(Path::new("m"), bytes).map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains(says), "{says}: {error}");
        }
        for bytes in [&b""[..], b"these are words", b"\x89PNG\r\n\x1a\n", b"\x0a\xff", b"{\"a\": 1}", b"\x08\x01"] {
            assert!(file(Path::new("m"), bytes).is_none(), "{bytes:?}");
        }
    }
}
