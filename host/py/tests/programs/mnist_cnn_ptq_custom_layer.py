import os

import tensorflow as tf
from common import accuracy, keras, trained
from tensorflow_model_optimization.quantization.keras import vitis_quantize


class PRelu(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)

    def build(self, input_shape):
        self.alpha = self.add_weight(name="alpha", shape=(int(input_shape[-1]),), initializer="ones", trainable=True)

    def call(self, inputs):
        return tf.maximum(0.0, inputs) + self.alpha * 0.1 * tf.minimum(0.0, inputs)


class Double(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 2.0


class Blend(keras.layers.Layer):
    def call(self, inputs):
        return (inputs[0] + inputs[1]) * 0.5

    def compute_output_shape(self, input_shape):
        return input_shape[0]


class Tail(keras.layers.Layer):
    """Only here to be unused."""


def blended(x):
    return Blend()([x, Double()(x)])


model, x_train, _, x_test, y_test = trained(PRelu(), blended)
before = accuracy(model, x_test, y_test)
strategy = {
    "quantize_registry_config": {
        "layer_quantize_config": [{
            "layer_type": "__main__.PRelu",
            "quantizable_weights": ["alpha"],
            "weight_quantizers": [{
                "quantizer_type": "LastValueQuantPosQuantizer",
                "quantizer_params": {"bit_width": 8, "method": 1, "round_mode": 0},
            }],
            "quantizable_outputs": ["0"],
            "output_quantizers": [{
                "quantizer_type": "LastValueQuantPosQuantizer",
                "quantizer_params": {"bit_width": 8, "method": 1, "round_mode": 1},
            }],
        }]
    }
}
quantizer = vitis_quantize.VitisQuantizer(
    model, custom_objects={"PRelu": PRelu, "Double": Double, "Blend": Blend}, custom_quantize_strategy=strategy)
quantized_model = quantizer.quantize_model(calib_dataset=x_train[0:50], add_shape_info=True)
assert accuracy(quantized_model, x_test, y_test) > before - 0.05
quantized_model.save("quantized.h5")
loaded = keras.models.load_model("quantized.h5")
assert accuracy(loaded, x_test, y_test) > before - 0.05
vitis_quantize.VitisQuantizer.dump_model(loaded, x_test[0:1], dump_float=True)
assert os.path.exists("dump_results/dump_results_0")
