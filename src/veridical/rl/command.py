"""`veridical rl`: trains by policy gradient on rewards of the model's own answers.

run.json          settings, and hashes of records and model   log.jsonl          a row a step, in TRL's words
config.yaml       all settings                                completions.jsonl  answers with their rewards
adapter/          the result, PEFT's layout                   checkpoints/       to continue from
held_out.json     the images kept for evaluation              watch.jsonl        evaluations during training
rejects.jsonl     records that can't be used                  summary.json       written last: the run is done
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical import runs
from veridical.errors import UserError
from veridical.files import read_json, write_json, write_json_lines
from veridical.formats.sources import is_world, read_records
from veridical.judges import registry as judges
from veridical.judges.interface import Kind
from veridical.judges.lexicon_sources import Words, find_words
from veridical.pairs import held_out
from veridical.pairs.run_folder import digest_of
from veridical.progress import Line
from veridical.records import Record, Rejection
from veridical.rl.config import RlConfig, config_type, filled
from veridical.rl.questions import with_questions
from veridical.rl.registry import asked_of_judge, weighted
from veridical.rl.token_rewards import asked_of_judge as asked_about_tokens
from veridical.rl.token_rewards import weighted_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.align.policy import Policy
    from veridical.align.watch import Watch
    from veridical.judges.panel import Panel
    from veridical.rl.base import Algorithm
    from veridical.rl.work import PolicyGradient, Task
    from veridical.vlm.model.loading import Vlm
    from veridical.vlm.shrinking import BatchLimit

__all__ = ["RlConfig", "config_type", "run"]

COMMAND = "rl"
COLUMNS = (
    *("loss", "learning_rate", "grad_norm", "reward", "reward_std", "frac_reward_zero_std", "kl", "entropy"),
    *("clip_ratio/region_mean", "completions/mean_length", "completions/clipped_ratio"),
    *("oracle/score", "oracle/chair_s", "oracle/recall", "completions/words", "completions/repetition"),
    "completions/yes_ratio",
)
_STANDARD = "standard.json"


@dataclass(frozen=True)
class Prompts:
    """What is trained on: records, those kept for evaluation, what can't be used, and the words for objects."""

    records: list[Record]
    kept_back: list[Record]
    rejects: list[Rejection]
    words: Words | None


def run(config: RlConfig, records: Sequence[Record] | None = None) -> Path:
    """Train as `config` says and return the run folder; `adapter/` in it, in PEFT's layout, or `model/` is the result.

    Continues a run that was interrupted, to the same weights; returns at once if it is done. Raises UserError for what
    the user can mend, KeyboardInterrupt (with a checkpoint saved) after Ctrl-C.
    """
    config = filled(config)
    if (config.out / "summary.json").exists():
        runs.check(config.out, COMMAND, config)
        _say(f"{config.out} is already complete; its result is {config.result}")
        return config.out
    from veridical.align import distributed
    from veridical.align.run_folder import opened_by_main

    with distributed.joined(config.device):
        distributed.require_same("settings", runs.identity_of(config))
        with opened_by_main(config.out, COMMAND, config) as folder:
            prompts = _prompts(config, distributed.on_main(lambda: _read(config, records)))
            panel = judges.open_panel(config.judge, judges.Same(), judges.JudgeContext(prompts.words))
            usable, rejects = distributed.on_main(lambda: _usable(config, prompts, panel))
            prompts = replace(prompts, records=usable, rejects=rejects)
            digest = digest_of([*prompts.records, *prompts.kept_back])
            distributed.on_main(lambda: folder.settle({"records": digest}))
            _train(config, folder, prompts, panel)
    return config.out


def _read(config: RlConfig, given: Sequence[Record] | None) -> list[Record | Rejection]:
    limit = None if config.limit is None else config.skip + config.limit
    if given is None:
        work = config.out / "records"
        found = list(read_records(config.records, work, limit=limit, seed=config.seed, prompt=config.prompt))
    else:
        found = list(given[:limit])
    found = found[config.skip :]
    if not any(isinstance(one, Record) for one in found):
        raise UserError(f"{config.records}: holds no usable records{f' beyond {config.skip}' * (config.skip > 0)}.")
    return found


