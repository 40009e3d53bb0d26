"""Somebody else's experiment: estimate a coin's bias from few tosses."""

import modicum as md


class CoinConfig(md.Config):
    estimator: str = md.setting("mean", description="mean or laplace.")
    bias: float = md.setting(0.7, description="The coin's true bias.", ge=0, le=1)


class Coin(md.Experiment[CoinConfig]):
    """Estimate a coin's bias."""

    name = "coin"
    version = "1"
    budget_unit = "samples"
    Config = CoinConfig
    metrics = {"error": md.Metric("Absolute error of the estimate.", goal="min")}  # noqa: RUF012

    def check(self, config):
        if config.estimator not in {"mean", "laplace"}:
            raise md.InputError(f"estimator: expected mean or laplace, got {config.estimator!r}")

    def run(self, config, trial):
        generator = trial.generator("tosses")
        heads = 0
        for tosses in range(1, 33):
            heads += int(generator.random() < config.bias)
            extra = 1 if config.estimator == "laplace" else 0
            estimate = (heads + extra) / (tosses + 2 * extra)
            if tosses & (tosses - 1) == 0:
                yield md.Record(budget=tosses, metrics={"error": abs(estimate - config.bias)})
