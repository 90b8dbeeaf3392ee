"""What the seven lessons reach: `make run`, and its evaluation as the README's table.

The ratio is word errors before over word errors after, on the test split, with the 95 % interval
of a bootstrap over clips. Run it on an empty runs folder, or it reports the run that is there.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import nbformat

from benchmarks.common import PLACE, error_ratio, save_result
from utils.__main__ import executed
from utils.artifacts import STAGES, open_run, require
from utils.config import load_recipe
from utils.evaluation.page import draw_rates
from utils.scoring.predictions import count_row_errors, load_predictions

TARGET = (
    "WER of the voice trained on and of the other lead lower with p < 0.001, within 15 minutes on "
    "2 cores"
)
ROW = ("clips", "wer_before", "wer_before_low", "wer_before_high", "wer_after")
ROW += ("wer_after_low", "wer_after_high", "cer_before", "cer_after", "p_value")
ROW += ("wer_after_30s", "wer_after_30s_low", "wer_after_30s_high", "p_value_30s")
ROW += ("cer_after_30s", "p_holm", "p_holm_30s")


def last_line(notebook: Path) -> str:
    """Return what the Check of an executed lesson printed last: the lesson in one line."""
    cells = nbformat.read(notebook, as_version=4).cells
    heads = [cell.source.startswith("## Check") for cell in cells]
    printed = cells[heads.index(True) + 1].outputs
    return "".join(output.get("text", "") for output in printed).strip().split("\n")[-1]


def main() -> int:
    """Run the lessons, print what they print, and save the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="recipes/embedded.toml")
    parser.add_argument("--runs", default="runs")
    options = parser.parse_args()
    command = [sys.executable, "-m", "utils", options.recipe, "--runs", options.runs]
    code = subprocess.run(command, check=False).returncode
    if code:
        return code
    recipe = load_recipe(options.recipe)
    run = open_run(recipe, options.runs)
    evaluation = require(run, "evaluation")
    done = json.loads((run.folder / "lessons.json").read_text(encoding="utf-8"))
    whole = {
        "run_seconds": round(sum(lesson["seconds"] for lesson in done.values())),
        "peak_gib": max(require(run, stage)["peak_gib"] for stage in STAGES),
    }
    rows = [
        {"source": source, "language": row["language"], "split": row["split"]}
        | {key: row[key] for key in ROW}
        | whole
        for source, row in evaluation["languages"].items()
    ]
    lessons = [
        {
            "lesson": executed(run, stage).stem,
            "seconds": done[stage]["seconds"],
            "check": last_line(executed(run, stage)),
        }
        for stage in STAGES
    ]
    draw_rates(evaluation).savefig(PLACE / "lessons.png", dpi=120)  # the README shows it
    test = [row for row in load_predictions(run.predictions) if row["split"] == "test"]
    ratios = error_ratio(*(count_row_errors(test, side, "word") for side in ("before", "after")))
    print("wrote", save_result("lessons", TARGET, ratios, rows, lessons=lessons))
    return 0


if __name__ == "__main__":
    sys.exit(main())
