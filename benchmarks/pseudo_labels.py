"""Does speech without a text help? Ten minutes with text, and the rest transcribed by their model.

Three trainings of equal steps, on the same prepared clips of the default recipe: ten minutes with
their text; these and the others, transcribed by the first model and filtered
(`[[sources]] transcribe_with`); all with their text. All decode the same test clips at 30 s. What
is done is stored: an interrupted run goes on. The ratio is that of the word errors with ten minutes
alone over those with the transcribed rest.
"""

import argparse
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets, load_from_disk
from transformers import WhisperTokenizer

from benchmarks.common import error_ratio, prepare_once, save_result
from benchmarks.hours import with_second_voice
from utils.artifacts import write_atomically
from utils.config import Preprocessing, load_recipe
from utils.environment.machine import device
from utils.evaluation.curve_points import Point, subset
from utils.evaluation.learning_curve import RATES, Splits, measure_point, test_rows
from utils.preprocessing.examples import waveform
from utils.preprocessing.quality import Unusable, check_sound, check_text
from utils.scoring.error_rates import count_errors, error_rate
from utils.scoring.intervals import paired_p_value, rate_with_interval
from utils.streaming.pseudo_labels import pseudo_label
from utils.text import normalize
from utils.whisper.labels import encode_text, prefix_ids
from utils.whisper.load import load_checkpoint

TARGET = "fewer errors than with ten minutes alone (p < 0.05), no more than a tenth above all text"


def relabel(
    row: Mapping[str, Any], text: str, tokenizer: WhisperTokenizer, rules: Preprocessing
) -> dict[str, Any]:
    """Return a prepared row with another text.

    Raises:
        Unusable: it breaks a rule.
    """
    check_text(text, row["language"], rules)
    check_sound(waveform(row), text, rules)
    labels = encode_text(tokenizer, text, row["language"])
    tokens = len(labels) - len(prefix_ids(tokenizer, row["language"])) - 1
    return {**row, "text": text, "labels": labels, "cut_tokens": [tokens]}


def transcribed(rest: Dataset, model: Path, rules: Preprocessing) -> tuple[Dataset, dict[str, Any]]:
    """Return the clips whose transcript by the model is kept, and what became of all of them.

    Returns:
        The rows, and `kept`, `dropped` by reason, and `wer_kept` and `wer_dropped` against the true
        texts, which nothing else looks at.
    """
    whisper, processor = load_checkpoint(model)
    whisper.to(device())
    rows = rest.with_format("numpy", columns=["audio"], output_all_columns=True)
    clips, language = [waveform(row) for row in rows], rest[0]["language"]
    told = pseudo_label((whisper, processor), clips, language, progress="transcribed")
    kept, reasons, errors = [], Counter(), {True: [], False: []}
    for row, (text, doubt) in zip(rows, told, strict=True):
        try:
            if doubt:
                raise Unusable(doubt)
            kept.append(relabel(row, text, processor.tokenizer, rules))
        except Unusable as reason:
            doubt = str(reason)
            reasons[doubt] += 1
        pair = [normalize(one, language) for one in (row["text"], text)]
        errors[not doubt].append(count_errors([pair[0]], [pair[1]], "word")[0])
    facts: dict[str, Any] = {"kept": len(kept), "dropped": dict(reasons)}
    for name, counts in (("wer_kept", errors[True]), ("wer_dropped", errors[False])):
        facts[name] = error_rate(np.array(counts)) if counts else None
    return Dataset.from_list(kept, features=rest.features) if kept else rest.select([]), facts


def main() -> None:
    """Train, transcribe, measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/embedded.toml"))
    parser.add_argument("--runs", type=Path, default=Path("runs/pseudo_labels"))
    parser.add_argument("--minutes", type=float, default=10.0, help="with their text")
    parser.add_argument("--rest", type=float, default=56.0, help="minutes to transcribe, at most")
    parser.add_argument("--steps", type=int, default=0, help="of each training; 0: the recipe's")
    parser.add_argument("--clips", type=int, default=60, help="of each test source; 0: all")
    options = parser.parse_args()

    recipe = with_second_voice(load_recipe(options.recipe))
    run = prepare_once(recipe, options.runs)
    whole = load_from_disk(str(run.prepared))
    first = next(source.label for source in recipe.sources if source.train)
    most = subset(whole["train"], options.minutes + options.rest, 0, first).tolist()
    few = subset(whole["train"], options.minutes, 0, first).tolist()
    small = whole["train"].select(few)
    rest = whole["train"].select(most[len(few) :])
    tested = test_rows(whole, recipe, options.clips)
    steps = options.steps or recipe.training["max_steps"]

    found: dict[str, dict[str, Any]] = {}
    for arm in ("few", "transcribed", "all"):
        path = run.folder / f"{arm}.json"
        if path.exists():
            found[arm] = json.loads(path.read_text(encoding="utf-8"))
            continue
        rows, facts = small, {}
        if arm == "transcribed":
            model = run.folder / "few" / recipe.name / "model"
            extra, facts = transcribed(rest, model, recipe.preprocessing)
            print(facts, flush=True)
            rows = concatenate_datasets([small, extra])
        elif arm == "all":
            rows = concatenate_datasets([small, rest])
        point = Point(sum(rows["seconds"][:]) / 60, 0, tuple(range(len(rows))), steps)
        splits = Splits(rows, whole["dev"], tested)
        facts |= {"minutes": point.minutes, "clips": len(rows), "steps": steps}
        found[arm] = facts | measure_point(recipe, point, splits, run.folder / arm)
        write_atomically(path, json.dumps(found[arm]) + "\n")

    rows, resamples = [], recipe.evaluation.resamples
    sources = np.array(tested["source"][:])
    for arm, told in found.items():
        for source in dict.fromkeys(sources.tolist()):
            row: dict[str, Any] = {"trained_on": arm, "source": source}
            row |= {key: value for key, value in told.items() if key not in RATES}
            for rate in RATES:
                counts = np.array(told[rate])[sources == source]
                row |= rate_with_interval(rate, counts, resamples)
            pair = [np.array(found[one]["wer"])[sources == source] for one in ("few", arm)]
            rows.append(row | {"p_against_few": paired_p_value(*pair, resamples)})
            print(rows[-1])
    pair = [np.array(found[one]["wer"]) for one in ("few", "transcribed")]
    print("wrote", save_result("pseudo_labels", TARGET, error_ratio(*pair), rows))
    for arm in found:
        shutil.rmtree(run.folder / arm, ignore_errors=True)  # a gigabyte of checkpoints each


if __name__ == "__main__":
    main()
