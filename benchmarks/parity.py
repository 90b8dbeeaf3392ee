"""Is training at a short context as good as training at 30 s? Equal clips, equal steps, WER.

For each seed one model trains at the short context and one in stock 30 s windows, with the same
weights at the start and the same batches. Both are read at 30 s, as other programs will run them,
and the first one at its short context as well. The ratio is word errors after training at 30 s over
errors after training at the short context, both read at 30 s and summed over the seeds.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import count_test_errors, error_ratio, open_prepared_run, save_result
from utils.config import AudioContext, load_recipe
from utils.error_rates import error_rate
from utils.intervals import confidence_interval, paired_p_value
from utils.model import load_model
from utils.preprocessing import prepare
from utils.training import train

TARGET = "WER at 30 s within 5 % of that after training at 30 s; better: no difference to be proven"
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
warmup_steps = 4
lr_scheduler_type = "linear"
logging_steps = 10
eval_steps = 40
save_steps = 40
"""


def main() -> None:
    """Train, measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, help="left out, tiny.en and one English speaker")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "parity.toml"
        path.write_text(
            options.recipe.read_text(encoding="utf-8") if options.recipe else RECIPE,
            encoding="utf-8",
        )
        first = load_recipe(path)
        stock, processor = load_model(first)
        prepare(first, processor.tokenizer, folder / "prepared")
        base = count_test_errors(first, folder / "prepared", stock, processor, None)
        arms = {"short": first.audio_context, "30 s": AudioContext(enabled=False)}
        errors: dict[str, list[np.ndarray]] = {"short": [], "short, read short": [], "30 s": []}
        for seed in range(options.seeds):
            for arm, context in arms.items():
                table = {**first.training, "seed": seed, "max_steps": options.steps}
                table |= {"eval_steps": options.steps, "save_steps": options.steps}
                recipe = dataclasses.replace(first, training=table, audio_context=context)
                run = open_prepared_run(first, folder / f"{arm} {seed}", folder / "prepared")
                model = train(recipe, run).model
                read = (recipe, folder / "prepared", model, processor)
                at_30 = count_test_errors(*read, None)
                errors[arm].append(at_30)
                line = f"seed {seed}, trained at {arm}: WER at 30 s {error_rate(at_30):.1%}"
                if context.enabled:
                    short = count_test_errors(
                        recipe, folder / "prepared", model, processor, context
                    )
                    errors["short, read short"].append(short)
                    line += f", at the short context {error_rate(short):.1%}"
                print(line, flush=True)

    resamples = first.evaluation.resamples
    # A clip that several seeds read is one clip still: its errors are added, then clips are drawn.
    errors = {"before training": [base], **errors}
    pooled = {arm: np.sum(each, axis=0) for arm, each in errors.items()}
    for arm, each in errors.items():
        every = pooled[arm]
        low, high = confidence_interval(every, resamples)
        rows.append(
            {"arm": arm, "clips": len(each[0]), "seeds": len(each), "wer": error_rate(every)}
            | {"wer_low": low, "wer_high": high, "wers": [error_rate(one) for one in each]}
        )
    p = paired_p_value(pooled["short"], pooled["30 s"], resamples)
    print(f"short against 30 s, both read at 30 s: p = {p:.3f}")
    ratios = error_ratio(pooled["30 s"], pooled["short"])
    print("wrote", save_result("parity", TARGET, ratios, rows, p_value=p))


if __name__ == "__main__":
    main()
