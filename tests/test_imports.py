import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
FRAMEWORKS = (
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "keras",
    "tensorflow",
    "safetensors",
    "onnxscript",
    "tf2onnx",
)
# module or package -> where alone it may be imported, one place or several
ALONE = {
    "torch": "hilum.engines.torch",
    "timm": "hilum.engines.torch",
    "lightning": "hilum.engines.torch",
    "safetensors": ("hilum.engines.torch", "hilum.engines.keras", "hilum.engines.state_file"),
    "tf2onnx": "hilum.engines.keras",
    "h5py": "hilum.engines.keras",
    "keras": "hilum.engines.keras",
    "tensorflow": "hilum.engines.keras",
    "matplotlib": "hilum.report",
    "pydicom": "hilum.images",
    "onnxruntime": "hilum.inference.runtime",
    "grain": "hilum.data.batches",
    "tensorboard": "hilum.training.tracking",
    "mlflow": "hilum.training.tracking",
    "optuna": "hilum.tuning.trials",
    "typer": "hilum.cli",
    "rich": "hilum.cli",
}
AFTER_THE_BUNDLE = (
    "bundle",
    "inference",
    "evaluation",
    "runs",
    "comparison",
    "stats",
    "report",
    "tuning.study",
)
# package -> what it never imports
NEVER = {
    "hilum.data": ("hilum.engines", "hilum.bundle", "hilum.training", "hilum.report", "hilum.cli"),
    "hilum.images": ("hilum.data", "hilum.engines", "hilum.bundle", "hilum.recipe", "hilum.cli"),
    "hilum.stats": ("hilum.data", "hilum.engines", "hilum.bundle", "hilum.images", "hilum.cli", "pandas"),
    "hilum.engines": (
        "hilum.bundle",
        "hilum.inference.runtime",
        "hilum.training",
        "hilum.report",
        "hilum.cli",
    ),
    "hilum.engines.torch": ("hilum.engines.keras",),
    "hilum.engines.keras": ("hilum.engines.torch",),
    "hilum.bundle": ("hilum.data", "hilum.inference", "hilum.evaluation"),
    "hilum.inference": ("hilum.data", "hilum.evaluation"),
    "hilum.evaluation": ("hilum.report", "hilum.comparison"),
    **{
        f"hilum.{name}": ("hilum.engines", "hilum.training", "hilum.data.readers", "hilum.cli")
        for name in AFTER_THE_BUNDLE
    },
}


def modules():
    for path in sorted((SOURCE / "hilum").rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        yield name, path


def imports(name, path):
    """Every module that a file imports, those inside functions and for type checking included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import; the project's are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name, package):
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize(
    ("name", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_imports_point_toward_the_ground(name, path):
    for imported in imports(name, path):
        for module, place in ALONE.items():
            if within(imported, module):
                places = (place,) if isinstance(place, str) else place
                assert any(within(name, one) for one in places), (
                    f"{name} imports {imported}, which only {place} may"
                )
        for package, forbidden in NEVER.items():
            if within(name, package):
                wrong = [other for other in forbidden if within(imported, other) and not within(name, other)]
                assert not wrong, f"{name} imports {imported}; {package} never imports {wrong}"


def test_what_comes_after_the_bundle_loads_no_framework():
    packages = [
        *(f"hilum.{name}" for name in AFTER_THE_BUNDLE),
        "hilum.cli",
        "hilum.data.readers",
        "hilum.tuning",
    ]
    after = [name for name, _ in modules() if any(within(name, package) for package in packages)]
    code = f"import sys, {', '.join([*after, 'hilum.training.tracking'])}; print(*sys.modules)"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    loaded = set(result.stdout.split())
    assert "hilum.report.evaluation.page" in loaded
    assert not loaded & set(FRAMEWORKS)


def test_help_loads_nothing_heavy():
    code = "import sys, hilum.cli; print(*sys.modules)"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not set(result.stdout.split()) & {
        *FRAMEWORKS,
        "numpy",
        "pandas",
        "cv2",
        "onnx",
        "pydantic",
        "matplotlib",
    }
