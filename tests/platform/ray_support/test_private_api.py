import re

from conftest import ROOT

PRIVATE = re.compile(r"\bray(\.\w+)*\.(_private|_internal|_raylet)\b|\bray\.core\.generated\b")


def test_one_module_alone_uses_rays_private_interfaces():
    found = {
        path.name
        for folder in ("platform", "algorithms", "cluster")
        for path in (ROOT / folder).rglob("*.py")
        if PRIVATE.search(path.read_text())
    }
    assert found == {"private_api.py"}
