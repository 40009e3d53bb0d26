"""Where a cluster's token is looked for: as Ray's own order has it."""

from modicum.cli.installation import findings
from modicum.ray_support.connection import auth_token


def test_variable_then_named_file_then_home(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert auth_token() is None
    assert dict(findings())["ray authentication"].endswith("token absent")
    at_home = tmp_path / ".ray" / "auth_token"
    at_home.parent.mkdir()
    at_home.write_text("home")
    assert auth_token() == str(at_home)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "named"))
    assert auth_token() == str(tmp_path / "named")
    assert dict(findings())["ray authentication"].endswith(f"token in {tmp_path / 'named'}")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the token itself")
    assert auth_token() == "RAY_AUTH_TOKEN"
    assert "the token itself" not in str(list(findings()))
