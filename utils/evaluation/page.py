"""The evaluation report as one HTML page without a network: the answer first, then the proof."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from utils.artifacts import write_atomically
from utils.config import Recipe
from utils.environment.templates import render
from utils.evaluation.differences import say_difference
from utils.evaluation.mistakes import clips_html, find_worst, most_frequent
from utils.scoring.predictions import (
    MIN_SPEAKERS,
    MODELS,
    SIGNIFICANT,
    Row,
    headline_window,
    percent,
    say_p,
)

TEMPLATE = Path(__file__).with_name("page.html")
FEW_CLIPS = 20  # with fewer a rate is too uncertain: shown in grey, or pale
# In a figure, where the model after training was decoded at both windows.
BOTH = {"before": "before", "after": "after, short window", "after_30s": "after, at 30 s"}
NAMES = {"wer": "word error rate", "cer": "character error rate"}
PARTS = {
    "test": "Test split",
    "unseen": "Never trained on",
    "untrained": "Language that was not trained",
}


def verdict_word(measured: Mapping[str, Any], window: str = "") -> str:
    """Return "better", "worse" or "could be chance" for a difference between before and after."""
    if measured.get(f"p_holm{window}", measured[f"p_value{window}"]) >= SIGNIFICANT:
        return "could be chance"
    rate = measured["first_rate"]
    after = measured[f"{rate}_after{window}"]
    return "better" if after < measured[f"{rate}_before"] else "worse"


def lost_timestamps(long_form: Mapping[str, Any]) -> bool:
    """Tell whether fine-tuning has cost the model its timestamps."""
    return long_form["before"]["kept"] and not long_form["after"]["kept"]


def verdict(report: Mapping[str, Any]) -> str:
    """Return the answer in a few lines: did it get better, by how much, and how sure is that.

    One line for each source, of the rate that leads in its language, at the window of other
    programs if it was measured, with the short window beside it; and a warning if fine-tuning has
    cost the model its timestamps.
    """
    sources = sorted(report["languages"].items(), key=lambda one: [*PARTS].index(one[1]["split"]))
    lines = [_verdict_line(name, measured) for name, measured in sources]
    if report["test"]["clips"] < FEW_CLIPS:
        lines.append(
            f"{report['test']['clips']} test clip(s) tell very little: 50 and more are needed."
        )
    long_form = report.get("long_form")
    if long_form and lost_timestamps(long_form):
        lines.append("Timestamps are lost: do not make subtitles with the fine-tuned model.")
    return "\n".join(lines)


def _verdict_line(source: str, measured: Mapping[str, Any]) -> str:
    rate = measured["first_rate"]
    window = headline_window(measured)
    before, after, short = (
        100 * measured[f"{rate}_{model}"] for model in ("before", f"after{window}", "after")
    )
    line = f"{PARTS[measured['split']]}, {source}: {NAMES[rate]} {before:.1f} → {after:.1f} %"
    if window:
        line += f" at 30 s, as other programs decode, and {short:.1f} % in the short window"
    sure = f"{say_p(measured, window)}, {measured['clips']} clips"
    return f"{line}: {verdict_word(measured, window)} ({sure})."


def window_line(measured: Mapping[str, Any]) -> str:
    """Return in a sentence what the window costs the fine-tuned model; "" if it is always 30 s."""
    rate = measured["first_rate"]
    if f"{rate}_after_30s" not in measured:
        return ""
    return (
        f"The fine-tuned model at 30 s, as other programs decode: {rate.upper()} "
        f"{percent(measured, f'{rate}_after_30s')}; in the short window that it was trained in "
        f"{percent(measured, f'{rate}_after')}, on the same {measured['clips']} clips."
    )


def draw_rates(report: Mapping[str, Any]) -> Figure:
    """Draw the error rate of each source as points with 95 % intervals, one mark a model.

    Sources with few clips are pale, and say how few.
    """
    sources, rate = report["languages"], report["first_rate"]
    models = [name for name in MODELS if any(f"{rate}_{name}" in one for one in sources.values())]
    height = 1.2 + 0.25 * len(models) * len(sources)
    figure, axes = plt.subplots(figsize=(8, height), layout="constrained")
    for number, model in enumerate(models):
        for place, one in enumerate(sources.values()):
            if f"{rate}_{model}" in one:
                middle, low, high = (
                    100 * one[f"{rate}_{model}{end}"] for end in ("", "_low", "_high")
                )
                reach = np.maximum([[middle - low], [high - middle]], 0)
                look = {"color": f"C{number}", "alpha": 1 if one["clips"] >= FEW_CLIPS else 0.35}
                at = place + 0.22 * (number - (len(models) - 1) / 2)
                axes.errorbar(middle, at, xerr=reach, fmt="os^"[number], capsize=3, **look)
        label = BOTH[model] if len(models) == len(BOTH) else model
        axes.plot([], [], "os^"[number], color=f"C{number}", label=label)
    # No $: matplotlib would take a name between two of them for a formula.
    names = [f"{name}\n{one['split']}, n = {one['clips']}" for name, one in sources.items()]
    axes.set_yticks(range(len(sources)), [name.replace("$", "") for name in names])
    axis = f"{rate.upper()}, %, with 95 % intervals: lower is better"
    axes.set(xlabel=axis, ylim=(len(sources) - 0.5, -0.5))
    # An interval of few clips may reach far beyond.
    axes.set_xlim(0, min(axes.get_xlim()[1], 110))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(models), frameon=False)
    plt.close(figure)  # shown by whoever asked for it, and not a second time at the cell's end
    return figure


def _png(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return base64.b64encode(file.getvalue()).decode()


def write_page(
    path: Path,
    report: Mapping[str, Any],
    rows: Sequence[Row],
    recipe: Recipe,
    waveforms: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write the report as HTML: self-contained, and with every text from outside escaped.

    Args:
        path: the file, written whole or not at all.
        report: `build_report`, and of the rest whatever was measured.
        rows: prediction rows; the worst test clips among them are shown.
        recipe: names the page and says how many clips.
        waveforms: by id, to listen to the worst clips; None leaves out the players.
    """
    test = [row for row in rows if row["split"] == "test"]
    groups = {"source": report["languages"]} | report["breakdowns"]
    html = render(
        TEMPLATE,
        report=report,
        title=f"Evaluation of {recipe.name}",
        verdict=verdict(report).split("\n"),
        png=_png(draw_rates(report)),
        groups=groups,
        models={
            name: [m for m in MODELS if any(f"wer_{m}" in one for one in group.values())]
            for name, group in groups.items()
        },
        worst=clips_html(find_worst(test, recipe.evaluation.worst_clips), waveforms),
        frequent=most_frequent(report["errors"][f"after{headline_window(report['test'])}"]),
        few_clips=FEW_CLIPS,
        min_speakers=MIN_SPEAKERS,
        percent=percent,
        say_p=say_p,
        headline_window=headline_window,
        say_difference=say_difference,
        verdict_word=verdict_word,
    )
    write_atomically(path, html)
