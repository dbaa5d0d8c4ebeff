use crate::dataset::*;
use ndarray::{Array1, Array4};
use ndarray_npy::{NpzWriter, write_npy};

/// A folder of its own for each test.
fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("shiftwise-data-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn ramp<T: From<u8> + Clone>(n: usize) -> Array4<T> {
    let values = (0..n * 12).map(|i| T::from(i as u8)).collect();
    Array4::from_shape_vec((n, 2, 2, 3), values).unwrap()
}

fn message(result: Result<impl std::fmt::Debug, Error>) -> String {
    match result.unwrap_err() {
        Error::Dataset(m) => m,
        other => panic!("{other:?}"),
    }
}

#[test]
fn arrays_of_all_types_give_the_same_batches() {
    let dir = scratch("types");
    let want: Vec<f32> = (12..36).map(|v| v as f32).collect();
    let check = |name: &str| {
        let data = Dataset::open(&DataSpec::parse(dir.join(name).to_str().unwrap()), &[2, 2, 3]).unwrap();
        assert_eq!(data.len(), 4, "{name}");
        let batch = data.batch(1, 2).unwrap();
        assert_eq!((batch.shape(), batch.data()), (&[2, 2, 2, 3][..], want.as_slice()), "{name}");
        assert!(message(data.batch(3, 2)).contains("past the end"));
    };
    write_npy(dir.join("f4.npy"), &ramp::<f32>(4)).unwrap();
    write_npy(dir.join("f8.npy"), &ramp::<f64>(4)).unwrap();
    write_npy(dir.join("u1.npy"), &ramp::<u8>(4)).unwrap();
    write_npy(dir.join("i8.npy"), &ramp::<i64>(4)).unwrap();
    write_npy(dir.join("i2.npy"), &ramp::<i16>(4)).unwrap();
    // Half precision, which has no type here: 0 to 47 are exact in it.
    let halves = (0..48u16).flat_map(|v| {
        let e = v.checked_ilog2().unwrap_or(0) as u16;
        let bits = if v == 0 { 0 } else { ((e + 15) << 10) | ((v << (10 - e)) & 1023) };
        bits.to_le_bytes()
    });
    let mut half = std::fs::read(dir.join("i2.npy")).unwrap();
    let descr = half.windows(3).position(|w| w == b"<i2").unwrap();
    half[descr + 1] = b'f';
    half.truncate(half.len() - 4 * 12 * 2);
    half.extend(halves);
    std::fs::write(dir.join("f2.npy"), half).unwrap();
    for name in ["f2.npy", "f4.npy", "f8.npy", "u1.npy", "i8.npy", "i2.npy"] {
        check(name);
    }
    let mut big = std::fs::read(dir.join("i2.npy")).unwrap();
    let descr = big.windows(3).position(|w| w == b"<i2").unwrap();
    big[descr] = b'>';
    let from = big.len() - 4 * 12 * 2;
    big[from..].chunks_exact_mut(2).for_each(<[u8]>::reverse);
    std::fs::write(dir.join("big.npy"), big).unwrap();
    check("big.npy");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn archives_name_their_arrays() {
    let dir = scratch("npz");
    for (name, compressed) in [("plain.npz", false), ("packed.npz", true)] {
        let file = std::fs::File::create(dir.join(name)).unwrap();
        let mut npz = if compressed { NpzWriter::new_compressed(file) } else { NpzWriter::new(file) };
        npz.add_array("x_cal", &ramp::<u8>(3)).unwrap();
        npz.add_array("x_eval", &ramp::<f32>(2)).unwrap();
        npz.add_array("y_eval", &Array1::from(vec![7u8, 9])).unwrap();
        npz.finish().unwrap();
        let path = dir.join(name).to_str().unwrap().to_owned();
        let open = |key: &str| Dataset::open(&DataSpec::parse(&format!("{path}{key}")), &[2, 2, 3]);
        assert_eq!(open(":x_cal").unwrap().len(), 3);
        assert_eq!(open(":x_eval").unwrap().batch(1, 1).unwrap().data()[0], 12.0);
        for text in [message(open("")), message(open(":z"))] {
            assert!(text.contains("x_cal, x_eval, y_eval"), "{text}");
        }
        assert_eq!(labels(&DataSpec::parse(&path)).unwrap(), [7, 9]);
        let two: [(&str, &[usize]); 2] = [("x_cal", &[2, 2, 3]), ("x_eval", &[2, 2, 3])];
        let lengths = message(Inputs::open(&[(None, DataSpec::parse(&path))], &two));
        assert!(lengths.contains("[3, 2]"), "{lengths}");
        let one = [(Some("image".into()), DataSpec::parse(&format!("{path}:x_cal")))];
        assert!(message(Inputs::open(&one, &[("input", &[2, 2, 3])])).contains("its inputs are input"));
        assert_eq!(Inputs::open(&one, &[("image", &[2, 2, 3])]).unwrap().batch(0, 3).unwrap().len(), 1);
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn folders_of_arrays_and_images() {
    let dir = scratch("folder");
    let spec = DataSpec { path: dir.clone(), mean: vec![1.0, 2.0, 3.0], scale: Some(0.5), ..DataSpec::default() };
    assert!(message(Dataset::open(&spec, &[2, 2, 3])).contains("holds no"));
    let sample = |v: u8| image::RgbImage::from_pixel(4, 4, image::Rgb([v, v + 10, v + 20]));
    sample(10).save(dir.join("a.png")).unwrap();
    sample(50).save(dir.join("b.png")).unwrap();
    let plain = Dataset::open(&spec, &[2, 2, 3]).unwrap();
    assert!(message(plain.batch(0, 1)).contains("4x4 pixels, 2x2"));
    let scaled =
        Dataset::open(&DataSpec { resize: Some([2, 2]), order: ChannelOrder::Bgr, ..spec.clone() }, &[2, 2, 3]);
    let batch = scaled.unwrap().batch(0, 2).unwrap();
    assert_eq!(batch.data()[..3], [14.5, 9.0, 3.5]);
    assert_eq!(batch.data()[12..15], [34.5, 29.0, 23.5]);
    write_npy(dir.join("c.npy"), &ramp::<f32>(1)).unwrap();
    assert!(message(Dataset::open(&spec, &[2, 2, 3])).contains("both"));
    std::fs::remove_file(dir.join("a.png")).unwrap();
    std::fs::remove_file(dir.join("b.png")).unwrap();
    let arrays = Dataset::open(&spec, &[2, 2, 3]).unwrap();
    assert_eq!(arrays.batch(0, 1).unwrap().data()[..4], [-0.5, -0.5, -0.5, 1.0]);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn unusable_data_is_named() {
    let dir = scratch("bad");
    let open = |name: &str, shape: &[usize]| Dataset::open(&DataSpec::parse(dir.join(name).to_str().unwrap()), shape);
    let mut nan = ramp::<f32>(3);
    nan[[2, 0, 0, 1]] = f32::NAN;
    write_npy(dir.join("nan.npy"), &nan).unwrap();
    let text = message(open("nan.npy", &[2, 2, 3]).unwrap().batch(1, 2));
    assert!(text.contains("sample 2 has the value NaN"), "{text}");
    let text = message(open("nan.npy", &[4, 4, 3]));
    assert!(text.contains("[3, 2, 2, 3]") && text.contains("[4, 4, 3]"), "{text}");
    write_npy(dir.join("none.npy"), &Array4::<f32>::zeros((0, 2, 2, 3))).unwrap();
    assert!(message(open("none.npy", &[2, 2, 3])).contains("no samples"));
    write_npy(dir.join("turned.npy"), &ramp::<f32>(2).reversed_axes()).unwrap();
    assert!(message(open("turned.npy", &[2, 2, 2])).contains("Fortran"));
    std::fs::write(dir.join("text.npy"), b"hello").unwrap();
    assert!(message(open("text.npy", &[1])).contains("not a NumPy array"));
    assert!(matches!(open("absent.npy", &[1]), Err(Error::Io { .. })));
    let whole = std::fs::read(dir.join("nan.npy")).unwrap();
    std::fs::write(dir.join("cut.npy"), &whole[..whole.len() - 1]).unwrap();
    assert!(message(open("cut.npy", &[2, 2, 3])).contains("needs more than"));
    // Damaged headers, sizes and archives come back as errors or other data, never as a panic.
    let mut seed = 1u64;
    for _ in 0..3000 {
        let mut copy = whole.clone();
        for _ in 0..3 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (seed >> 33) as usize % 128;
            copy[at] = (seed >> 56) as u8;
        }
        std::fs::write(dir.join("damaged.npy"), &copy).unwrap();
        if let Ok(data) = open("damaged.npy", &[2, 2, 3]) {
            let _ = data.batch(0, 1);
        }
    }
    std::fs::remove_dir_all(dir).unwrap();
}

/// What is deflated is read forwards, by several readers: in any order the values are the same.
#[test]
fn members_are_read_at_any_place() {
    let dir = scratch("member");
    let values: Vec<f32> = (0..40_000).map(|i| (i % 977) as f32).collect();
    let array = Array4::from_shape_vec((1000, 2, 4, 5), values.clone()).unwrap();
    for compressed in [false, true] {
        let path = dir.join("x.npz");
        let file = std::fs::File::create(&path).unwrap();
        let mut npz = if compressed { NpzWriter::new_compressed(file) } else { NpzWriter::new(file) };
        npz.add_array("x", &array).unwrap();
        npz.finish().unwrap();
        let data = Dataset::open(&DataSpec::parse(path.to_str().unwrap()), &[2, 4, 5]).unwrap();
        for start in [0, 999, 500, 501, 3, 998, 0, 700, 250, 251, 999] {
            let batch = data.batch(start, 1).unwrap();
            assert_eq!(batch.data(), &values[start * 40..][..40], "{start}");
        }
        assert_eq!(data.batch(0, 1000).unwrap().data(), values);
        // Damage to the values is seen by the checksum, at the end at the latest.
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 16;
        std::fs::write(&path, &bytes).unwrap();
        let read = Dataset::open(&DataSpec::parse(path.to_str().unwrap()), &[2, 4, 5]);
        assert!(read.and_then(|data| data.batch(0, 1000)).is_err(), "{compressed}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}
