"""A study outlives its processes; each test starts real ones and kills some."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

SMALL = {
    "model.hidden": "[8]",
    "data.size": "32",
    "data.phantoms": "80",
    "train.epochs": "1",
    "train.precision": "fp32",
}
GRID = ["--vary", "train.learning_rate=1e-3,1e-2,2e-2", "--vary", "train.batch_size=8,16"]
SLOW_TRIALS = ["--set", "train.epochs=12"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return {**os.environ, "HILUM_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def start(environment, tmp_path):
    """Starts `hilum tune` of a grid of six on phantoms; whatever is left of it is killed in the end."""
    started = []

    def run(*options):
        settings = [f"--set={key}={value}" for key, value in SMALL.items()]
        command = [sys.executable, "-m", "hilum", "tune", "demo", "-o", str(tmp_path / "study")]
        process = subprocess.Popen(
            [*command, *settings, *GRID, *options],
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


def rows(study, query):
    """What the storage says; nothing while there is none."""
    if not (study / "study.db").exists():
        return []
    try:
        with closing(sqlite3.connect(study / "study.db", timeout=60)) as connection:
            return connection.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []


def workers_at_work(study, number):
    """The processes that run trials, once there are so many."""
    query = (
        "select value_json from trial_user_attributes join trials using (trial_id) "
        "where key = 'worker' and state = 'RUNNING'"
    )
    for _ in range(3000):
        found = [int(json.loads(value).rpartition(":")[2]) for (value,) in rows(study, query)]
        if len(found) >= number:
            return found[:number]
        time.sleep(0.1)
    raise AssertionError(f"{number} workers never worked at once")


def is_gone(process):
    """Whether a process that is not ours has ended; one that nobody has waited for counts as ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def check_whole(study, again):
    """Every point of the grid was evaluated once to its end, and nothing is left under way."""
    trials = pd.read_csv(study / "trials.csv")
    assert trials["state"].tolist() == ["complete"] * 6
    assert trials["trial"].tolist() == [1, 2, 3, 4, 5, 6]
    assert len(trials[["train.learning_rate", "train.batch_size"]].drop_duplicates()) == 6
    states = dict(rows(study, "select state, count(*) from trials group by state"))
    assert states == {"COMPLETE": 6, **({"FAIL": again} if again else {})}
    assert not (study / "state").exists()


@pytest.mark.slow
def test_two_of_four_workers_are_killed_and_every_point_is_evaluated_once(start, tmp_path):
    process = start("--workers", "4", *SLOW_TRIALS)

    for worker in workers_at_work(tmp_path / "study", 2):
        os.kill(worker, signal.SIGKILL)
    _, error = process.communicate(timeout=400)

    assert process.returncode == 0, error
    check_whole(tmp_path / "study", again=2)
    assert "6 of 6 trials done, 2 begun again after a worker died" in error
    assert "2 begun again after a worker died" in (tmp_path / "study" / "tune.html").read_text()


@pytest.mark.full
def test_a_killed_parent_takes_its_workers_along_and_the_same_command_goes_on(start, tmp_path):
    first = start("--workers", "2", *SLOW_TRIALS)
    workers = workers_at_work(tmp_path / "study", 2)
    first.kill()
    first.wait()
    deadline = time.monotonic() + 20
    while not all(map(is_gone, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert all(map(is_gone, workers)), "workers outlive the process that started them"

    second = start(*SLOW_TRIALS)
    _, error = second.communicate(timeout=400)

    assert second.returncode == 0, error
    assert "going on: " in error
    check_whole(tmp_path / "study", again=2)


@pytest.mark.full
def test_ctrl_c_keeps_what_is_there_and_the_same_command_goes_on(start, tmp_path):
    first = start("--workers", "2", *SLOW_TRIALS)
    study = tmp_path / "study"
    for _ in range(3000):
        if rows(study, "select 1 from trials where state = 'COMPLETE'"):
            break
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    _, error = first.communicate(timeout=100)

    assert first.returncode == 130, error
    assert "Traceback" not in error
    assert "interrupted; the same command goes on" in error
    assert not rows(study, "select 1 from trials where state = 'RUNNING'")
    assert "The search was interrupted" in (study / "tune.html").read_text()

    second = start(*SLOW_TRIALS)
    _, error = second.communicate(timeout=400)
    assert second.returncode == 0, error
    assert pd.read_csv(study / "trials.csv")["state"].tolist() == ["complete"] * 6
    assert "begun again" not in error, "what was given back on purpose was not lost to a dead worker"
