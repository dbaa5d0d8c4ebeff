#!/usr/bin/env python3
"""Writes the architectures of this folder: classifiers, detectors and a segmentation network without weights.

Each is the JSON of Keras' `model.to_json()` (functional form of Keras 2.12), written by hand so that neither TensorFlow
nor weights are needed. Initializers and regularizers are left out: Keras fills them in.

    python3 tests/zoo/make.py                           # rewrites tests/zoo/*.json
    python3 tests/zoo/make.py --rows model_zoo_perf.csv # also rows.csv, from a table of all published measurements

The sources are the papers and the TF-slim, torchvision and darknet definitions; names say which.
"""

import csv
import json
import math
import pathlib
import re
import sys


class Net:
    """Layers of a functional model, in order."""

    def __init__(self, name, height, width, channels=3):
        self.name, self.layers, self.counts = name, [], {}
        self.input = self.add("InputLayer", [], batch_input_shape=[None, height, width, channels])
        self.width = {self.input: channels}

    def add(self, kind, inputs, name=None, **config):
        if name is None:
            stem = {"BatchNormalization": "bn", "InputLayer": "input"}.get(kind, kind.lower())
            self.counts[stem] = self.counts.get(stem, 0) + 1
            name = f"{stem}_{self.counts[stem]}"
        nodes = [[[i, 0, 0, {}] for i in inputs]] if inputs else []
        config = {"name": name, "dtype": "float32", **config}
        self.layers.append({"class_name": kind, "config": config, "name": name, "inbound_nodes": nodes})
        if inputs:
            self.width[name] = self.width[inputs[0]]
        return name

    def conv(self, x, filters, kernel=1, stride=1, padding="same", bn=True, act="relu", bias=None, dilation=1):
        """Convolution, batch normalization, activation."""
        kernel = [kernel, kernel] if isinstance(kernel, int) else list(kernel)
        x = self.add(
            "Conv2D", [x], filters=filters, kernel_size=kernel, strides=[stride, stride], padding=padding,
            data_format="channels_last", dilation_rate=[dilation, dilation], groups=1, activation="linear",
            use_bias=(not bn) if bias is None else bias)
        self.width[x] = filters
        return self.act(self.bn(x) if bn else x, act)

    def depthwise(self, x, kernel=3, stride=1, padding="same", act="relu6"):
        x = self.add(
            "DepthwiseConv2D", [x], kernel_size=[kernel, kernel], strides=[stride, stride], padding=padding,
            data_format="channels_last", dilation_rate=[1, 1], groups=1, activation="linear", use_bias=False,
            depth_multiplier=1)
        return self.act(self.bn(x), act)

    def transpose(self, x, filters, kernel, stride, act=None):
        x = self.add(
            "Conv2DTranspose", [x], filters=filters, kernel_size=[kernel, kernel], strides=[stride, stride],
            padding="same", output_padding=None, data_format="channels_last", dilation_rate=[1, 1], groups=1,
            activation="linear", use_bias=True)
        self.width[x] = filters
        return self.act(x, act)

    def bn(self, x):
        return self.add("BatchNormalization", [x], axis=[3], momentum=0.99, epsilon=0.001, center=True, scale=True)

    def act(self, x, act):
        if act is None:
            return x
        if act == "relu":
            return self.add("Activation", [x], activation="relu")
        if act == "leaky":
            return self.add("LeakyReLU", [x], alpha=0.1)
        return self.add("ReLU", [x], max_value=6.0, negative_slope=0.0, threshold=0.0)

    def pad(self, x, before, after=None):
        after = before if after is None else after
        return self.add("ZeroPadding2D", [x], padding=[[before, after], [before, after]], data_format="channels_last")

    def pool(self, x, kernel, stride, padding="valid", kind="Max"):
        return self.add(
            f"{kind}Pooling2D", [x], pool_size=[kernel, kernel], padding=padding, strides=[stride, stride],
            data_format="channels_last")

    def merge(self, kind, xs):
        name = self.add(kind, xs, **({"axis": -1} if kind == "Concatenate" else {}))
        if kind == "Concatenate":
            self.width[name] = sum(self.width[x] for x in xs)
        return name

    def upsample(self, x):
        return self.add("UpSampling2D", [x], size=[2, 2], data_format="channels_last", interpolation="nearest")

    def dense(self, x, units, act="linear"):
        x = self.add("Dense", [x], units=units, activation=act, use_bias=True)
        self.width[x] = units
        return x

    def classify(self, x, classes):
        x = self.add("GlobalAveragePooling2D", [x], data_format="channels_last", keepdims=False)
        return self.dense(x, classes, "softmax")

    def save(self, outputs):
        outputs = [outputs] if isinstance(outputs, str) else outputs
        model = {
            "class_name": "Functional",
            "config": {
                "name": self.name,
                "layers": self.layers,
                "input_layers": [[self.input, 0, 0]],
                "output_layers": [[o, 0, 0] for o in outputs],
            },
            "keras_version": "2.12.0",
            "backend": "tensorflow",
        }
        path = pathlib.Path(__file__).parent / f"{self.name}.json"
        # One line per layer keeps differences readable.
        head, tail = json.dumps({**model, "config": {**model["config"], "layers": []}}).split('"layers": []')
        rows = ",\n".join(json.dumps(layer, separators=(",", ":")) for layer in self.layers)
        path.write_text(f'{head}"layers": [\n{rows}\n]{tail}\n')


