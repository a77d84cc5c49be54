"""What every test may use."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real radiographs beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder of real radiographs (../shared/data) is absent")
    return folder


@pytest.fixture(autouse=True)
def tensorboard_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps TensorBoard from loading TensorFlow where that is installed: PyTorch after it aborts the process."""
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", ModuleType("notf"))


@dataclass(frozen=True)
class Classes:
    """A sealed bundle of three classes that exclude each other, and labelled pictures for it."""

    bundle: Path
    table: Path
    centres: tuple[float, ...]


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Classes:
    """Pictures of one grey each, darkest where normal and brightest where viral, and the graph that tells them apart.

    Greys scatter so that some are mistaken; three pneumonias of unknown cause belong to no class. A picture's name
    ends in its grey value.
    """
    import onnx
    from PIL import Image

    from hilum import bundle, recipe as recipes, runtime
    from hilum.data.split import split_hash
    from hilum.data.table import Source, Table, make_frame
    from hilum.training.calibrate import calibrate

    folder = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    number, centres = 240, np.array([0.3, 0.5, 0.7])
    truth = rng.choice(3, number, p=[0.3, 0.45, 0.25])
    greys = np.clip(np.rint(255 * rng.normal(centres[truth], 0.09)), 0, 255).astype(np.uint8)
    names = [f"{place:03d}_{grey}.png" for place, grey in enumerate(greys)]
    for name, grey in zip(names, greys, strict=True):
        Image.new("L", (40, 40), int(grey)).save(folder / name)
    labels = np.stack([truth > 0, truth == 1, truth == 2], axis=1).astype(float)
    labels[:3] = [1, np.nan, np.nan]
    findings = ("Pneumonia", "Bacterial Pneumonia", "Viral Pneumonia")
    parts = np.repeat(["train", "val", "test"], [60, 60, 120])
    frame = make_frame(
        image=names,
        source="greys",
        patient=[f"p{place // 2}" for place in range(number)],
        findings=findings,
        labels=labels,
        split=list(parts),
    )
    table = Table(frame, findings, (Source("greys", folder, "Drawn for tests", "free"),))
    table.write(folder / "table.parquet")

    # The logarithm of equal Gaussians about the centres is linear in the grey, up to a term common to all classes.
    slopes, offsets = 40 * centres, -20 * centres**2
    onnx.save(_grey_classifier(slopes, offsets, size=32), folder / "model.onnx")
    (folder / "model.safetensors").write_bytes(b"weights")
    recipe = recipes.load("kermany-subtype")
    validation = slice(60, 120)
    logits = greys[validation, None] / 255 * slopes + offsets
    one_hot = table.labels(recipe.task.findings)
    manifest = bundle.Manifest(
        name=recipe.name,
        created="2026-01-01T00:00:00+00:00",
        task="multiclass",
        findings=recipe.task.findings,
        negatives="all-others",
        size=32,
        fit="squash",
        calibration=calibrate(recipe, logits, one_hot[validation]),
        seen=bundle.Seen(sources=("greys",), views=(), ages=None, typical_distance=9.0),
        training=bundle.Training(
            engine="torch",
            architecture="densenet121",
            precision="fp32",
            num_train=57,
            num_val=60,
            num_test=120,
            num_patients=29,
            data_fingerprint="0" * 64,
            split_method="folders",
            split_description="the source's own test",
            split_hash=split_hash(table.select(~np.isnan(one_hot).any(axis=1))),
            leaky=False,
            epochs=1,
            best_epoch=1,
            stopped="epochs",
            seconds=1.0,
            initial_weights="random",
            initial_weights_citation="",
            initial_weights_licence="none",
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
        ),
        data=(),
        recipe=recipe.model_dump(mode="json"),
        versions={"hilum": "0"},
    )
    graph = runtime.Graph((folder / "model.onnx").read_bytes())
    golden = runtime.golden(graph, np.full((32, 32), 99, np.uint8), np.ones((2, 1), np.float32))
    bundle.write(
        folder / "bundle",
        manifest,
        graph=folder / "model.onnx",
        weights=[folder / "model.safetensors"],
        golden=golden,
    )
    return Classes(folder / "bundle", folder / "table.parquet", tuple(centres))


def _grey_classifier(slopes: np.ndarray, offsets: np.ndarray, *, size: int) -> object:
    """A graph of the contract whose logits are linear in the mean grey; its maps are those of the linear part."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "channel": np.array([1], np.int64),
        "slopes": slopes[None].astype(np.float32),
        "offsets": offsets.astype(np.float32),
        "shares": (slopes / 16)[:, None, None].astype(np.float32),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["image", "channel"], ["grey"]),
        helper.make_node(
            "AveragePool", ["grey"], ["cells"], kernel_shape=[size // 4] * 2, strides=[size // 4] * 2
        ),
        helper.make_node("Mul", ["cells", "shares"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["grey"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["embedding"]),
        helper.make_node("Gemm", ["embedding", "slopes", "offsets"], ["logits"]),
    ]
    count = len(slopes)
    outputs = {"logits": ["n", count], "maps": ["n", count, 4, 4], "embedding": ["n", 1]}
    graph = helper.make_graph(
        nodes,
        "greys",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", size, size])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
