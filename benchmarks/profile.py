"""Where the time of a training step and of a decoding step goes: stock 30 s beside short context.

PyTorch's profiler, the operators that cost most, as Markdown in `results/profile.md`. The ratio is
the operators' time of a stock training step over that of ours on the same clips.
"""

import argparse
import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from datasets import load_from_disk
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import RESULTS, open_trained, save_result
from benchmarks.training_step import Arm
from utils.artifacts import write_atomically
from utils.config import load_recipe
from utils.preprocessing.examples import waveform
from utils.whisper.decoding import transcribe

TARGET = "the short context leaves matrix products as the largest part; none asked for in figures"
TOP = 8  # operators a table


def operators(work: Callable[[], None]) -> tuple[float, list[dict[str, object]]]:
    """Return the milliseconds of all operators of one call, and those that cost most."""
    work()  # what is only done once shall not count
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        work()
    cost = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    # A kernel of the GPU has an entry of its own, and counts for the operator that started it, too.
    found = [one for one in profiler.key_averages() if one.device_type == DeviceType.CPU]
    found.sort(key=lambda one: -getattr(one, cost))
    total = sum(getattr(one, cost) for one in found)
    top = [
        {"operator": one.key, "calls": one.count, "share": getattr(one, cost) / total}
        for one in found[:TOP]
    ]
    return total / 1000, top


def main() -> None:
    """Profile, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="recipes/embedded.toml")
    parser.add_argument("--runs", default="runs", help="with a finished run of the recipe")
    parser.add_argument("--clips", type=int, default=8)
    options = parser.parse_args()

    recipe = load_recipe(options.recipe)
    # Fine-tuned: the base checkpoint repeats itself where it decodes at a short context.
    run, model, processor = open_trained(recipe, options.runs)
    rows = load_from_disk(str(run.prepared))["train"]
    seconds = rows["seconds"][:]
    # Clips of a like length, as a batch has them: those around the middle.
    middle = np.argsort(seconds)[len(rows) // 2 :][: options.clips]
    batch = [rows[int(index)] for index in middle]
    clips, language = [waveform(row) for row in batch], [row["language"] for row in batch]
    stock = dataclasses.replace(recipe.audio_context, enabled=False)

    def decode(context: object) -> None:
        transcribe(model, processor, clips, language=language, context=context)

    arms = {
        "training step, stock 30 s": Arm(model, processor, [batch], stock),
        "training step, short context": Arm(model, processor, [batch], recipe.audio_context),
        "decoding, stock 30 s": lambda: decode(None),
        "decoding, short context": lambda: decode(recipe.audio_context),
    }
    rows, pages = [], []
    for name, work in arms.items():
        milliseconds, top = operators(work)
        rows.append({"arm": name, "clips": len(batch), "milliseconds": milliseconds, "top": top})
        lines = [f"## {name}\n", "| Operator | Calls | Share |", "| --- | ---: | ---: |"]
        lines += [f"| `{one['operator']}` | {one['calls']} | {one['share']:.0%} |" for one in top]
        pages.append("\n".join(lines))
        print(pages[-1], f"\n{milliseconds:.0f} ms\n", flush=True)
    gain = rows[0]["milliseconds"] / rows[1]["milliseconds"]
    print(
        "wrote",
        save_result("profile", TARGET, dict.fromkeys(("median", "low", "high"), gain), rows),
    )
    title = "# Where the time goes\n\nWritten by `python -m benchmarks.profile`."
    write_atomically(RESULTS / "profile.md", "\n\n".join([title, *pages]) + "\n")


if __name__ == "__main__":
    main()