def _prompts(config: RlConfig, found: Sequence[Record | Rejection]) -> Prompts:
    from veridical.align import distributed

    records = [one for one in found if isinstance(one, Record)]
    rejects = [one for one in found if isinstance(one, Rejection)]
    share = held_out.share_for(config.records, config.held_out)
    kept = held_out.held_out(records, share, config.seed)
    kept_back = [one for one in records if one.id in kept]
    if kept_back and distributed.is_main():
        held_out.write(config.out, config.records, share, config.seed, kept_back)
    words = find_words(config.lexicon, is_world(config.records), records)
    rest = [one for one in records if one.id not in kept]
    return Prompts(with_questions(rest, words, config.questions, config.seed), kept_back, rejects, words)


def _asked(config: RlConfig) -> list[Kind]:
    """What the judge must answer."""
    of_tokens = asked_about_tokens(list(weighted_tokens(config.token_rewards)))
    return list(dict.fromkeys([*asked_of_judge(list(weighted(config.rewards))), *of_tokens]))


def _usable(config: RlConfig, prompts: Prompts, panel: Panel) -> tuple[list[Record], list[Rejection]]:
    """The prompts without those that the judge can't judge or that have no sound image, and these, with what was left
    out before; tells the user of them."""
    from veridical.align import distributed
    from veridical.rl.rewards import truth
    from veridical.vlm.images.files import ImageError, open_image

    kinds = _asked(config)
    panel.require(kinds, "rl with these rewards")
    records, rejects = [], list(prompts.rejects)
    for record in prompts.records:
        lacking = None if truth(record) else panel.lacks(kinds, record)
        if lacking is not None:
            rejects.append(Rejection(record.id, lacking.reason, lacking.remedy, str(lacking)))
            continue
        try:
            for image in record.images:
                open_image(image)
        except ImageError as error:
            rejects.append(Rejection(record.id, error.reason, error.remedy, f"{error.path}: {error.detail}"))
            continue
        records.append(record)
    write_json_lines(config.out / "rejects.jsonl", map(asdict, rejects))
    reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(one.reason for one in rejects).items())
    if not records:
        first = rejects[0]
        raise UserError(
            f"{config.records}: no record can be used ({reasons}). For one, {first.detail}. {first.remedy}."
        )
    if (fewest := min(config.groups, len(records))) < distributed.count():
        raise UserError(f"groups: {distributed.count()} processes share the {fewest} prompts of a step; start fewer.")
    left_out = f"; left out: {reasons} (see {config.out / 'rejects.jsonl'})" if reasons else ""
    _say(f"{len(records)} prompts, {len(prompts.kept_back)} kept for evaluation{left_out}")
    return records, rejects


def _train(config: RlConfig, folder: runs.Run, prompts: Prompts, panel: Panel) -> None:
    from veridical.align import defaults, distributed, watch
    from veridical.align.policy import load_policy, snapshot
    from veridical.rl.prompts import PromptEncoder
    from veridical.rl.work import PolicyGradient
    from veridical.vlm.model.adapters import save_trained
    from veridical.vlm.shrinking import BatchLimit

    policy = load_policy(config)
    vlm, algorithm = policy.vlm, config.settings
    distributed.on_main(lambda: folder.settle({"model": policy.base}))
    if config.learning_rate is None:
        config = replace(config, learning_rate=defaults.learning_rate(vlm.model, config.train))
    if config.gradient_checkpointing:
        vlm.model.gradient_checkpointing_enable({"use_reentrant": False})
    watching = watch.opened(config.watch, config.out, vlm, policy.dtype, config.seed)
    limit = BatchLimit(config.micro_groups, "prompts", "--micro-groups")
    reference = snapshot(vlm.model) if config.train != "adapter" or config.reference == "start" else None
    head = _value_head(vlm.model) if algorithm.needs_values else None
    work = PolicyGradient(
        vlm,
        PromptEncoder(vlm, config.feature_memory_mb * 2**20, policy.dtype),
        algorithm,
        _task(config, prompts, panel, _token_model(config, vlm.model)),
        limit,
        reference if algorithm.needs_reference else None,
        head,
        config.out / "completions.jsonl" if config.log_completions and distributed.is_main() else None,
        keep_prefix=not config.gradient_checkpointing,
    )
    _say(
        f"{config.kind} at a learning rate of {config.learning_rate:g}: {config.groups} prompts a step, "
        f"{algorithm.num_generations} answers each, rewards {' '.join(config.rewards)}"
    )
    if distributed.is_main():
        _tell_memory(config, vlm, prompts)
    _calibrate(config, work)
    steps = _take_steps(config, policy, work, limit, head, watching)
    found = watching.restore() if watching is not None else None
    failures = sum(map(Counter, distributed.gathered(work.task.judging.failures)), Counter[str]())
    if not distributed.is_main():
        return
    save_trained(vlm, config.result)
    _finish(config, prompts, policy, steps, found, dict(failures))


