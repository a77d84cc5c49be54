"""A study in one process; those that are killed are in test_tune_workers.py."""

import sys

import numpy as np
import optuna
import pandas as pd
import pytest

from hilum import __main__
from hilum.data import phantom
from hilum.data.table import Table
from hilum.errors import MissingExtraError, RecipeError, TrainingError, UsageError
from hilum.recipe import load_recipe
from hilum.training.train import train
from hilum.tuning import trials
from hilum.tuning.study import dimensions
from hilum.tuning.trials import Plan, Trials
from hilum.tuning.tune import TuneOptions, tune

SMALL = [
    "model.architecture=custom_cnn",
    "model.weights=none",
    "model.freeze=none",
    "model.hidden=[8]",
    "data.size=32",
    "train.epochs=2",
    "train.precision=fp32",
    "task.findings=['Lung Opacity']",
    "task.negatives=all-others",
    "split.method=folders",
    "split.val=0.3",
]
BASE = load_recipe("kermany-densenet121", SMALL)
GRID = {"train.learning_rate": [1e-3, 1e-2], "train.batch_size": [8, 16]}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    found = phantom.generate(tmp_path_factory.mktemp("phantoms"), num_images=80, size=64, seed=11)
    patients = {name: place for place, name in enumerate(sorted(set(found.frame["patient"])))}
    parts = ["test" if patients[name] % 4 == 0 else "train" for name in found.frame["patient"]]
    return found.with_split(parts)


@pytest.fixture(scope="module")
def study(tmp_path_factory, table):
    return tune(BASE, table, tmp_path_factory.mktemp("grid") / "study", vary=GRID, search="grid")


def test_a_grid_is_evaluated_whole_in_its_order(study):
    assert study.trials["state"].tolist() == ["complete"] * 4
    points = list(zip(study.trials["train.learning_rate"], study.trials["train.batch_size"], strict=True))
    assert points == [(1e-3, 8), (1e-3, 16), (1e-2, 8), (1e-2, 16)]
    assert study.begun_again == 0
    assert not study.interrupted
    for number, curve in study.curves.items():
        row = study.trials.set_index("trial").loc[number]
        assert len(curve) == row["epochs"] == 2
        assert row["value"] == row["val_loss"] == min(curve)
        assert curve[row["best_epoch"] - 1] == row["value"]


def test_its_folder_holds_the_best_recipe_the_trials_the_page_and_the_plots(study):
    found = {path.relative_to(study.folder).as_posix() for path in study.folder.rglob("*") if path.is_file()}

    assert {"best.toml", "trials.csv", "tune.html", "study.db", "study.json", "plots/history.png"} <= found
    assert not (study.folder / "state").exists()
    assert load_recipe(study.folder / "best.toml") == study.best
    stored = pd.read_csv(study.folder / "trials.csv")
    np.testing.assert_array_equal(stored["value"], study.trials["value"])


def test_training_the_best_recipe_gives_the_figure_of_its_trial(tmp_path, study, table):
    run = train(load_recipe(study.folder / "best.toml"), table, tmp_path / "run")

    best = study.ranked.iloc[0]
    assert run.best_epoch == best["best_epoch"]
    assert run.history["val_loss"].min() == pytest.approx(best["value"], rel=1e-5)


def test_the_test_part_is_never_read(tmp_path, study, table):
    test = table.frame["split"].to_numpy() == "test"
    garbage = table.frame.copy()
    garbage.loc[test, "Lung Opacity"] = 1 - garbage.loc[test, "Lung Opacity"]
    assert not garbage.equals(table.frame)

    other = tune(
        BASE, Table(garbage, table.findings, table.sources), tmp_path / "study", vary=GRID, search="grid"
    )

    pd.testing.assert_frame_equal(
        other.trials.drop(columns="seconds"), study.trials.drop(columns="seconds"), rtol=1e-5
    )
    assert (other.folder / "study.json").read_text() == (study.folder / "study.json").read_text()


def test_the_same_call_trains_nothing_anew_and_another_is_refused(study, table):
    again = tune(BASE, table, study.folder, vary=GRID, search="grid")
    pd.testing.assert_frame_equal(again.trials, study.trials)

    with pytest.raises(RecipeError, match=r"begun with --vary train.batch_size = 8, 16, not 8, 32"):
        tune(BASE, table, study.folder, vary={**GRID, "train.batch_size": [8, 32]}, search="grid")
    with pytest.raises(RecipeError, match=r"begun with train.epochs = 2, not 3"):
        tune(load_recipe("kermany-densenet121", [*SMALL, "train.epochs=3"]), table, study.folder, vary=GRID)
    fewer = table.select(np.arange(len(table)) > 8)
    with pytest.raises(RecipeError, match="begun with training and validation images"):
        tune(BASE, fewer, study.folder, vary=GRID)


