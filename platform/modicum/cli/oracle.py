"""`modicum oracle ...`: what judging will cost, judging, and what was spent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from modicum.cli.label import label
from modicum.errors import InputError

app = typer.Typer(
    help="Preference judgements: by a model behind an endpoint, or by yourself.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command()(label)

Pairs = Annotated[
    Path,
    typer.Argument(
        help="File of pairs (.jsonl, .json, .csv or .parquet) with the columns prompt, first, "
        "second and, if you like, seed.",
        show_default=False,
    ),
]
Model = Annotated[str, typer.Option(help="The endpoint's name for the model.", show_default=False)]
Template = Annotated[
    str, typer.Option(help="sentiment, summarisation, or a file of your own (.yaml).")
]
Settings = Annotated[
    Path | None,
    typer.Option(
        "--endpoint",
        help="File (YAML) with the endpoint's settings: base_url, limits, prices, budget, ledger, "
        "...; OpenAI without limits if left out.",
    ),
]
Temperature = Annotated[float, typer.Option(help="Of the model's sampling.", min=0, max=2)]
MaxTokens = Annotated[int, typer.Option(help="Tokens that an answer may have.", min=1)]
BothOrders = Annotated[
    bool, typer.Option("--both-orders", help="Ask again with A and B exchanged.")
]


@app.command()
def judge(
    pairs: Pairs,
    model: Model,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Judgements to write (.jsonl or .parquet).")
    ],
    template: Template = "summarisation",
    endpoint: Settings = None,
    temperature: Temperature = 0.0,
    max_tokens: MaxTokens = 256,
    both_orders: BothOrders = False,
    repeat: Annotated[
        int, typer.Option(help="Number of the opinion: another one asks anew.", min=0)
    ] = 0,
    run: Annotated[str | None, typer.Option(help="Name under which spending is added up.")] = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster (host:port).")] = None,
) -> None:
    """Judge a file of pairs. Running it again asks only what was not answered."""
    from modicum.oracles.judgements_file import check_output, write_judgements
    from modicum.oracles.pairs_file import read_pairs
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
    repeats: Annotated[int, typer.Option(help="Opinions on each pair.", min=1)] = 1,
    answer_tokens: Annotated[
        int, typer.Option(help="Tokens that an answer is taken to have.", min=1)
    ] = 60,
) -> None:
    """What judging a file of pairs will take, before anything is asked."""
    from modicum.oracles.endpoint.cost_estimate import estimate as plan
    from modicum.oracles.pairs_file import read_pairs

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
        typer.Argument(help="A ledger's file; all in the folder of ledgers if left out."),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write every request and answer to this .parquet file.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check that nothing in it was damaged or changed.")
    ] = False,
) -> None:
    """Spending by run, model and day."""
    from modicum.oracles.ledger import report as ledger_report
    from modicum.oracles.ledger.locations import ledgers_folder

    paths = [path] if path is not None else sorted(ledgers_folder().glob("*.sqlite"))
    if not paths:
        raise InputError(f"ledger: there is none in {ledgers_folder()}; give a file")
    if export is not None and len(paths) > 1:
        raise InputError("--export: name one ledger")
    wrong = 0
    for each in paths:
        _print_spending(each)
        if verify:
            problems = ledger_report.verify(each)
            print("\n".join(problems) if problems else "verified: nothing is wrong")
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
    print(f"{asked_again(path)} requests were charged, or may have been, and asked again")


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
