import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from hilum import images
from hilum.data import cache, phantom, readers
from hilum.data.table import Table
from hilum.engines import state_file
from hilum.engines.torch import weights
from hilum.errors import DataError, NoRoomError, TrainingError, UsageError
from hilum.evaluation import evaluate
from hilum.inference.predictor import Predictor
from hilum.recipe import load_recipe, parse_recipe
from hilum.runs.folder import RunFolder
from hilum.training import seal
from hilum.training.train import train

SMALL = [
    "model.architecture=custom_cnn",
    "model.weights=none",
    "model.freeze=none",
    "model.hidden=[8]",
    "data.size=32",
    "train.epochs=1",
]
PHANTOM = [*SMALL, "task.findings=['Lung Opacity']", "task.negatives=all-others", "split.method=patient"]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return phantom.generate(tmp_path_factory.mktemp("phantoms"), num_images=80, size=64, seed=11)


@pytest.fixture(scope="module")
def run(tmp_path_factory, phantoms):
    return train(
        load_recipe("kermany-densenet121", PHANTOM), phantoms, tmp_path_factory.mktemp("runs") / "run"
    )


def test_the_bundle_says_what_it_was_trained_on(run, phantoms):
    manifest = run.bundle.manifest
    table = Table.read(run.folder / "table.parquet")
    patients = {name: set(part["patient"]) for name, part in table.frame.groupby("split")}

    assert manifest.training.num_train + manifest.training.num_val + manifest.training.num_test == len(
        phantoms
    )
    assert not patients["train"] & patients["test"]
    assert not patients["train"] & patients["val"]
    assert manifest.seen.sources == ("phantom",)
    assert manifest.seen.ages is not None
    assert parse_recipe(manifest.recipe) == load_recipe(run.folder / "recipe.toml")


def test_no_path_of_this_machine_is_in_the_bundle(run, tmp_path_factory):
    place = str(tmp_path_factory.getbasetemp()).encode()
    for file in run.bundle.folder.rglob("*"):
        if file.is_file():
            assert place not in file.read_bytes(), f"{file.name} tells where it was made"


def test_cache_and_predict_see_the_same_pixels(phantoms):
    cached = cache.build(phantoms, size=48, fit="pad")

    for row in (0, 7, 42):
        prepared = images.prepare(phantoms.location(row), 48, "pad")
        np.testing.assert_array_equal(cached.images(np.array([row]))[0], prepared.pixels)


def test_the_test_split_is_read_once_by_one_evaluation(run):
    evaluate.evaluate(evaluate.subject(run.folder), replicates=100)

    lines = (run.folder / "test_reads.jsonl").read_text().splitlines()
    entry = json.loads(lines[-1])
    assert entry["bundle"] == run.bundle.hash
    assert entry["split"] == run.bundle.manifest.training.split_hash


def test_a_read_that_the_ledger_cannot_keep_is_said_and_counts(run, monkeypatch):
    before = evaluate.evaluate(evaluate.subject(run.folder), replicates=100).test_reads
    place = run.folder / "bundle" / "bundle.json" / "test_reads.jsonl"  # below a file
    monkeypatch.setattr(RunFolder, "ledger", place)

    result = evaluate.evaluate(evaluate.subject(run.folder), replicates=100)

    assert before > 0
    assert result.test_reads == 1
    said = [notice for notice in result.warnings if notice.code == "test-read-not-kept"]
    assert said[0].values == {"ledger": str(place), "reason": "not a directory"}


@pytest.mark.parametrize("method", ["folders", "official", "given"])
def test_a_source_without_parts_is_told_before_an_image_is_prepared(tmp_path, phantoms, monkeypatch, method):
    monkeypatch.setattr(cache, "build", lambda *_, **__: pytest.fail("images were prepared"))
    whole = phantoms.with_split([""] * len(phantoms))

    with pytest.raises(DataError, match=r"--set split\.method=patient divides them by patient"):
        train(load_recipe("kermany-densenet121", [*PHANTOM, f"split.method={method}"]), whole, tmp_path / "r")


