"""Detection of secrets, by the name of a file or variable or by its content."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path

# Patterns of file names, in lower case.
_FILES = (
    *(".env", ".env.*", "*.env", ".netrc", "_netrc", ".pgpass", ".htpasswd", ".pypirc", ".npmrc"),
    *(".boto", ".s3cfg", ".git-credentials", ".dockercfg", ".dockerconfigjson", "kaggle.json"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk", "*.ovpn"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*"),
    *("credentials", "credentials.*", "*credentials*.json", "*service[-_]account*.json"),
    *("token", "token.*", "*.token", "*[-_]token", "*[-_]token.txt", "auth_token*"),
    *("apikey*", "*api[-_]key*", "*secret*", "*password*", "key.txt", "keys.txt"),
)
# Folders whose files all count as secrets.
_FOLDERS = {".ssh", ".aws", ".azure", ".gnupg", ".kube", ".docker", ".gcloud", "secrets"}
# Documentation and code may have such a name; their content is searched all the same.
_HARMLESS = (".py", ".pyi", ".md", ".rst", ".pub", ".example", ".sample", ".template")

_CONTENT = re.compile(
    rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
    rb"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    rb"|\bsk-[A-Za-z0-9_-]{20,}"
    rb"|\bhf_[A-Za-z0-9]{30,}"
    rb"|\bgh[pousr]_[A-Za-z0-9]{36}"
    rb"|\bgithub_pat_[A-Za-z0-9_]{22,}"
    rb"|\bAIza[0-9A-Za-z_-]{35}"
    rb"|\bxox[abprs]-[A-Za-z0-9-]{10,}"
    rb'|"type"\s*:\s*"service_account"'
)
# Larger files are taken for data and not searched.
_SCANNED_BYTES = 2**20

_WORDS = re.compile(r"(?:^|[^a-z])(?:api)?(?:keys?|token|secrets?|passw(?:or)?d|passphrase)$")
_MORE_WORDS = re.compile(r"secret|password|passwd|passphrase|credential|api_?key|access_?key")
# Shorter values of such variables may be ordinary words.
_SHORTEST_VALUE = 12


def is_secret_file(path: Path) -> bool:
    """True if the name in the packed folder of a file or of its parents is that of a secret."""
    name = path.name.lower()
    if _FOLDERS & {part.lower() for part in path.parts[:-1]}:
        return True
    return not name.endswith(_HARMLESS) and any(fnmatch(name, pattern) for pattern in _FILES)


def is_secret_variable(name: str) -> bool:
    """True if the name is that of a variable or setting that holds a secret."""
    spread = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_")
    return bool(_WORDS.search(spread) or _MORE_WORDS.search(spread))


def secret_values(environment: Mapping[str, str] = os.environ) -> frozenset[bytes]:
    """Secrets that this program can see: those in its environment, and Ray's token."""
    found = {v for k, v in environment.items() if is_secret_variable(k) and not Path(v).is_file()}
    path = environment.get("RAY_AUTH_TOKEN_PATH")
    for place in (Path(path) if path else None, Path.home() / ".ray" / "auth_token"):
        if place is not None and place.is_file():
            found.add(place.read_text(errors="replace").strip())
    return frozenset(value.encode() for value in found if len(value) >= _SHORTEST_VALUE)


def holds_secret(content: bytes, known: Iterable[bytes] = ()) -> bool:
    """True if some content has a private key, a service's API key, or a known secret."""
    return bool(_CONTENT.search(content)) or any(secret in content for secret in known)


def file_holds_secret(path: Path, known: Iterable[bytes] = ()) -> bool:
    """Search a file as `holds_secret` does, unless it is larger than a megabyte."""
    return path.stat().st_size <= _SCANNED_BYTES and holds_secret(path.read_bytes(), known)
