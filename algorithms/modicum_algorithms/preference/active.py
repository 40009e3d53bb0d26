"""Active preference learning: algorithm 2 (section 6.3), on one worker or many.

All workers run this in step; what only one of them does goes through `Worker.alone`. Every step's
result is kept in the journal (`Worker.once`), so a run that starts again repeats none: weights are
trained again only where the next missing step needs them.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import modicum as md
from modicum_algorithms.preference import finetuning
from modicum_algorithms.preference.acquisition import Candidates, Pool, choose, get_acquisition
from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.dpo import implicit_rewards
from modicum_algorithms.preference.evaluation import Match, win_rate
from modicum_algorithms.preference.finetuning import JudgedExample
from modicum_algorithms.preference.generation import Completion, Request
from modicum_algorithms.preference.inspection import ACQUIRED, EVALUATION, TRAINING
from modicum_algorithms.preference.judging import Judge
from modicum_algorithms.preference.oracle_settings import open_oracle
from modicum_algorithms.preference.policy import Policy
from modicum_algorithms.preference.prompts import Prompt, PromptLimits, read_prompts
from modicum_algorithms.preference.scoring import Example, Ids

Message = dict[str, Any]

# The model's folder in what a trial leaves behind.
MODEL = "model"

# Beside kept weights: whose they are.
_NOTE = "round.json"
# The policy's weights are no round's.
_BETWEEN = -1
# The step that samples θ0's completions of the held-out prompts.
_START = "start"


@dataclass(frozen=True)
class Arguments:
    """What the workers are told.

    Attributes:
        config: Settings.
        language_model: θ0's name or folder.
        seed: The trial's.
        trial: Its identity, under which an endpoint's spending is added up.
    """

    config: PreferenceConfig
    language_model: str
    seed: int
    trial: str


def run_active_learning(worker: md.training.Worker, arguments: Arguments) -> Iterator[Message]:
    """Algorithm 2, as a computation for `run_on_workers`.

    Yields:
        For each round `budget`, `metrics`, and, at the end, `folder`: the name in the journal of
        what the trial leaves behind.
    """
    config = arguments.config
    opened = (
        open_oracle(config, run=arguments.trial, seed=md.derive_seed(arguments.seed, "errors"))
        if worker.first
        else contextlib.nullcontext()
    )
    with opened as oracle:
        policy = Policy.load(
            config,
            arguments.language_model,
            md.derive_seed(arguments.seed, "adapters"),
            worker,
        )
        learning = ActiveLearning.start(policy, Judge(oracle, worker), arguments)
        yield from learning.rounds()


@dataclass
class Clock:
    """Seconds spent on each part of the work by this process."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Count the time of a block to a part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - started


@dataclass(frozen=True)
class Question:
    """A prompt, as tokens and text, and how many tokens its completions may have."""

    prompt: Prompt
    ids: Ids
    tokens: int


