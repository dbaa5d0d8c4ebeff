import os

from common import network
from tensorflow_model_optimization.quantization.keras import vitis_inspect

inspector = vitis_inspect.VitisInspector(target="DPUCZDX8G_ISA1_B4096")
results = inspector.inspect_model(
    network(), input_shape=[1, 28, 28, 1], dump_model=True, dump_model_file="inspect_model.h5", plot=True,
    plot_file="model.svg", dump_results=True, dump_results_file="inspect_results.txt", verbose=0)
assert all(os.path.exists(name) for name in ("inspect_model.h5", "model.svg", "inspect_results.txt"))
assert {"INPUT", "DPU", "CPU", "DPU+CPU"} >= {row["device"] for row in results.values()} >= {"INPUT", "DPU"}
