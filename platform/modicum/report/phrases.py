"""Sentences and column titles that the page and the Markdown of a report share."""

from __future__ import annotations

EVALUATION_TITLE = "Spent on evaluation, beside the budget"
EVALUATION_LEGEND = "Mean per trial."
BUDGET_LEGEND = (
    "Median over seeds with its 95% bootstrap interval. A seed counts from the smallest "
    "budget tried at which it reached the target; > means beyond the largest budget tried."
)
WINS_LEGEND = (
    "cells of all tables above in which a row has the best or second-best "
    "mean. Equal means share a rank and leave out the next."
)
COMPARISON_HEADER = ("compared", "at", "difference in {}", "95% interval", "p", "seeds")
COMPARISON_LEGEND = (
    "Paired t over the seeds that both have; bold where the interval leaves out zero. "
    "p-values are not corrected for their number."
)
VERDICT_HEADER = (
    "cell",
    "published",
    "ours",
    "95% interval of the difference",
    "verdict",
    "direction",
)
VERDICT_LEGEND = (
    "matches: the 95% Welch interval of ours minus published contains "
    "0, or both are single numbers and equal"
)
DIRECTION_LEGEND = "direction: whether the sign of the difference to {} agrees"
