//! Pictures of every kind against what PIL and TensorFlow make of them (`tests/data/images/make.py`): every byte.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use ndarray::{ArrayD, OwnedRepr};
use ndarray_npy::NpzReader;
use shiftwise::dataset::{ChannelOrder, DataSpec, Dataset, ResizeFilter};
use shiftwise_tests::command::Folder;

fn images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/images")
}

/// What the references say, by key.
fn expected() -> BTreeMap<String, ArrayD<f32>> {
    let mut archive = NpzReader::new(File::open(images().join("expected.npz")).unwrap()).unwrap();
    let names = archive.names().unwrap();
    let mut read = |name: &String| match archive.by_name::<OwnedRepr<u8>, ndarray::IxDyn>(name) {
        Ok(bytes) => bytes.mapv(f32::from),
        Err(_) => archive.by_name::<OwnedRepr<f32>, ndarray::IxDyn>(name).unwrap(),
    };
    names.iter().map(|name| (name.trim_end_matches(".npy").to_owned(), read(name))).collect()
}

/// One picture in a folder of its own.
fn spec(folder: &Folder, picture: &str) -> DataSpec {
    let path = folder.path.join(picture.replace('.', "_"));
    std::fs::create_dir_all(&path).unwrap();
    std::fs::copy(images().join(picture), path.join(picture)).unwrap();
    DataSpec { path, ..DataSpec::default() }
}

fn read(spec: &DataSpec, shape: [usize; 3]) -> Vec<f32> {
    let data = Dataset::open(spec, &shape).unwrap();
    data.batch(0, data.len()).unwrap_or_else(|e| panic!("{e}")).into_data()
}

#[test]
fn every_kind_has_the_bytes_of_the_references() {
    let (folder, mut pictures) = (Folder::new("images"), 0);
    for (key, want) in expected() {
        let mut parts = key.split(':');
        let (picture, filter, size) = (parts.next().unwrap(), parts.next(), parts.next());
        let (spec, [h, w]) = (spec(&folder, picture), [want.shape()[0], want.shape()[1]]);
        let values: Vec<f32> = want.iter().copied().collect();
        let part = |channels: std::ops::Range<usize>| -> Vec<f32> {
            values.chunks_exact(4).flat_map(|pixel| pixel[channels.clone()].to_vec()).collect()
        };
        match (filter, size) {
            (None, _) => {
                pictures += 1;
                assert_eq!(read(&spec, [h, w, 3]), part(0..3), "{picture}: colours");
                assert_eq!(read(&spec, [h, w, 1]), part(3..4), "{picture}: grey");
                let mut other = part(0..3);
                other.chunks_exact_mut(3).for_each(<[f32]>::reverse);
                let spec = DataSpec { order: ChannelOrder::Bgr, ..spec };
                assert_eq!(read(&spec, [h, w, 3]), other, "{picture}: blue first");
            }
            (Some("turned"), _) => {
                assert_eq!(read(&DataSpec { exif: true, ..spec }, [h, w, 3]), values, "{picture}: turned");
            }
            (Some(name), _) => {
                let filter = if name == "tf" { ResizeFilter::Tf } else { ResizeFilter::Pil };
                let spec = DataSpec { filter, resize: Some([h, w]), ..spec };
                assert_eq!(read(&spec, [h, w, 3]), values, "{key}");
            }
        }
    }
    assert_eq!(pictures, std::fs::read_dir(images()).unwrap().count() - 2, "make.py and expected.npz are no pictures");
}

#[test]
fn what_may_surprise_is_told() {
    let folder = Folder::new("image-notes");
    let warnings = |picture: &str, exif: bool, shape: [usize; 3]| {
        let spec = DataSpec { exif, ..spec(&folder, picture) };
        read(&spec, shape);
        spec.notes.warnings()
    };
    let turned = warnings("turn6.jpg", false, [9, 14, 3]);
    assert!(matches!(&turned[..], [one] if one.contains("--exif") && one.contains("turn6.jpg")), "{turned:?}");
    assert_eq!(warnings("turn6.jpg", true, [14, 9, 3]), [""; 0]);
    assert_eq!(warnings("turn1.png", false, [3, 5, 3]), [""; 0]);
    assert_eq!(warnings("rgb16.png", false, [7, 9, 3]), [""; 0]);
    let limited = warnings("grey16.png", false, [7, 9, 1]);
    assert!(matches!(&limited[..], [one] if one.contains("16 bits of grey")), "{limited:?}");
}

