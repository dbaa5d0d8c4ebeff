import numpy as np
import onnx
import onnxruntime as ort
from common import accuracy, trained
from tensorflow_model_optimization.quantization.keras import vitis_quantize

model, x_train, _, x_test, y_test = trained(branches=True)
before = accuracy(model, x_test, y_test)
quantizer = vitis_quantize.VitisQuantizer(model)
quantizer.quantize_model(
    calib_dataset=x_train[0:50], layer_config={"concatenate": "bfloat16"}, convert_to_fs_quantize_strategy=True,
    output_format="onnx", output_dir="./")
onnx.checker.check_model(onnx.load("quantized_model.onnx"))
session = ort.InferenceSession("quantized_model.onnx")
out = session.run(None, {session.get_inputs()[0].name: x_test})[0]
assert (np.argmax(out, -1) == y_test).mean() > before - 0.05
