"""Makes the files in tf: one small network as .h5, SavedModel, frozen graph and TensorFlow Lite, and its outputs.

Needs tensorflow and tf_keras. The weights are drawn with a fixed seed; files differ between versions of TensorFlow, what
they compute does not.
"""
import os
import shutil

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf
import tf_keras as keras
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tf")
layers = keras.layers
keras.utils.set_random_seed(7)


def network():
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="conv1")(x)
    y = layers.ZeroPadding2D(((0, 1), (1, 0)), name="pad")(x)
    y = layers.DepthwiseConv2D(2, use_bias=False, name="depthwise1")(y)
    y = layers.BatchNormalization(name="bn1")(y)
    y = layers.ReLU(6.0, name="relu1")(y)
    x = layers.Add(name="add1")([x, y])
    up = layers.UpSampling2D(2, name="up1")(x)
    up = layers.MaxPooling2D(2, name="pool1")(layers.Conv2DTranspose(6, 2, strides=1, padding="same", name="trans1")(up))
    x = layers.Concatenate(name="join1")([x, up])
    x = layers.LeakyReLU(0.1, name="leaky1")(x)
    x = layers.Reshape((16, 12), name="reshape1")(x)
    x = layers.Dense(5, name="rows1")(x)
    x = layers.Flatten(name="flat1")(x)
    return keras.Model(inputs, layers.Dense(4, activation="softmax", name="dense1")(x), name="small")


model = network()
rng = np.random.default_rng(7)
for weight in model.weights:
    values = rng.normal(0, 0.4, weight.shape)
    weight.assign(np.abs(values) + 0.5 if "variance" in weight.name else values)
x = rng.normal(0, 1, (8, 8, 8, 3)).astype("float32")
os.makedirs(here, exist_ok=True)
np.savez(os.path.join(here, "small.npz"), x=x, y=model(x).numpy())
model.save(os.path.join(here, "small.h5"))
saved = os.path.join(here, "small_saved_model")
shutil.rmtree(saved, ignore_errors=True)
serve = tf.function(lambda image: {"dense1": model(image)})
serve = serve.get_concrete_function(tf.TensorSpec([None, 8, 8, 3], tf.float32, name="image"))
tf.saved_model.save(model, saved, signatures=serve)
os.remove(os.path.join(saved, "fingerprint.pb"))
if os.path.exists(os.path.join(saved, "keras_metadata.pb")):
    os.remove(os.path.join(saved, "keras_metadata.pb"))
for folder in ["assets"]:
    if os.path.isdir(os.path.join(saved, folder)):
        os.rmdir(os.path.join(saved, folder))
frozen = convert_variables_to_constants_v2(serve).graph.as_graph_def()
with open(os.path.join(here, "small.pb"), "wb") as file:
    file.write(frozen.SerializeToString())


def lite(name, **settings):
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    for key, value in settings.items():
        setattr(converter, key, value)
    with open(os.path.join(here, name), "wb") as file:
        file.write(converter.convert())


default = [tf.lite.Optimize.DEFAULT]
lite("small.tflite")
lite("small_float16.tflite", optimizations=default, target_spec=tf.lite.TargetSpec(supported_types=[tf.float16]))
lite("small_dynamic.tflite", optimizations=default)
whole = tf.lite.TargetSpec(supported_ops=[tf.lite.OpsSet.TFLITE_BUILTINS_INT8])
lite("small_int8.tflite", optimizations=default, representative_dataset=lambda: ([s[None]] for s in x), target_spec=whole)
