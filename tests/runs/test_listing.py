import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from hilum.errors import UsageError
from hilum.recipe import load_recipe
from hilum.runs.listing import SORTS, RunSummary, find_runs, recipe_differences, sort_runs

OLD = "epoch,train_loss,val_loss,val_auroc,learning_rate,seconds\n"
NEW = (
    "epoch,train_loss,val_loss,val_auroc,val_average_precision,val_accuracy,val_precision,val_recall,val_f1,"
    "learning_rate,seconds\n"
)


def write_run(
    folder, *changes, history=OLD + "1,0.9,0.8,0.7,0.001,10\n2,0.5,0.6,0.8,0.001,20\n3,0.4,0.7,0.9,0.001,30\n"
):
    """Writes a run that is not sealed: a recipe and a history."""
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(load_recipe("kermany-densenet121", changes).to_toml())
    if history:
        (folder / "history.csv").write_text(history)
    return folder


def seal(run, best_epoch=2):
    """Puts a bundle into a run, of which only what is read for a summary is there."""
    bundle = run / "bundle"
    bundle.mkdir()
    manifest = json.dumps(
        {"format": 2, "training": {"engine": "torch", "best_epoch": best_epoch, "seconds": 5}}
    )
    (bundle / "bundle.json").write_text(manifest)
    (bundle / "model.onnx").write_bytes(b"graph")
    lines = [
        f"{hashlib.sha256((bundle / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("bundle.json", "model.onnx")
    ]
    (bundle / "SHA256SUMS").write_text("".join(lines))
    return hashlib.sha256((bundle / "SHA256SUMS").read_bytes()).hexdigest()


def score(run, digest, **changes):
    """Writes what an evaluation leaves."""
    auroc = {"value": 0.9, "low": 0.85, "high": 0.95, "method": "bootstrap"}
    found = {"bundle": digest, "split": "test", "internal": True, "macro": {"auroc": auroc}, **changes}
    (run / "evaluation").mkdir(exist_ok=True)
    (run / "evaluation" / "metrics.json").write_text(json.dumps(found))


def one(folder):
    (summary,) = find_runs(folder)
    return summary


def test_a_sealed_run_is_told(tmp_path):
    run = write_run(tmp_path / "a")
    score(run, seal(run))

    summary = one(tmp_path)

    assert (summary.name, summary.state, summary.problems) == ("a", "sealed", ())
    assert (summary.engine, summary.epochs, summary.best_epoch) == ("torch", 3, 2)
    assert (summary.monitor, summary.monitored, summary.val_auroc) == ("val_loss", 0.6, 0.8)
    assert summary.test_auroc == {"value": 0.9, "low": 0.85, "high": 0.95}
    assert summary.seconds == 60
    json.dumps(summary.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("monitor", "history", "best", "value"),
    [
        ("val_loss", OLD + "1,1,0.6,0.7,1,1\n2,1,0.5,0.8,1,1\n3,1,0.5,0.9,1,1\n", 2, 0.5),
        ("val_auroc", OLD + "1,1,0.6,0.7,1,1\n2,1,0.5,,1,1\n3,1,0.5,nan,1,1\n", 1, 0.7),
        ("val_f1", NEW + "1,1,1,1,1,1,1,1,0.2,1,1\n2,1,1,1,1,1,1,1,0.3,1,1\n", 2, 0.3),
        ("val_f1", OLD + "1,1,0.6,0.7,1,1\n", None, None),
        ("val_loss", "", None, None),
    ],
    ids=["ties", "not a number", "new columns", "old columns", "before the first epoch"],
)
def test_the_best_epoch_of_an_unfinished_run_is_the_policys(tmp_path, monitor, history, best, value):
    write_run(tmp_path / "a", f"train.monitor={monitor}", history=history)

    summary = one(tmp_path)

    assert (summary.state, summary.engine) == ("unfinished", "")
    assert (summary.best_epoch, summary.monitored) == (best, value)


def test_an_epoch_whose_seconds_are_unknown_makes_their_sum_unknown(tmp_path):
    write_run(tmp_path / "a", history=OLD + "1,1,1,1,1,5\n2,1,1,1,1,\n")

    assert one(tmp_path).seconds is None


@pytest.mark.parametrize(
    "changes",
    [{"bundle": "0" * 64}, {"split": "val"}, {"internal": False}],
    ids=["another bundle", "val", "external"],
)
def test_only_the_test_of_this_bundle_counts_as_its_test(tmp_path, changes):
    run = write_run(tmp_path / "a")
    score(run, seal(run), **changes)

    assert one(tmp_path).test_auroc is None
    assert one(tmp_path).state == "sealed"


