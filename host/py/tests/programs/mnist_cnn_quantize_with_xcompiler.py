from common import accuracy, trained
from tensorflow_model_optimization.quantization.keras import vitis_quantize

model, x_train, _, x_test, y_test = trained()
before = accuracy(model, x_test, y_test)
quantizer = vitis_quantize.VitisQuantizer(model, target="DPUCZDX8G_ISA1_B4096")
quantized_model = quantizer.quantize_model(calib_dataset=x_train[0:50], quantize_with_xcompiler=True)
assert accuracy(quantized_model, x_test, y_test) > before - 0.05
