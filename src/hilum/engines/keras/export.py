"""A trained Keras classifier -> model.onnx by the graph contract, and model.keras."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import onnx
import tensorflow
import tf2onnx
from tf2onnx.handler import tf_op
from tf2onnx.utils import make_name

from hilum.engines.keras.models import KerasClassifier
from hilum.engines.keras.weights import NOTE
from hilum.engines.quiet import quiet_exporter
from hilum.files import replacing

LOGGERS = ("tf2onnx", "tensorflow")
OPSET = 18  # the highest that tf2onnx writes
OUTPUTS = ("logits", "maps", "embedding")


@tf_op("Erfc")
class _Erfc:
    """1 - erf(x): what TensorFlow makes GELU of, and tf2onnx does not know."""

    @classmethod
    def version_9(cls, ctx: Any, node: Any, **_options: Any) -> None:
        """Replace the node; Erf came with opset 9."""
        (values,), outputs = node.input, node.output
        shapes, dtypes = node.output_shapes, node.output_dtypes
        ctx.remove_node(node.name)
        one = ctx.make_const(make_name("one"), np.array(1, np.float32))
        erf = ctx.make_node("Erf", [values])
        ctx.make_node("Sub", [one.output[0], erf.output[0]], outputs=outputs, shapes=shapes, dtypes=dtypes)


def export_model(model: KerasClassifier, *, size: int, graph: Path, weights: Path) -> Sequence[Path]:
    """Write the graph and the native weights.

    Args:
        model: At its best epoch, in full precision.
        size: Side of the input in pixels.
        graph: The .onnx file to write.
        weights: The folder for `model.keras`.

    Returns:
        The files written.
    """
    if model.unfold:
        model.unfold()
    explain = tensorflow.function(lambda image: dict(zip(OUTPUTS, model.explain(image), strict=True)))
    signature = [tensorflow.TensorSpec((None, size, size), tensorflow.float32, name="image")]
    with quiet_exporter(*LOGGERS):
        proto, _ = tf2onnx.convert.from_function(explain, input_signature=signature, opset=OPSET)
    _tidy(proto)
    with replacing(graph) as temporary:
        onnx.save_model(proto, temporary)
    native = weights / "model.keras"
    save(model, native)
    return graph, native


def save(model: KerasClassifier, path: Path) -> None:
    """Write a `.keras` file for people who want plain `keras.models.load_model`.

    Grey (size, size) in [0, 1] in, uncalibrated probabilities out, built-in layers only, uncompiled. Hilum itself never
    loads one but for the arrays in it, and for a note of the first weights that Keras passes over.
    """
    with quiet_exporter(*LOGGERS), replacing(path) as temporary:
        model.probability_model().save(temporary)
        with ZipFile(temporary, "a") as archive:
            archive.writestr(NOTE, json.dumps(dataclasses.asdict(model.initial), indent=2))


def _tidy(proto: Any) -> None:
    """Put the outputs in the contract's order, and drop what tells of the machine that trained."""
    outputs = {value.name: value for value in proto.graph.output}
    ordered = [outputs[name] for name in OUTPUTS]
    del proto.graph.output[:]
    proto.graph.output.extend(ordered)
    del proto.metadata_props[:]
    proto.graph.doc_string = proto.doc_string = ""
    for node in proto.graph.node:
        node.doc_string = ""