def _token_model(config: RlConfig, model: Any) -> Mapping[str, Tensor] | None:
    """The weights by which the token reward `implicit` goes. Raises UserError for an adapter with other settings."""
    from veridical.align.policy import snapshot
    from veridical.align.step_trainer import put_weights
    from veridical.vlm.model.adapters import take_weights

    if config.token_adapter is None:
        return None
    own = snapshot(model)
    take_weights(model, config.lora, config.token_adapter)
    theirs = snapshot(model)
    put_weights(model, own)
    return theirs


def _tell_memory(config: RlConfig, vlm: Vlm, prompts: Prompts) -> None:
    """Print what a pass over some groups will take, worked out from the model's shape."""
    from veridical.vlm.inputs.context import Context
    from veridical.vlm.memory import announce

    first = prompts.records[0]
    announce(
        vlm,
        "lora" if config.train == "adapter" else "full",
        min(config.micro_groups, config.groups),
        Context(first.images, first.prompt),
        rows=config.settings.num_generations,
        answer=config.max_new_tokens,
        rank=config.lora.rank,
        checkpointing=config.gradient_checkpointing,
    )


def _task(config: RlConfig, prompts: Prompts, panel: Panel, token_model: Mapping[str, Tensor] | None) -> Task:
    from veridical.judges.reward_model import RewardModelSettings
    from veridical.rl.judging import Judging, Monitor
    from veridical.rl.work import Task
    from veridical.vlm.generation.params import SamplingParams

    reward_model: Any = None
    if config.reward_model:
        settings = RewardModelSettings(model=config.reward_model, output=config.reward_output, device=config.device)
        reward_model = settings.open(judges.JudgeContext(prompts.words))
    return Task(
        prompts.records,
        min(config.groups, len(prompts.records)),
        config.seed,
        SamplingParams(config.max_new_tokens, config.temperature),
        weighted(config.rewards),
        Judging(panel, reward_model, config.length_words, config.length_slack),
        Monitor(prompts.words),
        token_rewards=weighted_tokens(config.token_rewards),
        token_model=token_model,
    )


def _value_head(model: Any) -> Any:
    """A linear head over hidden states, that values everything at 0 before it has learnt anything."""
    import torch

    from veridical.vlm.model import families

    output = families.base_model(model).get_output_embeddings()
    head = torch.nn.Linear(output.weight.shape[-1], 1, device=output.weight.device, dtype=torch.float32)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    return head


def _calibrate(config: RlConfig, work: PolicyGradient) -> None:
    """Measure each reward's mean and deviation on answers of the model before its first step, once a run."""
    from veridical.align import distributed
    from veridical.rl.judging import Standard

    if config.standardise != "base":
        return
    path = config.out / _STANDARD

    def measure() -> None:
        if not path.exists():
            rewards = work.reward(work.sample(work.task.records[: config.calibration], "calibration"))
            write_json(path, asdict(Standard.of(rewards)))

    distributed.on_main(measure)
    work.task = replace(work.task, standard=Standard(**read_json(path)))


