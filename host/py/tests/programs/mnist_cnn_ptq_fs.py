from common import accuracy, keras, trained
from tensorflow_model_optimization.quantization.keras import vitis_quantize

model, x_train, _, x_test, y_test = trained()
before = accuracy(model, x_test, y_test)
quantizer = vitis_quantize.VitisQuantizer(model, quantize_strategy="fs")
quantized_model = quantizer.quantize_model(
    calib_dataset=x_train[0:100], calib_batch_size=20, input_method=3, input_method_percentile=99.9999)
assert accuracy(quantized_model, x_test, y_test) > before - 0.05
quantized_model.save("quantized.h5")
loaded = keras.models.load_model("quantized.h5")
assert accuracy(loaded, x_test, y_test) > before - 0.05