def test_an_auroc_that_cannot_be_estimated_is_none(tmp_path):
    run = write_run(tmp_path / "a")
    score(
        run, seal(run), macro={"auroc": {"value": None, "low": None, "high": None, "reason": "no positives"}}
    )

    assert one(tmp_path).test_auroc is None


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("history.csv", b"epoch,val_loss\n1,much\n", "history.csv: it is no table of numbers"),
        ("history.csv", b"\x00\xff\xfe", "history.csv"),
        ("history.csv", b"a,b\n1,2\n", "history.csv: it has no column epoch"),
        ("history.csv", b"epoch,a\n1,2,3\n", "history.csv: it is no table of numbers"),
        ("bundle/bundle.json", b"[]", "bundle/bundle.json: it is no manifest"),
        ("bundle/bundle.json", b"{", "bundle/bundle.json: it is no manifest"),
        ("bundle/SHA256SUMS", None, "bundle: it lacks SHA256SUMS"),
        ("bundle/SHA256SUMS", b"\xff", "bundle"),
        ("bundle/model.onnx", None, "bundle: it lacks model.onnx"),
        ("evaluation/metrics.json", b"[1]", "evaluation/metrics.json: it is no metrics.json of Hilum"),
    ],
)
def test_a_damaged_run_is_a_line_and_not_an_error(tmp_path, file, content, words):
    run = write_run(tmp_path / "bad")
    score(run, seal(run))
    write_run(tmp_path / "good")
    if content is None:
        (run / file).unlink()
    else:
        (run / file).write_bytes(content)

    bad, good = find_runs(tmp_path)

    assert (bad.name, bad.state, good.state) == ("bad", "damaged", "unfinished")
    assert words in " ".join(bad.problems)
    assert "\n" not in "".join(bad.problems)
    json.dumps(bad.to_dict(), allow_nan=False)
    for key in SORTS:
        assert len(sort_runs([bad, good], key)) == 2
    recipe_differences([bad, good])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\x00", "recipe.toml"),
        (b"name = 'a'\n[task]\nfindings = ['Edema']\nnonsense = 1\n", "unknown key 'task.nonsense'"),
    ],
    ids=["no text", "of another version"],
)
def test_a_recipe_that_is_refused_damages_only_a_run_that_is_not_sealed(tmp_path, content, words):
    seal(write_run(tmp_path / "sealed"))
    write_run(tmp_path / "unsealed")
    for name in ("sealed", "unsealed"):
        (tmp_path / name / "recipe.toml").write_bytes(content)

    found = find_runs(tmp_path)

    assert [run.state for run in found] == ["sealed", "damaged"]
    assert all(words in " ".join(run.problems) and run.recipe is None for run in found)
    assert (found[0].epochs, found[0].best_epoch, found[0].val_auroc) == (3, 2, 0.8)


def test_runs_are_found_below_but_not_in_bundles_and_hidden_folders(tmp_path):
    for name in ("b/c", "a", ".hidden/d", "a/bundle/e"):
        write_run(tmp_path / name)
    (tmp_path / "a" / "bundle" / "SHA256SUMS").write_text("")
    (tmp_path / "empty").mkdir()

    assert [run.name for run in find_runs(tmp_path)] == ["a", "b/c"]


def test_a_run_itself_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(write_run(tmp_path / "mine"))

    assert [run.name for run in find_runs(tmp_path / "mine")] == ["mine"]
    assert [run.name for run in find_runs(Path())] == ["mine"]


def test_a_folder_without_runs_has_none_and_a_missing_one_is_told(tmp_path):
    assert find_runs(tmp_path) == []
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError, match="nowhere does not exist; give a folder with runs"):
        find_runs(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is a file; give a folder"):
        find_runs(tmp_path / "file")


def test_the_keys_in_which_recipes_differ_are_told_with_each_runs_value(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", "train.learning_rate=0.01", "model.hidden=[8, 4]", "description='other'")
    (write_run(tmp_path / "c") / "recipe.toml").write_text("nonsense")

    found = recipe_differences(find_runs(tmp_path))

    assert list(found) == ["model.hidden", "train.learning_rate"]
    assert found["train.learning_rate"] == {"a": 0.0001, "b": 0.01}
    assert found["model.hidden"]["b"] == [8, 4]


def test_runs_of_one_recipe_do_not_differ(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b")

    assert recipe_differences(find_runs(tmp_path)) == {}


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("run", ["a", "b", "c"]),
        ("epochs", ["a", "b", "c"]),
        ("monitored", ["b", "a", "c"]),  # by loss: the lowest first
        ("val_auroc", ["b", "a", "c"]),
        ("test_auroc", ["a", "b", "c"]),
        ("seconds", ["b", "a", "c"]),
    ],
)
def test_scores_are_sorted_best_first_and_the_unknown_last(tmp_path, key, names):
    a = RunSummary(
        tmp_path, "a", "sealed", recipe=load_recipe("kermany-densenet121"), monitored=0.5, val_auroc=0.6
    )
    a = replace(a, seconds=9.0, test_auroc={"value": 0.9, "low": None, "high": None})
    b = replace(a, name="b", monitored=0.4, val_auroc=0.7, seconds=3.0, test_auroc=None)
    c = RunSummary(tmp_path, "c", "damaged")

    assert [run.name for run in sort_runs([c, b, a], key)] == names


def test_an_unknown_key_to_sort_by_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"--sort 'auroc': .*val_auroc.*expected"):
        sort_runs([], "auroc")


def test_a_link_that_goes_round_ends(tmp_path):
    write_run(tmp_path / "a")
    (tmp_path / "a" / "round").symlink_to(tmp_path)

    assert [run.name for run in find_runs(tmp_path)] == ["a"]
