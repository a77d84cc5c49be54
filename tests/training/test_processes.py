"""Two processes on one machine train as one does; each test starts real ones."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from hilum.data import phantom
from hilum.recipe import load_recipe
from hilum.training.train import train

SMALL = {
    "model.architecture": "custom_cnn",
    "model.weights": "none",
    "data.size": "32",
    "data.phantoms": "120",
    "task.kind": "binary",
    "task.findings": "['Lung Opacity']",
    "train.batch_size": "14",
    "train.precision": "fp32",
    "train.schedule": "constant",
    "train.deterministic": "true",
}


def command(folder, changes, *options):
    settings = [f"--set={key}={value}" for key, value in {**SMALL, **changes}.items()]
    return [sys.executable, "-m", "hilum", "train", "demo", "-o", str(folder), *settings, *options]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return {**os.environ, "HILUM_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


def run(environment, *arguments):
    return subprocess.run(
        command(*arguments), env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def frozen(tmp_path_factory, environment):
    """Recipe changes for a backbone whose batch norm is frozen: weights from a file."""
    folder = tmp_path_factory.mktemp("first") / "run"
    result = run(environment, folder, {"train.epochs": "1"})
    assert result.returncode == 0, result.stderr
    weights = folder / "bundle" / "weights" / "model.safetensors"
    return {"model.weights": str(weights), "model.freeze": "backbone", "model.hidden": "[16]"}


def weights(folder):
    return load_file(folder / "bundle" / "weights" / "model.safetensors")


def history(folder):
    return pd.read_csv(folder / "history.csv").drop(columns="seconds")


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path, environment, frozen):
    changes = {**frozen, "train.epochs": "2", "train.accumulate": "2"}
    alone = run(environment, tmp_path / "one", changes)
    together = run(environment, tmp_path / "two", changes, "--devices", "2")

    assert alone.returncode == together.returncode == 0, together.stderr
    pd.testing.assert_frame_equal(history(tmp_path / "two"), history(tmp_path / "one"), rtol=1e-4)
    expected = weights(tmp_path / "one")
    for key, value in weights(tmp_path / "two").items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-3, atol=1e-5, err_msg=key)
    assert together.stderr.count("Sealed") == 1, "only one process speaks"


@pytest.mark.full
def test_two_processes_go_on_where_layers_thaw(tmp_path, environment, frozen):
    changes = {**frozen, "train.epochs": "2", "train.unfreeze_after": "1", "train.unfreeze_share": "0.3"}
    result = run(environment, tmp_path / "two", changes, "--devices", "2")

    assert result.returncode == 0, result.stderr
    before, after = load_file(frozen["model.weights"]), weights(tmp_path / "two")
    moved = [key for key in after if key.startswith("backbone.") and not after[key].equal(before[key])]
    assert moved


@pytest.mark.slow
def test_sigterm_saves_at_the_batchs_end_and_resume_ends_as_if_it_had_not_come(tmp_path, environment):
    changes = {"train.epochs": "6", "model.dropout": "0.3", "model.hidden": "[8]"}
    whole = run(environment, tmp_path / "whole", changes)
    folder = tmp_path / "cut"
    process = subprocess.Popen(command(folder, changes), env=environment, stderr=subprocess.PIPE, text=True)
    wait_for(folder / "history.csv")
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)

    assert whole.returncode == 0, whole.stderr
    if process.returncode != 0:  # else it had finished before the signal came
        assert process.returncode == 143, told
        assert "the state is saved, go on with --resume" in told
        assert run(environment, folder, changes, "--resume").returncode == 0
    expected = weights(tmp_path / "whole")
    for key, value in weights(folder).items():
        assert value.equal(expected[key]), key


@pytest.mark.slow
def test_kill_at_any_moment_and_resume_ends_as_if_it_had_not_come(tmp_path, environment):
    changes = {"train.epochs": "4", "model.dropout": "0.3", "model.hidden": "[8]", "train.ema": "0.9"}
    started = time.monotonic()
    whole = run(environment, tmp_path / "whole", changes)
    seconds = time.monotonic() - started
    assert whole.returncode == 0, whole.stderr
    expected, rng = weights(tmp_path / "whole"), np.random.default_rng(0)
    folder = tmp_path / "cut"
    for _ in range(3):
        process = subprocess.Popen(
            command(folder, changes, *resumed(folder)), env=environment, stderr=subprocess.DEVNULL
        )
        time.sleep(seconds * rng.uniform(0.4, 0.95))
        process.kill()
        process.wait()

    assert run(environment, folder, changes, *resumed(folder)).returncode == 0

    for key, value in weights(folder).items():
        assert value.equal(expected[key]), key
    pd.testing.assert_frame_equal(history(folder), history(tmp_path / "whole"))


def resumed(folder):
    return ["--resume"] if (folder / "recipe.toml").exists() else []


def wait_for(path):
    for _ in range(1200):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not come")


def test_resuming_a_finished_run_keeps_its_bundle(tmp_path, monkeypatch):
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    chosen = load_recipe("demo", [f"{key}={value}" for key, value in SMALL.items()] + ["train.epochs=1"])
    table = phantom.generate(tmp_path / "phantoms", num_images=60, size=64, seed=3)
    first = train(chosen, table, tmp_path / "run")

    again = train(chosen, table, tmp_path / "run", resume=True)

    assert again.bundle.hash == first.bundle.hash


def test_a_loss_that_is_no_number_keeps_its_batch(tmp_path, monkeypatch):
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    changes = {**SMALL, "train.learning_rate": "1e30", "train.optimizer": "sgd", "train.weight_decay": "0"}
    chosen = load_recipe("demo", [f"{key}={value}" for key, value in changes.items()])
    table = phantom.generate(tmp_path / "phantoms", num_images=60, size=64, seed=3)

    with pytest.raises(Exception, match=r"lower train.learning_rate.*listed in") as told:
        train(chosen, table, tmp_path / "run")

    assert type(told.value).__name__ == "TrainingError"
    batch = pd.read_csv(tmp_path / "run" / "bad_batch.csv")
    assert set(batch["image"]) <= set(table.frame["image"])
    assert 0 < len(batch) <= 15


def test_the_last_epoch_is_sealed_too_where_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    changes = {**SMALL, "train.epochs": "2", "train.keep_final": "true"}
    chosen = load_recipe("demo", [f"{key}={value}" for key, value in changes.items()])
    table = phantom.generate(tmp_path / "phantoms", num_images=60, size=64, seed=3)

    run = train(chosen, table, tmp_path / "run")

    manifest = json.loads((tmp_path / "run" / "final" / "bundle.json").read_text())
    assert run.final is not None
    assert manifest["training"]["best_epoch"] == 2
