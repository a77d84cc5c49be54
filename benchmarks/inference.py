"""Files to probabilities, and maps, of a sealed DenseNet121 against eager fp32 torch and pytorch-grad-cam."""

import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from benchmarks._timing import compare
from hilum.bundle import Bundle, Calibration, DataSource, Golden, Manifest, Seen, Training
from hilum.data.phantom import phantom
from hilum.engines.torch import export, models
from hilum.images import Location
from hilum.inference import runtime
from hilum.inference.predictor import Predictor
from hilum.recipe import InputSpec, Task, load_recipe
from hilum.recipe.findings import NIH_FINDINGS

SIZE, NUMBER = 224, 64
NOTHING = np.zeros((0, 16), np.uint8)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.png" for number in range(NUMBER)]
        for number, file in enumerate(files):
            cv2.imwrite(str(file), phantom(number, 512, ()))
        for findings in (NIH_FINDINGS[:1], NIH_FINDINGS):
            classifier, model = _models(Path(folder), findings)
            if len(findings) == 1:
                _files_to_probabilities(classifier, model, files)
            _maps(classifier, model, len(findings))


def _files_to_probabilities(classifier: models.TorchClassifier, model: Predictor, files: list[Path]) -> None:
    sources = [Location(file) for file in files]

    def peer() -> None:
        """What a notebook does: read, resize, scale, stack, run eagerly in fp32."""
        for start in range(0, NUMBER, 16):
            greys = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files[start : start + 16]]
            batch = (
                np.stack([cv2.resize(grey, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for grey in greys])
                / 255
            )
            with torch.inference_mode():
                torch.sigmoid(classifier(torch.from_numpy(batch.astype(np.float32))))

    compare("files to probabilities, densenet121", lambda: list(model.predict(sources)), peer, at_least=1.7)


def _maps(classifier: models.TorchClassifier, model: Predictor, findings: int) -> None:
    pixels = np.stack([phantom(number, SIZE, ()) for number in range(8)])
    tensor = torch.from_numpy(runtime.as_float(pixels))

    class Channels(torch.nn.Module):
        """pytorch-grad-cam wants four dimensions."""

        def __init__(self) -> None:
            super().__init__()
            self.classifier = classifier

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.classifier(image[:, 0])

    for parameter in classifier.parameters():
        parameter.requires_grad_(True)
    cam = GradCAM(model=Channels().eval(), target_layers=[classifier.backbone.features.norm5])

    def peer() -> None:
        for finding in range(findings):
            cam(input_tensor=tensor.unsqueeze(1), targets=[ClassifierOutputTarget(finding)] * len(pixels))

    claim = f"logits and {findings} map{'s' if findings > 1 else ''} an image, densenet121"
    compare(claim, lambda: model.graph.outputs(pixels), peer, at_least=4 if findings == 1 else 20, rounds=3)


def _models(folder: Path, findings: tuple[str, ...]) -> tuple[models.TorchClassifier, Predictor]:
    kind = "binary" if len(findings) == 1 else "multilabel"
    changes = ["model.weights=none", "model.freeze=none", f"task.kind={kind}", "task.negatives=all-others"]
    settings = load_recipe("kermany-densenet121", [*changes, f"task.findings={list(findings)}"])
    classifier, initial = models.build(settings, images=torch.rand(8, SIZE, SIZE))
    graph_file, _ = export.export_model(
        classifier.eval(), initial, size=SIZE, graph=folder / "model.onnx", weights=folder
    )
    content = graph_file.read_bytes()
    graph = runtime.Graph(content)
    typical = np.ones((2, 1024), np.float32)
    golden: Golden = runtime.golden(graph, phantom(0, SIZE, ()), typical)
    return classifier, Predictor(
        Bundle(folder, "0" * 64, _manifest(findings, kind), content, golden, NOTHING), graph
    )


def _manifest(findings: tuple[str, ...], kind: str) -> Manifest:
    return Manifest(
        name="benchmark",
        created="",
        task=Task(kind=kind, findings=findings),
        input=InputSpec(size=SIZE),
        calibration=Calibration(
            temperatures=(1.0,) * len(findings), thresholds=(0.5,) * len(findings), rule="fixed at 0.5"
        ),
        seen=Seen(sources=("phantom",), views=(), ages=None, typical_distance=10.0),
        training=Training(
            engine="torch",
            architecture="densenet121",
            precision="fp32",
            num_train=0,
            num_val=0,
            num_test=0,
            num_patients=0,
            data_fingerprint="",
            split_method="patient",
            split_description="",
            split_hash="",
            leaky=False,
            epochs=0,
            best_epoch=0,
            stopped="",
            seconds=0,
            initial_weights="random",
            initial_weights_citation="",
            initial_weights_licence="none",
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
        ),
        data=(DataSource(name="phantom", citation="", terms=""),),
        recipe={},
        versions={},
    )
