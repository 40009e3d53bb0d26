from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches of earlier runs must not answer for this one."""
    before = os.environ.get("MODICUM_CACHE")
    os.environ["MODICUM_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["MODICUM_CACHE"]
    else:
        os.environ["MODICUM_CACHE"] = before


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One private cluster for all tests that need Ray; studies use it as they find it."""
    import ray

    from modicum.cluster import connected

    # Classes that tests define travel to the workers through their own modules.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    )
    with connected(cpus=2):
        assert ray.is_initialized()
        yield


@pytest.fixture(scope="session")
def wrench() -> Path:
    """The folder of real WRENCH sets."""
    named = os.environ.get("MODICUM_DATA")
    if not named or not (Path(named) / "wrench").is_dir():
        pytest.skip("MODICUM_DATA with real WRENCH folders is not set")
    return Path(named).absolute() / "wrench"


@pytest.fixture(scope="session")
def chromium() -> str:
    """A real browser."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine")
    return found
