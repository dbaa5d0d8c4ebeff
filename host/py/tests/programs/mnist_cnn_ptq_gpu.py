import os

from common import accuracy, trained
from tensorflow_model_optimization.quantization.keras import vitis_quantize

model, x_train, _, x_test, y_test = trained()
before = accuracy(model, x_test, y_test)
quantizer = vitis_quantize.VitisQuantizer(model, quantize_strategy="gpu")
quantized_model = quantizer.quantize_model(calib_dataset=x_train[0:100], output_format="onnx", output_dir="./")
assert os.path.exists("quantized_model.onnx")
assert accuracy(quantized_model, x_test, y_test) > before - 0.05