def test_weights_that_cannot_be_fetched_are_told_before_an_image_is_prepared(tmp_path, phantoms, monkeypatch):
    def unreachable(*_, **options):
        if options.get("pretrained"):
            raise OSError("no route to host")

    monkeypatch.setattr(cache, "build", lambda *_, **__: pytest.fail("images were prepared"))
    monkeypatch.setattr(weights, "make_backbone", unreachable)
    monkeypatch.setattr(weights, "_reachable", lambda: False)
    weights.fetch.cache_clear()
    changes = ["split.method=patient", "task.findings=['Nodule']"]

    with pytest.raises(TrainingError, match="are not on this machine and could not be fetched"):
        train(load_recipe("kermany-densenet121", changes), phantoms, tmp_path / "run")


def test_validation_is_no_test_and_says_so(run):
    result = evaluate.evaluate(evaluate.subject(run.folder), split="val", replicates=100)

    assert result.test_reads == 0
    assert any("no test" in warning for warning in map(str, result.warnings))


def test_a_leaky_split_is_refused_unless_allowed_and_then_called_leaky(tmp_path, phantoms):
    settings = load_recipe("kermany-densenet121", [*PHANTOM, "split.method=image"])

    with pytest.raises(DataError, match=r"patients are in more than one part.*--without-leaks.*--allow-leak"):
        train(settings, phantoms, tmp_path / "run")
    assert not (tmp_path / "run").exists()

    run = train(settings, phantoms, tmp_path / "run", allow_leak=True)
    result = evaluate.evaluate(evaluate.subject(run.folder), replicates=100)
    assert "patients are in more than one part" in run.bundle.manifest.training.leaks[0]
    assert run.bundle.manifest.training.leaks[0] in (run.folder / "log.txt").read_text()
    assert result.leaky
    assert run.bundle.manifest.training.leaks[0] in result.warnings[0].text

    more = load_recipe("kermany-densenet121", [*PHANTOM, "split.method=image", "train.epochs=2"])
    resumed = train(more, phantoms, run.folder, resume=True)
    assert resumed.bundle.manifest.training.leaks == run.bundle.manifest.training.leaks
    (run.folder / "allowed_leaks.txt").write_text("something else leaked\n")
    with pytest.raises(DataError, match="more than one part"):
        train(more, phantoms, run.folder, resume=True)


@pytest.mark.parametrize(
    ("epochs_done", "stands"),
    [(0, "nothing is kept"), (1, "what was saved stands: --resume goes on")],
)
def test_a_disk_that_fills_up_tells_what_stands(tmp_path, phantoms, monkeypatch, epochs_done, stands):
    written = []

    def save(*arguments, **options):
        if len(written) == epochs_done:
            raise OSError(28, "No space left on device")
        written.append(save_file(*arguments, **options))

    monkeypatch.setattr(state_file, "save_file", save)
    settings = load_recipe("kermany-densenet121", [*PHANTOM, "train.epochs=2"])

    with pytest.raises(NoRoomError, match=f"No space left on device.*{stands}"):
        train(settings, phantoms, tmp_path / "run")

    monkeypatch.undo()
    resume = (tmp_path / "run").exists()
    assert resume == bool(epochs_done)
    assert len(train(settings, phantoms, tmp_path / "run", resume=resume).history) == 2


