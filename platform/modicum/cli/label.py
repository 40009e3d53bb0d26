"""`modicum oracle label`."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from modicum.oracles.questions import DEFAULT_WORDING

Pairs = Annotated[
    Path,
    typer.Argument(
        help="File of pairs (.jsonl, .json, .csv or .parquet) with the columns prompt, first, "
        "second and, optionally, seed.",
        show_default=False,
    ),
]
BothOrders = Annotated[
    bool, typer.Option("--both-orders", help="Ask once more with A and B exchanged.")
]
Repeat = Annotated[
    int, typer.Option(help="Number of the opinion; another number asks again.", min=0)
]


def label(
    pairs: Pairs,
    name: Annotated[
        str | None, typer.Option(help="Your name; your login name if left out.")
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(help="Ledger file; if left out, a file for this name."),
    ] = None,
    question: Annotated[
        str, typer.Option(help="Question about every pair; each question has its own answers.")
    ] = DEFAULT_WORDING,
    both_orders: BothOrders = False,
    repeat: Repeat = 0,
    terminal: Annotated[
        bool, typer.Option("--terminal", help="Ask in this terminal instead of the browser.")
    ] = False,
    port: Annotated[
        int, typer.Option(help="Port of the page; 0 for a free one.", min=0, max=65535)
    ] = 0,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Print the page's address instead of opening it.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Also write the judgements (.jsonl or .parquet)."),
    ] = None,
) -> None:
    """Judge pairs yourself. A second run goes on where you stopped."""
    from modicum.oracles.labelling.human import Human
    from modicum.oracles.pair_files import check_output, read_pairs, write_judgements

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
