"""Short context, 30 s windows and joined clips: the same clips, what each way costs and gives.

For each seed three models train from the same weights on the same number of clips: each clip alone
at a short context, each alone in a stock 30 s window, and joined to full windows with timestamps in
a fifth of them and the text before in another. All are read at 30 s, as other programs will run
them, the first at its short context as well, and each reads a recording longer than a window. The
ratio is word errors after training at 30 s over errors after training at the short context, both
read at 30 s and summed over the seeds.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
from datasets import load_from_disk

from benchmarks.common import count_test_errors, error_ratio, open_prepared_run, save_result
from utils.config import AudioContext, Windows, load_recipe
from utils.evaluation.long_form import JoinedClips, join_clips, measure_long_form
from utils.preprocessing.examples import waveform
from utils.preprocessing.prepare import prepare
from utils.scoring.error_rates import error_rate
from utils.scoring.intervals import paired_p_value, rate_with_interval
from utils.training.run import train
from utils.whisper.load import load_model

TARGET = "WER at 30 s within 5 % of that after training at 30 s; better: no difference to be proven"
SHORT, STOCK, JOINED = "short", "30 s", "joined"
JOINING = Windows(seconds=30.0, timestamps=0.2, previous_text=0.2)
LONG_SECONDS = 90.0
RECIPE = """
[model]
checkpoint = "embedded/whisper-tiny.en"
[[sources]]
dataset = "embedded"
language = "en"
name = "allison"
[training]
max_steps = 40
per_device_train_batch_size = 8
learning_rate = 4e-5
warmup_steps = 0.1
lr_scheduler_type = "linear"
logging_steps = 10
[evaluation]
batch_size = 4
"""


def long_recording(prepared: Path) -> JoinedClips:
    """Return test clips of the first language put one after another."""
    rows = load_from_disk(str(prepared))["test"]
    language = rows["language"][0]
    clips = [waveform(row) for row in rows]
    return join_clips(clips, rows["text"][:], language, LONG_SECONDS)


def main() -> None:
    """Train, measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, help="left out, tiny.en and one English speaker")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "parity.toml"
        path.write_text(
            options.recipe.read_text(encoding="utf-8") if options.recipe else RECIPE,
            encoding="utf-8",
        )
        first = load_recipe(path)
        stock, processor = load_model(first)
        ways = {
            SHORT: first,
            STOCK: dataclasses.replace(first, audio_context=AudioContext(enabled=False)),
            JOINED: dataclasses.replace(first, windows=JOINING),
        }
        for arm, recipe in ways.items():
            prepare(recipe, processor.tokenizer, folder / arm)
        clips, windows = (
            len(load_from_disk(str(folder / arm))["train"]) for arm in (SHORT, JOINED)
        )
        batch = first.training["per_device_train_batch_size"]
        seen = options.steps * batch
        print(f"{clips} clips in {windows} windows; each arm sees {seen}", flush=True)
        # One window an update, the smallest there is, and as many updates as see as many clips.
        joined_steps = max(round(seen * windows / clips), 1)
        recording = long_recording(folder / SHORT)

        errors = {
            "before training": [count_test_errors(first, folder / SHORT, stock, processor, None)]
        }
        long = {"before training": [measure_long_form(stock, processor, recording)]}
        times: dict[str, list[float]] = {}
        for seed in range(options.seeds):
            for arm, recipe in ways.items():
                steps = joined_steps if arm == JOINED else options.steps
                table = {**first.training, "seed": seed, "max_steps": steps}
                table |= {"eval_steps": steps, "save_steps": steps}
                table |= {"per_device_train_batch_size": 1 if arm == JOINED else batch}
                run = open_prepared_run(first, folder / f"{arm} {seed}", folder / arm)
                started = time.perf_counter()
                model = train(dataclasses.replace(recipe, training=table), run).model
                times.setdefault(arm, []).append(time.perf_counter() - started)
                read = (recipe, folder / SHORT, model, processor)
                errors.setdefault(arm, []).append(count_test_errors(*read, None))
                long.setdefault(arm, []).append(measure_long_form(model, processor, recording))
                if arm == SHORT:
                    at_short = count_test_errors(*read, first.audio_context)
                    errors.setdefault("short, read short", []).append(at_short)
                line = f"WER at 30 s {error_rate(errors[arm][-1]):.1%}"
                print(f"seed {seed}, {arm}: {line}, {long[arm][-1]}", flush=True)

    resamples = first.evaluation.resamples
    # A clip that several seeds read is one clip still: its errors are added, then clips are drawn.
    pooled = {arm: np.sum(each, axis=0) for arm, each in errors.items()}
    rows = []
    for arm, every in pooled.items():
        rows.append(
            {"arm": arm, "clips": len(every), "seeds": len(errors[arm])}
            | rate_with_interval("wer", every, resamples)
            | {"wers": [error_rate(one) for one in errors[arm]]}
            | {
                "training_seconds": times.get(arm),
                "updates": joined_steps if arm == JOINED else options.steps,
            }
            | {
                "long": [
                    {key: one[key] for key in ("wer", "segments", "kept")}
                    for one in long.get(arm, [])
                ]
            }
        )
    p_values = {
        arm: paired_p_value(pooled[arm], pooled[STOCK], resamples) for arm in (SHORT, JOINED)
    }
    print(f"against 30 s, all read at 30 s: p = {p_values}")
    ratios = error_ratio(pooled[STOCK], pooled[SHORT])
    print("wrote", save_result("parity", TARGET, ratios, rows, p_values=p_values))


if __name__ == "__main__":
    main()
