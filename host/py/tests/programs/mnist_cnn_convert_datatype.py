from common import accuracy, trained
from tensorflow_model_optimization.quantization.keras import vitis_quantize

model, _, _, x_test, y_test = trained()
before = accuracy(model, x_test, y_test)
quantizer = vitis_quantize.VitisQuantizer(model)
quantized_model = quantizer.quantize_model(convert_datatype="float16")
assert accuracy(quantized_model, x_test, y_test) > before - 0.02
quantized_model.save("float16.h5")
