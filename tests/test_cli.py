import json
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hilum import __main__
from hilum.data import phantom
from hilum.data.table import Table
from hilum.report.drawing import maps

SMALL = [
    "--set", "model.architecture=custom_cnn", "--set", "model.weights=none", "--set", "model.freeze=none",
    "--set", "data.size=32", "--set", "train.epochs=1", "--set", "task.findings=['Lung Opacity']",
    "--set", "task.negatives=all-others", "--set", "split.method=patient",
]  # fmt: skip


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    phantom.generate(folder, num_images=80, size=64, seed=5).write(folder / "table.parquet")
    return folder


@pytest.fixture
def hilum(capsys, monkeypatch):
    """Runs the command line in this process; gives exit status, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hilum", *map(str, arguments)])
        status = 0
        try:
            __main__.main()
        except SystemExit as exit_:
            status = exit_.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory, phantoms):
    """A run of one epoch on phantoms, made once by the command line."""
    run = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["train", "kermany-densenet121", "--data", phantoms / "table.parquet", "-o", run, *SMALL,
                 "--track", "tensorboard"]  # fmt: skip
    subprocess.run([sys.executable, "-m", "hilum", *map(str, arguments)], check=True, capture_output=True)
    return run


@pytest.fixture
def run_copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def one_or_two_lines(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return "Traceback" not in text and 1 <= len(lines) <= 2


def test_a_run_holds_what_the_documents_say(trained):
    names = {path.name for path in trained.iterdir()}

    assert names >= {
        "recipe.toml",
        "table.parquet",
        "history.csv",
        "quarantine.csv",
        "log.txt",
        "state",
        "bundle",
    }
    assert not [name for name in names if name.startswith(".")]


def test_a_temperature_that_was_not_fitted_is_told_wherever_the_run_is(run_copy, phantoms, hilum):
    data = ["--data", phantoms / "table.parquet", "-o", run_copy, *SMALL]

    _, _, trained_again = hilum("train", "kermany-densenet121", *data, "--resume")
    _, shown, _ = hilum("bundle", "show", run_copy)
    hilum("evaluate", run_copy)

    said = "no temperature could be fitted for Lung Opacity (fewer than 10 images with it or without it on validation"
    assert f"note: {said}" in trained_again
    assert "log.txt says which" in trained_again.splitlines()[-3]
    assert "temperature of Lung Opacity: not fitted" in (run_copy / "log.txt").read_text(encoding="utf-8")
    assert f"note: {said}" in shown
    assert said in (run_copy / "evaluation" / "report.html").read_text(encoding="utf-8")


def test_evaluate_writes_the_report_and_counts_the_read(run_copy, hilum):
    status, out, _ = hilum("evaluate", run_copy)

    assert status == 0
    assert "report: " in out
    folder = run_copy / "evaluation"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["split"] == "test"
    assert metrics["test_reads"] == 1
    assert set(metrics["findings"]) == {"Lung Opacity"}
    predictions = pd.read_parquet(folder / "predictions.parquet")
    assert list(predictions.columns) == [
        "image",
        "patient",
        "finding",
        "label",
        "logit",
        "probability",
        "decision",
    ]
    table = pd.read_parquet(run_copy / "table.parquet")
    assert set(predictions["image"]) == set(table.loc[table["split"] == "test", "image"])
    assert (
        "Research use only" in (folder / "report.html").read_text()
        or "esearch use" in (folder / "report.html").read_text()
    )

    hilum("evaluate", run_copy)
    assert json.loads((folder / "metrics.json").read_text())["test_reads"] == 2


def test_evaluate_on_the_data_itself_finds_the_same_test(run_copy, phantoms, hilum):
    _, first, _ = hilum("evaluate", run_copy, "--json")
    _, second, _ = hilum("evaluate", run_copy / "bundle", "--data", phantoms / "table.parquet", "--json")

    ours, theirs = json.loads(first), json.loads(second)
    assert theirs["internal"]
    assert ours["findings"] == theirs["findings"]


def test_evaluate_calls_other_data_external(trained, tmp_path, hilum):
    phantom.generate(tmp_path / "other", num_images=30, size=64, seed=77).write(
        tmp_path / "other" / "table.parquet"
    )

    status, out, _ = hilum("evaluate", trained / "bundle", "--data", tmp_path / "other" / "table.parquet", "-o",
                           tmp_path / "e", "--json")  # fmt: skip

    metrics = json.loads(out)
    assert status == 0
    assert (metrics["internal"], metrics["split"], metrics["num_images"]) == (False, "all", 30)


def test_predict_agrees_with_evaluate(run_copy, phantoms, hilum, tmp_path):
    hilum("evaluate", run_copy)
    predictions = pd.read_parquet(run_copy / "evaluation" / "predictions.parquet")
    names = list(predictions["image"])

    status, _, _ = hilum("predict", run_copy, *(phantoms / name for name in names), "-o", tmp_path / "p.csv")

    found = pd.read_csv(tmp_path / "p.csv")
    assert status == 0
    np.testing.assert_allclose(found["probability"], predictions["probability"], atol=1e-6)
    assert list(found["decision"]) == list(predictions["decision"])
    assert len(set(found["bundle"])) == 1


def test_predict_goes_on_past_a_file_that_cannot_be_read(trained, phantoms, hilum, tmp_path):
    good = sorted(phantoms.glob("*.png"))[0]
    bad = tmp_path / "text.png"
    bad.write_text("I am no picture")
    tiny = tmp_path / "tiny.png"
    Image.new("L", (3, 3)).save(tiny)

    status, out, _ = hilum("predict", trained, bad, good, tiny, "--json")

    images = json.loads(out)["images"]
    assert status == 1
    assert "not a PNG" in images[0]["error"]
    assert 0 <= images[1]["findings"]["Lung Opacity"]["probability"] <= 1
    assert "3 x 3 pixels" in images[2]["error"]


def test_explain_writes_a_picture_an_image(trained, phantoms, hilum, tmp_path):
    files = sorted(phantoms.glob("*.png"))[:2]

    status, _, _ = hilum("explain", trained, *files, "-o", tmp_path / "maps")

    pictures = sorted((tmp_path / "maps").glob("*.png"))
    assert status == 0
    assert len(pictures) == 2
    with Image.open(pictures[0]) as picture:
        assert picture.width >= 1000


def test_pictures_of_one_command_have_one_scale_and_say_so(trained, phantoms, hilum, tmp_path, monkeypatch):
    drawn = []
    real = maps.panel
    monkeypatch.setattr(maps, "panel", lambda case, **how: drawn.append((case, how)) or real(case, **how))
    files = sorted(phantoms.glob("*.png"))[:3]

    _, _, err = hilum("explain", trained, *files, "-o", tmp_path / "maps")
    together = [how["limit"] for _, how in drawn]
    told = [text.get_text() for text in real(drawn[0][0], **drawn[0][1]).texts]
    wanted = maps.scale_limit([case for case, _ in drawn])
    drawn.clear()
    for file in files:
        hilum("explain", trained, file, "-o", tmp_path / "alone")

    assert together == [wanted] * 3
    assert f"on one scale of ±{wanted:g} logit units" in err
    assert any("One scale for all 3 images of this command." in line for line in told)
    assert [how["limit"] for _, how in drawn] == [maps.scale_limit([case]) for case, _ in drawn]
    assert all(not how["shared"] for _, how in drawn)


def test_a_model_of_classes_goes_the_whole_way(classes, hilum, tmp_path):
    status, shown, _ = hilum("bundle", "show", classes.bundle)
    assert status == 0
    assert "No Finding, Bacterial Pneumonia, Viral Pneumonia  most probable class" in shown

    status, out, err = hilum(
        "evaluate", classes.bundle, "--data", classes.table, "--split", "val", "-o", tmp_path / "e"
    )
    assert status == 0, err
    assert out.startswith("accuracy  0.")
    assert "sensitivity (95 %)" in out
    assert "note: 3 images are not known to have exactly one of the classes" in err

    image = sorted(classes.table.parent.glob("*.png"))[0]
    status, out, _ = hilum("predict", classes.bundle, image)
    assert status == 0
    assert [line.split()[-1] for line in out.splitlines()[1:]].count("present") == 1

    status, _, _ = hilum("explain", classes.bundle, image, "-o", tmp_path / "maps", "--finding", "normal")
    assert status == 0
    assert [path.name for path in (tmp_path / "maps").iterdir()] == [f"{image.stem}-No_Finding.png"]


def test_tracking_gets_the_figures_of_the_history(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(trained / "tensorboard"))
    read.Reload()

    history = pd.read_csv(trained / "history.csv")
    found = {name: [event.value for event in read.Scalars(name)] for name in read.Tags()["scalars"]}
    assert set(found) == set(history.columns) - {"epoch"}
    for name, values in found.items():
        np.testing.assert_allclose(values, history[name], rtol=1e-6)


def test_train_passes_its_options_on_and_tells_where_the_time_went(hilum, monkeypatch, tmp_path):
    from hilum.training import train as training

    calibrated = SimpleNamespace(temperature_notes=("a temperature could not be fitted",))
    bundle = SimpleNamespace(folder=tmp_path / "r" / "bundle", hash="0" * 64, manifest=calibrated)
    profile = {"loader": 1.0, "forward": 2.0, "rest": 1.0}
    run = SimpleNamespace(
        folder=tmp_path / "r", bundle=bundle, history=[0], best_epoch=1, stopped="epochs", profile=profile
    )
    given = {}
    monkeypatch.setattr(training, "draw_phantoms", lambda recipe, watch: "table")
    monkeypatch.setattr(
        training, "train", lambda recipe, table, folder, **options: given.update(options) or run
    )

    status, out, err = hilum("train", "demo", "-o", tmp_path / "r", "--track", "tensorboard", "--track", "mlflow",
                             "--devices", "2", "--profile", "--allow-leak")  # fmt: skip

    assert status == 0, err
    options = given["options"]
    assert (list(options.track), options.devices, options.profile) == (["tensorboard", "mlflow"], 2, True)
    assert given["allow_leak"]
    assert "a temperature could not be fitted" in err
    assert [line.split() for line in out.splitlines()] == [
        ["part", "seconds", "share"],
        ["loader", "1.0", "25", "%"],
        ["forward", "2.0", "50", "%"],
        ["rest", "1.0", "25", "%"],
    ]


def test_audit_says_what_it_finds_and_exits_1_where_a_split_leaks(phantoms, hilum, tmp_path):
    table = Table.read(phantoms / "table.parquet")
    table.with_split(["train", "test"] * 40).write(tmp_path / "table.parquet")

    status, out, err = hilum("data", "audit", tmp_path / "table.parquet", "-o", tmp_path / "audit",
                             "--without-leaks", tmp_path / "clean.parquet")  # fmt: skip

    assert status == 1
    assert "Patients in more than one part of the split" in out
    assert "The split leaks: " in err
    assert (tmp_path / "audit" / "audit.html").is_file()
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["leaks"]

    status, out, err = hilum("data", "audit", tmp_path / "clean.parquet", "--json")
    assert status == 0
    assert not json.loads(out)["leaks"]
    assert "No leak was found." not in out


def test_audit_takes_a_run(trained, hilum):
    status, out, _ = hilum("data", "audit", trained, "--json")
    assert status == 0
    assert set(json.loads(out)["split"]) == {"train", "val", "test"}


def test_audit_refuses_wrong_outputs_before_any_work(phantoms, hilum, tmp_path):
    (tmp_path / "file").touch()
    for option, path, message in (
        ("-o", tmp_path / "file", "is a file"),
        ("--without-leaks", tmp_path / "x.csv", "ends in .parquet"),
    ):
        status, _, err = hilum("data", "audit", phantoms / "table.parquet", option, path)
        assert status == 2
        assert message in err


def test_runs_compares_runs(run_copy, hilum):
    other = shutil.copytree(run_copy, run_copy.parent / "more" / "other")
    shutil.rmtree(other / "bundle")
    settings = (other / "recipe.toml").read_text()
    (other / "recipe.toml").write_text(settings.replace("learning_rate = 0.0001", "learning_rate = 0.01"))
    (run_copy.parent / "broken").mkdir()
    (run_copy.parent / "broken" / "recipe.toml").write_text("nonsense")

    status, out, err = hilum("runs", run_copy.parent)

    lines = [line.split() for line in out.splitlines()]
    assert status == 0, err
    assert lines[0][:5] == ["run", "recipe", "architecture", "engine", "epochs"]
    assert [(line[0], line[-1]) for line in lines[1:4]] == [
        ("broken", "damaged"), ("more/other", "unfinished"), ("run", "sealed")
    ]  # fmt: skip
    assert lines[3][1:6] == ["kermany-densenet121", "custom_cnn", "torch", "1/1", "1"]
    assert ["train.learning_rate", "0.01", "more/other"] in lines
    assert ["0.0001", "run"] in lines
    assert "broken: recipe.toml: " in err

    found = json.loads(hilum("runs", run_copy.parent, "--json", "--sort", "state")[1])
    assert [run["state"] for run in found["runs"]] == ["damaged", "sealed", "unfinished"]
    assert found["differences"] == {"train.learning_rate": {"more/other": 0.01, "run": 0.0001}}


def test_bundle_show_and_verify(trained, hilum):
    status, shown, _ = hilum("bundle", "show", trained)
    assert status == 0
    assert "Lung Opacity" in shown
    own = json.loads(hilum("bundle", "verify", trained, "--json")[1])["bundle"]
    assert hilum("bundle", "verify", trained, "--expect", own[:10])[0] == 0
    assert hilum("bundle", "verify", trained, "--expect", "0" * 10)[0] == 1


def test_resume_goes_on_to_more_epochs(run_copy, phantoms, hilum):
    status, _, err = hilum("train", "kermany-densenet121", "--data", phantoms / "table.parquet", "-o", run_copy, *SMALL,
                           "--set", "train.epochs=2", "--resume")  # fmt: skip

    assert status == 0, err
    assert list(pd.read_csv(run_copy / "history.csv")["epoch"]) == [1, 2]


def test_resume_where_nothing_is_says_that_it_begins(tmp_path, phantoms, hilum):
    status, _, err = hilum("train", "kermany-densenet121", "--data", phantoms / "table.parquet",
                           "-o", tmp_path / "new", *SMALL, "--set", "train.epochs=1", "--resume")  # fmt: skip

    assert status == 0, err
    assert f"nothing to resume in {tmp_path / 'new'}: the training begins" in err


def test_resume_of_a_run_that_lost_its_state_is_refused(run_copy, phantoms, hilum):
    shutil.rmtree(run_copy / "state")

    status, _, err = hilum("train", "kermany-densenet121", "--data", phantoms / "table.parquet", "-o", run_copy, *SMALL,
                           "--set", "train.epochs=2", "--resume")  # fmt: skip

    assert status == 2
    assert "1 epochs behind it but no state" in err


def test_resume_with_fewer_epochs_than_are_done_is_refused(run_copy, phantoms, hilum):
    (run_copy / "history.csv").write_text("epoch\n" + "".join(f"{epoch}\n" for epoch in range(1, 6)))
    before = (run_copy / "bundle" / "SHA256SUMS").read_bytes()

    status, _, err = hilum("train", "kermany-densenet121", "--data", phantoms / "table.parquet", "-o", run_copy, *SMALL,
                           "--set", "train.epochs=2", "--resume")  # fmt: skip

    assert status == 2
    assert "5 epochs behind it, more than train.epochs = 2" in err
    assert (run_copy / "bundle" / "SHA256SUMS").read_bytes() == before


def test_a_resume_with_nothing_to_do_says_so_and_keeps_the_bundle(run_copy, phantoms, hilum):
    before = (run_copy / "bundle" / "SHA256SUMS").read_bytes()
    recipe = (run_copy / "recipe.toml").read_text()

    status, _, err = hilum("train", "kermany-densenet121", "--data", phantoms / "table.parquet", "-o", run_copy, *SMALL,
                           "--set", "train.patience=9", "--resume")  # fmt: skip

    assert status == 0, err
    assert "nothing was left to train" in err
    assert (run_copy / "bundle" / "SHA256SUMS").read_bytes() == before
    assert (run_copy / "recipe.toml").read_text() == recipe


def test_resume_with_another_recipe_is_refused(run_copy, phantoms, hilum):
    status, _, err = hilum("train", "kermany-densenet121", "--data", phantoms / "table.parquet", "-o", run_copy, *SMALL,
                           "--set", "train.learning_rate=0.5", "--resume")  # fmt: skip

    assert status == 2
    assert "train.learning_rate" in err
    assert one_or_two_lines(err.split("error:")[-1])


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["train", "kermany-densenet121", "--data", "nowhere"], 2, ["nowhere"]),
        (["train", "kermany-densenet121", "--data", "{empty}"], 2, ["empty"]),
        (["train", "kermany-densenet121"], 2, ["--data"]),
        (["train", "kermny"], 2, ["no recipe 'kermny'"]),
        (["train", "demo", "--set", "train.epoch=3"], 2, ["train.epoch", "did you mean train.epochs?"]),
        (
            ["train", "demo", "--set", "model.architecture=resnet81"],
            2,
            ["resnet81", "resnet18 (did you mean it?)"],
        ),
        (["predict", "nowhere", "x.png"], 2, ["x.png"]),
        (["predict", "{run}", "nowhere.png"], 2, ["nowhere.png does not exist"]),
        (["predict", "{run}", "{image}", "-o", "p.xlsx"], 2, [".csv or .json", "p.xlsx"]),
        (["evaluate", "{empty}"], 2, ["is not a bundle"]),
        (["evaluate", "{run}", "-o", "{image}"], 2, ["is a file; give a folder"]),
        (["evaluate", "{run}", "--split", "tset"], 2, ["tset", "train, val, test, all"]),
        (
            ["explain", "{run}", "{image}", "--finding", "Lung Opacities"],
            2,
            ["Lung Opacity (did you mean it?)"],
        ),
        (["bundle", "verify", "nowhere"], 2, ["nowhere does not exist"]),
        (["data", "index", "{empty}"], 2, ["is empty"]),
        (["runs", "nowhere"], 2, ["nowhere does not exist; give a folder with runs"]),
        (["runs", "{empty}"], 2, ["no run in", "a run is a folder with recipe.toml"]),
        (["runs", "{run}", "--sort", "speed"], 2, ["--sort 'speed'", "seconds"]),
        (
            ["train", "demo", "--track", "mlfow"],
            2,
            ["no tracker 'mlfow'", "mlflow (did you mean it?), tensorboard"],
        ),
        (["train", "demo", "--devices", "0"], 2, ["--devices", "greater than or equal to 1"]),
        (["no-such-command"], 2, ["no such command"]),
    ],
)
def test_wrong_use_gets_a_line_or_two_and_the_designed_exit_status(
    hilum, trained, phantoms, tmp_path, monkeypatch, arguments, status, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    image = sorted(phantoms.glob("*.png"))[0]
    filled = [argument.format(empty=tmp_path / "empty", run=trained, image=image) for argument in arguments]

    found, _, err = hilum(*filled)

    assert found == status, err
    for word in words:
        assert word in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) <= 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_a_csv_without_the_column_is_told(hilum, tmp_path):
    (tmp_path / "labeled_images.csv").write_text("path,diagnosis\na.png,Pneumonia\n")

    status, _, err = hilum("data", "index", tmp_path / "labeled_images.csv", "-o", tmp_path / "t.parquet")

    assert status == 2
    assert "image_path" in err or "image" in err
    assert "Traceback" not in err
    assert not (tmp_path / "t.parquet").exists()


def test_images_that_moved_are_told_with_the_remedy(hilum, phantoms, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(phantoms, moved)
    table = phantom.generate(tmp_path / "drawn", num_images=6, size=64, seed=1)
    table.write(tmp_path / "t.parquet")
    shutil.rmtree(tmp_path / "drawn")

    status, _, err = hilum(
        "train", "kermany-densenet121", "--data", tmp_path / "t.parquet", "-o", tmp_path / "r", *SMALL
    )

    assert status == 1
    assert "--images" in err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("name", ["bundle.json", "model.onnx"])
def test_a_corrupt_bundle_is_refused(hilum, run_copy, name):
    content = bytearray((run_copy / "bundle" / name).read_bytes())
    content[50] ^= 255
    (run_copy / "bundle" / name).write_bytes(content)

    status, _, err = hilum("bundle", "verify", run_copy)

    assert status == 1
    assert f"{name} was changed after sealing" in err
    assert one_or_two_lines(err)


def test_a_run_is_not_overwritten(hilum, trained, phantoms):
    status, _, err = hilum(
        "train", "kermany-densenet121", "--data", phantoms / "table.parquet", "-o", trained, *SMALL
    )

    assert status == 2
    assert "--resume" in err


# A process started by a shell in the background inherits that Ctrl-C is ignored; a person's does not.
LISTENING = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from hilum.__main__ import main; main()"
)


def interrupt(arguments, until, *, timeout=120):
    """Starts the command line, sends Ctrl-C once `until()` holds, and waits for its end."""
    command = [sys.executable, "-c", LISTENING, *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + timeout
        while not until() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
    return process.returncode, err


def test_ctrl_c_in_training_keeps_the_best_epoch_so_far(phantoms, tmp_path):
    run = tmp_path / "run"
    arguments = ["train", "kermany-densenet121", "--data", phantoms / "table.parquet", "-o", run, *SMALL,
                 "--set", "train.epochs=100000", "--set", "train.patience=0"]  # fmt: skip

    status, err = interrupt(arguments, lambda: (run / "history.csv").exists())

    assert status == 130, err
    assert "stopped by Ctrl-C, --resume goes on; best epoch" in err
    assert "next:" not in err
    assert (run / "bundle" / "SHA256SUMS").exists()


def test_ctrl_c_before_the_first_epoch_leaves_nothing(phantoms, tmp_path):
    run = tmp_path / "run"
    arguments = ["train", "kermany-densenet121", "--data", phantoms / "table.parquet", "-o", run, *SMALL,
                 "--set", "model.architecture=densenet121", "--set", "data.size=512"]  # fmt: skip

    status, err = interrupt(arguments, lambda: (run / "log.txt").exists())

    assert status == 130, err
    assert err.splitlines()[-1] == "stopped by Ctrl-C; nothing is kept"
    assert "Traceback" not in err
    assert not run.exists()
