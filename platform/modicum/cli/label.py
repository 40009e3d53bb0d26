"""`modicum oracle label`."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from modicum.oracles.labelling.session import DEFAULT_WORDING


def label(
    pairs: Annotated[
        Path,
        typer.Argument(
            help="File of pairs (.jsonl, .json, .csv or .parquet) with the columns prompt, first, "
            "second and, if you like, seed.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Who answers; the user's login if left out.")
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(help="File of the ledger; one of your own if left out."),
    ] = None,
    question: Annotated[
        str, typer.Option(help="What is asked about every pair; another question asks anew.")
    ] = DEFAULT_WORDING,
    both_orders: Annotated[
        bool, typer.Option("--both-orders", help="Ask again with A and B exchanged.")
    ] = False,
    repeat: Annotated[
        int, typer.Option(help="Number of the opinion: asking once more asks anew.", min=0)
    ] = 0,
    terminal: Annotated[
        bool, typer.Option("--terminal", help="In this terminal instead of the browser.")
    ] = False,
    port: Annotated[
        int, typer.Option(help="Port of the page; 0 takes a free one.", min=0, max=65535)
    ] = 0,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Print the page's address without opening it.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Also write the judgements (.jsonl or .parquet)."),
    ] = None,
) -> None:
    """Judge pairs yourself. Running it again goes on where you stopped."""
    from modicum.oracles.judgements_file import check_output, write_judgements
    from modicum.oracles.labelling.human import Human
    from modicum.oracles.pairs_file import read_pairs

    if out is not None:
        check_output(out)
    human = Human(
        getpass.getuser() if name is None else name,
        ledger,
        wording=question,
        both_orders=both_orders,
        terminal=terminal,
        port=port,
        open_browser=not no_open,
    )
    interrupted = False
    with human.session(read_pairs(pairs), repeat) as session:
        try:
            human.ask(session)
        except KeyboardInterrupt:
            interrupted = True
        progress = session.progress
        judgements = session.judgements()
    print(f"{progress.answered} of {progress.total} answered, in {human.ledger}")
    if out is not None:
        count = write_judgements(out, session.pairs, judgements)
        print(f"{count} judgements: {out}")
    if interrupted and not progress.finished:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        raise typer.Exit(130)