def _take_steps(
    config: RlConfig,
    policy: Policy,
    work: PolicyGradient,
    limit: BatchLimit,
    head: Any,
    watching: Watch | None,
) -> int:
    """Train from the last whole checkpoint on; returns the number of steps taken in all."""
    from veridical.align import callbacks, distributed, run_folder
    from veridical.align.step_trainer import StepTrainer

    algorithm: Algorithm = config.settings
    rollouts = -(-len(work.task.records) * config.epochs // work.task.groups)
    steps = rollouts * algorithm.num_iterations
    checkpoint = distributed.on_main(lambda: run_folder.continued(config.out, ("log.jsonl", "completions.jsonl")))
    done = run_folder.step_of(checkpoint)
    if done:
        _say(f"continuing after step {done} of {steps}")
    stop = callbacks.StopOnSignal()
    with stop, Line("training", steps, done, shown=distributed.is_main()) as line:
        watchers = [
            callbacks.StepLog(config.out / "log.jsonl", COLUMNS),
            callbacks.StepProgress(line),
            callbacks.WholeCheckpoints(),
            *([] if watching is None else [watching]),
            stop,
        ]
        rate = getattr(algorithm, "value_learning_rate", 0.0)
        trainer = StepTrainer(config, policy.vlm, work, steps, limit, watchers, head, rate)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    taken = int(trainer.state.global_step)
    if stop.stopped and taken < steps:
        _say(f"stopped after step {taken} of {steps}; the same command continues from there")
        raise KeyboardInterrupt
    return taken


def _finish(
    config: RlConfig, prompts: Prompts, policy: Policy, steps: int, watched: Any, failures: dict[str, int]
) -> None:
    """Write the summary, with which the run is done, and say what it amounts to."""
    from veridical.align.final_metrics import peak_memory
    from veridical.rl import verdict

    rows = [json.loads(line) for line in (config.out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    findings = verdict.judge(rows)
    last = rows[-max(1, len(rows) // 5) :]
    names = {name for row in last for name, value in row.items() if isinstance(value, int | float)}
    final = {name: _mean([row[name] for row in last if isinstance(row.get(name), int | float)]) for name in names}
    write_json(
        config.out / "summary.json",
        {
            "objective": config.kind,
            "learning_rate": config.learning_rate,
            "inputs": {"model": policy.base},
            "rewards": weighted(config.rewards),
            "prompts": {"used": len(prompts.records), "held_out": len(prompts.kept_back)},
            "skipped": dict(Counter(one.reason for one in prompts.rejects)),
            "judge_failures": failures,
            "steps": steps,
            "last_fifth": dict(sorted(final.items())),
            "watch": watched,
            "verdict": [asdict(finding) for finding in findings],
            "peak_memory": peak_memory(),
        },
    )
    _say(_sentence(rows))
    for finding in findings:
        _say(str(finding))
    if watched is not None:
        _say(_of_watch(watched))
    _say(f"{config.result.name}: {config.result}")


def _sentence(rows: Sequence[dict[str, Any]]) -> str:
    from veridical.rl.verdict import trend

    shown = {"reward": "reward", "oracle/score": "annotations' score", "oracle/recall": "recall"}
    shown |= {"oracle/chair_s": "answers that invent", "completions/words": "words"}
    trends = {label: found for name, label in shown.items() if (found := trend(rows, name)) is not None}
    if not trends:
        return f"{len(rows)} steps are too few to speak of a trend"
    return "from the first to the last fifth of the steps: " + "; ".join(f"{k} {v}" for k, v in trends.items())


def _of_watch(watched: dict[str, Any]) -> str:
    first, best = watched["evaluations"][0], watched["best"]
    if best is None:
        return (
            f"on watched pictures recall fell below {watched['least_recall']:.3f} at every evaluation; the last "
            "weights are kept"
        )
    return (
        f"on watched pictures {100 * best['chair_s']:.1f} % of descriptions invent at step {best['step']} (before: "
        f"{100 * first['chair_s']:.1f} %), recall {100 * best['recall']:.1f} % ({100 * first['recall']:.1f} %)"
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _say(text: str) -> None:
    """Print on the main process only."""
    if int(os.environ.get("RANK", "0")) == 0:
        print(text, file=sys.stderr, flush=True)
