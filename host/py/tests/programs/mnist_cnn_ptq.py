import os

from common import accuracy, keras, trained
from tensorflow_model_optimization.quantization.keras import vitis_quantize

model, x_train, _, x_test, y_test = trained()
before = accuracy(model, x_test, y_test)
quantizer = vitis_quantize.VitisQuantizer(model)
quantized_model = quantizer.quantize_model(
    calib_dataset=x_train[0:10], include_cle=True, cle_steps=10, include_fast_ft=True, fast_ft_epochs=2)
quantized_model.save("quantized.h5")
loaded = keras.models.load_model("quantized.h5")
assert isinstance(loaded, keras.Model)
assert accuracy(loaded, x_test, y_test) > before - 0.05
quantizer.dump_model(loaded, dataset=x_train[0:1], dump_float=True)
assert os.path.exists("dump_results/dump_results_0") and os.path.exists("dump_results/dump_results_weights")
