import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from hilum import stats
from hilum.bundle import (
    MOST_PROBABLE,
    SUMS,
    Calibration,
    DataSource,
    Golden,
    Manifest,
    Member,
    Recalibration,
    Seen,
    Training,
    read_bundle,
    write_bundle,
)
from hilum.errors import BundleError, UsageError
from hilum.inference import runtime
from hilum.inference.predictor import Predictor
from hilum.recipe import load_recipe
from hilum.training.calibration import calibrate

SIZE, FINDINGS = 32, ("Mass", "Nodule")
SAMPLES = Path(__file__).parents[1] / "samples"
CLASSES = Calibration(link="softmax", temperatures=(2.0,), thresholds=(), rule=MOST_PROBABLE)


def make_graph(*, external=False, outputs=("logits", "maps", "embedding")):
    """A tiny graph of the contract: logits are weights times the mean grey, maps the image in 4 x 4 cells."""
    weight = numpy_helper.from_array(np.array([[1.0, -2.0]], np.float32), "weight")
    if external:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        entry = weight.external_data.add()
        entry.key, entry.value = "location", "/etc/hostname"
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    nodes = [
        helper.make_node("Unsqueeze", ["image", "axes"], ["channel"]),
        helper.make_node("AveragePool", ["channel"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("GlobalAveragePool", ["channel"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], [outputs[2]]),
        helper.make_node("MatMul", [outputs[2], "weight"], [outputs[0]]),
        helper.make_node("Concat", ["cells", "cells"], [outputs[1]], axis=1),
    ]
    shapes = [["batch", 2], ["batch", 2, 4, 4], ["batch", 1]]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", SIZE, SIZE])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in zip(outputs, shapes, strict=True)
        ],
        [weight, axes],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def make_manifest(**changes):
    values = {
        "name": "tiny",
        "created": "2026-01-01T00:00:00+00:00",
        "task": "multilabel",
        "findings": FINDINGS,
        "negatives": "all-others",
        "size": SIZE,
        "fit": "squash",
        "calibration": Calibration(temperatures=(1.0, 2.0), thresholds=(0.5, 0.25), rule="fixed at 0.5"),
        "seen": Seen(sources=("phantom",), views=("PA",), ages=(18.0, 90.0), typical_distance=2.0),
        "training": Training(
            engine="torch",
            architecture="tiny",
            precision="fp32",
            num_train=10,
            num_val=2,
            num_test=2,
            num_patients=5,
            data_fingerprint="0" * 64,
            split_method="patient",
            split_description="by patient",
            split_hash="1" * 64,
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
        "data": (DataSource(name="phantom", citation="none", terms="synthetic"),),
        "recipe": {},
        "versions": {},
    }
    return Manifest(**(values | changes))


def calibrated(*temperatures, **changes):
    calibration = Calibration(temperatures=temperatures, thresholds=(0.5, 0.25), rule="fixed at 0.5")
    return make_manifest(calibration=calibration, **changes)


def test_a_temperature_that_could_not_be_fitted_is_told_by_name():
    one, other = FINDINGS
    bound = stats.calibration.TEMPERATURE_BOUNDS[1]

    (note,) = calibrated(1.0, 1.7).temperature_notes
    both = calibrated(bound, 1.0).temperature_notes

    assert note.startswith(
        f"no temperature could be fitted for {one} (fewer than 10 images with it or without it"
    )
    assert [one in line for line in both] == [False, True]
    assert [other in line for line in both] == [True, False]
    assert calibrated(0.9, 1.7).temperature_notes == ()
    unasked = {"calibrate": {"temperature": False}}
    assert calibrated(1.0, 1.0, recipe=unasked).temperature_notes == ()


def test_an_ensemble_tells_of_how_many_members_a_temperature_is_missing():
    members = [Member(hash=f"{number}" * 64, manifest=calibrated(1.0 - number / 4, 1.7)) for number in (0, 1)]

    (note,) = calibrated(1.0, 1.0, members=tuple(members)).temperature_notes

    assert note.startswith("of 1 of 2 members not all temperatures could be fitted")


@pytest.mark.parametrize("failing", [True, False])
def test_what_cannot_be_fitted_is_told_by_the_manifest_and_only_that(failing):
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 2)) < 0.4).astype(np.float32)
    labels[:, 1] = (np.arange(200) < (9 if failing else 60)).astype(np.float32)
    logits = rng.normal(0, 2, labels.shape) + labels
    settings = load_recipe("nih-multilabel", [f"task.findings={list(FINDINGS)}"])

    manifest = make_manifest(calibration=calibrate(settings, logits, labels))

    assert bool(manifest.temperature_notes) == failing
    assert not failing or f"fitted for {FINDINGS[1]} (" in manifest.temperature_notes[0]


