"""What happens around a step: the log's row, the line of progress, whole checkpoints, a stop on Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from veridical.align import distributed
from veridical.align.run_folder import mark_complete
from veridical.progress import Line

COLUMNS = (
    "loss",
    "learning_rate",
    "grad_norm",
    "rewards/accuracies",
    "rewards/margins",
    "rewards/chosen",
    "rewards/rejected",
    "logps/chosen",
    "logps/rejected",
)


_SHOWN = {"loss": "loss", "reward": "reward", "rewards/margins": "margin", "rewards/accuracies": "accuracy"}


class StepLog(TrainerCallback):  # type: ignore[misc]
    """Appends a row a step to `log.jsonl`: step, epoch, `columns` (null for what the objective lacks)."""

    def __init__(self, path: Path, columns: Sequence[str] = COLUMNS) -> None:
        self.path, self.columns = path, columns

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **_: Any,
    ) -> None:
        """Write the row of the step that was just taken."""
        if "loss" in logs and state.is_world_process_zero:  # the last call of a training carries totals instead
            known = {"step": state.global_step, "epoch": logs["epoch"], **{c: logs.get(c) for c in self.columns}}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**known, **logs}) + "\n")


class StepProgress(TrainerCallback):  # type: ignore[misc]
    """Moves the line of progress with every step."""

    def __init__(self, line: Line) -> None:
        self.line = line

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **_: Any,
    ) -> None:
        """Show the step's loss, and the reward, or the margin and accuracy of a preference objective."""
        if "loss" in logs:
            shown = [f"{label} {logs[name]:.3f}" for name, label in _SHOWN.items() if name in logs]
            self.line.advance(1, "  ".join(shown))


class WholeCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Marks a checkpoint, with the hashes of its files, when all of it is written; no other is continued from."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Mark the checkpoint of this step, when every process has written its part."""
        distributed.wait_for_all()
        if state.is_world_process_zero:
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class StopOnSignal(TrainerCallback):  # type: ignore[misc]
    """On Ctrl-C or SIGTERM, finishes the step, saves a checkpoint and stops; a second one stops at once.

    A context manager; `stopped` tells afterwards whether that happened.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._previous: dict[int, Any] = {}
        self._owner = os.getpid()

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask the trainer for a checkpoint and an end, if a signal came to any process."""
        self.stopped = any(distributed.gathered(self.stopped))
        if self.stopped:
            control.should_save = True
            control.should_training_stop = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            # A forked data-loader worker, which inherits this handler: it ends when its parent says so.
            if number == signal.SIGTERM:
                os._exit(0)
            return
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True
