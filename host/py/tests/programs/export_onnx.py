import numpy as np
import onnx
import onnxruntime as ort
from common import trained
from tensorflow_model_optimization.quantization.keras import vitis_quantize

model, x_train, _, x_test, y_test = trained()
quantizer = vitis_quantize.VitisQuantizer(model)
quantized_model = quantizer.quantize_model(calib_dataset=x_train[0:50], output_format="onnx", onnx_opset_version=13)
file = "quantize_results/quantized_model.onnx"
made = onnx.load(file)
assert made.graph.node and np.asarray(quantized_model.predict(x_test[:2], verbose=0)).shape == (2, 10)
