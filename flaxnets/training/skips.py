"""Steps that changed nothing, because their loss or gradient was not finite: logged, and borne up to a limit."""

import logging
import math
from collections.abc import Callable

from flaxnets.errors import DivergenceError
from flaxnets.training.log import MetricsLog


class Skips:
    """Sees the metrics of each step, in order.

    Args:
      limit: steps in a row that are borne; one less goes on.
      examples: indices of the training examples that a step saw.
      log: where they are written.
    """

    def __init__(self, limit: int, examples: Callable[[int], list[int]], log: MetricsLog):
        self._limit = limit
        self._examples = examples
        self._log = log
        self._in_a_row = 0

    def is_finite(self, step: int, metrics: dict[str, float]) -> bool:
        """Whether the step counts; if not, it is logged. Raises DivergenceError at the limit."""
        if math.isfinite(metrics["loss"]) and math.isfinite(metrics["gradient_norm"]):
            self._in_a_row = 0
            return True
        self._in_a_row += 1
        found = {name: str(metrics[name]) for name in ("loss", "gradient_norm")}  # JSON has no word for them
        self._log.write_line({"step": step, "split": "skipped", **found, "examples": self._examples(step)})
        logging.getLogger(__name__).warning(
            "Step %d changed nothing: its loss is %s, its gradient norm %s. Its examples are in metrics.jsonl.",
            *(step, *found.values()),
        )
        if self._in_a_row == self._limit:
            steps = "step" if self._limit == 1 else "steps in a row"
            raise DivergenceError(f"Loss or gradient were not finite in {self._limit} {steps}, up to step {step}")
        return False
