import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from scipy.special import expit, logit
from typer.testing import CliRunner

from hilum.bundle import FORMAT, MOST_PROBABLE, Calibration, read_bundle, write_bundle
from hilum.cli import app
from hilum.data import phantom
from hilum.data.table import Table
from hilum.errors import BundleError, DataError, UsageError
from hilum.evaluation import evaluate, facts
from hilum.evaluation.recalibrate import recalibrate
from hilum.inference import ensemble, runtime
from hilum.inference.predictor import Predictor

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 32)).astype(np.uint8)


@pytest.fixture(scope="module")
def sites(make_sites):
    """A run of two findings."""
    return make_sites(("Pneumonia", "Edema"))


def variant(run, folder, *, tilt=0.0, tensor=None, **changes):
    """The same bundle with other weights, opset or manifest."""
    parent = read_bundle(run)
    proto = onnx.load_from_string(parent.graph)
    for initializer in proto.graph.initializer:
        if initializer.name == (tensor or "slopes"):
            values = numpy_helper.to_array(initializer) + np.float32(tilt)
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    if "opset" in changes:
        proto.opset_import[0].version = changes.pop("opset")
    folder.parent.mkdir(exist_ok=True, parents=True)
    file = folder.parent / f"{folder.name}.onnx"
    onnx.save(proto, file)
    graph = runtime.Graph(file.read_bytes())
    golden = runtime.golden(graph, parent.golden.image, parent.golden.typical)
    manifest = parent.manifest.model_copy(update=changes)
    return write_bundle(folder, manifest, graph=file, weights=parent.weights, golden=golden)


def calibration(*temperatures, intercepts=(), thresholds=(0.5, 0.5)):
    return Calibration(
        temperatures=temperatures, intercepts=intercepts, thresholds=thresholds, rule="by hand"
    )


@pytest.fixture
def two(sites, tmp_path):
    """Two bundles of different weights and calibration."""
    first = variant(sites.run, tmp_path / "a", calibration=calibration(2.0, 0.5, thresholds=(0.2, 0.5)))
    second = variant(
        sites.run, tmp_path / "b", tilt=3.0,
        calibration=calibration(1.0, 4.0, intercepts=(0.5, -1.0), thresholds=(0.6, 0.9)),
    )  # fmt: skip
    return first, second


def test_of_a_bundle_with_itself_it_is_that_bundle(two, tmp_path):
    alone = Predictor.load(two[1])
    joined = Predictor.load(ensemble.ensemble([two[1], two[1]], tmp_path / "e"))

    ours, theirs = joined.graph.outputs(IMAGES), alone.graph.outputs(IMAGES)
    np.testing.assert_allclose(
        joined.probabilities(ours.logits), alone.probabilities(theirs.logits), atol=1e-6
    )
    np.testing.assert_allclose(ours.maps, theirs.maps / np.array([1, 4])[:, None, None], atol=1e-5)
    np.testing.assert_allclose(joined.distance(ours.embedding), alone.distance(theirs.embedding), rtol=1e-6)
    assert joined.bundle.manifest.calibration.thresholds == pytest.approx((0.6, 0.9))
    assert joined.bundle.manifest.seen == two[1].manifest.seen


def test_logits_and_maps_are_the_mean_of_the_calibrated_ones(two, tmp_path):
    models = [Predictor.load(one) for one in two]
    joined = Predictor.load(ensemble.ensemble(two, tmp_path / "e"))

    calibrated = [logit(model.probabilities(model.graph.logits(IMAGES))) for model in models]
    temperatures = [np.array(one.manifest.calibration.temperatures)[:, None, None] for one in two]
    maps = [model.graph.outputs(IMAGES).maps / by for model, by in zip(models, temperatures, strict=True)]
    outputs = joined.graph.outputs(IMAGES)
    np.testing.assert_allclose(outputs.logits, np.mean(calibrated, axis=0), atol=1e-4)
    np.testing.assert_allclose(outputs.maps, np.mean(maps, axis=0), atol=1e-4)
    assert outputs.embedding.shape == (len(IMAGES), 2)
    assert joined.bundle.manifest.calibration.thresholds == pytest.approx(
        expit(np.mean(logit([[0.2, 0.5], [0.6, 0.9]]), axis=0))
    )


