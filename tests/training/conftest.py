"""What tests of trainings share."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def cache_folder(tmp_path_factory):
    """Keeps prepared images out of the cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HILUM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
