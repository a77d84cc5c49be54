import os
import subprocess
import sys


def load(before, **environment):
    """Loads the engine in a fresh process after some code; gives what it said to standard error."""
    code = f"{before}\nfrom hilum.engines import load_engine\nload_engine('keras')\n"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stderr


def test_keras_that_is_there_on_another_backend_is_refused():
    told = load(
        "import sys, types; keras = sys.modules['keras'] = types.ModuleType('keras'); "
        "keras.backend = types.SimpleNamespace(backend=lambda: 'jax')"
    )

    assert "UsageError: keras was imported on jax before Hilum asked for tensorflow" in told


def test_a_missing_tensorflow_names_the_extra():
    told = load("import sys; sys.modules['tensorflow'] = None")

    assert "tensorflow is not installed; the extra 'keras' brings it: pip install '.[keras]'" in told


def test_tensorflow_greets_nobody():
    told = load("")

    assert "oneDNN" not in told
    assert "cuda" not in told


def test_what_keras_brings_along_leaves_logging_alone():
    told = load(
        "import atexit, logging; atexit.register(lambda: print(logging.root.handlers, file=sys.stderr))\nimport sys"
    )

    assert told.strip() == "[]"
