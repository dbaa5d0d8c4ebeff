from common import accuracy, keras, trained
from tensorflow_model_optimization.quantization.keras import vitis_quantize

model, x_train, y_train, x_test, y_test = trained()
before = accuracy(model, x_test, y_test)
quantizer = vitis_quantize.VitisQuantizer(model)
qat_model = quantizer.get_qat_model(init_quant=True, calib_dataset=x_train[:100], train_with_bn=True, freeze_bn_delay=8)
qat_model.compile(
    optimizer=keras.optimizers.RMSprop(learning_rate=0.0005), loss=keras.losses.SparseCategoricalCrossentropy(),
    metrics=["accuracy"])
qat_model.fit(x_train, y_train, batch_size=50, epochs=2, verbose=0)
deploy_model = vitis_quantize.VitisQuantizer.get_deploy_model(qat_model)
assert accuracy(deploy_model, x_test, y_test) > before - 0.1
