import contextlib
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from hilum.errors import MissingExtraError, TrainingError, UsageError
from hilum.recipe import load_recipe
from hilum.training import tracking

RECIPE = load_recipe("demo")
NAMES = ("train_loss", "val_loss", "val_auroc", "val_f1", "learning_rate", "seconds")


def row(epoch, **changes):
    return {"epoch": epoch, **dict.fromkeys(NAMES, epoch / 10), **changes}


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for variable in tracking.MLflow.environment:
        monkeypatch.setenv(variable, os.environ.get(variable, "1"))  # so that what a test sets goes again
        monkeypatch.delenv(variable)


@pytest.fixture
def run_folder(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def track(name, folder, rows):
    with tracking.open_trackers([name], folder, RECIPE) as trackers:
        for one in rows:
            trackers[0].log(one)


def write_history(folder, rows):
    lines = [",".join(["epoch", *NAMES])]
    lines += [
        ",".join(["" if one[name] != one[name] else str(one[name]) for name in ("epoch", *NAMES)])
        for one in rows
    ]
    (folder / "history.csv").write_text("\n".join(lines) + "\n")


def events(folder):
    """What TensorBoard itself reads: name -> [(epoch, value)], and the names of what else there is."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / "tensorboard"))
    read.Reload()
    tags = read.Tags()
    scalars = {name: [(event.step, event.value) for event in read.Scalars(name)] for name in tags["scalars"]}
    return scalars, set(tags["tensors"])


def mlflow_runs(folder, experiment=RECIPE.name):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return client, found


class Failing:
    """A tracker that fails from its second epoch on, as if its server had gone."""

    modules = ()
    environment: ClassVar = {}
    closed: ClassVar = []

    def __init__(self, folder, recipe, earlier):
        self.rows = []

    def log(self, row):
        if row["epoch"] > 1:
            raise ConnectionError("no answer from https://me:secret@tracking.example/api\nsecond line")

    def close(self, status):
        Failing.closed.append(status)


@pytest.mark.parametrize("name", tracking.TRACKERS)
def test_a_package_that_is_missing_names_the_extra(name, run_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, tracking.TRACKERS[name].modules[0], None)

    with (
        pytest.raises(MissingExtraError, match=r"\.\[track\]"),
        tracking.open_trackers([name], run_folder, RECIPE),
    ):
        pass


def test_an_unknown_name_lists_the_known_ones_nearest_first():
    with pytest.raises(UsageError, match=r"'tensorbord'.*tensorboard \(did you mean it\?\), mlflow"):
        tracking.check(["tensorbord"])


def test_tensorboard_reads_what_was_logged(run_folder):
    track("tensorboard", run_folder, [row(1), row(2, val_auroc=float("nan"))])

    scalars, others = events(run_folder)
    assert set(scalars) == set(NAMES)
    assert scalars["val_loss"] == [(1, pytest.approx(0.1)), (2, pytest.approx(0.2))]
    assert scalars["val_auroc"] == [(1, pytest.approx(0.1)), (2, pytest.approx(float("nan"), nan_ok=True))]
    assert others == {"recipe", "_hparams_/session_start_info"}


def test_tensorboard_keeps_an_epoch_once_that_is_trained_again(run_folder):
    track("tensorboard", run_folder, [row(1), row(2), row(3, val_loss=9)])
    write_history(run_folder, [row(1), row(2)])

    track("tensorboard", run_folder, [row(3), row(4)])

    scalars, _ = events(run_folder)
    assert [epoch for epoch, _ in scalars["val_loss"]] == [1, 2, 3, 4]
    assert scalars["val_loss"][2][1] == pytest.approx(0.3)


def test_tensorboard_asked_for_at_a_resume_gets_the_earlier_epochs(run_folder):
    write_history(run_folder, [row(1), row(2, val_auroc=float("nan")), row(3)])

    track("tensorboard", run_folder, [row(3), row(4)])

    scalars, _ = events(run_folder)
    assert [epoch for epoch, _ in scalars["val_auroc"]] == [1, 2, 3, 4]


def test_tensorboard_loads_no_framework_even_where_there_is_one(run_folder, tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise AssertionError('TensorFlow was loaded')")
    code = (
        "import pathlib, sys; from hilum.recipe import load_recipe; from hilum.training import tracking\n"
        f"folder = pathlib.Path({str(run_folder)!r})\n"
        "with tracking.open_trackers(['tensorboard'], folder, load_recipe('demo')) as found:\n"
        f"    found[0].log({row(1)!r})\n"
        "assert 'tensorflow' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})

    assert events(run_folder)[0]["val_auroc"] == [(1, pytest.approx(0.1))]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A run of two epochs in an MLflow store, made once: making the store takes seconds."""
    folder = tmp_path_factory.mktemp("tracked") / "run"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for variable, value in tracking.MLflow.environment.items():
            patch.setenv(variable, value)
        track("mlflow", folder, [row(1), row(2, val_auroc=float("nan"))])
    return folder


def test_mlflow_keeps_a_run_and_goes_on_in_it(tracked, tmp_path):
    folder = shutil.copytree(tracked, tmp_path / "run")
    write_history(folder, [row(1), row(2), row(3)])  # the third was not sent: the server was away

    track("mlflow", folder, [row(3), row(4)])

    client, runs = mlflow_runs(folder)
    assert len(runs) == 1
    assert (runs[0].info.run_name, runs[0].info.status) == ("run", "FINISHED")
    assert runs[0].data.params["model.architecture"] == RECIPE.model.architecture
    assert set(runs[0].data.params) == set(RECIPE.flat())
    for name in NAMES:
        history = client.get_metric_history(runs[0].info.run_id, name)
        assert [metric.step for metric in history] == [1, 2, 3, 4], name
    assert runs[0].data.metrics["val_loss"] == pytest.approx(0.4)


def test_mlflow_begins_anew_where_the_server_does_not_know_the_run(tracked, tmp_path):
    folder = shutil.copytree(tracked, tmp_path / "run")
    (folder / "state" / "mlflow-run").write_text("0" * 32)
    write_history(folder, [row(1)])

    with (
        contextlib.suppress(KeyboardInterrupt),
        tracking.open_trackers(["mlflow"], folder, RECIPE) as trackers,
    ):
        trackers[0].log(row(2))
        raise KeyboardInterrupt

    client, runs = mlflow_runs(folder)
    assert sorted(run.info.status for run in runs) == ["FINISHED", "KILLED"]
    new = next(run.info.run_id for run in runs if run.info.status == "KILLED")
    assert (folder / "state" / "mlflow-run").read_text() == new
    assert [metric.step for metric in client.get_metric_history(new, "val_loss")] == [1, 2]


def test_a_server_that_cannot_be_reached_is_told_before_training(run_folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    with (
        pytest.raises(TrainingError, match="mlflow cannot begin to track the run") as told,
        tracking.open_trackers(["mlflow"], run_folder, RECIPE),
    ):
        pass

    assert "secret" not in str(told.value)
    assert "\n" not in str(told.value)


class Kept(logging.Handler):
    """Keeps what a logger is told, wherever it would go from there."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def told():
    kept = Kept()
    tracking.log.addHandler(kept)
    yield kept.records
    tracking.log.removeHandler(kept)


def test_a_tracker_that_fails_ends_with_one_warning_and_training_goes_on(run_folder, monkeypatch, told):
    monkeypatch.setattr(tracking, "TRACKERS", {"failing": Failing, "tensorboard": tracking.TensorBoard})

    with tracking.open_trackers(["failing", "tensorboard"], run_folder, RECIPE) as trackers:
        for epoch in (1, 2, 3):
            for tracker in trackers:
                tracker.log(row(epoch))

    warnings = [record.getMessage() for record in told if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "failing takes no more figures (ConnectionError: no answer" in warnings[0]
    assert "secret" not in warnings[0]
    assert [epoch for epoch, _ in events(run_folder)[0]["val_loss"]] == [1, 2, 3]
    assert Failing.closed == ["FINISHED"]


def test_a_full_disk_ends_the_tracking_alone(run_folder, told):
    with tracking.open_trackers(["tensorboard"], run_folder, RECIPE) as trackers:
        trackers[0].log(row(1))
        trackers[0]._tracker._writer.close()
        trackers[0]._tracker._writer._writer = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115
        trackers[0].log(row(2))
        trackers[0].log(row(3))

    assert [record.levelname for record in told] == ["WARNING"]
    assert "No space left" in told[0].getMessage()
