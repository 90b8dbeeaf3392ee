"""Full training, a frozen encoder, LoRA and DoRA beside each other: same data, same steps.

Each variant trains in a process of its own, so that its peak memory is its own; the seconds of a
step are taken afterwards, all variants in turn on the same batches. The ratio is that of a full
step to a LoRA step.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from datasets import load_from_disk

from benchmarks.common import (
    alternate,
    count_test_errors,
    open_prepared_run,
    ratio,
    save_result,
)
from utils.artifacts import open_run
from utils.config import load_recipe
from utils.environment.machine import peak_gib
from utils.export.formats import size_mb
from utils.preprocessing.prepare import prepare
from utils.scoring.error_rates import error_rate
from utils.scoring.intervals import paired_p_value, rate_with_interval
from utils.training.run import build_trainer, train
from utils.whisper.load import load_model

TARGET = "full training has the lowest WER, LoRA and DoRA the smallest files; how far apart is open"
# A thin matrix that starts at zero has further to go than a weight that is nearly right: about ten
# times the rate is customary.
RATES = {"full": 4e-5, "frozen_encoder": 4e-5, "lora": 4e-4, "dora": 4e-4}


def write_recipe(folder: Path, source: Path, weights: str, steps: int) -> Path:
    """Write a recipe that differs from `source` in method, rate and steps; one save, at the end."""
    text = source.read_text(encoding="utf-8")
    changed = {"max_steps": steps, "learning_rate": RATES[weights]}
    changed |= {"eval_steps": steps, "save_steps": steps, "warmup_steps": steps // 8}
    for key, value in changed.items():
        text, found = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        assert found == 1, key
    path = folder / f"{weights}.toml"
    path.write_text(f'{text}\n[method]\nweights = "{weights}"\n', encoding="utf-8")
    return path


def trained_share(model: torch.nn.Module) -> float:
    """Return the share of the weights that is trained."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    return sum(size for size, trained in sizes if trained) / sum(size for size, _ in sizes)


def train_one(path: Path, runs: Path, result: Path) -> None:
    """Train one variant and write what it came to."""
    recipe = load_recipe(path)
    run = open_run(recipe, runs)
    share = trained_share(build_trainer(recipe, run).model)
    trainer = train(recipe, run)
    found = {
        "trained_share": share,
        "peak_gib": peak_gib(),
        "peak_gpu_gib": torch.cuda.max_memory_allocated() / 2**30,
        "checkpoint_mb": size_mb(next(run.checkpoints.glob("checkpoint-*"))),
        "kept_mb": size_mb(run.adapter if run.adapter.exists() else run.model),
        "errors": count_test_errors(
            recipe, run.prepared, trainer.model, trainer.processing_class, recipe.audio_context
        ).tolist(),
    }
    result.write_text(json.dumps(found), encoding="utf-8")


def steps_of(path: Path, runs: Path, batches: list[list[int]]):  # noqa: ANN201
    """Return a function that takes one optimizer step on each of some batches."""
    recipe = load_recipe(path)
    trainer = build_trainer(recipe, open_run(recipe, runs))
    model, rows = trainer.model.to(trainer.args.device).train(), trainer.train_dataset
    optimizer = trainer.create_optimizer()

    def step() -> None:
        for batch in batches:
            inputs = trainer.data_collator([rows[index] for index in batch])
            inputs = {name: values.to(trainer.args.device) for name, values in inputs.items()}
            with trainer.accelerator.autocast():
                loss = trainer.compute_loss(model, inputs)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return step


def main() -> None:
    """Train, measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/embedded.toml"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train", type=Path, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        return train_one(*options.train)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = load_recipe(options.recipe)
        prepare(recipe, load_model(recipe)[1].tokenizer, folder / "prepared")
        paths, found = {}, {}
        for weights in RATES:
            paths[weights] = write_recipe(folder, options.recipe, weights, options.steps)
            open_prepared_run(load_recipe(paths[weights]), folder / "runs", folder / "prepared")
            result = folder / f"{weights}.json"
            command = [sys.executable, "-m", "benchmarks.variants", "--train"]
            subprocess.run([*command, paths[weights], folder / "runs", result], check=True)
            found[weights] = json.loads(result.read_text(encoding="utf-8"))
            print(weights, f"{error_rate(np.array(found[weights]['errors'])):.1%}", flush=True)
        seconds = load_from_disk(str(folder / "prepared"))["train"]["seconds"][:]
        # Clips of all lengths: every n-th of the sorted ones.
        order = sorted(range(len(seconds)), key=lambda row: seconds[row])
        batches = [order[start : start + 8] for start in (len(order) // 4, 3 * len(order) // 4)]
        times = alternate(
            {weights: steps_of(path, folder / "runs", batches) for weights, path in paths.items()},
            options.rounds,
        )

    rows = []
    for weights, values in list(found.items()):
        errors = found[weights] = np.array(values.pop("errors"))
        p = paired_p_value(found["full"], errors, recipe.evaluation.resamples)
        rows.append(
            {"weights": weights, "learning_rate": RATES[weights], "steps": options.steps}
            | {"clips": len(errors)}
            | rate_with_interval("wer", errors, recipe.evaluation.resamples)
            | {"p_against_full": p, "seconds_over_full": ratio(times[weights], times["full"])}
            | values
        )
    print("wrote", save_result("variants", TARGET, ratio(times["full"], times["lora"]), rows))
    return None


if __name__ == "__main__":
    main()
