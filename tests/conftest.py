from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parent.parent
SUPPORT = ROOT / "tests" / "support"
sys.path[:0] = [str(SUPPORT), str(ROOT / "cluster")]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches of earlier runs must not answer for this one; its parallel processes share one."""
    before = os.environ.get("MODICUM_CACHE")
    base = tmp_path_factory.getbasetemp()
    whole_run = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ["MODICUM_CACHE"] = str(whole_run / "cache")
    yield
    if before is None:
        del os.environ["MODICUM_CACHE"]
    else:
        os.environ["MODICUM_CACHE"] = before


@pytest.fixture(scope="session")
def _shared_ray() -> Iterator[ExitStack]:
    """What holds the shared cluster, once a test has asked for it."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def ray_cluster(_shared_ray: ExitStack) -> None:
    """One private cluster for all tests that need Ray; studies use it as they find it."""
    import ray

    from modicum.ray_support.connection import connected
    from waiting import cpus_come_back

    if ray.is_initialized():
        assert cpus_come_back(), "a file before this one left actors that hold CPUs"
        return
    # Classes that tests define travel to the workers through their own modules.
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(SUPPORT) not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(SUPPORT), *filter(None, paths)])
    _shared_ray.enter_context(connected(cpus=2))
    assert ray.is_initialized()


@pytest.fixture(scope="module")
def without_shared_ray(_shared_ray: ExitStack) -> None:
    """The shared cluster is stopped: for files that start one of their own, and end it."""
    _shared_ray.close()


@pytest.fixture(scope="session")
def wrench() -> Path:
    """The folder of real WRENCH sets."""
    named = os.environ.get("MODICUM_DATA")
    if not named or not (Path(named) / "wrench").is_dir():
        pytest.skip("MODICUM_DATA with real WRENCH folders is not set")
    return Path(named).absolute() / "wrench"


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, str], Callable[[str], None]]]:
    """Makes a file system of its own at a place, with options of `mount`; it may be remounted.

    remount = small_disk(tmp_path / "disk", "size=1m")
    remount("ro")
    """
    with ExitStack() as stack:

        def make(place: Path, options: str) -> Callable[[str], None]:
            place.mkdir(parents=True, exist_ok=True)
            try:
                mount("-t", "tmpfs", "-o", options, "tmpfs", place)
            except (OSError, subprocess.CalledProcessError):
                pytest.skip("file systems cannot be mounted here")
            stack.callback(subprocess.run, ["umount", "--lazy", place], check=True)
            return lambda options: mount("-o", f"remount,{options}", place)

        def mount(*arguments: str | Path) -> None:
            subprocess.run(["mount", *arguments], check=True, capture_output=True)

        yield make


@pytest.fixture(scope="session")
def chromium() -> str:
    """A real browser."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine")
    return found


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()