def test_a_trial_that_fails_says_why_and_the_study_goes_on(tmp_path, table):
    vary = {"train.learning_rate": [1e-3, 1e30], "train.optimizer": ["sgd"]}

    found = tune(BASE, table, tmp_path / "study", vary=vary, search="grid")

    assert found.trials["state"].tolist() == ["complete", "failed"]
    assert "the loss became" in found.trials["reason"][1]
    assert "the loss became" in (tmp_path / "study" / "tune.html").read_text()
    with pytest.raises(TrainingError, match="none of 1 trials is complete; the first: the loss became"):
        tune(BASE, table, tmp_path / "b", vary={**vary, "train.learning_rate": [1e30]}, search="grid")


def test_tpe_is_seeded_stays_in_its_ranges_and_can_be_prolonged(tmp_path, table):
    vary = {"train.learning_rate": (1e-4, 1e-2), "model.hidden": [[4], [8, 4]], "train.epochs": (1, 2)}

    first = tune(BASE, table, tmp_path / "a", vary=vary, search="tpe", options=TuneOptions(trials=2))
    longer = tune(BASE, table, tmp_path / "a", vary=vary, search="tpe", options=TuneOptions(trials=3))
    other = tune(BASE, table, tmp_path / "b", vary=vary, search="tpe", options=TuneOptions(trials=3))

    assert len(first.trials) == 2
    assert longer.planned == len(longer.trials) == 3
    keys = list(vary)
    pd.testing.assert_frame_equal(longer.trials[keys], other.trials[keys])
    assert longer.trials["train.learning_rate"].between(1e-4, 1e-2).all()
    assert longer.trials["train.learning_rate"].nunique() == 3, "each trial draws its own"
    assert longer.trials["train.epochs"].isin([1, 2]).all()
    assert all(hidden in ([4], [8, 4]) for hidden in longer.trials["model.hidden"])


class Impatient:
    """Presses Ctrl-C in the n-th trial that begins and keeps the lines."""

    def __init__(self, trial):
        self.trial, self.begun, self.lines = trial, 0, []

    def stage(self, title, total=None):
        self.begun += title.startswith("Trial ")

    def advance(self, done, total=None, note=""):
        if self.begun == self.trial:
            raise KeyboardInterrupt

    def finish(self, line=""):
        self.lines.append(line)


def test_interrupted_within_a_trial_it_is_given_back_and_the_search_goes_on(tmp_path, table):
    first, second, last = Impatient(1), Impatient(2), Impatient(9)

    with pytest.raises(KeyboardInterrupt):
        tune(BASE, table, tmp_path / "study", vary=GRID, watch=first)
    stopped = tune(BASE, table, tmp_path / "study", vary=GRID, watch=second)
    page = (stopped.folder / "tune.html").read_text()
    whole = tune(BASE, table, tmp_path / "study", vary=GRID, watch=last)

    assert "interrupted before a trial was complete; the same command goes on" in first.lines
    assert "4 trials on 1 worker" in second.lines
    assert stopped.interrupted
    assert len(stopped.trials) == 1
    assert "The search was interrupted: 1 of 4 trials" in page
    assert "4 trials on 1 worker; 1 done already" in last.lines
    assert whole.trials["state"].tolist() == ["complete"] * 4
    assert whole.begun_again == 0


def test_a_folder_of_something_else_is_refused(tmp_path, table):
    (tmp_path / "thesis.txt").touch()

    with pytest.raises(UsageError, match="holds something else"):
        tune(BASE, table, tmp_path, vary=GRID)
    with pytest.raises(UsageError, match="is a file"):
        tune(BASE, table, tmp_path / "thesis.txt", vary=GRID)


def test_without_optuna_the_extra_is_named(tmp_path, table, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)

    with pytest.raises(MissingExtraError, match=r"pip install '\.\[tune\]' in"):
        tune(BASE, table, tmp_path / "study", vary=GRID)


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("nonsense", "is no address of a database"),
        ("sqlite:////no/such/folder/x.db", "cannot be opened"),
        ("nodatabase://me:secret@host/name", "driver"),
    ],
)
def test_a_storage_that_cannot_be_had_is_told_without_its_password(
    tmp_path, table, storage, words, monkeypatch
):
    monkeypatch.setattr(trials.time, "sleep", lambda seconds: None)

    with pytest.raises((UsageError, TrainingError), match=words) as caught:
        tune(BASE, table, tmp_path / "study", vary=GRID, options=TuneOptions(storage=storage))

    assert "secret" not in str(caught.value)