def test_members_keep_the_order_given_which_changes_no_figure(two, tmp_path):
    one, other = (
        ensemble.ensemble(members, tmp_path / name) for name, members in (("e", two), ("f", two[::-1]))
    )

    hashes = [member.hash for member in two]
    assert [member.hash for member in one.manifest.members] == hashes
    assert [member.hash for member in other.manifest.members] == hashes[::-1]
    told = [value for name, value in facts.facts(other.manifest, other.hash) if name.startswith("Member ")]
    assert [hashed in line for hashed, line in zip([h[:16] for h in hashes[::-1]], told, strict=True)] == [
        True,
        True,
    ]
    np.testing.assert_allclose(
        Predictor.load(one).graph.logits(IMAGES), Predictor.load(other).graph.logits(IMAGES), atol=1e-5
    )
    assert one.manifest.calibration.thresholds == pytest.approx(other.manifest.calibration.thresholds)


@pytest.mark.parametrize(
    ("names", "networks", "name", "title"),
    [
        (("kermany-densenet121",) * 2, ("densenet121",) * 2, "kermany-densenet121-ensemble",
         "kermany-densenet121-ensemble (ensemble of 2 x densenet121)"),
        (("kermany-densenet121",) * 2, ("mobilenetv2",) * 2, "ensemble", "Ensemble of 2 x mobilenetv2"),
        (("kermany-densenet121", "mine"), ("densenet121", "vgg16"), "ensemble", "Ensemble of densenet121 + vgg16"),
        (("mine",) * 2, ("densenet121", "vgg16"), "mine-ensemble", "mine-ensemble (ensemble of densenet121 + vgg16)"),
    ],
)  # fmt: skip
def test_its_name_and_title_say_what_it_is(sites, tmp_path, names, networks, name, title):
    training = read_bundle(sites.run).manifest.training
    members = [
        variant(
            sites.run,
            tmp_path / str(number),
            name=own,
            training=training.model_copy(update={"architecture": one}),
        )
        for number, (own, one) in enumerate(zip(names, networks, strict=True))
    ]

    joined = ensemble.ensemble(members, tmp_path / "e")
    shown = CliRunner().invoke(app, ["bundle", "show", str(joined.folder)]).stdout

    assert joined.manifest.name == name
    assert facts.title(joined.manifest) == title
    assert f"ensemble of {joined.manifest.training.architecture} (torch" in shown


@pytest.mark.full
def test_a_keras_and_a_pytorch_bundle_are_joined_to_their_mean(tmp_path):
    table = phantom.generate(tmp_path / "phantoms", num_images=60, size=64, seed=3)
    table.write(tmp_path / "table.parquet")
    small = ["model.architecture=custom_cnn", "model.weights=none", "model.freeze=none", "model.hidden=[8]",
             "data.size=32", "train.epochs=1", "task.findings=['Lung Opacity']", "task.negatives=all-others",
             "split.method=patient"]  # fmt: skip
    for engine in ("keras", "torch"):  # no process may hold two frameworks
        arguments = ["train", "kermany-densenet121", "--data", tmp_path / "table.parquet", "-o", tmp_path / engine,
                     "--engine", engine, *(f"--set={change}" for change in small)]  # fmt: skip
        subprocess.run(
            [sys.executable, "-m", "hilum", *map(str, arguments)],
            check=True,
            capture_output=True,
            env={**os.environ, "HILUM_CACHE": str(tmp_path / "cache")},
        )

    members = [read_bundle(tmp_path / engine) for engine in ("keras", "torch")]
    joined = Predictor.load(ensemble.ensemble(members, tmp_path / "e"))

    images = np.random.default_rng(5).integers(0, 256, (9, 32, 32)).astype(np.uint8)
    models = [Predictor.load(member) for member in members]
    calibrated = np.array([logit(model.probabilities(model.graph.logits(images))) for model in models])
    assert np.abs(calibrated[0] - calibrated[1]).max() > 0.01
    np.testing.assert_allclose(joined.graph.logits(images), calibrated.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(
        joined.probabilities(joined.graph.logits(images)), expit(calibrated.mean(axis=0)), atol=1e-5
    )
    assert [member.manifest.training.engine for member in joined.bundle.manifest.members] == [
        "keras",
        "torch",
    ]
    assert joined.bundle.manifest.training.engine == "keras; torch"


def test_each_member_is_told_with_its_weights(two, tmp_path):
    joined = ensemble.ensemble(two, tmp_path / "e")

    assert {member.hash for member in joined.manifest.members} == {one.hash for one in two}
    assert {member.manifest.calibration.temperatures for member in joined.manifest.members} == {
        (2.0, 0.5), (1.0, 4.0)
    }  # fmt: skip
    assert [file.name for file in joined.weights] == [
        "member-1-model.safetensors",
        "member-2-model.safetensors",
    ]
    assert joined.manifest.format == FORMAT
    shown = CliRunner().invoke(app, ["bundle", "show", str(joined.folder)]).stdout
    assert all(one.hash[:16] in shown for one in two)
    assert "2 x densenet121" in shown


def test_equal_tensors_are_kept_once(sites, tmp_path):
    first = variant(sites.run, tmp_path / "a")
    second = variant(sites.run, tmp_path / "b", tilt=1.0, tensor="offsets")

    joined = onnx.load_from_string(ensemble.ensemble([first, second], tmp_path / "e").graph)

    assert sum(tensor.name.endswith("slopes") for tensor in joined.graph.initializer) == 1
    assert sum(tensor.name.endswith("offsets") for tensor in joined.graph.initializer) == 2


def test_a_member_of_an_older_opset_is_brought_up(sites, tmp_path):
    old = variant(sites.run, tmp_path / "old", opset=18, tilt=2.0)
    new = read_bundle(sites.run)

    joined = Predictor.load(ensemble.ensemble([old, new], tmp_path / "e"))

    mean = np.mean([Predictor.load(one).graph.logits(IMAGES) for one in (old, new)], axis=0)
    np.testing.assert_allclose(joined.graph.logits(IMAGES), mean, atol=1e-5)


def test_maps_of_different_grids_keep_their_sum(sites, tmp_path):
    parent = read_bundle(sites.run)
    proto = onnx.load_from_string(parent.graph)
    for node in proto.graph.node:
        if node.op_type == "AveragePool":
            for attribute in node.attribute:
                attribute.ints[:] = [16, 16]
    shares = next(one for one in proto.graph.initializer if one.name == "shares")
    shares.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(shares) * 4, "shares"))
    proto.graph.output[1].type.tensor_type.shape.dim[2].dim_value = 2
    proto.graph.output[1].type.tensor_type.shape.dim[3].dim_value = 2
    file = tmp_path / "coarse.onnx"
    onnx.save(proto, file)
    golden = runtime.golden(runtime.Graph(file.read_bytes()), parent.golden.image, parent.golden.typical)
    coarse = write_bundle(tmp_path / "a", parent.manifest, graph=file, weights=parent.weights, golden=golden)

    joined = Predictor.load(ensemble.ensemble([coarse, parent], tmp_path / "e"))

    found, fine = joined.graph.outputs(IMAGES).maps, Predictor.load(parent).graph.outputs(IMAGES).maps
    assert found.shape == fine.shape
    np.testing.assert_allclose(found.sum(axis=(2, 3)), fine.sum(axis=(2, 3)), rtol=1e-4)


