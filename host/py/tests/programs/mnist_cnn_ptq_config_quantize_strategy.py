import json

from common import accuracy, trained
from tensorflow_model_optimization.quantization.keras import vitis_quantize

model, x_train, _, x_test, y_test = trained()
before = accuracy(model, x_test, y_test)
quantizer = vitis_quantize.VitisQuantizer(model)
quantizer.dump_quantize_strategy(dump_file="my_strategy.json", verbose=2)
with open("my_strategy.json") as file:
    strategy = json.load(file)
strategy["quantize_registry_config"]["user_quantize_config"]["bias_bit"] = 16
with open("my_strategy.json", "w") as file:
    json.dump(strategy, file)
quantizer.set_quantize_strategy("my_strategy.json")
quantized_model = quantizer.quantize_model(calib_dataset=x_train[0:50])
assert accuracy(quantized_model, x_test, y_test) > before - 0.05
assert any(row["bit_width"] == 16 for row in quantized_model.quantize_info())
