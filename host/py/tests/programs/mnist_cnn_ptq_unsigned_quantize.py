from common import accuracy, trained
from tensorflow_model_optimization.quantization.keras import vitis_quantize

model, x_train, _, x_test, y_test = trained()
before = accuracy(model, x_test, y_test)
quantizer = vitis_quantize.VitisQuantizer(model)
quantized_model = quantizer.quantize_model(calib_dataset=x_train[0:50], activation_unsigned=True)
assert accuracy(quantized_model, x_test, y_test) > before - 0.05