def test_a_disk_that_fills_up_while_sealing_is_told_too(tmp_path, phantoms, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(seal, "write_bundle", full)

    with pytest.raises(
        NoRoomError, match=r"run cannot be written: no space left on device; what was saved st"
    ):
        train(load_recipe("kermany-densenet121", PHANTOM), phantoms, tmp_path / "run")


@pytest.fixture
def copied(tmp_path):
    """Phantoms of which every fifth is a copy of the one before, under another name and patient."""
    table = phantom.generate(tmp_path / "p", num_images=60, size=64, seed=4)
    for row in range(1, 60, 5):
        table.location(row).path.write_bytes(table.location(row - 1).path.read_bytes())
    return table


def test_copies_under_two_patients_stay_in_one_part(tmp_path, copied):
    run = train(load_recipe("kermany-densenet121", PHANTOM), copied, tmp_path / "run")

    parts = Table.read(run.folder / "table.parquet").frame["split"].tolist()
    assert [parts[row] for row in range(1, 60, 5)] == [parts[row - 1] for row in range(1, 60, 5)]
    assert not run.bundle.manifest.training.leaky
    # The data themselves are divided again in the same way.
    subject = evaluate.subject(run.folder / "bundle", copied)
    assert evaluate.evaluate(subject, replicates=100).split == "test"
    assert "external" not in evaluate.evaluate(subject, replicates=100).split_description


def test_copies_that_a_given_split_divides_are_refused(tmp_path, copied):
    parts = np.where(np.arange(60) % 5 == 0, "test", "train").tolist()
    divided = copied.with_split(parts)
    divided = Table(
        divided.frame.assign(patient=[f"p{row}" for row in range(60)]), divided.findings, divided.sources
    )
    settings = load_recipe("kermany-densenet121", [*PHANTOM, "split.method=folders"])

    with pytest.raises(
        DataError, match=r"12 pictures are in more than one part \(first: .* in test is .* in train\)"
    ):
        train(settings, divided, tmp_path / "run")


def test_unreadable_images_are_quarantined_and_counted(tmp_path):
    table = phantom.generate(tmp_path / "p", num_images=60, size=64, seed=3)
    table.location(4).path.write_text("no picture")
    Image.new("L", (3, 3)).save(table.location(9).path)

    run = train(load_recipe("kermany-densenet121", PHANTOM), table, tmp_path / "run")

    lines = (run.folder / "quarantine.csv").read_text().splitlines()
    assert len(lines) == 3
    training = run.bundle.manifest.training
    assert training.num_train + training.num_val + training.num_test == 58


def test_multilabel_with_unknown_labels_trains(tmp_path, phantoms):
    frame = phantoms.frame.copy()
    frame.loc[frame.index[::3], "Nodule"] = np.nan
    table = Table(frame, phantoms.findings, phantoms.sources, phantoms.boxes)
    changes = [*SMALL, "task.kind=multilabel", "task.negatives=all-others", "split.method=patient"]
    settings = load_recipe("kermany-densenet121", [*changes, f"task.findings={list(phantoms.findings)}"])

    run = train(settings, table, tmp_path / "run")

    result = evaluate.evaluate(evaluate.subject(run.folder), replicates=100)
    assert set(result.metrics["findings"]) == set(phantoms.findings)
    assert np.isnan(result.labels).any()
    assert len({case.finding for case in result.cases}) > 1


def test_a_finding_without_positives_cannot_be_trained(tmp_path, phantoms):
    frame = phantoms.frame.assign(**{"Lung Opacity": 0.0})
    table = Table(frame, phantoms.findings, phantoms.sources)

    with pytest.raises(TrainingError, match="Lung Opacity has 0 positive"):
        train(load_recipe("kermany-densenet121", PHANTOM), table, tmp_path / "run")

    assert not (tmp_path / "run").exists()


def test_too_few_patients_are_refused(tmp_path, phantoms):
    few = phantoms.select(phantoms.frame["patient"].to_numpy() == phantoms.frame["patient"].iloc[0])

    with pytest.raises(DataError):
        train(load_recipe("kermany-densenet121", PHANTOM), few, tmp_path / "run")


def test_a_finding_that_the_table_lacks_is_refused(tmp_path, phantoms):
    settings = load_recipe("kermany-densenet121", [*PHANTOM, "task.findings=['Hernia']"])

    with pytest.raises(UsageError, match="Hernia"):
        train(settings, phantoms, tmp_path / "run")


@pytest.mark.real
def test_real_childrens_radiographs_train_to_more_than_chance(shared_data, tmp_path):
    table = readers.read(shared_data / "kermany_224")
    rows = np.arange(len(table))
    keep = (table.frame["split"].to_numpy() == "test") | (rows % 5 == 0)
    changes = [*SMALL, "data.size=64", "train.epochs=2", "train.learning_rate=1e-3"]

    run = train(load_recipe("kermany-densenet121", changes), table.select(keep), tmp_path / "run")

    result = evaluate.evaluate(evaluate.subject(run.folder), replicates=200)
    found = result.metrics["findings"]["Pneumonia"]["auroc"]
    assert len(result.images) == 624
    assert found["value"] > 0.85
    assert found["low"] < found["value"] < found["high"]
    model = Predictor.load(run.folder)
    assert model.bundle.manifest.training.split_method == "folders"
