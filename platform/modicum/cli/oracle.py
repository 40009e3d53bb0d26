"""`modicum oracle ...`: estimate the cost of judging, judge, label, and report spending."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from modicum.errors import InputError
from modicum.oracles.questions import DEFAULT_WORDING

app = typer.Typer(
    help="Preference judgements, by a model behind an endpoint or by yourself.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

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
Model = Annotated[str, typer.Option(help="The endpoint's name for the model.", show_default=False)]
Template = Annotated[
    str, typer.Option(help="Wording: sentiment, summarisation, or a file of your own (.yaml).")
]
Settings = Annotated[
    Path | None,
    typer.Option(
        "--endpoint",
        help="YAML file with the endpoint's settings: base_url, limits, prices, budget, ledger, "
        "...; if left out, OpenAI without limits.",
    ),
]
Temperature = Annotated[float, typer.Option(help="Sampling temperature.", min=0, max=2)]
MaxTokens = Annotated[int, typer.Option(help="Most tokens of an answer.", min=1)]


@app.command()
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


@app.command()
def judge(
    pairs: Pairs,
    model: Model,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File of judgements to write (.jsonl or .parquet).")
    ],
    template: Template = "summarisation",
    endpoint: Settings = None,
    temperature: Temperature = 0.0,
    max_tokens: MaxTokens = 256,
    both_orders: BothOrders = False,
    repeat: Repeat = 0,
    run: Annotated[str | None, typer.Option(help="Name of the run that pays.")] = None,
    address: Annotated[
        str | None, typer.Option(help="Address of a running Ray cluster (host:port).")
    ] = None,
) -> None:
    """Judge a file of pairs. A second run asks only the questions that were not answered."""
    from modicum.oracles.pair_files import check_output, read_pairs, write_judgements
    from modicum.oracles.protocol import Failure, Judgement
    from modicum.ray_support.connection import connected

    check_output(out)
    found = read_pairs(pairs)
    oracle = _oracle(model, template, endpoint, temperature, max_tokens, both_orders, run)
    with connected(address), oracle:
        answers = oracle.judge(found, repeat=repeat)
    judged = [answer for answer in answers if isinstance(answer, Judgement)]
    failed = [answer for answer in answers if isinstance(answer, Failure)]
    write_judgements(out, found, answers)
    spent = sum(answer.cost for answer in answers)
    cached = sum(answer.cached for answer in judged)
    print(f"{len(judged)} of {len(found)} judged, {cached} from the ledger, ${spent:.4f}: {out}")
    for reason in dict.fromkeys(answer.reason for answer in failed):
        messages = [answer.message for answer in failed if answer.reason == reason]
        print(f"{len(messages)} {reason}: {messages[0]}")
    if failed:
        raise typer.Exit(1)


@app.command()
def estimate(
    pairs: Pairs,
    model: Model,
    template: Template = "summarisation",
    endpoint: Settings = None,
    temperature: Temperature = 0.0,
    max_tokens: MaxTokens = 256,
    both_orders: BothOrders = False,
    repeats: Annotated[int, typer.Option(help="Number of opinions on each pair.", min=1)] = 1,
    answer_tokens: Annotated[int, typer.Option(help="Assumed tokens of an answer.", min=1)] = 60,
) -> None:
    """Estimate requests, tokens, cost and time of judging a file of pairs. Nothing is sent."""
    from modicum.oracles.endpoint.oracle import estimate as plan
    from modicum.oracles.pair_files import read_pairs

    oracle = _oracle(model, template, endpoint, temperature, max_tokens, both_orders, None)
    cost = plan(oracle, read_pairs(pairs), repeats=repeats, answer_tokens=answer_tokens)
    _print_row("requests", f"{cost.requests:,} ({cost.remembered:,} more are in the ledger)")
    _print_row("tokens read", f"about {cost.prompt_tokens:,}")
    _print_row("tokens written", f"about {cost.completion_tokens:,}")
    if cost.dollars is None or cost.most_dollars is None:
        _print_row("cost", f"unknown: the endpoint's settings have no price for {model}")
    else:
        _print_row("cost", f"about ${cost.dollars:.2f}, never above ${cost.most_dollars:.2f}")
    if cost.seconds is None:
        _print_row("time", "unknown: the endpoint's settings have no limits")
    else:
        _print_row("time", f"{cost.seconds / 60:.1f} min at the endpoint's limits")


@app.command()
def ledger(
    path: Annotated[
        Path | None,
        typer.Argument(help="Ledger file; if left out, all ledgers in the folder of ledgers."),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write all requests and answers to this .parquet file.")
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Check the ledger for damage and changes."),
    ] = False,
) -> None:
    """Show spending by run, model and day."""
    from modicum.oracles.ledger import report as ledger_report
    from modicum.oracles.ledger.database import ledgers_folder

    paths = [path] if path is not None else sorted(ledgers_folder().glob("*.sqlite"))
    if not paths:
        raise InputError(f"ledger: no ledgers in {ledgers_folder()}; name a file")
    if export is not None and len(paths) > 1:
        raise InputError("--export: name a single ledger")
    wrong = 0
    for each in paths:
        _print_spending(each)
        if verify:
            problems = ledger_report.verify(each)
            print("\n".join(problems) if problems else "verified: no errors found")
            wrong += len(problems)
        if export is not None:
            print(f"{ledger_report.export(each, export)} requests: {export}")
    if wrong:
        raise typer.Exit(1)


def _print_spending(path: Path) -> None:
    from rich import box
    from rich.table import Table

    from modicum.oracles.ledger.report import asked_again, spending
    from modicum.results.formatting import rendered

    table = Table(title=str(path), title_justify="left", box=box.SIMPLE_HEAD, show_footer=True)
    rows = spending(path)
    table.add_column("day", "total")
    table.add_column("run")
    table.add_column("model")
    for name in ("judgements", "unreadable", "refused", "lost", "calls", "tokens"):
        total = sum(getattr(row, name) for row in rows)
        table.add_column(name, f"{total:,}", justify="right")
    table.add_column("dollars", f"{sum(row.dollars for row in rows):.4f}", justify="right")
    for row in rows:
        counts = (row.judgements, row.unreadable, row.refused, row.lost, row.calls, row.tokens)
        table.add_row(
            *(row.day, row.run, row.model),
            *(f"{count:,}" for count in counts),
            f"{row.dollars:.4f}",
        )
    print(rendered(table), end="")
    print(f"{asked_again(path)} lost requests, which may have been charged, were repeated")


def _oracle(
    model: str,
    template: str,
    endpoint: Path | None,
    temperature: float,
    max_tokens: int,
    both_orders: bool,
    run: str | None,
) -> Any:
    from modicum.oracles.endpoint.oracle import EndpointOracle
    from modicum.oracles.endpoint.settings import Endpoint

    return EndpointOracle(
        model,
        template,
        endpoint=Endpoint() if endpoint is None else Endpoint.load(endpoint),
        temperature=temperature,
        max_tokens=max_tokens,
        both_orders=both_orders,
        run=run,
    )


def _print_row(name: str, text: str) -> None:
    print(f"{name:16}{text}")
