"""Writes `cases/NAME/{model.onnx,test_data_set_0/{input,output}_K.pb}`: small networks as exporters write them.

Expected outputs are onnxruntime's. Needs numpy, onnx, onnxruntime.
"""
import os
import shutil

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases")
RNG = np.random.default_rng(7)


def r(*shape):
    return (RNG.standard_normal(shape) * 0.5).astype(np.float32)


class Net:
    """A network in the making: nodes in order, constants by name."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def const(self, array, name=None):
        name = name or f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op, *inputs, outputs=1, **attributes):
        inputs = [i if isinstance(i, str) else self.const(i) for i in inputs]
        names = [f"{op.lower()}_{len(self.nodes)}" + (f"_{k}" if k else "") for k in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=f"/{names[0]}", **attributes))
        return names[0] if outputs == 1 else names

    def save(self, name, shape, outputs, opset=13, batch=None):
        outputs = [outputs] if isinstance(outputs, str) else outputs
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch or "n"] + list(shape))
        made = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
        graph = helper.make_graph(self.nodes, name, [given], made, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        model = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(model, full_check=True)
        folder = os.path.join(HERE, name, "test_data_set_0")
        os.makedirs(folder)
        onnx.save(model, os.path.join(HERE, name, "model.onnx"))
        x = r(batch or 2, *shape)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for kind, arrays in (("input", [x]), ("output", session.run(None, {"x": x}))):
            for k, array in enumerate(arrays):
                with open(os.path.join(folder, f"{kind}_{k}.pb"), "wb") as file:
                    file.write(numpy_helper.from_array(array).SerializeToString())


def convolutions():
    n = Net()
    y = n.node("Conv", "x", r(8, 4, 3, 3), r(8), pads=[1, 1, 1, 1], strides=[2, 2], kernel_shape=[3, 3])
    y = n.node("Relu", y)
    y = n.node("Conv", y, r(8, 1, 3, 3), r(8), pads=[1, 0, 2, 1], group=8, kernel_shape=[3, 3])
    y = n.node("BatchNormalization", y, r(8) + 1, r(8), r(8), abs(r(8)) + 0.5)
    y = n.node("Clip", y, np.float32(0), np.float32(6))
    y = n.node("Conv", y, r(6, 4, 3, 3), pads=[2, 2, 2, 2], dilations=[2, 2], group=2, kernel_shape=[3, 3])
    y = n.node("LeakyRelu", y, alpha=0.1)
    y = n.node("Conv", y, r(5, 6, 2, 2), r(5), auto_pad="SAME_LOWER", kernel_shape=[2, 2])
    n.save("convolutions", (4, 11, 9), y)


def transposed():
    n = Net()
    y = n.node("ConvTranspose", "x", r(4, 6, 3, 3), r(6), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])
    y = n.node("Relu", y)
    y = n.node("ConvTranspose", y, r(6, 2, 4, 4), strides=[2, 2], pads=[1, 1, 1, 1], group=2)
    y = n.node("ConvTranspose", y, r(4, 3, 2, 2), strides=[2, 2])
    n.save("transposed", (4, 5, 4), y)


def pools():
    n = Net()
    a = n.node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    b = n.node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)
    c = n.node("AveragePool", "x", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1])
    d = n.node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    e = n.node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    y = n.node("Concat", a, b, c, d, e, axis=1)
    n.save("pools", (3, 9, 9), y)


def classifier():
    n = Net()
    y = n.node("Conv", "x", r(6, 3, 3, 3), r(6), pads=[1, 1, 1, 1])
    y = n.node("Relu", y)
    y = n.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = n.node("Flatten", y)
    y = n.node("Gemm", y, r(10, 96), r(10), transB=1)
    y = n.node("Relu", y)
    y = n.node("MatMul", y, r(10, 4))
    y = n.node("Add", y, r(4))
    y = n.node("Softmax", y, axis=-1)
    n.save("classifier", (3, 8, 8), y, batch=1)


def squeeze_and_excitation():
    n = Net()
    x = n.node("Conv", "x", r(8, 3, 1, 1), r(8))
    x3 = n.node("Add", x, np.float32(3))
    x = n.node("Mul", x, n.node("Div", n.node("Clip", x3, np.float32(0), np.float32(6)), np.float32(6)))
    g = n.node("ReduceMean", x, axes=[2, 3], keepdims=1)
    g = n.node("Relu", n.node("Conv", g, r(2, 8, 1, 1), r(2)))
    g = n.node("HardSigmoid", n.node("Conv", g, r(8, 2, 1, 1), r(8)), alpha=1 / 6, beta=0.5)
    y = n.node("Mul", x, g)
    y = n.node("Mul", y, n.node("Sigmoid", y))
    y = n.node("GlobalAveragePool", y)
    shape = n.node("Shape", y)
    first = n.node("Gather", shape, np.int64(0), axis=0)
    target = n.node("Concat", n.node("Unsqueeze", first, np.array([0])), np.array([-1]), axis=0)
    y = n.node("Reshape", y, target)
    n.save("squeeze_and_excitation", (3, 6, 6), n.node("Gemm", y, r(8, 5), r(5)))


def transformer():
    n = Net()
    y = n.node("Conv", "x", r(8, 3, 2, 2), r(8), strides=[2, 2])
    y = n.node("Transpose", y, perm=[0, 2, 3, 1])
    mean = n.node("ReduceMean", y, axes=[-1], keepdims=1)
    d = n.node("Sub", y, mean)
    var = n.node("ReduceMean", n.node("Pow", d, np.float32(2)), axes=[-1], keepdims=1)
    y2 = n.node("Div", d, n.node("Sqrt", n.node("Add", var, np.float32(1e-5))))
    y2 = n.node("Add", n.node("Mul", y2, r(8)), r(8))
    h = n.node("Add", n.node("MatMul", y2, r(8, 16)), r(16))
    e = n.node("Add", n.node("Erf", n.node("Div", h, np.float32(np.sqrt(2)))), np.float32(1))
    h = n.node("Mul", n.node("Mul", h, e), np.float32(0.5))
    h = n.node("MatMul", h, r(16, 8))
    y = n.node("Add", y, h)
    n.save("transformer", (3, 8, 6), n.node("Transpose", y, perm=[0, 3, 1, 2]))


def resizing():
    n = Net()
    scales = np.array([1, 1, 2, 2], np.float32)
    a = n.node("Resize", "x", "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    b = n.node("Resize", "x", "", scales, mode="linear", coordinate_transformation_mode="pytorch_half_pixel")
    c = n.node("Resize", "x", "", scales, mode="linear", coordinate_transformation_mode="align_corners")
    y = n.node("Concat", a, b, c, axis=1)
    y = n.node("Conv", y, r(8, 6, 1, 1))
    y = n.node("DepthToSpace", y, blocksize=2, mode="CRD")
    n.save("resizing", (2, 4, 5), y)


def moves():
    n = Net()
    y = n.node("Pad", "x", np.array([0, 0, 1, 2, 0, 0, 0, 1]))
    a, b = n.node("Split", y, np.array([2, 4]), axis=1, outputs=2)
    b = n.node("Slice", b, np.array([1, 0]), np.array([3, 2**31]), np.array([1, 3]), np.array([1, 2]))
    a = n.node("Slice", a, np.array([0]), np.array([2**31]), np.array([3]), np.array([2]))
    y = n.node("Concat", a, b, axis=1)
    y = n.node("Mul", y, r(1, 4, 1, 1))
    y = n.node("Reshape", y, np.array([0, 2, 2, 5, -1]))
    y = n.node("Transpose", y, perm=[0, 2, 1, 3, 4])
    y = n.node("Reshape", y, np.array([0, -1, 5, 4]))
    y = n.node("PRelu", y, r(4, 1, 1))
    n.save("moves", (6, 4, 5), n.node("InstanceNormalization", y, r(4), r(4)))


def sequences():
    n = Net()
    y = n.node("Conv", "x", r(6, 4, 3), r(6), pads=[1, 1], kernel_shape=[3])
    y = n.node("Relu", y)
    y = n.node("MaxPool", y, kernel_shape=[2], strides=[2])
    y = n.node("Conv", y, r(6, 1, 3), pads=[1, 1], group=6, kernel_shape=[3])
    n.save("sequences", (4, 10), n.node("Flatten", n.node("GlobalAveragePool", y)))


def channels_last():
    n = Net()
    y = n.node("Transpose", "x", perm=[0, 3, 1, 2])
    y = n.node("Conv", y, r(4, 3, 3, 3), r(4), pads=[1, 1, 1, 1])
    y = n.node("Relu", y)
    y = n.node("Transpose", y, perm=[0, 2, 3, 1])
    y = n.node("Add", y, r(4))
    y = n.node("ReduceMean", y, axes=[1, 2], keepdims=0)
    n.save("channels_last", (6, 6, 3), n.node("Add", n.node("MatMul", y, r(4, 3)), r(3)))


if __name__ == "__main__":
    shutil.rmtree(HERE, ignore_errors=True)
    for make in (convolutions, transposed, pools, classifier, squeeze_and_excitation, transformer, resizing, moves,
                 sequences, channels_last):
        make()