def plan(tmp_path, **changes):
    settings = {
        "url": f"sqlite:///{tmp_path / 'study.db'}",
        "name": "study",
        "minimise": True,
        "dimensions": dimensions(BASE, GRID, search="grid"),
        "search": "grid",
        "trials": 4,
        "seed": 0,
        "prune": False,
        "warm_up": 1,
    }
    return Plan(**{**settings, **changes})


def test_two_queues_never_take_the_same_trial(tmp_path):
    one, two = Trials(plan(tmp_path)), Trials(plan(tmp_path))
    one.plan({"a": 1})
    two.plan({"a": 1})

    taken = [queue.take() for queue in (one, two, one, two, one)]

    assert [each.number for each in taken[:4]] == [1, 2, 3, 4]
    assert taken[4] is None
    assert (one.waiting, one.running) == (0, 4)
    assert two.definition == {"a": 1}


def test_a_trial_of_a_silent_worker_elsewhere_is_begun_again_and_its_late_result_is_dropped(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(trials, "BEAT", 1)
    monkeypatch.setattr(trials, "GRACE", 1)
    monkeypatch.setattr(trials, "worker_name", lambda process: f"elsewhere:{process}")
    there = Trials(plan(tmp_path))
    there.plan({})
    lost = there.take()
    with there.beating(lost):
        pass
    monkeypatch.undo()
    monkeypatch.setattr(trials, "GRACE", 1)
    here = Trials(plan(tmp_path))
    assert here.running == 1
    trials.time.sleep(2.5)

    here.requeue_dead()
    numbers = [here.take().number for _ in range(4)]
    lost.complete(0.5, {"value": 0.5})

    assert sorted(numbers) == [1, 2, 3, 4]
    assert here.begun_again == 1
    assert here.outcomes() == []


def test_a_trial_that_costs_three_workers_has_failed(tmp_path, monkeypatch):
    queue = Trials(
        plan(tmp_path, trials=1, dimensions=dimensions(BASE, {"train.batch_size": [8]}, search="grid"))
    )
    queue.plan({})
    monkeypatch.setattr(queue, "_me", trials.worker_name(2**22 + 1))  # no process has this number

    for _ in range(3):
        assert not queue.outcomes()
        assert queue.take().number == 1
        queue.requeue_dead()

    (outcome,) = queue.outcomes()
    assert (outcome.state, queue.waiting, queue.running, queue.begun_again) == ("failed", 0, 0, 2)
    assert "its worker died 3 times" in outcome.reason


def test_trials_that_do_worse_than_half_are_ended_early(tmp_path):
    queue = Trials(plan(tmp_path, prune=True, search="tpe", trials=7))
    queue.plan({})
    for _ in range(6):
        good = queue.take()
        assert not any(good.tell(epoch, 0.5) for epoch in (1, 2, 3))
        good.complete(0.5, {"value": 0.5})

    bad = queue.take()

    assert not bad.tell(1, 0.9), "the first epochs are a warm-up"
    assert bad.tell(2, 0.9)
    bad.prune({"value": 0.9})
    assert [outcome.state for outcome in queue.outcomes()] == ["complete"] * 6 + ["pruned"]
    assert optuna.logging.get_verbosity() == optuna.logging.INFO, "a user's own setting is left as it was"


def hilum(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["hilum", "tune", *map(str, arguments)])
    status = 0
    try:
        __main__.main()
    except SystemExit as exit_:
        status = exit_.code or 0
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_command_says_where_the_page_lies_and_what_comes_next(tmp_path, table, capsys, monkeypatch):
    table.write(tmp_path / "table.parquet")
    options = [f"--set={change}" for change in SMALL]
    folder = tmp_path / "study"
    status, out, error = hilum(
        capsys,
        monkeypatch,
        "kermany-densenet121",
        "--data",
        tmp_path / "table.parquet",
        *options,
        "--vary=train.batch_size=8,16",
        "-o",
        folder,
    )

    assert status == 0, error
    assert out.splitlines()[-1] == f"page: {folder / 'tune.html'}"
    assert "Trial 2/2  batch_size 16: val loss" in error
    assert "Research use only" in error
    assert f"next: hilum train {folder / 'best.toml'} --data" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--vary", "train.learning_rat=1,2"], "did you mean train.learning_rate?"),
        (["demo", "--vary", "model.dropout=0.1..0.5"], "use --search tpe"),
        (["demo", "--vary", "model.dropout=0.1,0.5", "--trials", "3"], "--trials goes with --search tpe"),
        (["kermany-vgg16", "--vary", "model.dropout=0.1,0.5"], "needs --data"),
    ],
)
def test_the_command_refuses_in_a_line(capsys, monkeypatch, arguments, words):
    status, _, error = hilum(capsys, monkeypatch, *arguments)

    assert status == 2
    assert error.startswith("error: ")
    assert words in error
    assert len(error.splitlines()) <= 2