def same(net, x, filters, kernel, stride, **more):
    """A strided convolution with the same padding for every input size (TF-slim's conv2d_same, torchvision)."""
    if stride > 1 and kernel > 1:
        return net.conv(net.pad(x, (kernel - 1) // 2), filters, kernel, stride, "valid", **more)
    return net.conv(x, filters, kernel, stride, **more)


def resnet_bottleneck(name, units, kind, size=(224, 224), classes=1000):
    """kind: where the stride of a block is. `keras`: first unit, 1x1; `v1.5`: first unit, 3x3; `slim`: last unit, 3x3."""
    net = Net(name, *size)
    biased = kind == "keras"
    x = net.conv(net.pad(net.input, 3), 64, 7, 2, "valid", bias=biased)
    x = net.pool(x, 3, 2, "same") if kind == "slim" else net.pool(net.pad(x, 1), 3, 2)
    for block, count in enumerate(units):
        depth = 64 << block
        for unit in range(count):
            at = count - 1 if kind == "slim" else 0
            down = block < 3 if kind == "slim" else block > 0
            stride = 2 if down and unit == at else 1
            if net.width[x] != 4 * depth:
                short = net.conv(x, 4 * depth, 1, stride, act=None, bias=biased)
            else:
                short = x if stride == 1 else net.pool(x, 1, stride)
            first, second = (stride, 1) if kind == "keras" else (1, stride)
            y = net.conv(x, depth, 1, first, bias=biased)
            y = same(net, y, depth, 3, second, bias=biased)
            y = net.conv(y, 4 * depth, 1, act=None, bias=biased)
            x = net.act(net.merge("Add", [short, y]), "relu")
    net.save(net.classify(x, classes))


def resnet_basic(name, units, size=(224, 224), classes=1000):
    """torchvision's ResNet-18 and 34."""
    net = Net(name, *size)
    x = net.pool(net.pad(net.conv(net.pad(net.input, 3), 64, 7, 2, "valid"), 1), 3, 2)
    for block, count in enumerate(units):
        depth = 64 << block
        for unit in range(count):
            stride = 2 if block > 0 and unit == 0 else 1
            short = x if stride == 1 else net.conv(x, depth, 1, stride, act=None)
            y = net.conv(same(net, x, depth, 3, stride), depth, 3, act=None)
            x = net.act(net.merge("Add", [short, y]), "relu")
    net.save(net.classify(x, classes))


def vgg(name, convs, classes=1000):
    net = Net(name, 224, 224)
    x = net.input
    for filters, count in zip([64, 128, 256, 512, 512], convs):
        for _ in range(count):
            x = net.conv(x, filters, 3, bn=False)
        x = net.pool(x, 2, 2)
    x = net.add("Flatten", [x], data_format="channels_last")
    x = net.dense(net.dense(x, 4096, "relu"), 4096, "relu")
    net.save(net.dense(x, classes, "softmax"))


def inception_v1(name):
    """TF-slim's inception_v1: batch normalization, 3x3 where the paper has 5x5."""
    net = Net(name, 224, 224)

    def mixed(x, a, b, c, d):
        return net.merge("Concatenate", [
            net.conv(x, a),
            net.conv(net.conv(x, b[0]), b[1], 3),
            net.conv(net.conv(x, c[0]), c[1], 3),
            net.conv(net.pool(x, 3, 1, "same"), d),
        ])

    x = net.pool(net.conv(net.input, 64, 7, 2), 3, 2, "same")
    x = net.pool(net.conv(net.conv(x, 64), 192, 3), 3, 2, "same")
    x = mixed(x, 64, (96, 128), (16, 32), 32)
    x = net.pool(mixed(x, 128, (128, 192), (32, 96), 64), 3, 2, "same")
    x = mixed(x, 192, (96, 208), (16, 48), 64)
    x = mixed(x, 160, (112, 224), (24, 64), 64)
    x = mixed(x, 128, (128, 256), (24, 64), 64)
    x = mixed(x, 112, (144, 288), (32, 64), 64)
    x = net.pool(mixed(x, 256, (160, 320), (32, 128), 128), 2, 2, "same")
    x = mixed(x, 256, (160, 320), (32, 128), 128)
    x = mixed(x, 384, (192, 384), (48, 128), 128)
    net.save(net.classify(x, 1001))


def inception_v3(name, classes=1001):
    net = Net(name, 299, 299)
    conv, pool = net.conv, net.pool

    def join(*xs):
        return net.merge("Concatenate", list(xs))

    def mean(x):
        return pool(x, 3, 1, "same", "Average")

    def a(x, last):
        return join(
            conv(x, 64), conv(conv(x, 48), 64, 5), conv(conv(conv(x, 64), 96, 3), 96, 3), conv(mean(x), last))

    def b(x, n):
        left = conv(conv(conv(x, n), n, (1, 7)), 192, (7, 1))
        right = conv(conv(conv(conv(conv(x, n), n, (7, 1)), n, (1, 7)), n, (7, 1)), 192, (1, 7))
        return join(conv(x, 192), left, right, conv(mean(x), 192))

    def c(x):
        left = conv(x, 384)
        right = conv(conv(x, 448), 384, 3)
        return join(
            conv(x, 320), conv(left, 384, (1, 3)), conv(left, 384, (3, 1)), conv(right, 384, (1, 3)),
            conv(right, 384, (3, 1)), conv(mean(x), 192))

    x = conv(conv(conv(net.input, 32, 3, 2, "valid"), 32, 3, 1, "valid"), 64, 3)
    x = conv(conv(pool(x, 3, 2), 80, 1, 1, "valid"), 192, 3, 1, "valid")
    x = pool(x, 3, 2)
    x = a(a(a(x, 32), 64), 64)
    x = join(conv(x, 384, 3, 2, "valid"), conv(conv(conv(x, 64), 96, 3), 96, 3, 2, "valid"), pool(x, 3, 2))
    x = b(b(b(b(x, 128), 160), 160), 192)
    left = conv(conv(x, 192), 320, 3, 2, "valid")
    right = conv(conv(conv(conv(x, 192), 192, (1, 7)), 192, (7, 1)), 192, 3, 2, "valid")
    x = c(c(join(left, right, pool(x, 3, 2))))
    net.save(net.classify(x, classes))


def mobilenet_v1(name, size, alpha, classes=1001):
    net = Net(name, size, size)
    x = net.conv(net.input, int(32 * alpha), 3, 2, act="relu6")
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)] + [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    for filters, stride in plan:
        x = net.conv(net.depthwise(x, 3, stride), int(filters * alpha), act="relu6")
    net.save(net.classify(x, classes))


def ssd_mobilenet_v1(name, size=300, classes=91):
    """TensorFlow's object detection API: six maps, on each a pointwise predictor of boxes and one of classes."""
    net = Net(name, size, size)
    x = net.conv(net.input, 32, 3, 2, act="relu6")
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)] + [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    maps = []
    for index, (filters, stride) in enumerate(plan):
        x = net.conv(net.depthwise(x, 3, stride), filters, act="relu6")
        if index in (10, 12):
            maps.append(x)
    for filters in (512, 256, 256, 128):
        x = net.conv(net.conv(x, filters // 2, act="relu6"), filters, 3, 2, act="relu6")
        maps.append(x)
    outputs = []
    for index, x in enumerate(maps):
        anchors = 3 if index == 0 else 6
        outputs += [net.conv(x, anchors * n, bn=False, act=None, bias=True) for n in (4, classes)]
    net.save(outputs)


def mobilenet_v2(name, size=224, classes=1001):
    net = Net(name, size, size)
    x = net.conv(net.input, 32, 3, 2, act="relu6")
    for expand, filters, count, stride in [
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    ]:
        for unit in range(count):
            y = net.conv(x, expand * net.width[x], act="relu6") if expand > 1 else x
            y = net.conv(net.depthwise(y, 3, stride if unit == 0 else 1), filters, act=None)
            x = net.merge("Add", [x, y]) if unit > 0 else y
    net.save(net.classify(net.conv(x, 1280, act="relu6"), classes))


def squeezenet(name):
    """SqueezeNet 1.1 of torchvision."""
    net = Net(name, 224, 224)

    def fire(x, squeeze, expand):
        s = net.conv(x, squeeze, bn=False)
        return net.merge("Concatenate", [net.conv(s, expand, bn=False), net.conv(s, expand, 3, bn=False)])

    x = net.pool(net.conv(net.input, 64, 3, 2, "valid", bn=False), 3, 2)
    x = net.pool(fire(fire(x, 16, 64), 16, 64), 3, 2)
    x = net.pool(fire(fire(x, 32, 128), 32, 128), 3, 2)
    x = fire(fire(fire(fire(x, 48, 192), 48, 192), 64, 256), 64, 256)
    x = net.conv(x, 1000, bn=False)
    net.save(net.add("GlobalAveragePooling2D", [x], data_format="channels_last", keepdims=False))


def efficientnet_edgetpu(name, size, depth, classes=1001):
    """EfficientNet-EdgeTPU: plain ReLU, no squeeze-and-excitation, full convolutions in the first blocks."""
    net = Net(name, size, size)
    x = net.conv(net.input, 32, 3, 2)
    for repeats, kernel, stride, expand, filters, fused, skip in [
        (1, 3, 1, 4, 24, True, False), (2, 3, 2, 8, 32, True, True), (4, 3, 2, 8, 48, True, True),
        (5, 5, 2, 8, 96, False, True), (4, 5, 1, 8, 144, False, True), (2, 5, 2, 8, 192, False, True),
    ]:
        for unit in range(math.ceil(repeats * depth)):
            step = stride if unit == 0 else 1
            # The first block counts its expansion from 24 channels, not from the stem's 32.
            wide = expand * min(net.width[x], filters if filters == 24 else 1 << 16)
            if fused:
                # The stride is the projection's.
                y = net.conv(net.conv(x, wide, kernel), filters, 1, step, act=None)
            else:
                y = net.depthwise(net.conv(x, wide), kernel, step, act="relu")
                y = net.conv(y, filters, act=None)
            x = net.merge("Add", [x, y]) if skip and unit > 0 else y
    net.save(net.classify(net.conv(x, 1280), classes))


def darknet_conv(net, x, filters, kernel, stride=1):
    if stride > 1:
        return net.conv(net.pad(x, 1, 0), filters, kernel, stride, "valid", act="leaky")
    return net.conv(x, filters, kernel, act="leaky")


def yolo_v3(name, classes, size=416):
    net = Net(name, size, size)
    x = darknet_conv(net, net.input, 32, 3)
    kept = []
    for filters, count in [(64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)]:
        x = darknet_conv(net, x, filters, 3, 2)
        for _ in range(count):
            x = net.merge("Add", [x, darknet_conv(net, darknet_conv(net, x, filters // 2, 1), filters, 3)])
        kept.append(x)
    outputs = []
    for n, filters in enumerate([512, 256, 128]):
        if n > 0:
            x = net.upsample(darknet_conv(net, x, filters, 1))
            x = net.merge("Concatenate", [x, kept[4 - n]])
        for i in range(5):
            x = darknet_conv(net, x, filters << i % 2, 3 if i % 2 else 1)
        y = darknet_conv(net, x, 2 * filters, 3)
        outputs.append(net.conv(y, 3 * (classes + 5), bn=False, act=None))
    net.save(outputs)


def yolo_v3_tiny(name, classes=80, size=416):
    net = Net(name, size, size)
    x, kept = net.input, None
    for filters in [16, 32, 64, 128, 256]:
        x = kept = darknet_conv(net, x, filters, 3)
        x = net.pool(x, 2, 2)
    x = net.pool(darknet_conv(net, x, 512, 3), 2, 1, "same")
    x = darknet_conv(net, darknet_conv(net, x, 1024, 3), 256, 1)
    large = net.conv(darknet_conv(net, x, 512, 3), 3 * (classes + 5), bn=False, act=None)
    x = net.merge("Concatenate", [net.upsample(darknet_conv(net, x, 128, 1)), kept])
    small = net.conv(darknet_conv(net, x, 256, 3), 3 * (classes + 5), bn=False, act=None)
    net.save([large, small])


def superpoint(name, height=480, width=640):
    """SuperPoint (DeTone et al.): a VGG of one grey channel with a head of cells and one of descriptors."""
    net = Net(name, height, width, 1)
    x = net.input
    for block, filters in enumerate([64, 64, 128, 128]):
        x = net.conv(net.conv(x, filters, 3, bn=False), filters, 3, bn=False)
        x = net.pool(x, 2, 2) if block < 3 else x
    heads = [net.conv(net.conv(x, 256, 3, bn=False), filters, bn=False, act=None) for filters in (65, 256)]
    net.save(heads)


def unet(name, size, widths, channels=3, transposed=True):
    net = Net(name, size, size, channels)
    x, kept = net.input, []
    for filters in widths[:-1]:
        x = net.conv(net.conv(x, filters, 3, bn=False), filters, 3, bn=False)
        kept.append(x)
        x = net.pool(x, 2, 2)
    x = net.conv(net.conv(x, widths[-1], 3, bn=False), widths[-1], 3, bn=False)
    for filters, skip in zip(reversed(widths[:-1]), reversed(kept)):
        up = net.transpose(x, filters, 2, 2) if transposed else net.conv(net.upsample(x), filters, 2, bn=False)
        x = net.merge("Concatenate", [up, skip])
        x = net.conv(net.conv(x, filters, 3, bn=False), filters, 3, bn=False)
    net.save(net.conv(x, 1, bn=False, act=None))


def main():
    resnet_bottleneck("resnet50_keras", [3, 4, 6, 3], "keras")
    resnet_bottleneck("resnet50_v15", [3, 4, 6, 3], "v1.5")
    resnet_bottleneck("resnet50_slim", [3, 4, 6, 3], "slim")
    resnet_bottleneck("resnet101_slim", [3, 4, 23, 3], "slim")
    resnet_bottleneck("resnet152_slim", [3, 8, 36, 3], "slim")
    resnet_bottleneck("resnet50_reid", [3, 4, 6, 3], "v1.5", (256, 128), 751)
    resnet_basic("resnet18", [2, 2, 2, 2], classes=7)
    resnet_basic("resnet18_reid", [2, 2, 2, 2], (176, 80), 751)
    vgg("vgg16", [2, 2, 3, 3, 3])
    inception_v1("inception_v1_slim")
    inception_v3("inception_v3")
    mobilenet_v1("mobilenet_v1_1_0_224", 224, 1.0)
    mobilenet_v1("mobilenet_v1_0_5_160", 160, 0.5)
    ssd_mobilenet_v1("ssd_mobilenet_v1")
    mobilenet_v2("mobilenet_v2_1_0_224")
    squeezenet("squeezenet_1_1")
    efficientnet_edgetpu("efficientnet_edgetpu_s", 224, 1.0)
    efficientnet_edgetpu("efficientnet_edgetpu_m", 240, 1.1)
    yolo_v3("yolo_v3_voc", 20)
    yolo_v3("yolo_v3_coco", 80)
    yolo_v3_tiny("yolo_v3_tiny_coco")
    superpoint("superpoint")
    unet("unet_128", 128, [32, 64, 128, 256, 512])


# Which published models have which architecture. Pruned ones are left out: their widths are not published.
ROWS = {
    "resnet50_keras": r"tf2_resnet50_imagenet_224_224_7.76G",
    "resnet50_v15": r"pt_resnet50_imagenet_224_224_(4.1G_2.0|8.2G)|tf_mlperf_resnet50_imagenet_224_224_8.19G",
    "resnet50_slim": r"tf_resnetv1_50_imagenet_224_224_6.97G|tf_resnet50_imagenet_224_224_6.97G",
    "resnet101_slim": r"tf_resnetv1_101_imagenet_224_224_14.4G",
    "resnet152_slim": r"tf_resnetv1_152_imagenet_224_224_21.83G",
    "resnet50_reid": r"pt_personreid-res50_market1501_256_128_5.3G",
    "resnet18": r"pt_vehicle-(color|make|type)-classification_\w+_224_224_3.6[34]G",
    "resnet18_reid": r"pt_personreid-res18_market1501_176_80_1.1G",
    "superpoint": r"tf_superpoint_mixed_480_640_52.4G",
    "vgg16": r"tf_vgg16_imagenet_224_224_30.96G",
    "inception_v1_slim": r"tf_inceptionv1_imagenet_224_224_3G",
    "inception_v3":
        r"(tf|tf2)_inceptionv3_imagenet_299_299_11.4?5G|pt_inceptionv3_imagenet_299_299_(11.4|5.7)G",
    "mobilenet_v1_1_0_224": r"tf_mobilenetv1(_1.0)?_imagenet_224_224_1.14G|tf2_mobilenetv1_imagenet_224_224_1.15G",
    "mobilenet_v1_0_5_160": r"tf_mobilenetv1_0.5_imagenet_160_160_150(.07)?M",
    "ssd_mobilenet_v1": r"tf_ssdmobilenetv1_coco_300_300_2.47G",
    "mobilenet_v2_1_0_224": r"tf_mobilenetv2_1.0_imagenet_224_224_(602M|0.59G)",
    "squeezenet_1_1": r"pt_squeezenet_imagenet_224_224_(351.7|703.5)M",
    "efficientnet_edgetpu_s": r"tf_efficientnet-edgetpu-S_imagenet_224_224_4.72G",
    "efficientnet_edgetpu_m": r"tf_efficientnet-edgetpu-M_imagenet_240_240_7.34G",
    "yolo_v3_voc": r"tf_yolov3_voc_416_416_65.63G",
    "yolo_v3_coco": r"tf2_yolov3_coco_416_416_65.9G",
}
# GMAC instead of GOP in the published name.
MACS = ("pt_resnet50_imagenet_224_224_4.1G_2.0", "pt_inceptionv3_imagenet_299_299_5.7G", "351.7M")


def rows(table):
    """Copies the measurements that belong to our architectures: releases 2.5 and 3.0, and the Ultra96 of 1.0."""
    boards = {"KV260": "kv260", "ZCU102 rev 0432055-05": "zcu102", "ZCU104": "zcu104", "Ultra96 v1": "ultra96"}
    found = []
    for row in csv.DictReader(open(table, newline="")):
        board = boards.get(row["board"]) or ("kv260" if "KV260" in row["board"] else None)
        wanted = ("v1.0",) if board == "ultra96" else ("v2.5", "v3.0")
        for name, pattern in ROWS.items():
            if board and row["release"] in wanted and re.fullmatch(pattern, row["zoo_name"]):
                gops = float(row["gops"]) * (2 if row["zoo_name"].endswith(MACS) else 1)
                speed = [row["fps_single_thread"], row["fps_multi_thread"]]
                found.append([name, row["zoo_name"], row["release"], board, row["dpu_mhz"], f"{gops:g}", *speed])
    with open(pathlib.Path(__file__).parent / "rows.csv", "w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["architecture", "published", "release", "board", "mhz", "gops", "fps_single", "fps_multi"])
        writer.writerows(sorted(found))


if __name__ == "__main__":
    main()
    if sys.argv[1:2] == ["--rows"]:
        rows(sys.argv[2])