@dataclass
class ActiveLearning:
    """The state of algorithm 2.

    Attributes:
        policy: p_θ.
        judge: Asks the oracle.
        config: Settings.
        seed: The trial's.
        training: X, the prompts to draw from.
        held_out: The prompts of evaluations.
        pool: Which of X are left.
        acquired: X_P: rows as they are kept in `acquired.jsonl`, tokens included.
        trained: Number of the round whose weights the policy has; 0 for θ0.
        training_rows: What updates did, as in `training.jsonl`.
        matches: Evaluations, as in `evaluation.jsonl`.
        evaluation_judgements: How many were asked for.
    """

    policy: Policy
    judge: Judge
    config: PreferenceConfig
    seed: int
    training: Sequence[Question]
    held_out: Sequence[Question]
    pool: Pool
    acquired: list[dict[str, Any]] = field(default_factory=list)
    trained: int = 0
    training_rows: list[dict[str, Any]] = field(default_factory=list)
    matches: list[dict[str, Any]] = field(default_factory=list)
    evaluation_judgements: int = 0
    clock: Clock = field(default_factory=Clock)

    @classmethod
    def start(cls, policy: Policy, judge: Judge, arguments: Arguments) -> ActiveLearning:
        """Read the prompts: 1 to 4 of algorithm 2.

        Raises:
            InputError: There are too few prompts, or one does not fit the model's context.
        """
        config, seed = arguments.config, arguments.seed
        questions = {
            split: _questions(config, policy, split, md.derive_seed(seed, f"{split} prompts"))
            for split in ("train", "test")
        }
        order = np.random.default_rng(md.derive_seed(seed, "held out")).permutation(
            len(questions["test"])
        )
        if len(order) < config.evaluation_prompts:
            raise md.InputError(
                f"evaluation_prompts: must be at most {len(order)}, the held-out prompts of "
                f"{config.prompts}, got {config.evaluation_prompts}"
            )
        if len(questions["train"]) < config.oracle_calls:
            raise md.InputError(
                f"oracle_calls: must be at most {len(questions['train'])}, the training prompts of "
                f"{config.prompts}, got {config.oracle_calls}"
            )
        return cls(
            policy=policy,
            judge=judge,
            config=config,
            seed=seed,
            training=questions["train"],  # 1: X
            held_out=[questions["test"][place] for place in order[: config.evaluation_prompts]],
            pool=Pool(len(questions["train"]), config.removed_prompts),
        )

    @property
    def worker(self) -> md.training.Worker:
        """This process."""
        return self.policy.worker

    @property
    def steps(self) -> int:
        """K = ⌊B/M⌋ (3 of algorithm 2)."""
        return self.config.oracle_calls // self.config.acquired_per_round

    def rounds(self) -> Iterator[Message]:
        """5 to 14 of algorithm 2."""
        if self.config.opponent == "start":
            self._held_out_completions(_START, 0)  # While the policy has these weights anyway.
        for i in range(1, self.steps + 1):  # 5
            metrics = self._acquire(i)  # 6 to 11
            rows = self._training_rows(i)  # 12
            self.training_rows += [{"round": i, **row} for row in rows]
            for epoch in self._evaluated_epochs(i):
                done = [row for row in rows if row["epoch"] <= epoch]
                if any(row["epoch"] == epoch for row in done):  # It may have stopped before.
                    found = self._evaluate(_epoch_step(i, epoch), None, epoch)
                    yield self._message({**_training_metrics(done), **found})
            metrics |= _training_metrics(rows)
            asked = i * self.config.acquired_per_round
            if i == self.steps or not self.config.evaluate_at or asked in self.config.evaluate_at:
                epochs = int(metrics["training/epoch"])
                metrics |= self._evaluate(f"round-{i:03}/evaluation", i, epochs)  # 13
            yield self._message(metrics, folder=self._leave() if i == self.steps else None)

    def _message(self, metrics: Mapping[str, float], folder: str | None = None) -> Message:
        timing = {f"time/{part}": seconds for part, seconds in self.clock.seconds.items()}
        return {"budget": len(self.acquired), "metrics": {**metrics, **timing}, "folder": folder}

    # Acquisition: 6 to 11.

    def _acquire(self, i: int) -> dict[str, float]:
        config, name = self.config, f"round-{i:03}"
        stages = get_acquisition(config.acquisition)
        count = stages.prompts_to_draw(
            config.prompts_per_round, config.entropy_factor, self.pool.left
        )
        drawn = self.pool.draw(count, self._generator(f"{name} prompts"))  # 6
        metrics: dict[str, float] = {"acquired/drawn": len(drawn)}
        kept = drawn
        if stages.prompts is not None:
            candidates = self._candidates(i, drawn, stages.prompts.needs, None)
            places = choose(
                stages.prompts,
                candidates,
                config.prompts_per_round,
                self._generator(f"{name} kept prompts"),
            )
            kept = drawn[places]
        pairs: list[dict[str, Any]] | None = None
        if stages.needs_completions:
            pairs = self._pairs(i, kept)  # 7
        candidates = self._candidates(i, kept, stages.pairs.needs, pairs)  # 8
        places = choose(  # 9
            stages.pairs,
            candidates,
            config.acquired_per_round,
            self._generator(f"{name} choice"),
        )
        chosen = [pairs[p] for p in places] if pairs else self._pairs(i, kept[places])
        self._rewards(i, chosen)
        metrics |= self._ask(i, chosen)  # 10 and 11
        self.pool = self.pool.after(drawn, kept[places])
        return metrics

    def _candidates(
        self,
        i: int,
        drawn: np.ndarray,
        needs: frozenset[str],
        pairs: list[dict[str, Any]] | None,
    ) -> Candidates:
        known: dict[str, np.ndarray] = {}
        if "entropy" in needs:
            known["sample_log_probabilities_SN"] = np.array(self._entropy_samples(i, drawn))
        if "embeddings" in needs:
            known["embeddings_SD"] = np.array(self._embeddings(i, drawn))
        if "rewards" in needs:
            assert pairs is not None
            self._rewards(i, pairs)
            known["implicit_rewards_S2"] = np.array([pair["rewards"] for pair in pairs])
        if "costs" in needs:
            assert pairs is not None
            # What an oracle reads is what it charges for.
            known["costs_S"] = np.array(
                [
                    len(self.training[pair["place"]].ids) + len(pair["first"]) + len(pair["second"])
                    for pair in pairs
                ],
                dtype=float,
            )
        return Candidates(size=len(drawn), **known)

    def _pairs(self, i: int, places: np.ndarray) -> list[dict[str, Any]]:
        """Two completions of each prompt by θ of the round before, with log p_θ (step 7)."""

        def sample() -> list[dict[str, Any]]:
            self._have(i - 1)
            found = self._sampled(
                "generation",
                f"round-{i:03} completions",
                {int(place): self.training[place] for place in places},
                2,
                self.config.sampling_temperature,
            )
            return [
                {
                    "place": int(place),
                    "first": list(first.ids),
                    "second": list(second.ids),
                    "log_probabilities": [first.log_probability, second.log_probability],
                }
                for place, first, second in zip(places, found[::2], found[1::2], strict=True)
            ]

        return self.worker.once(f"round-{i:03}/pairs", sample)

    def _sampled(
        self,
        part: str,
        purpose: str,
        questions: Mapping[int, Question],
        count: int,
        temperature: float,
    ) -> list[Completion]:
        """So many completions of each question by the policy as it is, side by side.

        Args:
            part: What their time is counted to.
            purpose: Of their seed.
            questions: By the number that enters their seeds.
            count: Completions of each.
            temperature: Of the sampling.
        """
        seed = self._seed(purpose)
        with self.clock.measure(part):
            return self.policy.complete(
                [
                    Request(question.ids, question.tokens, _mixed(seed, number, k))
                    for number, question in questions.items()
                    for k in range(count)
                ],
                temperature,
                version=None if self.trained == _BETWEEN else self.trained,
            )

    def _entropy_samples(self, i: int, places: np.ndarray) -> list[list[float]]:
        """Log p_θ of N samples of each prompt (equation 6.8)."""
        samples = self.config.entropy_samples

        def sample() -> list[list[float]]:
            self._have(i - 1)
            found = self._sampled(
                "entropy",
                f"round-{i:03} entropy",
                {int(place): self.training[place] for place in places},
                samples,
                self.config.entropy_temperature,
            )
            values = [completion.log_probability for completion in found]
            return [values[s : s + samples] for s in range(0, len(values), samples)]

        return self.worker.once(f"round-{i:03}/entropy", sample)

    def _embeddings(self, i: int, places: np.ndarray) -> list[list[float]]:
        def compute() -> list[list[float]]:
            self._have(i - 1)
            return self.policy.embeddings([self.training[place].ids for place in places])

        return self.worker.once(f"round-{i:03}/embeddings", compute)

    def _rewards(self, i: int, pairs: list[dict[str, Any]]) -> None:
        """r̂ of both completions (equation 6.5), written into the pairs.

        In the first round θ = θ0, and all rewards are 0, not what rounding makes of it.
        """
        missing = [pair for pair in pairs if "rewards" not in pair]
        if i == 1:
            for pair in missing:
                pair["rewards"] = [0.0, 0.0]
            return
        reference = self._reference(missing, f"round-{i:03}/reference-{len(missing):06}")
        for pair, logs_0 in zip(missing, reference, strict=True):
            pair["reference"] = logs_0
            pair["rewards"] = implicit_rewards(
                torch.tensor(pair["log_probabilities"], dtype=torch.float64),
                torch.tensor(logs_0, dtype=torch.float64),
                self.config.beta,
            ).tolist()

    def _reference(self, pairs: Sequence[dict[str, Any]], step: str) -> list[list[float]]:
        """Log p_θ0 of both completions of each pair."""

        def compute() -> list[list[float]]:
            wanted = [
                (self.training[pair["place"]].ids, tuple(pair[side]))
                for pair in pairs
                for side in ("first", "second")
            ]
            with self.clock.measure("reference"):
                found = self.policy.reference_log_probabilities(wanted)
            return [found[n : n + 2] for n in range(0, len(found), 2)]

        return self.worker.once(step, compute) if pairs else []

    def _ask(self, i: int, chosen: list[dict[str, Any]]) -> dict[str, float]:
        """Judge the chosen pairs and add them to X_P."""
        decode = self.policy.decode
        questions = [self.training[pair["place"]] for pair in chosen]
        seed = self._seed(f"round-{i:03} order")
        with self.clock.measure("oracle"):
            answers = self.judge.ask(
                [
                    md.oracles.Pair(
                        question.prompt.text,
                        decode(tuple(pair["first"])),
                        decode(tuple(pair["second"])),
                        seed=_mixed(seed, pair["place"], 0),
                    )
                    for question, pair in zip(questions, chosen, strict=True)
                ],
                f"round-{i:03}/judgements",
            )
        judged = []
        for pair, answer in zip(chosen, answers, strict=True):
            if answer["winner"] is None:
                continue  # There is no judgement, and none is made up.
            judged.append(
                {
                    "round": i,
                    **pair,
                    **answer,
                }
            )
        self.acquired += judged
        correct = [
            (row["rewards"][0] > row["rewards"][1]) == (row["winner"] == "first") for row in judged
        ]
        differences = [abs(row["rewards"][0] - row["rewards"][1]) for row in judged]
        metrics = {
            "acquired/failures": 1 - len(judged) / len(chosen),
            "acquired/tokens": float(
                np.mean([len(p["first"]) + len(p["second"]) for p in chosen]) / 2
            ),
            "acquired/cost": sum(answer["cost"] for answer in answers),
        }
        if judged and i > 1:
            metrics["acquired/accuracy"] = float(np.mean(correct))
            metrics["acquired/certainty"] = float(np.mean(differences))
        return metrics

    # Fine-tuning: 12.

    def _have(self, i: int) -> None:
        """Make the policy's weights those after round i, unless they are already."""
        if self.trained == i:
            return
        if i == 0:
            self.policy.engine.reset()
        elif self._load(i, done=True) is None:
            self._train(i)
        self.trained = i

    def _training_rows(self, i: int) -> list[finetuning.Row]:
        """What round i's updates did."""
        missing = [row for row in self.acquired if "reference" not in row]
        references = self._reference(missing, f"round-{i:03}/reference-acquired")
        for row, found in zip(missing, references, strict=True):
            row["reference"] = found
        return self.worker.once(f"round-{i:03}/training", lambda: self._train(i))

    def _train(self, i: int) -> list[finetuning.Row]:
        with self.clock.measure("training"):
            rows = self._online(i) if self.config.fine_tuning == "online" else self._refit(i)
        self.trained = i
        if self.config.training.save_every or self.config.fine_tuning == "online":
            self._save(i, rows, done=True)
        return rows

    def _refit(self, i: int) -> list[finetuning.Row]:
        """From θ0 on all pairs, or on from the last checkpoint of this round."""
        pairs = self._judged_examples([row for row in self.acquired if row["round"] <= i])
        self.trained = _BETWEEN
        rows = self._load(i, done=False)
        if rows is None:
            self.policy.engine.reset()
            rows = []
        every = self.config.training.save_every

        def after_update(row: finetuning.Row) -> None:
            rows.append(row)
            if every and self.policy.engine.updates % every == 0:
                self._save(i, rows, done=False)

        for epoch in finetuning.epochs(
            self.policy, pairs, self.config, self._seed(f"round-{i:03} epochs"), after_update
        ):
            if epoch in self._evaluated_epochs(i):
                self._held_out_completions(_epoch_step(i, epoch), None)
        return rows

    def _online(self, i: int) -> list[finetuning.Row]:
        """One update on the newest pairs (appendix D.4)."""
        self._have(i - 1)
        pairs = self._judged_examples([row for row in self.acquired if row["round"] == i])
        if not pairs:
            return []
        self.trained = _BETWEEN
        row = finetuning.update_on(self.policy, pairs, self.config)
        return [{"update": self.policy.engine.updates - 1, "epoch": 1, **row}]

    def _judged_examples(self, rows: Sequence[dict[str, Any]]) -> list[JudgedExample]:
        found = []
        for row in rows:
            won, lost = ("first", "second") if row["winner"] == "first" else ("second", "first")
            reference = row["reference"] if won == "first" else row["reference"][::-1]
            tail: Ids = ()
            if self.config.rationale_weight and row["rationale"]:
                tail = self.policy.encode_continuation(f"\n{row['rationale']}")
            example = Example(
                self.training[row["place"]].ids, tuple(row[won]), tuple(row[lost]), tail
            )
            found.append(JudgedExample(example, (reference[0], reference[1])))
        return found

    def _save(self, i: int, rows: Sequence[finetuning.Row], *, done: bool) -> None:
        def write(folder: Path) -> None:
            self.policy.engine.save(folder)
            if self.worker.first:
                note = {"round": i, "done": done, "rows": list(rows)}
                (folder / _NOTE).write_text(json.dumps(note))

        self.worker.keep_state("weights", write)

    def _load(self, i: int, *, done: bool) -> list[finetuning.Row] | None:
        """Load weights of round i, from its end or from its middle, if they were kept; its rows."""
        with self.worker.kept_state("weights") as folder:
            if folder is None:
                return None
            note = json.loads((folder / _NOTE).read_text())
            if (note["round"], note["done"]) != (i, done):
                return None
            self.policy.engine.load(folder)
            return list(note["rows"])

    # Evaluation: 13.

    def _evaluated_epochs(self, i: int) -> range:
        """Epochs of the last round after which it is evaluated (figure D.1), its last one apart."""
        every = self.config.evaluate_epochs
        return range(every, self.config.epochs, every) if every and i == self.steps else range(0)

    def _held_out_completions(self, step: str, trained: int | None) -> list[Ids]:
        """The model's completions of the held-out prompts.

        Args:
            step: Name for the journal, which draws them, too.
            trained: Round whose weights it is to have; None for those that it has.
        """

        def sample() -> list[list[int]]:
            if trained is not None:
                self._have(trained)
            found = self._sampled(
                "evaluation",
                step,
                dict(enumerate(self.held_out)),
                1,
                self.config.evaluation_temperature,
            )
            return [list(completion.ids) for completion in found]

        return [tuple(ids) for ids in self.worker.once(f"{step}-completions", sample)]

    def _evaluate(self, step: str, trained: int | None, epoch: int) -> dict[str, float]:
        mine = self._held_out_completions(step, trained)
        if self.config.opponent == "human":
            opponents = [question.prompt.human or "" for question in self.held_out]
        else:
            theirs = self._held_out_completions(_START, 0)
            opponents = [self.policy.decode(ids) for ids in theirs]
        matches = [
            Match(question.prompt.text, self.policy.decode(ids), opponent)
            for question, ids, opponent in zip(self.held_out, mine, opponents, strict=True)
        ]
        with self.clock.measure("oracle"):
            found = win_rate(matches, self.judge, step, self._seed("evaluation order"))
        if "win_rate" not in found:
            self.worker.log.warning(
                "%s: the oracle judged none of %d held-out prompts, so there is no win-rate",
                step,
                len(matches),
            )
        self.matches += [
            {"budget": len(self.acquired), "epoch": epoch, **row} for row in found.pop("rows")
        ]
        self.evaluation_judgements += found.pop("judgements")
        return {
            **{f"evaluation/{name}": value for name, value in found.items()},
            "evaluation/tokens": float(np.mean([len(ids) for ids in mine])),
            "evaluation/judgements": self.evaluation_judgements,
        }

    # What is left behind.

    def _leave(self) -> str:
        """Keep the model and the rows as a folder of the journal; its name."""
        name = "left"
        self._have(self.steps)
        weights = self.policy.weights()
        if self.worker.first:
            folder = self.worker.scratch / name
            folder.mkdir()
            md.training.export_language_model(self.policy.language, weights, folder / MODEL)
            for file, rows in (
                (ACQUIRED, self._acquired_rows()),
                (EVALUATION, self.matches),
                (TRAINING, self.training_rows),
            ):
                lines = (json.dumps(row) + "\n" for row in rows)
                (folder / file).write_text("".join(lines), encoding="utf-8")
            self.worker.journal.keep_folder(name, folder)
            shutil.rmtree(folder)
        return name

    def _acquired_rows(self) -> list[dict[str, Any]]:
        return [
            {
                "round": row["round"],
                "prompt": self.training[row["place"]].prompt.text,
                "first": self.policy.decode(tuple(row["first"])),
                "second": self.policy.decode(tuple(row["second"])),
                "winner": row["winner"],
                "rationale": row["rationale"],
                "reward_first": row["rewards"][0],
                "reward_second": row["rewards"][1],
                "order": row["order"],
            }
            for row in self.acquired
        ]

    def _seed(self, purpose: str) -> int:
        return md.derive_seed(self.seed, purpose)

    def _generator(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng(self._seed(purpose))


def _epoch_step(i: int, epoch: int) -> str:
    return f"round-{i:03}/epoch-{epoch:04}"


def _mixed(seed: int, place: int, number: int) -> int:
    """A seed for one completion of one prompt."""
    return int(np.random.SeedSequence([seed, place, number]).generate_state(1, np.uint64)[0])


def _training_metrics(rows: Sequence[finetuning.Row]) -> dict[str, float]:
    """Means over the last epoch's updates, and how many updates there were.

    There are none where no pair of any round has a judgement.
    """
    if not rows:
        return {"training/epoch": 0, "training/updates": 0}
    last = [row for row in rows if row["epoch"] == rows[-1]["epoch"]]
    means = {
        f"training/{name}": float(np.mean([row[name] for row in last]))
        for name in ("loss", "accuracy", "margin")
    }
    return {**means, "training/epoch": last[0]["epoch"], "training/updates": len(rows)}


def _questions(
    config: PreferenceConfig, policy: Policy, split: Literal["train", "test"], seed: int
) -> list[Question]:
    """Prompts as tokens, with a length drawn for the completions of each.

    Raises:
        InputError: A prompt and its completion do not fit the model's context.
    """
    limits = PromptLimits(
        tokens_min=config.prompt_tokens_min,
        tokens_max=config.prompt_tokens_max,
        characters_min=config.post_characters_min,
        characters_max=config.post_characters_max,
        characters_of=config.counted_characters,
    )
    prompts = read_prompts(
        config.prompts, split, policy.language.tokenizer, seed, limits, config.prompt_rows
    )
    lengths = np.random.default_rng(seed).integers(
        config.completion_tokens_min, config.completion_tokens_max, len(prompts), endpoint=True
    )
    found = []
    context = policy.language.context
    encoded = policy.encode([prompt.text for prompt in prompts])
    for prompt, ids, tokens in zip(prompts, encoded, lengths.tolist(), strict=True):
        if context is not None and len(ids) + tokens > context:
            raise md.InputError(
                f"prompts: a prompt of {len(ids)} tokens with a completion of {tokens} must fit "
                f"the model's context of {context} tokens: {prompt.text[:60]!r}"
            )
        found.append(Question(prompt, ids, tokens))
    return found