#[test]
fn hidden_files_are_no_samples() {
    let folder = Folder::new("hidden");
    let mut spec = spec(&folder, "rgb.png");
    for hidden in ["._rgb.png", ".DS_Store", "Thumbs.db", ".a.npy"] {
        std::fs::write(spec.path.join(hidden), b"\0\x05\x16\x07").unwrap();
    }
    std::fs::create_dir(spec.path.join(".thumbs.png")).unwrap();
    assert_eq!(Dataset::open(&spec, &[7, 9, 3]).unwrap().len(), 1);
    // Others are no samples either, but may be missed.
    std::fs::write(spec.path.join("b.webp"), b"RIFF\0\0\0\0WEBP").unwrap();
    assert_eq!(Dataset::open(&spec, &[7, 9, 3]).unwrap().len(), 1);
    let told = spec.notes.warnings();
    assert!(matches!(&told[..], [one] if one.contains("b.webp")), "{told:?}");
    std::fs::remove_file(spec.path.join("rgb.png")).unwrap();
    let text = Dataset::open(&spec, &[7, 9, 3]).unwrap_err().to_string();
    assert!(text.contains("holds no") && text.contains("b.webp"), "{text}");
    // A kind is told by what a file holds.
    std::fs::rename(spec.path.join("b.webp"), spec.path.join("b.png")).unwrap();
    spec.notes = Default::default();
    let text = Dataset::open(&spec, &[7, 9, 3]).unwrap().batch(0, 1).unwrap_err().to_string();
    assert!(text.contains("WebP") && text.contains("PNG, JPEG and BMP"), "{text}");
}

/// Damaged pictures are refused or give other values; a file that is cut short is refused.
#[test]
fn damaged_pictures_do_not_panic() {
    let folder = Folder::new("damaged-images");
    let mut seed = 7u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % below
    };
    for picture in
        ["420.jpg", "444p.jpg", "420p.jpg", "restart.jpg", "cmyk.jpg", "rgb.png", "interlaced.png", "rgb.bmp"]
    {
        let spec = spec(&folder, picture);
        let whole = std::fs::read(images().join(picture)).unwrap();
        let [h, w] = match picture {
            "cmyk.jpg" => [9, 11],
            "rgb.png" | "rgb.bmp" => [7, 9],
            "interlaced.png" => [2, 2],
            _ => [21, 20],
        };
        let attempt = |bytes: &[u8]| {
            std::fs::write(spec.path.join(picture), bytes).unwrap();
            let data = Dataset::open(&DataSpec { exif: true, ..spec.clone() }, &[h, w, 3]).unwrap();
            data.batch(0, 1).is_ok()
        };
        assert!(attempt(&whole), "{picture}");
        for n in 0..150 {
            let mut copy = whole.clone();
            for _ in 0..=random(4) {
                let at = random(copy.len());
                copy[at] = [0, 0xFF, copy[at] ^ 1 << random(8), random(256) as u8][random(4)];
            }
            if n % 8 == 0 {
                copy.truncate(random(copy.len()));
            }
            attempt(&copy);
        }
        let half = &whole[..whole.len() * 3 / 4];
        assert!(!attempt(half), "{picture}: the first three quarters are taken for the whole");
    }
}

/// A size that a file claims and does not have is refused by its header, whatever it claims.
#[test]
fn claims_are_checked_before_the_work() {
    let folder = Folder::new("claims");
    let spec = spec(&folder, "420.jpg");
    let mut bytes = std::fs::read(images().join("420.jpg")).unwrap();
    let at = bytes.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    bytes[at + 5..at + 9].fill(0xFF);
    std::fs::write(spec.path.join("420.jpg"), &bytes).unwrap();
    let resized = DataSpec { resize: Some([4, 4]), ..spec };
    let text = Dataset::open(&resized, &[4, 4, 3]).unwrap().batch(0, 1).unwrap_err().to_string();
    assert!(text.contains("claims 65535x65535 pixels"), "{text}");
}
