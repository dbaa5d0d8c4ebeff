from common import accuracy, keras, trained
from tensorflow_model_optimization.quantization.keras import vitis_quantize

model, x_train, y_train, x_test, y_test = trained()
before = accuracy(model, x_test, y_test)
quantizer = vitis_quantize.VitisQuantizer(model, quantize_strategy="bfp")
settings = {"input_bit": 16, "weight_bit": 16, "data_format": "bfp"}
quantized_model = quantizer.quantize_model(calib_dataset=None, calib_steps=0, calib_batch_size=0, **settings)
assert accuracy(quantized_model, x_test, y_test) > before - 0.05
qat_model = vitis_quantize.VitisQuantizer(model, quantize_strategy="bfp").get_qat_model(**settings)
qat_model.compile(
    optimizer=keras.optimizers.SGD(0.001), loss=keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"],
    run_eagerly=True)
qat_model.fit(x_train[:100], y_train[:100], batch_size=50, epochs=1, verbose=0)
assert accuracy(qat_model, x_test, y_test) > before - 0.1
