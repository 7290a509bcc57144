"""The export formats: how each is written, loaded and used."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

Runner = Callable[[np.ndarray], np.ndarray]  # images to probabilities


@dataclass(frozen=True)
class Format:
    """A kind of file."""

    filename: str  # of the file or folder
    write: Callable[[keras.Model, str], None]  # a Keras model to a path
    load: Callable[[Path], Runner]  # makes a written file ready to be run
    usage: tuple[str, ...]  # how to run it, in lines of Python that make `probabilities` of `images`
    modules: tuple[str, ...] = ()  # what it needs of the extra `export`


def _load_keras(path: Path) -> Runner:
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    return lambda images: keras.ops.convert_to_numpy(model(images, training=False))


def _load_saved_model(path: Path) -> Runner:
    import tensorflow as tf  # here, because other backends may run without TensorFlow

    artefact = tf.saved_model.load(str(path))
    return lambda images: artefact.serve(images).numpy()


def _write_onnx(model: keras.Model, path: str) -> None:
    from tf2onnx.handler import tf_op  # of the extra

    tf_op("Erfc").register_compat_handler(_erfc_in_onnx, version=9)
    # Without a signature Keras wants a model that was called before.
    signature = [keras.InputSpec(entry.dtype, entry.shape, name=entry.name) for entry in model.inputs]
    model.export(path, format="onnx", verbose=False, input_signature=signature)


def _erfc_in_onnx(graph: Any, node: Any, **_: Any) -> None:
    """Turn `Erfc` into 1 - erf: tf2onnx does not know it, and TensorFlow makes the exact GELU of it."""
    node.type = "Erf"
    negative = graph.insert_new_node_on_output("Neg", node.output[0]).output[0]
    one = graph.make_const(f"{node.name}_one", np.ones((), np.float32)).output[0]
    graph.insert_new_node_on_output("Add", negative, inputs=[negative, one])


def _load_onnx(path: Path) -> Runner:
    import onnxruntime  # of the extra

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _write_tflite(model: keras.Model, path: str) -> None:
    import tensorflow as tf  # here, because other backends may run without TensorFlow

    builtins = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}  # needs nothing but the interpreter
    model.export(path, format="litert", verbose=False, target_spec=builtins)


def _load_tflite(path: Path) -> Runner:
    from ai_edge_litert.interpreter import Interpreter  # of the extra

    interpreter = Interpreter(str(path))
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(images: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(source["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return run


FORMATS = {
    "keras": Format(
        "model.keras",
        keras.Model.save,
        _load_keras,
        (
            "import keras",
            "import models  # the package of the program that trained it: pip install of its checkout",
            'model = keras.saving.load_model("model.keras")',
            "probabilities = model.predict(images, verbose=0)",
        ),
    ),
    "saved_model": Format(
        "saved_model",
        lambda model, path: model.export(path, format="tf_saved_model", verbose=False),
        _load_saved_model,
        (
            "import tensorflow as tf",
            'model = tf.saved_model.load("saved_model")',
            "probabilities = model.serve(images).numpy()",
        ),
    ),
    "onnx": Format(
        "model.onnx",
        _write_onnx,
        _load_onnx,
        (
            "import onnxruntime",
            'session = onnxruntime.InferenceSession("model.onnx")',
            "probabilities = session.run(None, {session.get_inputs()[0].name: images})[0]",
        ),
        ("onnx", "onnxruntime", "tf2onnx"),
    ),
    "tflite": Format(
        "model.tflite",
        _write_tflite,
        _load_tflite,
        (
            "from ai_edge_litert.interpreter import Interpreter",
            'interpreter = Interpreter("model.tflite")',
            'number = interpreter.get_input_details()[0]["index"]',
            "interpreter.resize_tensor_input(number, images.shape)",
            "interpreter.allocate_tensors()",
            "interpreter.set_tensor(number, images)",
            "interpreter.invoke()",
            'probabilities = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])',
        ),
        ("ai_edge_litert",),
    ),
}
