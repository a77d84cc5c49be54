"""README's Python, run as it stands; and the part that needs no framework, in an environment with the base alone."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
[BLOCK] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
TINY = ["model.architecture=custom_cnn", "model.weights=none", "data.size=32", "train.epochs=1"]
EXTRAS = {"torch": "torch", "keras": "keras", "tune": "optuna", "track": "mlflow"}


@pytest.fixture
def place(tmp_path):
    """A folder with `MY_FOLDER`, two classes of a dozen pictures, and a film."""
    random = np.random.default_rng(0)
    for name, level in (("Normal", 80), ("Tuberculosis", 170)):
        (tmp_path / "MY_FOLDER" / name).mkdir(parents=True)
        for number in range(12):
            grey = random.normal(level, 25, (64, 60)).clip(0, 255).astype(np.uint8)
            Image.fromarray(grey).save(tmp_path / "MY_FOLDER" / name / f"{number}.png")
    Image.fromarray(grey).save(tmp_path / "film.dcm", "PNG")  # what a file is, its content says
    return tmp_path


def test_the_python_of_the_readme_runs(place):
    code = BLOCK.replace('(table, "runs/mine")', f'(table, "runs/mine", changes={TINY})')
    assert code != BLOCK

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert (place / "runs" / "mine" / "evaluation" / "report.html").is_file()
    assert list((place / "maps").glob("film-*.png"))


def install(folder, extra=""):
    """The Python of a new environment with the base install, or one extra besides."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    what = f"{ROOT}[{extra}]" if extra else ROOT
    command = ["uv", "pip", "install", "--quiet", "--python", python, "-c", ROOT / "constraints.txt", what]
    command[0] = Path(sys.executable).with_name("uv")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"it could not be installed: {done.stderr.strip().splitlines()[-1]}")
    return python


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return install(tmp_path_factory.mktemp("base") / "venv")


def in_environment(python, code, cwd):
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [python, "-c", code], cwd=cwd, env=plain, capture_output=True, text=True, check=False
    )


@pytest.mark.full
def test_a_model_is_used_with_the_base_install_alone(base, make_sites, place):
    sites = make_sites()
    lines = [line for line in BLOCK.splitlines() if "import" in line or "model" in line.partition("#")[0]]
    code = "\n".join(lines).replace("runs/mine", str(sites.run))

    done = in_environment(base, code, place)

    assert done.returncode == 0, done.stderr
    assert list((place / "maps").glob("film-*.png"))
    evaluated = in_environment(
        base, f"import hilum; hilum.evaluate({str(sites.run)!r}).write('report')", place
    )
    assert evaluated.returncode == 0, evaluated.stderr


@pytest.mark.full
@pytest.mark.parametrize(("extra", "package"), EXTRAS.items())
def test_a_missing_extra_is_named_before_any_work(base, place, extra, package):
    arguments = {
        "torch": ["train", "--data", "MY_FOLDER"],
        "keras": ["train", "--data", "MY_FOLDER", "--engine", "keras"],
        "tune": ["tune", "--data", "MY_FOLDER", "--vary", "train.epochs=1,2"],
        "track": ["train", "--data", "MY_FOLDER", "--track", "mlflow"],
    }[extra]

    done = in_environment(
        base,
        textwrap.dedent(f"""
        import sys
        from hilum.__main__ import main
        sys.argv = ["hilum", *{arguments}]
        main()
        """),
        place,
    )

    assert done.returncode == 2, done.stderr
    assert f"[{extra}]" in done.stderr.splitlines()[-1], done.stderr
    assert "images prepared" not in done.stderr


@pytest.mark.full
@pytest.mark.parametrize("engine", ["torch", "keras"])
def test_an_engine_alone_trains_in_a_new_environment(tmp_path, place, engine):
    python = install(tmp_path / "venv", engine)
    code = f"import hilum; hilum.train('MY_FOLDER', 'run', engine={engine!r}, changes={TINY}).evaluate()"

    done = in_environment(python, code, place)

    assert done.returncode == 0, done.stderr
    assert (place / "run" / "bundle" / "SHA256SUMS").is_file()


@pytest.mark.full
@pytest.mark.parametrize(
    ("extra", "packages"),
    {
        "tune": "optuna, sqlalchemy, alembic",
        "track": "tensorboard, mlflow",
        "notebooks": "ipykernel, nbclient",
        "serve": "fastapi, uvicorn, prometheus_client",
        "pacs": "pynetdicom, highdicom, dicomweb_client",
    }.items(),
)
def test_an_extra_brings_its_packages(tmp_path, extra, packages):
    done = in_environment(install(tmp_path / "venv", extra), f"import hilum.cli, {packages}", tmp_path)
    assert done.returncode == 0, done.stderr
