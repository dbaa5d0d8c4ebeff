//! What the user of the command line can do about an error: a table by code, and four errors of which more is known.

use shiftwise_graph::error::Error;
use shiftwise_graph::ops::custom::{Remedy, remedy};

/// A code of [`Error::code`], and the remedy.
const HINTS: [(&str, &str); 13] = [
    (
        "Quantizer_TF2_Unsupported_Layer",
        "say what it computes, such as `--custom-layer 'Mylayer=maximum(x, 0) + alpha * minimum(x, 0)'`, \
         or replace it by supported layers",
    ),
    (
        "Quantizer_TF2_Unsupported_Model",
        "functional and sequential Keras models are read as `model.save(\"FILE.h5\")` writes them",
    ),
    ("Quantizer_TF2_Invalid_Input_Shape", "pass --input-shape with the model's own rank, such as 1,224,224,3"),
    (
        "Quantizer_TF2_Invalid_Calib_Dataset",
        "data is float32 [n, h, w, c] as the model's input expects it, in a .npy or .npz file or a folder of images",
    ),
    ("Quantizer_TF2_Invalid_Target", "`shiftwise targets` lists all known targets"),
    ("Shiftwise_Invalid_Layer", "change the layer in the model and save it again"),
    ("Shiftwise_Invalid_File", "check the file with the tool that wrote it; a copy may have been cut short"),
    (
        "Shiftwise_Wrong_Kind_Of_File",
        "`shiftwise quantize` makes a quantized model of a float one, `shiftwise compile` a .swm of that",
    ),
    (
        "Shiftwise_No_Weights",
        "`--weights FILE` takes the weights that `save_weights` wrote; `--random-weights SEED` draws some, which \
         is enough for inspecting, compiling and timing",
    ),
    ("Shiftwise_Io", "check that the path is right, and that you may read or write there"),
    ("Shiftwise_Invalid_Option", "`shiftwise help COMMAND` explains the options of a command"),
    ("Shiftwise_Cannot_Compile", "change the layer or its quantization, or try another target"),
    (
        "Shiftwise_Run_Failed",
        "see that the board is connected and runs the firmware, and that the model was compiled by this version",
    ),
];

/// What the user can do about it.
pub(crate) fn hint(error: &Error) -> &'static str {
    let more = match error {
        Error::UnsupportedLayer { class, .. } => match remedy(class) {
            Remedy::ClassFormula => None,
            Remedy::LayerFormula => Some(
                "say what this one layer computes by its name, such as `--custom-layer 'NAME=x / 255'`: other layers of \
                 the class may compute something else",
            ),
            Remedy::OtherLayers => Some("replace it by supported layers in the model and save it again"),
        },
        Error::UnsupportedActivation { .. } => Some(
            "say what it computes by the function's name or, for one layer, by the layer's, such as \
             `--custom-layer 'my_act=maximum(x, 0) * 0.5'`, or use one of Keras' activations",
        ),
        Error::LayerConfig { .. } => {
            Some("`shiftwise strategy dump pof2s --verbose 2` shows how entries and quantizers are written")
        }
        Error::Dataset(text) if text.contains("the labels have shape") => Some(
            "labels are class numbers, one per sample; of one-hot labels take `numpy.argmax(labels, axis=-1)`, and for values of \
             the output's shape pass --metric mae or mse",
        ),
        Error::Dataset(text) if text.contains(" labels; one ") => Some(
            "take samples and labels from the same set and in the same order: an array of each, as long as the other",
        ),
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            Some("the disk is full: free some space, or write elsewhere")
        }
        Error::Foreign { .. } => Some("in Python, `model.save(\"model.keras\")` saves a Keras model whole"),
        // The table has the others: a library's kinds of errors may grow.
        _ => None,
    };
    let row = || HINTS.iter().find(|(code, _)| *code == error.code());
    more.or_else(|| Some(row()?.1)).unwrap_or("`shiftwise help COMMAND` explains the command")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// One error of each code.
    fn errors() -> Vec<Error> {
        let (path, text) = (Path::new("file"), String::new);
        vec![
            Error::UnsupportedLayer { layer: text(), class: "Mine".into() },
            Error::model(""),
            Error::InputShape(text()),
            Error::Dataset(text()),
            Error::Target(text()),
            Error::layer("", "", ""),
            Error::format(path, ""),
            Error::wrong_kind(path, ""),
            Error::NoWeights { path: path.into() },
            Error::io(path)(std::io::ErrorKind::NotFound.into()),
            Error::Options(text()),
            Error::Compile(text()),
            Error::Run(text()),
        ]
    }

    #[test]
    fn every_code_has_its_row() {
        let errors = errors();
        assert_eq!(errors.iter().map(Error::code).collect::<Vec<_>>(), HINTS.map(|(code, _)| code));
        for (error, (_, text)) in errors.iter().zip(HINTS) {
            assert_eq!(hint(error), text);
        }
    }

    #[test]
    fn a_formula_is_named_where_one_helps() {
        let of = |class: &str| hint(&Error::UnsupportedLayer { layer: "l".into(), class: class.into() });
        for (class, helps) in [("Mine", true), ("Lambda", true), ("LSTM", false), ("Conv3D", false)] {
            assert_eq!(of(class).contains("--custom-layer"), helps, "{class}");
        }
        let [layer, class, activation] = [""; 3].map(str::to_owned);
        assert!(hint(&Error::UnsupportedActivation { layer, class, activation }).contains("--custom-layer"));
    }
}
