import typer

app = typer.Typer(help="Commands of the toy package.")


@app.command()
def toss(times: int) -> None:
    """Toss a coin."""
    print("heads" * times)


@app.command()
def nothing() -> None:
    """Do nothing."""