def test_classes_are_averaged_before_the_softmax(classes, tmp_path):
    member = Predictor.load(classes.bundle)
    joined = Predictor.load(ensemble.ensemble([member.bundle, member.bundle], tmp_path / "e"))

    ours, theirs = (model.probabilities(model.graph.logits(IMAGES)) for model in (joined, member))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert joined.bundle.manifest.calibration.rule == MOST_PROBABLE


@pytest.mark.parametrize(
    ("value", "changes", "message"),
    [
        ("input", {"fit": "pad"}, "differ in fit: squash against pad"),
        ("task", {"negatives": "no-finding"}, "differ in negatives: all-others against no-finding"),
        (
            "task",
            {"findings": ("Pneumonia", "Mass")},
            "differ in findings: Pneumonia, Edema against Pneumonia, Mass",
        ),
    ],
)
def test_members_that_differ_are_refused(sites, tmp_path, value, changes, message):
    member = read_bundle(sites.run)
    changed = getattr(member.manifest, value).model_copy(update=changes)
    other = replace(member, manifest=member.manifest.model_copy(update={value: changed}))

    with pytest.raises(UsageError, match=message):
        ensemble.ensemble([member, other], tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_what_is_no_ensemble_is_refused(two, tmp_path):
    joined = ensemble.ensemble(two, tmp_path / "e")

    with pytest.raises(UsageError, match="two or more members, 1 given"):
        ensemble.ensemble(two[:1], tmp_path / "f")
    with pytest.raises(UsageError, match="is an ensemble itself; give its 2 members"):
        ensemble.ensemble([joined, two[0]], tmp_path / "f")
    with pytest.raises(UsageError, match="is there already"):
        ensemble.ensemble(two, tmp_path / "e")
    with pytest.raises(UsageError, match="lies inside a bundle"):
        ensemble.ensemble(two, two[0].folder / "e")


def test_a_member_that_computes_something_else_than_when_sealed_is_refused(two, tmp_path):
    wrong = replace(two[0], golden=replace(two[0].golden, logits=two[0].golden.logits + 1))

    with pytest.raises(BundleError, match="golden"):
        ensemble.ensemble([wrong, two[1]], tmp_path / "e")
    (two[1].folder / "model.onnx").write_bytes(b"changed")
    result = CliRunner().invoke(
        app, ["bundle", "ensemble", *(str(one.folder) for one in two), "-o", str(tmp_path / "e")]
    )
    assert isinstance(result.exception, BundleError)
    assert "changed after sealing" in str(result.exception)
    assert not (tmp_path / "e").exists()


def test_the_command_makes_what_verifies(two, tmp_path):
    runner = CliRunner()
    made = runner.invoke(
        app, ["bundle", "ensemble", *(str(one.folder) for one in two), "-o", str(tmp_path / "e")]
    )
    assert made.exit_code == 0, made.output

    assert json.loads(runner.invoke(app, ["bundle", "verify", str(tmp_path / "e"), "--json"]).stdout)["whole"]


def divided(sites, folder, parts):
    """A bundle trained on the same images, divided so."""
    from hilum.data.split import split_hash

    manifest = read_bundle(sites.run).manifest
    hashed = split_hash(Table.read(sites.own).with_split(parts))
    training = manifest.training.model_copy(update={"split_hash": hashed})
    return variant(sites.run, folder, training=training)


def test_an_ensemble_is_tested_on_what_no_member_was_trained_on(sites, tmp_path):
    parts = Table.read(sites.own).frame["split"].tolist()
    recipe = read_bundle(sites.run).manifest.recipe
    by_patient = {**recipe, "split": {**recipe["split"], "method": "patient", "val": 0.1, "test": 0.3}}
    from hilum.data.split import split
    from hilum.recipe import parse_recipe

    table = Table.read(sites.own)
    other = split(table, parse_recipe(by_patient).split, findings=("Pneumonia", "Edema"))
    second = divided(sites, tmp_path / "b", other.table.frame["split"].tolist())
    second = variant(second.folder, tmp_path / "c", recipe=by_patient)
    joined = ensemble.ensemble([read_bundle(sites.run), second], tmp_path / "e")

    result = evaluate.evaluate(evaluate.subject(tmp_path / "e", table), replicates=100)

    unseen = (np.array(parts) == "test") & (other.table.frame["split"].to_numpy() == "test")
    assert 0 < unseen.sum() < 120
    assert set(result.images) == set(table.frame["image"][unseen])
    assert "neither trained nor tuned any of the ensemble's 2 members" in result.split_description
    assert any(name == "Member 2" for name, _ in result.facts)
    assert joined.manifest.training.split_hash not in (
        other.hash,
        read_bundle(sites.run).manifest.training.split_hash,
    )


def test_members_that_leave_nothing_to_test_are_refused(sites, tmp_path):
    table = Table.read(sites.own)
    swapped = [{"test": "train", "train": "test", "val": "val"}[part] for part in table.frame["split"]]
    swapped_table = table.with_split(swapped)
    second = divided(sites, tmp_path / "b", swapped)
    ensemble.ensemble([read_bundle(sites.run), second], tmp_path / "e")

    with pytest.raises(DataError, match="divided in a way that these data do not show"):
        evaluate.evaluate(evaluate.subject(tmp_path / "e", swapped_table), replicates=100)


def test_elsewhere_an_ensemble_is_evaluated_like_any_other(two, sites, tmp_path):
    ensemble.ensemble(two, tmp_path / "e")

    result = evaluate.evaluate(evaluate.subject(tmp_path / "e", Table.read(sites.site)), replicates=100)

    assert result.external is not None
    assert result.bundle == read_bundle(tmp_path / "e").hash


def test_who_calibrated_a_member_is_left_out_of_the_ensembles_figures(make_sites, tmp_path):
    sites = make_sites()
    parent, site = Predictor.load(sites.run), Table.read(sites.site)
    there = recalibrate(parent, site, tmp_path / "there", replicates=100).bundle

    joined = ensemble.ensemble([there, parent.bundle], tmp_path / "e")

    np.testing.assert_array_equal(joined.calibrated_on, there.calibrated_on)
    result = evaluate.evaluate(evaluate.subject(tmp_path / "e", site), replicates=100)
    assert len(result.images) == 150
    assert any("calibrated this bundle are left out" in warning for warning in map(str, result.warnings))


def test_an_ensemble_is_recalibrated_like_any_other(two, sites, tmp_path):
    joined = Predictor.load(ensemble.ensemble(two, tmp_path / "e"))

    there = recalibrate(joined, Table.read(sites.site), tmp_path / "there", replicates=100).bundle

    assert there.manifest.members == joined.bundle.manifest.members
    assert there.graph == joined.bundle.graph
