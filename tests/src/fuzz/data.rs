//! Samples: arrays and pictures.

use shiftwise::dataset;
use shiftwise::dataset::{DataSpec, Dataset};
use shiftwise_core::model::crc32;

use super::file;
use super::models::zipped;

/// Reads everything that a file holds, as samples and as labels.
fn read(spec: &DataSpec) {
    let shape = dataset::sample_shape(spec).unwrap_or_else(|| vec![4, 3, 1]);
    for shape in [&shape[..], &[4, 3, 1]] {
        if let Ok(data) = Dataset::open(spec, shape) {
            let _ = data.batch(0, data.len().min(64));
            let _ = data.batch(data.len() - 1, 1);
        }
    }
    let _ = dataset::labels(spec);
}

/// An array.
pub(super) fn array(bytes: &[u8]) {
    read(&DataSpec { path: file("x.npy", bytes), ..DataSpec::default() });
}

/// An archive of arrays.
pub(super) fn arrays(bytes: &[u8]) {
    let path = file("x.npz", bytes);
    for key in [None, Some("x"), Some("y")] {
        read(&DataSpec { path: path.clone(), key: key.map(str::to_owned), ..DataSpec::default() });
    }
}

/// Two arrays, see [`members`].
pub(super) fn archived(bytes: &[u8]) {
    let Some(([flags, length @ ..], rest)) = bytes.split_first_chunk::<5>() else { return };
    let (x, y) = rest.split_at((u32::from_le_bytes(*length) as usize).min(rest.len()));
    arrays(&zipped(&[("x.npy", x), ("y.npy", y)], flags & 1 == 1));
}

/// The members `x` and `y` of a `.npz` archive as the target `npz_members` takes them.
pub fn members(deflated: bool, x: &[u8], y: &[u8]) -> Vec<u8> {
    [&[u8::from(deflated)][..], &(x.len() as u32).to_le_bytes(), x, y].concat()
}

/// A folder with one picture, as it is and scaled, in grey and in colours.
pub(super) fn picture(bytes: &[u8]) {
    let path = file("pictures/x.png", &pictures_with_checksums(bytes));
    let folder = path.parent().unwrap_or(&path).to_owned();
    for (resize, channels) in [(None, 3), (Some([5, 7]), 3), (Some([5, 7]), 1)] {
        let spec = DataSpec { path: folder.clone(), resize, ..DataSpec::default() };
        if let Ok(data) = Dataset::open(&spec, &[5, 7, channels]) {
            let _ = data.batch(0, 1);
        }
    }
}

/// A PNG whose chunks have the checksums that belong to them; other bytes as they are.
pub fn pictures_with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut all = bytes.to_vec();
    if !all.starts_with(b"\x89PNG\r\n\x1a\n") {
        return all;
    }
    let mut at = 8;
    while let Some(length) = all.get(at..at + 4) {
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        // Kind and data are what the checksum is of.
        let Some(crc) = all.get(at + 4..at + 8 + length).map(crc32) else { break };
        match all.get_mut(at + 8 + length..at + 12 + length) {
            Some(field) => field.copy_from_slice(&crc.to_be_bytes()),
            None => break,
        }
        at += 12 + length;
    }
    all
}
