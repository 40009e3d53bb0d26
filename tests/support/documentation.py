"""Pages of the documentation as a reader follows them: block after block, each command once."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT

_BLOCK = re.compile(
    r'^```(?P<language>\w*)(?: title="(?P<file>[^"]+)")?\n(?P<text>.*?)^```$',
    flags=re.DOTALL | re.MULTILINE,
)
_NOT_RUN = re.compile(r"# Not run by the tests: (.+)\.\n")
_LONG = re.compile(r"(about )?(an? |half an |[\w,.]+ )(minutes?|hours?)")
_STUDY_COMMAND = re.compile(r"modicum run (?!…)[^\n`#]+")

# One process for all Python of a page: what a block defines is there in the next.
_SESSION = """
import sys
names = {"__name__": "__main__"}
for path in map(str.strip, sys.stdin):
    exec(compile(open(path).read(), path, "exec"), names)
    print("end of block", flush=True)
"""


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: As its fence says; may be empty.
        file: Name of the file that a reader is to write it to, if the fence has a title.
        text: What is in it.
    """

    language: str
    file: str | None
    text: str

    @property
    def not_run_because(self) -> str | None:
        """The reason that its first line gives for not being run by the tests."""
        found = _NOT_RUN.match(self.text)
        return found and found.group(1)

    @property
    def is_script(self) -> bool:
        """Whether later lines of a shell block need what an earlier one exported."""
        return self.language == "sh" and "eval " in self.text

    @property
    def commands(self) -> list[tuple[str, bool]]:
        """Lines of a shell block, and whether the comment behind one says how long it takes."""
        lines = [line for line in self.text.replace("\\\n", "").splitlines() if line.strip()]
        split = [re.split(r"(?:^|\s+)# ", line, maxsplit=1) for line in lines]
        return [(line, any(map(_LONG.fullmatch, comment))) for line, *comment in split if line]


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    return [Block(**found.groupdict()) for found in _BLOCK.finditer(text)]


def study_commands(text: str) -> list[str]:
    """Every `modicum run` that names a study, in blocks and in prose."""
    return [found.group().strip() for found in _STUDY_COMMAND.finditer(text)]


def check_study_command(command: str, folder: Path = ROOT) -> None:
    """Validate a study with the options of a command, without running it.

    Args:
        command: `modicum run FILE …`.
        folder: Where its file is looked for.
    """
    import typer

    from modicum.cli.main import app
    from modicum.study import Study
    from modicum.yaml_io import parse_yaml

    run = typer.main.get_command(app).commands["run"]
    asked = run.make_context("run", shlex.split(command)[2:]).params
    pairs = (pair.partition("=") for pair in asked["set_"] or [])
    overrides = {name: parse_yaml(value, name) for name, _, value in pairs}
    study = Study.from_yaml(folder / asked["config"], overrides=overrides, seeds=asked["seeds"])
    assert study.size > 0, command


class Reader:
    """Somebody who follows pages in one folder, with an environment of their own.

    Attributes:
        folder: Where commands are typed.
    """

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self._done: set[str] = set()
        self._variables = _environment(home)

    def type_in(self, command: str) -> str:
        """Run a command line, unless it has been run before, and return what it printed."""
        if command in self._done:
            return ""
        self._done.add(command)
        return self.run_script(command)

    def run_script(self, text: str) -> str:
        """Run lines in one shell, to the first that fails, and return what they printed."""
        ended = subprocess.run(
            ["bash", "-e", "-c", text],
            cwd=self.folder,
            env=self._variables,
            capture_output=True,
            text=True,
            timeout=800,
        )
        assert ended.returncode == 0, f"{text}\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    def follow(self, text: str) -> str:
        """Do what a page says, from top to bottom, and return what its Python printed.

        Studies that take long are validated; `make` runs these very tests, so its targets are
        looked up.
        """
        with _PythonSession(self.folder, self._variables) as session:
            for block in blocks_of(text):
                if block.file is not None:
                    path = self.folder / block.file
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(block.text)
                elif block.not_run_because is not None:
                    continue
                elif block.language == "python":
                    session.run(block.text)
                elif block.is_script:
                    self.run_script(block.text)
                elif block.language == "sh":
                    for command, long in block.commands:
                        self._follow(command, long)
        return session.printed

    def _follow(self, command: str, long: bool) -> None:
        if command.startswith("make "):
            assert f"\n{command.split()[1]}" in (ROOT / "Makefile").read_text(), command
        elif long:
            check_study_command(command, self.folder)
        else:
            self.type_in(command)


class _PythonSession:
    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.printed = ""
        self._block = folder / "block.py"
        self._process = subprocess.Popen(
            ["python", "-u", "-c", _SESSION],
            cwd=folder,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> _PythonSession:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)

    def run(self, text: str) -> None:
        self._block.write_text(text)
        print(self._block, file=self._process.stdin, flush=True)
        printed = "".join(self._until_the_end())
        self.printed += printed
        assert self._process.poll() is None, f"{text}\n{printed}"

    def _until_the_end(self) -> Iterator[str]:
        for line in self._process.stdout:
            if line == "end of block\n":
                return
            yield line
        self._process.wait(60)


def _environment(home: Path) -> dict[str, str]:
    """A virtual environment with all that this one has, into which a page may install more."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    for name in ("modicum", "pip", "ray"):
        program = (Path(sys.executable).parent / name).read_text()
        (home / "bin" / name).write_text(f"#!{home}/bin/python\n" + program.partition("\n")[2])
        (home / "bin" / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(home),
        "MODICUM_LEDGERS": str(home / "ledgers"),
        "OPENAI_API_KEY": "",
        # Packages of pages are built with what is there: nothing is fetched.
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
    }
