//! Files and folders that other tools wrote, told by their content: what they are, instead of what they are not.

use shiftwise_files::Files;
use shiftwise_keras::is_hdf5;

/// Whether an archive or a folder has a file, and is no model of Keras'.
fn holds(files: &Files, name: &str) -> bool {
    files.has(name) && !files.has("config.json")
}

pub(super) fn is_pytorch(files: &Files) -> bool {
    files.is_zip() && files.any(|name| name == "data.pkl" || name.ends_with("/data.pkl")) && !files.has("config.json")
}

pub(super) fn is_saved_model(files: &Files) -> bool {
    ["saved_model.pb", "saved_model.pbtxt"].iter().any(|name| holds(files, name))
        || message(files) == Some(Message::SavedModel)
}

pub(super) fn is_checkpoint(files: &Files) -> bool {
    /// The end of a table of LevelDB, as which checkpoints keep their index.
    const TABLE_END: &[u8] = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb";
    let own = |bytes: &[u8]| bytes.ends_with(TABLE_END) || bytes.starts_with(b"model_checkpoint_path:");
    holds(files, "checkpoint") || is(files, own)
}

pub(super) fn is_tflite(files: &Files) -> bool {
    is(files, |bytes| bytes.get(4..8) == Some(b"TFL3"))
}

pub(super) fn is_compiled(files: &Files) -> bool {
    is(files, |bytes| bytes.starts_with(b"SWM1"))
}

pub(super) fn is_pickle(files: &Files) -> bool {
    is(files, |bytes| matches!(bytes, [0x80, 2..=5, ..]))
}

pub(crate) fn is_onnx(files: &Files) -> bool {
    message(files) == Some(Message::Onnx)
}

pub(super) fn is_graph(files: &Files) -> bool {
    message(files) == Some(Message::Graph)
}

/// The bytes of a file that begins like none of ours.
fn headless(files: &Files) -> Option<&[u8]> {
    files.bytes().filter(|bytes| !files.is_zip() && !is_hdf5(bytes))
}

/// Whether such a file is of a kind.
fn is(files: &Files, of: impl Fn(&[u8]) -> bool) -> bool {
    headless(files).is_some_and(of)
}

/// Messages without a header (protobuf) that hold networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Onnx,
    SavedModel,
    Graph,
}

/// Which of the messages a file may be, by the fields of its outermost level: ONNX' `ModelProto` has its graph in field
/// 7, TensorFlow's `SavedModel` its version in 1 and its graphs in 2, and a `GraphDef` nodes in 1.
fn message(files: &Files) -> Option<Message> {
    const VARINT: u64 = 0;
    const BYTES: u64 = 2;
    let bytes = headless(files)?;
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
        Some(Message::Onnx)
    } else if numbers(1) && messages(2) {
        Some(Message::SavedModel)
    } else if messages(1) && !numbers(1) && named(bytes) {
        Some(Message::Graph)
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
