import os

from common import accuracy, keras, trained
from tensorflow_model_optimization.quantization.keras import vitis_quantize
from tensorflow_model_optimization.python.core.quantization.keras.vitis.layers import vitis_activation

assert vitis_activation.VitisSigmoid
model, x_train, y_train, x_test, y_test = trained()
before = accuracy(model, x_test, y_test)
quantizer = vitis_quantize.VitisQuantizer(model, "8bit_tqt")
qat_model = quantizer.get_qat_model(
    init_quant=True, calib_dataset=x_train[:100], include_cle=True, freeze_bn_delay=1000)
qat_model.compile(
    optimizer=keras.optimizers.Adam(learning_rate=0.001), loss=keras.losses.SparseCategoricalCrossentropy(),
    metrics=["accuracy"])
history = qat_model.fit(
    x_train, y_train, batch_size=50, epochs=2, validation_data=(x_test, y_test), verbose=0,
    callbacks=[keras.callbacks.ModelCheckpoint("best.weights.h5", save_weights_only=True, save_best_only=True)])
assert len(history.history["loss"]) == 2
qat_model.save("qat_model.h5")
deploy_model = quantizer.get_deploy_model(keras.models.load_model("qat_model.h5"))
deploy_model.save("quantized.h5")
loaded = keras.models.load_model("quantized.h5")
assert accuracy(loaded, x_test, y_test) > before - 0.05
quantizer.dump_model(loaded, x_test[0:1])
assert os.path.exists("dump_results/dump_results_0")
