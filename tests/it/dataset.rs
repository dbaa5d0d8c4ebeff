//! Data of the reference cases and models.

use shiftwise::dataset::{DataSpec, Dataset, Inputs, labels};
use shiftwise_graph::eval::Samples;
use shiftwise_tests::shared::{golden_cases, shared};

#[test]
fn calibration_data_opens_with_the_models_shape() {
    let Some(case) = golden_cases().into_iter().find(|c| c.ends_with("pof2s_conv_bn_relu_v0")) else { return };
    let spec = DataSpec::parse(&case.join("calib.npy").to_string_lossy());
    let data = Inputs::open(&[(None, spec.clone())], &[("input_1", &[8, 8, 3])]).unwrap();
    assert_eq!(data.len(), 10);
    let batch = data.batch(8, 2).unwrap();
    assert_eq!(batch[0].shape(), [2, 8, 8, 3]);
    let text = Dataset::open(&spec, &[8, 8, 4]).unwrap_err().to_string();
    assert!(text.contains("[10, 8, 8, 3]") && text.contains("[8, 8, 4]"), "{text}");
}

#[test]
fn archives_of_the_models_open_by_key() {
    let Some(shared) = shared() else { return };
    let file = shared.join("models/resnet8_fashion.npz");
    if !file.is_file() {
        return;
    }
    let open = |key: &str| Dataset::open(&DataSpec::parse(&format!("{}{key}", file.display())), &[28, 28, 1]);
    assert_eq!(open(":x_cal").unwrap().len(), 256);
    let images = open(":x_eval").unwrap();
    assert_eq!(images.batch(1999, 1).unwrap().shape(), [1, 28, 28, 1]);
    let text = open("").unwrap_err().to_string();
    assert!(text.contains("x_cal") && text.contains(":KEY"), "{text}");
    let classes = labels(&DataSpec::parse(&file.to_string_lossy())).unwrap();
    assert_eq!(classes.len(), images.len());
    assert!(classes.iter().all(|c| (0..10).contains(c)));
}