def seal(folder, *, graph=None, manifest=None, golden_shift=0.0):
    scratch = folder.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    file = scratch / "model.onnx"
    onnx.save(graph or make_graph(), file)
    weights = scratch / "model.safetensors"
    weights.write_bytes(b"weights")
    image = np.arange(SIZE * SIZE, dtype=np.uint32).reshape(SIZE, SIZE).astype(np.uint8)
    made = runtime.golden(runtime.Graph(make_graph().SerializeToString()), image, np.ones((2, 1), np.float32))
    made = Golden(made.image, made.logits + golden_shift, made.maps, made.embedding, made.typical)
    return write_bundle(folder, manifest or make_manifest(), graph=file, weights=[weights], golden=made)


def reseal(folder):
    """Makes the sums fit whatever lies in the folder, as somebody would who wants to deceive."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    lines = [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in names
        if name != SUMS
    ]
    (folder / SUMS).write_text("".join(lines))


@pytest.fixture
def sealed(tmp_path):
    return seal(tmp_path / "bundle").folder


def test_a_sealed_bundle_reads_back(sealed):
    found = read_bundle(sealed)

    assert found.manifest == make_manifest()
    assert found.hash == hashlib.sha256((sealed / "SHA256SUMS").read_bytes()).hexdigest()
    assert sorted(p.name for p in sealed.rglob("*") if p.is_file()) == [
        "SHA256SUMS",
        "bundle.json",
        "golden.npz",
        "model.onnx",
        "model.safetensors",
    ]


def test_a_run_that_holds_a_bundle_will_do(sealed):
    assert read_bundle(sealed.parent).folder == sealed


@pytest.mark.parametrize(
    "name", ["bundle.json", "model.onnx", "golden.npz", "weights/model.safetensors", "SHA256SUMS"]
)
def test_one_flipped_byte_in_any_file_is_refused(sealed, name):
    content = bytearray((sealed / name).read_bytes())
    content[len(content) // 2] ^= 1
    (sealed / name).write_bytes(content)

    with pytest.raises(BundleError):
        Predictor.load(sealed)


@pytest.mark.parametrize(
    "name", ["bundle.json", "model.onnx", "golden.npz", "weights/model.safetensors", "SHA256SUMS"]
)
def test_a_missing_file_is_refused(sealed, name):
    (sealed / name).unlink()

    with pytest.raises(BundleError, match=r"lacks|get the bundle anew|damaged"):
        Predictor.load(sealed)


def test_an_extra_file_is_refused(sealed):
    (sealed / "weights" / "extra.txt").write_text("hello")

    with pytest.raises(BundleError, match=r"not sealed in it: weights/extra.txt"):
        read_bundle(sealed)


def test_files_of_the_system_are_told_and_not_read(sealed, caplog):
    for name in (".DS_Store", "weights/Thumbs.db", "weights/desktop.ini", "._model.onnx"):
        (sealed / name).write_text("hello")

    found = read_bundle(sealed)

    assert [file.name for file in found.weights] == ["model.safetensors"]
    assert "holds .DS_Store, ._model.onnx, Thumbs.db, desktop.ini" in caplog.text


def test_a_link_with_the_name_of_a_file_of_the_system_is_refused(sealed):
    (sealed / ".DS_Store").symlink_to("/etc/hostname")

    with pytest.raises(BundleError, match="not a plain file"):
        read_bundle(sealed)


def test_a_link_is_refused(sealed):
    (sealed / "weights" / "link").symlink_to("/etc/hostname")

    with pytest.raises(BundleError, match="not a plain file"):
        read_bundle(sealed)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../b"])
def test_sums_that_lead_outside_are_refused(sealed, name):
    with (sealed / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")

    with pytest.raises(BundleError, match="which no bundle holds"):
        read_bundle(sealed)


def test_another_format_is_refused_by_its_number(sealed):
    values = json.loads((sealed / "bundle.json").read_text())
    (sealed / "bundle.json").write_text(json.dumps(values | {"format": 99}))
    reseal(sealed)

    with pytest.raises(BundleError, match="format 99; this version of Hilum reads formats 1, 2, 3, 4"):
        read_bundle(sealed)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"format": 1}', "not json", "[" * 100_000, '{"format": NaN}']
)
def test_a_manifest_that_is_none_is_refused(sealed, content):
    (sealed / "bundle.json").write_text(content)
    reseal(sealed)

    with pytest.raises(BundleError):
        read_bundle(sealed)


def test_external_data_is_refused_before_any_runtime_sees_it(tmp_path):
    with pytest.raises(BundleError, match="outside its file"):
        seal(tmp_path / "bundle", graph=make_graph(external=True))


def test_external_data_in_a_subgraph_is_refused(tmp_path):
    model = make_graph()
    inner = make_graph(external=True).graph
    model.graph.node.append(
        helper.make_node("If", ["condition"], ["unused"], then_branch=inner, else_branch=make_graph().graph)
    )

    with pytest.raises(BundleError, match="outside its file"):
        seal(tmp_path / "bundle", graph=model)


def test_other_outputs_are_refused(tmp_path):
    with pytest.raises(BundleError, match="logits, maps, embedding out expected"):
        seal(tmp_path / "bundle", graph=make_graph(outputs=("logits", "maps", "features")))


def test_garbage_for_a_graph_is_refused(sealed):
    (sealed / "model.onnx").write_bytes(b"garbage" * 100)
    reseal(sealed)

    with pytest.raises(BundleError):
        read_bundle(sealed)


def test_a_pickle_in_the_golden_file_is_not_loaded(sealed):
    np.savez(sealed / "golden.npz", image=np.array([{"a": 1}], dtype=object))
    reseal(sealed)

    with pytest.raises(BundleError, match=r"golden\.npz is damaged"):
        read_bundle(sealed)


def test_a_graph_that_computes_something_else_than_when_sealed_is_refused(tmp_path):
    folder = seal(tmp_path / "bundle", golden_shift=0.01).folder

    with pytest.raises(BundleError, match="logits for the golden image differ"):
        Predictor.load(folder)


def test_expect_pins_the_hash(sealed):
    own = read_bundle(sealed).hash

    assert read_bundle(sealed, expect=own[:12]).hash == own
    with pytest.raises(BundleError, match="not the expected"):
        read_bundle(sealed, expect="0" * 64)
    with pytest.raises(UsageError, match="hexadecimal"):
        read_bundle(sealed, expect="short")


def test_what_is_no_bundle_is_told_from_a_damaged_one(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        read_bundle(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is not a bundle"):
        read_bundle(tmp_path)


def test_writing_over_a_bundle_leaves_one_whole_bundle(sealed):
    seal(sealed, manifest=make_manifest(name="second"))

    assert read_bundle(sealed).manifest.name == "second"
    assert [p.name for p in sealed.parent.iterdir() if p.name.startswith(".")] == []


def test_a_failure_while_sealing_leaves_the_old_bundle(sealed, monkeypatch):
    monkeypatch.setattr(
        shutil, "copyfile", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )

    with pytest.raises(OSError, match="No space left"):
        write_bundle(
            sealed,
            make_manifest(name="second"),
            graph=sealed / "model.onnx",
            weights=[],
            golden=read_bundle(sealed).golden,
        )

    assert read_bundle(sealed).manifest.name == "tiny"


def test_temperature_divides_the_logit():
    calibration = Calibration(temperatures=(1.0, 2.0), thresholds=(0.5, 0.5), rule="")

    found = calibration.probabilities(np.array([[0.0, 2.0], [np.log(3), -2.0]]))

    np.testing.assert_allclose(found, [[0.5, 1 / (1 + np.exp(-1))], [0.75, 1 / (1 + np.exp(1))]])


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_bundle_of_an_older_format_still_reads(sealed, number):
    shutil.copyfile(SAMPLES / f"bundle_format_{number}.json", sealed / "bundle.json")
    reseal(sealed)

    manifest = read_bundle(sealed).manifest

    assert manifest == make_manifest(format=number)
    assert manifest.recalibrated is None
    assert manifest.decision.thresholds == (0.5, 0.25)
    assert manifest.seen.likeness == "at most 2.00 on validation"
    np.testing.assert_allclose(
        manifest.calibration.probabilities(np.array([[0.0, np.log(9)]])), [[0.5, 0.75]]
    )


def test_an_intercept_is_added_after_the_division():
    calibration = Calibration(temperatures=(2.0,), intercepts=(np.log(3),), thresholds=(0.5,), rule="")

    np.testing.assert_allclose(calibration.probabilities(np.array([[0.0], [2 * np.log(3)]])), [[0.75], [0.9]])


def test_intercepts_are_one_a_finding():
    calibration = make_manifest().calibration.model_copy(update={"intercepts": (1.0,)})

    with pytest.raises(ValueError, match="1 intercepts for 2 findings"):
        make_manifest(calibration=calibration)


RECALIBRATION = Recalibration(
    parent="2" * 64, created="2026-01-02T00:00:00+00:00", site="there", part="all of them", num_images=4,
    num_patients=3, positives=(2, 2), negatives=(2, 2), data=(),
)  # fmt: skip


def test_fingerprints_read_back_and_belong_to_a_recalibration(tmp_path, sealed):
    found = read_bundle(sealed)
    marks = np.arange(32, dtype=np.uint8).reshape(2, 16)
    written = {"graph": sealed / "model.onnx", "weights": found.weights, "golden": found.golden}

    new = write_bundle(
        tmp_path / "new", make_manifest(recalibrations=(RECALIBRATION,)), calibrated_on=marks, **written
    )

    np.testing.assert_array_equal(new.calibrated_on, marks)
    assert "4 images of 3 patients" in new.manifest.recalibrated.summary
    for name in ("model.onnx", "golden.npz", "weights/model.safetensors"):
        assert (tmp_path / "new" / name).read_bytes() == (sealed / name).read_bytes()
    with pytest.raises(BundleError, match="do not agree on whether"):
        write_bundle(tmp_path / "without", make_manifest(recalibrations=(RECALIBRATION,)), **written)
    np.savez(tmp_path / "new" / "calibrated_on.npz", fingerprints=np.array([{}], dtype=object))
    reseal(tmp_path / "new")
    with pytest.raises(BundleError, match=r"calibrated_on\.npz is damaged"):
        read_bundle(tmp_path / "new")


def test_a_manifest_of_classes_reads_back(tmp_path):
    manifest = make_manifest(task="multiclass", calibration=CLASSES)

    found = read_bundle(seal(tmp_path / "bundle", manifest=manifest).folder).manifest

    assert found == manifest
    assert found.decision.threshold(1) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "multiclass"}, "multiclass does not go with the link sigmoid"),
        ({"calibration": CLASSES}, "multilabel does not go with the link softmax"),
        (
            {"calibration": Calibration(temperatures=(1.0,), thresholds=(0.5, 0.5), rule="")},
            r"multilabel should be \(2, 2\) in number",
        ),
        (
            {"task": "multiclass", "calibration": CLASSES.model_copy(update={"thresholds": (0.5, 0.5)})},
            r"multiclass should be \(1, 0\) in number",
        ),
    ],
)
def test_a_calibration_that_does_not_fit_the_task_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        make_manifest(**changes)


def test_one_temperature_divides_the_logits_of_all_classes():
    found = CLASSES.probabilities(np.array([[0.0, 2 * np.log(3)], [500.0, -500.0]]))

    np.testing.assert_allclose(found, [[0.25, 0.75], [1.0, 0.0]], atol=1e-12)


@given(arrays(np.float64, (5, 3), elements=st.floats(-50, 50)))
def test_probabilities_of_classes_sum_to_one_and_one_is_called(logits):
    probabilities = CLASSES.probabilities(logits)

    called = CLASSES.decision.decide(probabilities)

    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (called.sum(axis=1) == 1).all()
    assert (probabilities[called] == probabilities.max(axis=1)).all()


def test_a_finding_is_called_from_its_threshold_on():
    calibration = Calibration(temperatures=(1.0, 1.0), thresholds=(0.5, 0.25), rule="")

    called = calibration.decision.decide(np.array([[0.5, 0.24], [0.49, 0.25]]))

    assert called.tolist() == [[True, False], [False, True]]


def test_the_runtime_takes_uint8_and_float_alike(sealed):
    model = Predictor.load(sealed)
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)

    as_bytes, as_floats = model.graph.outputs(pixels), model.graph.outputs(pixels / np.float32(255))

    np.testing.assert_array_equal(as_bytes.logits, as_floats.logits)
    np.testing.assert_array_equal(as_bytes.logits, model.graph.logits(pixels))
    assert as_bytes.maps.shape == (3, 2, 4, 4)
    assert as_bytes.embedding.shape == (3, 1)


def test_images_of_another_shape_are_refused(sealed):
    with pytest.raises(UsageError, match=r"\(n, size, size\) expected"):
        Predictor.load(sealed).graph.logits(np.zeros((32, 32), np.uint8))
    with pytest.raises(UsageError, match="32 x 32"):
        Predictor.load(sealed).graph.logits(np.zeros((1, 48, 48), np.uint8))
