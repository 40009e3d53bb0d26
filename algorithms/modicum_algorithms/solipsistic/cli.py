"""The command `modicum watch`."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Annotated, cast

import typer

import modicum as md
from modicum_algorithms.solipsistic.config import Shown


def watch(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="A run folder, of which the first finished trial with a checkpoint is taken; or a "
            "trial's checkpoint; or, with --trust, a checkpoint of RLlib (from save_to_path).",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write (.gif or .mp4).")] = Path(
        "episode.gif"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the environment.")] = 0,
    episodes: Annotated[int, typer.Option(help="Number of episodes.", min=1)] = 1,
    what: Annotated[
        str,
        typer.Option(
            help="picture: the environment's own picture, where it has any; observation: the image "
            "that the networks see."
        ),
    ] = "picture",
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Read a checkpoint of RLlib, whose pickles can run any code."),
    ] = False,
) -> None:
    """Film greedy episodes of a solipsistic, PPO or DQN agent."""
    _require_rllib()
    # gymnasium's renderer starts all of SDL, which complains where there is no screen or sound.
    for name in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):
        os.environ.setdefault(name, "dummy")
    md.require_choice("--what", what, Shown)
    from modicum_algorithms.solipsistic.films import check_film_path
    from modicum_algorithms.solipsistic.watching import play

    check_film_path(out, "--out")
    played = play(checkpoint, episodes=episodes, seed=seed, what=cast(Shown, what), trust=trust)
    played.film.write(out, "--out")
    for number, (value, length) in enumerate(
        zip(played.returns, played.lengths, strict=True), start=1
    ):
        print(f"episode {number}: return {value:g}, {length} steps")
    print(f"film: {out}")


def _require_rllib() -> None:
    try:
        for name in ("gymnasium", "cv2", "PIL"):
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise md.InputError(
            f"watch needs the package {error.name!r}, which is not installed; the extra 'rl' "
            "brings it: pip install 'modicum[rl]'"
        ) from error
