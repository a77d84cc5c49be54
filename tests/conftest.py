"""What every test may use."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from hilum.bundle import Training
    from hilum.data.table import Table
    from hilum.evaluation.evaluation import Evaluation

pytest.register_assert_rewrite("engines.contract")

KERAS = Path(__file__).parent / "engines" / "keras"


def _keras_alone(config):
    """Whether nothing but tests of Keras is asked for: no process may hold two frameworks."""
    folder = config.invocation_params.dir
    return all(
        (folder / argument.partition("::")[0]).resolve().is_relative_to(KERAS) for argument in config.args
    )


def pytest_ignore_collect(collection_path, config):
    """Leaves the tests of Keras to a run of their own."""
    return True if collection_path == KERAS and not _keras_alone(config) else None


def pytest_report_header(config):
    """Says so."""
    return [] if _keras_alone(config) else "tests/engines/keras runs apart: pytest tests/engines/keras"


def pytest_collection_modifyitems(items):
    """Begins with the files whose tests take longest, so that no process is left alone with them at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real radiographs beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder of real radiographs (../shared/data) is absent")
    return folder


@pytest.fixture(autouse=True, scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep prepared images out of the cache of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HILUM_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def width_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back the width of a terminal that pytest-xdist tells its workers: tables would be folded to it."""
    monkeypatch.delenv("COLUMNS", raising=False)


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

    from hilum.bundle import Manifest, Seen, write_bundle
    from hilum.data.split import split_hash
    from hilum.data.table import Source, Table, make_frame
    from hilum.inference import runtime
    from hilum.recipe import load_recipe
    from hilum.training.calibration import calibrate

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
    recipe = load_recipe("kermany-subtype")
    validation = slice(60, 120)
    logits = greys[validation, None] / 255 * slopes + offsets
    one_hot = table.labels(recipe.task.findings)
    manifest = Manifest(
        name=recipe.name,
        created="2026-01-01T00:00:00+00:00",
        task="multiclass",
        findings=recipe.task.findings,
        negatives="all-others",
        size=32,
        fit="squash",
        calibration=calibrate(recipe, logits, one_hot[validation]),
        seen=Seen(sources=("greys",), views=(), ages=None, typical_distance=9.0),
        training=_training(split_hash(table.select(~np.isnan(one_hot).any(axis=1)))),
        data=(),
        recipe=recipe.model_dump(mode="json"),
        versions={"hilum": "0"},
    )
    graph = runtime.Graph((folder / "model.onnx").read_bytes())
    golden = runtime.golden(graph, np.full((32, 32), 99, np.uint8), np.ones((2, 1), np.float32))
    write_bundle(
        folder / "bundle",
        manifest,
        graph=folder / "model.onnx",
        weights=[folder / "model.safetensors"],
        golden=golden,
    )
    return Classes(folder / "bundle", folder / "table.parquet", tuple(centres))


@dataclass(frozen=True)
class Sites:
    """A run whose model calls what is bright, and pictures from elsewhere.

    `run` holds the sealed bundle, `table.parquet` with a split, and no evaluation yet; `site` is a table without a
    split whose pictures are brighter, of a rarer finding, less well told apart, of other ages and view.
    """

    run: Path
    own: Path
    site: Path


@pytest.fixture(scope="session")
def make_sites(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Sites]:
    """Makes `Sites` of some findings, told apart by the same grey."""
    from hilum.bundle import Calibration, Manifest, Seen, write_bundle
    from hilum.data.split import split_hash
    from hilum.data.table import Table
    from hilum.inference import runtime
    from hilum.recipe import load_recipe

    def make(findings: tuple[str, ...] = ("Pneumonia",)) -> Sites:
        import onnx

        folder = tmp_path_factory.mktemp("sites")
        task = "binary" if len(findings) == 1 else "multilabel"
        negatives = "no-finding" if task == "binary" else "all-others"
        keys = {"kind": task, "findings": list(findings), "negatives": negatives}
        recipe = load_recipe("kermany-densenet121", [f"task.{key}={value}" for key, value in keys.items()])
        parts = ["train"] * 100 + ["val"] * 100 + ["test"] * 200
        own = _greys(
            folder / "own", findings, number=400, centres=(0.4, 0.6), share=0.5, view="PA", ages=(20, 60)
        )
        own = own.with_split(parts)
        site = _greys(
            folder / "site", findings, number=300, centres=(0.6, 0.7), share=0.25, view="AP", ages=(40, 90)
        )
        run = folder / "run"
        run.mkdir()
        own.write(run / "table.parquet")
        own.write(folder / "own.parquet")
        site.write(folder / "site.parquet")
        (run / "recipe.toml").write_text(recipe.to_toml())
        slopes = np.full(len(findings), 25.0)
        onnx.save(_grey_classifier(slopes, -slopes / 2, size=32), folder / "model.onnx")
        (folder / "model.safetensors").write_bytes(b"weights")
        count = len(findings)
        manifest = Manifest(
            name=recipe.name,
            created="2026-01-01T00:00:00+00:00",
            task=task,
            findings=findings,
            negatives=negatives,
            size=32,
            fit="squash",
            calibration=Calibration(
                temperatures=(1.0,) * count, thresholds=(0.5,) * count, rule="fixed at 0.5"
            ),
            seen=Seen(
                sources=("own",), views=("PA",), ages=(20.0, 60.0), sides=(40, 40), typical_distance=2.0
            ),
            training=_training(split_hash(own)),
            data=(),
            recipe=recipe.model_dump(mode="json"),
            versions={"hilum": "0"},
        )
        graph = runtime.Graph((folder / "model.onnx").read_bytes())
        typical = np.array([[0.5], [0.13]], np.float32)
        write_bundle(
            run / "bundle",
            manifest,
            graph=folder / "model.onnx",
            weights=[folder / "model.safetensors"],
            golden=runtime.golden(graph, np.full((32, 32), 99, np.uint8), typical),
        )
        assert Table.read(run / "table.parquet").num_patients == 200
        return Sites(run, folder / "own.parquet", folder / "site.parquet")

    return make


@pytest.fixture(scope="session")
def write_own_test() -> Callable[["Evaluation", Path], None]:
    """Writes of a report what another evaluation reads; drawing it takes longest."""
    from hilum.report.evaluation import tables

    def write(evaluation: "Evaluation", folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(evaluation.metrics))
        tables.predictions(evaluation).to_parquet(folder / "predictions.parquet")

    return write


def _greys(
    folder: Path,
    findings: tuple[str, ...],
    *,
    number: int,
    centres: tuple[float, float],
    share: float,
    view: str,
    ages: tuple[int, int],
) -> "Table":
    """Pictures of one grey each, two a patient, brighter where every finding is present."""
    from PIL import Image

    from hilum.data.table import Source, Table, make_frame

    folder.mkdir()
    rng = np.random.default_rng(number)
    present = rng.random(number) < share
    greys = np.rint(255 * rng.normal(np.where(present, centres[1], centres[0]), 0.07)).clip(0, 255)
    names = [f"{place:03d}.png" for place in range(number)]
    for place, (name, grey) in enumerate(zip(names, greys, strict=True)):
        # A corner of its own keeps pictures of one grey apart.
        pixels = np.full((40, 40), grey, np.uint8)
        pixels[:5, :5], pixels[:5, 5:10] = place % 256, place // 256 + number // 3
        Image.fromarray(pixels).save(folder / name)
    labels = np.repeat(present[:, None], len(findings), axis=1).astype(float)
    frame = make_frame(
        image=names,
        source=folder.name,
        patient=[f"p{place // 2}" for place in range(number)],
        view=view,
        age=rng.integers(*ages, number).astype(float),
        width=40,
        height=40,
        findings=findings,
        labels=labels,
    )
    return Table(frame, findings, (Source(folder.name, folder, "Drawn for tests", "free"),))


def _training(split_hash: str) -> "Training":
    from hilum.bundle import Training

    return Training(
        engine="torch",
        architecture="densenet121",
        precision="fp32",
        num_train=100,
        num_val=100,
        num_test=200,
        num_patients=50,
        data_fingerprint="0" * 64,
        split_method="folders",
        split_description="the source's own test",
        split_hash=split_hash,
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
    )


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
