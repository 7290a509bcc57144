"""The export formats: how each is written, loaded and used."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

Runner = Callable[[np.ndarray], np.ndarray]  # images to probabilities


@dataclass(frozen=True)
class Format:
    """A kind of file. How it is used is lines of Python, for users and for the check of a written file."""

    filename: str  # of the file or folder
    write: Callable[[keras.Model, str], None]  # a Keras model to a path
    load: tuple[str, ...]  # makes the file ready, run in its folder
    run: tuple[str, ...]  # makes `probabilities` of `images`
    modules: tuple[str, ...] = ()  # what it needs of the extra `export`

    def runner(self, folder: Path) -> Runner:
        """Return what the lines compute with the file in `folder`."""
        names: dict[str, Any] = {}
        with contextlib.chdir(folder):
            exec("\n".join(self.load), names)

        def run(images: np.ndarray) -> np.ndarray:
            names["images"] = images
            exec("\n".join(self.run), names)
            return names["probabilities"]

        return run


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


def _write_tflite(model: keras.Model, path: str) -> None:
    import tensorflow as tf  # here, because other backends may run without TensorFlow

    builtins = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}  # needs nothing but the interpreter
    model.export(path, format="litert", verbose=False, target_spec=builtins)


FORMATS = {
    "keras": Format(
        "model.keras",
        keras.Model.save,
        (
            "import keras",
            "import models  # the package of the program that trained it: pip install of its checkout",
            'model = keras.saving.load_model("model.keras")',
        ),
        ("probabilities = keras.ops.convert_to_numpy(model(images))",),
    ),
    "saved_model": Format(
        "saved_model",
        lambda model, path: model.export(path, format="tf_saved_model", verbose=False),
        ("import tensorflow as tf", 'model = tf.saved_model.load("saved_model")'),
        ("probabilities = model.serve(images).numpy()",),
    ),
    "onnx": Format(
        "model.onnx",
        _write_onnx,
        ("import onnxruntime", 'session = onnxruntime.InferenceSession("model.onnx")'),
        ("probabilities = session.run(None, {session.get_inputs()[0].name: images})[0]",),
        ("onnx", "onnxruntime", "tf2onnx"),
    ),
    "tflite": Format(
        "model.tflite",
        _write_tflite,
        (
            "from ai_edge_litert.interpreter import Interpreter",
            'interpreter = Interpreter("model.tflite")',
            'number = interpreter.get_input_details()[0]["index"]',
        ),
        (
            "interpreter.resize_tensor_input(number, images.shape)",
            "interpreter.allocate_tensors()",
            "interpreter.set_tensor(number, images)",
            "interpreter.invoke()",
            'probabilities = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])',
        ),
        ("ai_edge_litert",),
    ),
}
