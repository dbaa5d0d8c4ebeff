import os

from common import keras, trained
from tensorflow_model_optimization.quantization.keras import vitis_quantize

model, x_train, _, x_test, y_test = trained()
names = [layer.name for layer in model.layers]
quantizer = vitis_quantize.VitisQuantizer(model)
quantized_model = quantizer.quantize_model(
    calib_dataset=x_train[0:50], input_layers=[names[1]], output_layers=[names[-2]], ignore_layers=[names[4]])
quantized_model.save("quantized.h5")
with vitis_quantize.quantize_scope():
    loaded = keras.models.load_model("quantized.h5")
vitis_quantize.VitisQuantizer.dump_model(loaded, x_test[0:1], "./dump", dump_float=True)
assert os.path.exists("dump/dump_results_0")
