"""A peer of the network: OpenVINO or ONNX Runtime, in an environment of its own.

    python network_peer.py openvino|openvino-bf16|openvino-int8|onnxruntime MODEL.onnx CLIP.npy LOGITS.npy THREADS

Writes the logits, says its version, and then for every line on standard input runs the network once and says how many
seconds that took: so it can take turns with others on the same processors.
"""

import sys
import time
from contextlib import redirect_stdout

import numpy as np


def openvino(model, threads, clips=(), precision="f32"):
    """The latency form, in float32: left to itself OpenVINO computes in bfloat16 where the processor can."""
    import openvino as ov

    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    if precision is not None:
        settings["INFERENCE_PRECISION_HINT"] = precision
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda clip: request.infer([clip])[0], ov.__version__


def openvino_bf16(model, threads, clips):
    """The same, in bfloat16."""
    return openvino(model, threads, clips, "bf16")


def openvino_int8(model, threads, clips):
    """The same after post-training quantisation, calibrated by ``clips``; what stays unquantised as OpenVINO likes."""
    import nncf
    import openvino as ov

    return openvino(nncf.quantize(ov.Core().read_model(model), nncf.Dataset(clips)), threads, clips, None)


def onnxruntime(model, threads, clips):
    """All optimisations, all threads inside one operation."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # would take the others' turns
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda clip: session.run(None, {name: clip})[0], ort.__version__


def main(runtime, model, clip, logits, threads):
    runtimes = {
        "openvino": openvino,
        "openvino-bf16": openvino_bf16,
        "openvino-int8": openvino_int8,
        "onnxruntime": onnxruntime,
    }
    x = np.load(clip)
    with redirect_stdout(sys.stderr):  # NNCF shows its progress
        run, version = runtimes[runtime](model, int(threads), [x])
        np.save(logits, run(x))
    print(version.split("-")[0], flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run(x)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
