"""A trained PyTorch classifier -> model.onnx by the graph contract, and model.safetensors."""

from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hilum.engines.contract import InitialWeights
from hilum.engines.quiet import quiet_exporter
from hilum.engines.torch.models import TorchClassifier
from hilum.files import replacing

LOGGERS = ("torch.onnx", "onnxscript", "torch.export")
OPSET = 20


class ContractGraph(nn.Module):
    """The classifier with the outputs that every exported graph has: logits, maps and embedding."""

    def __init__(self, classifier: TorchClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Float (batch, size, size) in [0, 1] -> logits, maps (batch, findings, h, w), embedding."""
        outputs: tuple[Tensor, Tensor, Tensor] = self.classifier.head.explain(self.classifier.features(image))
        return outputs


def export_model(
    model: TorchClassifier, initial: InitialWeights, *, size: int, graph: Path, weights: Path
) -> Sequence[Path]:
    """Write the graph and the native weights.

    Args:
        model: At its best epoch.
        initial: Recorded beside the weights.
        size: Side of the input in pixels.
        graph: The .onnx file to write.
        weights: The folder for `model.safetensors`.

    Returns:
        The files written.
    """
    if model.unfold:
        model.unfold()
    model = model.eval().cpu().float().to(memory_format=torch.contiguous_format)
    with quiet_exporter(*LOGGERS):
        program = torch.onnx.export(
            ContractGraph(model).eval(),
            (torch.zeros(2, size, size),),
            dynamo=True,
            input_names=["image"],
            output_names=["logits", "maps", "embedding"],
            dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            external_data=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave nothing back")
    proto = program.model_proto
    _forget_where_it_was_made(proto)
    with replacing(graph) as temporary:
        onnx.save_model(proto, temporary)
    safetensors = weights / "model.safetensors"
    notes = {
        "mean": ",".join(map(repr, initial.mean)),
        "std": ",".join(map(repr, initial.std)),
        "padding": "same" if _same_padding(model.backbone) else "symmetric",
    }
    with replacing(safetensors) as temporary:
        save_file(
            {key: value.contiguous() for key, value in model.state_dict().items()}, temporary, metadata=notes
        )
    return graph, safetensors


def _forget_where_it_was_made(proto: onnx.ModelProto) -> None:
    """Drop the stack traces that the exporter leaves: they carry paths of the machine that trained."""
    del proto.metadata_props[:]
    for holder in (proto.graph, *proto.functions):
        del holder.metadata_props[:]
        for node in holder.node:
            del node.metadata_props[:]
            node.doc_string = ""
        for value in (*holder.value_info, *getattr(holder, "initializer", ())):
            del value.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]


def _same_padding(backbone: nn.Module) -> bool:
    return any(type(module).__name__ == "Conv2dSame" for module in backbone.modules())
