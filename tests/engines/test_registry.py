import importlib.util
import sys

import pytest

from hilum.engines.registry import REGISTRY, check_installed
from hilum.errors import MissingExtraError


@pytest.mark.parametrize(("engine", "framework"), [("torch", "torch"), ("keras", "tensorflow")])
def test_the_framework_is_named_first_and_how_the_checkout_installs_it(monkeypatch, engine, framework):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for package in REGISTRY[engine].packages:
        monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(
        MissingExtraError, match=rf"^{framework} is not installed.*'\.\[{engine}\]' in Hilum's ch"
    ):
        check_installed(engine)
