"""What the programs share: handwritten digits in place of MNIST, and a small network that has learned them."""

import numpy as np
import tensorflow as tf

keras = tf.keras


def data():
    (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    x_train, x_test = x_train.astype("float32") / 255, x_test.astype("float32") / 255
    return x_train[..., None], y_train, x_test[..., None], y_test


def network(*extra, branches=False):
    inputs = keras.layers.Input(shape=(28, 28, 1))
    x = keras.layers.Conv2D(8, (3, 3), strides=2, use_bias=False)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Activation("relu")(x)
    if branches:
        a = keras.layers.Conv2D(8, (3, 3), padding="same", activation="relu")(x)
        b = keras.layers.Conv2D(8, (1, 1), padding="same", activation="relu")(x)
        x = keras.layers.Concatenate(name="concatenate")([a, b])
    for layer in extra:
        x = layer(x)
    x = keras.layers.MaxPooling2D((2, 2))(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(32, activation="relu")(x)
    x = keras.layers.Dense(10, activation="softmax")(x)
    return keras.Model(inputs, x)


def trained(*extra, branches=False):
    keras.utils.set_random_seed(1)
    x_train, y_train, x_test, y_test = data()
    model = network(*extra, branches=branches)
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"])
    model.fit(x_train, y_train, batch_size=32, epochs=4, verbose=0)
    return model, x_train, y_train, x_test, y_test


def accuracy(model, x, y):
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"])
    return float(np.asarray(model.evaluate(x, y, batch_size=50, verbose=0))[1])
