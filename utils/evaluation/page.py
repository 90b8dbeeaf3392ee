"""The evaluation report as one HTML page without a network: the answer first, then the proof."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from utils.artifacts import write_atomically
from utils.config import Recipe
from utils.evaluation.mistakes import clips_html, find_worst
from utils.scoring.predictions import MODELS, Row, percent

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0 1.5rem;display:block;overflow-x:auto}
td,th{padding:.3rem .7rem;text-align:left;vertical-align:top;border-bottom:1px solid #8886}
.verdict{font-size:1.3rem;border-left:.3rem solid #48a;padding-left:1rem}
img{max-width:100%;background:#fff} small{opacity:.75}
@media (prefers-color-scheme:dark){body{background:#181818;color:#ddd}}
"""
NAMES = {"wer": "word error rate", "cer": "character error rate"}
PARTS = {
    "test": "On the test split",
    "unseen": "On sources of the language that training never saw",
    "untrained": "On languages that were not trained",
}


def judge(measured: Mapping[str, Any], rate: str) -> str:
    """Return one word for a difference between before and after: it counts from p < 0.05 on."""
    if measured["p_value"] >= 0.05:
        return "not proven"
    return "better" if measured[f"{rate}_after"] < measured[f"{rate}_before"] else "worse"


def lost_timestamps(long_form: Mapping[str, Any]) -> bool:
    """Tell whether only the base model's own timestamps hold against the known borders."""
    return (
        long_form["before"]["sequential"]["kept"] and not long_form["after"]["sequential"]["kept"]
    )


def verdict(report: Mapping[str, Any]) -> str:
    """Return what a stranger wants to know: did it get better, by how much, and how sure is that.

    One line for each part of the report that has clips, of the rate that leads in the language,
    and a warning where fine-tuning has cost the model its timestamps.
    """
    rate = report["first_rate"]
    lines = []
    for part, where in PARTS.items():
        measured = report[part]
        if measured:
            lines.append(
                f"{judge(measured, rate).capitalize()}. {where}, the {NAMES[rate]} went from "
                f"{percent(measured, f'{rate}_before')} to {percent(measured, f'{rate}_after')}: "
                f"{measured['clips']} clips, p = {measured['p_value']:.4f}."
            )
    long_form = report.get("long_form")
    if long_form and lost_timestamps(long_form):
        lines.append("Timestamps are lost: do not make subtitles with the fine-tuned model.")
    return "\n".join(lines)


def window_line(rates: Mapping[str, Any]) -> str:
    """Return in a sentence what the window costs the fine-tuned model, from `report.at_30s`."""
    return (
        f"The fine-tuned model on {rates['clips']} test clips: WER {percent(rates, 'wer')} at "
        f"30 s, {percent(rates, 'wer_short')} at the short context."
    )


def draw_rates(report: Mapping[str, Any]) -> Figure:
    """Draw WER by source as bars, with 95 % intervals, one colour a model."""
    sources = report["languages"]
    models = [name for name in MODELS if any(f"wer_{name}" in rates for rates in sources.values())]
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    positions, width = np.arange(len(sources)), 0.8 / len(models)
    for number, name in enumerate(models):
        rate, low, high = 100 * np.array(
            [
                [rates.get(f"wer_{name}{bound}", np.nan) for rates in sources.values()]
                for bound in ("", "_low", "_high")
            ]
        )
        errors = np.maximum([rate - low, high - rate], 0)
        axes.bar(positions + number * width, rate, width, yerr=errors, capsize=4, label=name)
    # No $: matplotlib would take a name between two of them for a formula.
    names = [f"{name}\n({rates['split']})".replace("$", "") for name, rates in sources.items()]
    axes.set_xticks(positions + width * (len(models) - 1) / 2, names)
    axes.set(ylabel="WER, %", title="Word error rate with 95 % intervals")
    axes.set_ylim(top=min(axes.get_ylim()[1], 100))  # an interval of few clips may reach far beyond
    axes.legend()
    plt.close(figure)  # shown by whoever asked for it, and not a second time at the cell's end
    return figure


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return an HTML table; every text is escaped."""
    lines = [f"<tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>"]
    for row in rows:
        cells = (f'<td dir="auto">{escape(str(cell))}</td>' for cell in row)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _rates_table(groups: Mapping[str, Mapping[str, Any]], head: str, rate: str) -> str:
    models = [name for name in MODELS if any(f"wer_{name}" in rates for rates in groups.values())]
    heads = [head, "clips", *(f"{r} {name}" for r in ("WER", "CER") for name in models), "p", ""]
    rows = []
    for name, rates in groups.items():
        shown = [
            percent(rates, key) if key in rates else "not measured"
            for key in (f"{r}_{model}" for r in ("wer", "cer") for model in models)
        ]
        p = rates["p_value"]
        rows.append([name, rates["clips"], *shown, f"{p:.4f}", judge(rates, rate)])
    return _table(heads, rows)


def _long_form_table(long_form: Mapping[str, Any]) -> str:
    heads = [
        "model",
        "decoding",
        "WER",
        "segments",
        "in order",
        "past the end, s",
        "segments off, s",
    ]
    rows = [
        [
            *(side, way, f"{one['wer']:.1%}", one["segments"], one["monotonic"]),
            *(
                _seconds(one[f"{kind}_seconds"])
                for kind in ("past_end", "segment_drift", "word_drift")
            ),
            "kept" if one["kept"] else "LOST",
        ]
        for side in ("before", "after")
        for way, one in long_form[side].items()
    ]
    return _table([*heads, "words off, s", "timestamps"], rows)


def _seconds(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"


def _figure_html(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="Word error rate by source" src="data:image/png;base64,{data}">'


def build_page(
    report: Mapping[str, Any],
    rows: Sequence[Row],
    recipe: Recipe,
    waveforms: Mapping[str, np.ndarray] | None = None,
) -> str:
    """Return the report as HTML: self-contained, and with every text from outside escaped.

    Args:
        report: `build_report`, and of the rest whatever was measured.
        rows: prediction rows; the worst test clips among them are shown.
        recipe: names the page and says how many clips.
        waveforms: by id, to listen to the worst clips; None leaves out the players.
    """
    test, rate = [row for row in rows if row["split"] == "test"], report["first_rate"]
    answer = "".join(f"<p>{escape(line)}</p>" for line in verdict(report).split("\n"))
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>Evaluation of {escape(recipe.name)}</title><style>{STYLE}</style></head><body>",
        f"<h1>Evaluation of {escape(recipe.name)}</h1>",
        f'<div class="verdict">{answer}</div>',
        f"<p>{escape(_protocol(report))}</p>",
        "<h2>By source</h2>",
        _figure_html(draw_rates(report)),
        _rates_table(report["languages"], "source", rate),
    ]
    if report["after_30s"]:
        parts += [f"<p>{escape(window_line(report['after_30s']))}</p>"]
    for name, groups in report["breakdowns"].items():
        title = "signal-to-noise ratio" if name == "snr" else name
        parts += [f"<h2>By {escape(title)}, test split</h2>", _rates_table(groups, name, rate)]
    parts += ["<h2>Worst clips</h2>"]
    parts += [clips_html(find_worst(test, recipe.evaluation.worst_clips), waveforms)]
    parts += ["<h2>Kinds of errors</h2>", _kinds_table(report)]
    parts += ["<h2>Most frequent errors after fine-tuning</h2>", errors_html(report, "after")]
    if report.get("probes"):
        heard = [[sound, one["before"], one["after"]] for sound, one in report["probes"].items()]
        parts += ["<h2>Sounds without a word</h2>", _table(["sound", "before", "after"], heard)]
    if report.get("long_form"):
        long_form = report["long_form"]
        parts += [f"<h2>A recording of {long_form['seconds']:.0f} s</h2>"]
        parts += [_long_form_table(long_form)]
    if report.get("speed"):
        parts += ["<h2>Speed</h2>", _speed_table(report["speed"])]
    return "\n".join([*parts, "</body></html>\n"])


def _protocol(report: Mapping[str, Any]) -> str:
    """Say in a paragraph how the figures came about."""
    sentences = [
        "In brackets: 95 % intervals of a bootstrap over "
        f"{report['interval_over']}, {report['resamples']} resamples; p: paired permutation test.",
        "Texts are normalised: "
        + ", ".join(f"{code} by {name}" for code, name in report["normalizer"].items())
        + ".",
    ]
    if "checkpoints" in report:
        sentences.append(
            f"Before: {report['checkpoints']['before']} at 30 s. After: "
            f"{report['checkpoints']['after']}. The test split was read at "
            f"{report['test_read_at']}; checkpoints are chosen on dev."
        )
        overlaps = report["overlaps"]
        found = {pair: n for pair, n in (overlaps or {}).items() if any(n.values())}
        sentences.append(
            "Overlaps between the splits were not looked for: nothing is prepared."
            if overlaps is None
            else f"Overlaps between the splits: {found or 'none'}."
        )
        if not report["train_stored"]:
            sentences.append(
                "Of the training clips a sample was looked at; what is tested on was dropped from "
                "the stream as it came."
            )
    return " ".join(sentences)


def _number(value: float) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _kinds_table(report: Mapping[str, Any]) -> str:
    rows = [
        [name.replace("_", " "), *(_number(table[side][name]) for side in ("before", "after"))]
        for table in (report["edits"], report["error_kinds"], report["flags"])
        for name in table["after"]
    ]
    return _table(["", "before", "after"], rows)


def errors_html(report: Mapping[str, Any], model: str, top: int = 12) -> str:
    """Return the most frequent errors of a model as an HTML table, each with where it happens."""
    errors = [error for kind in report["errors"][model].values() for error in kind]
    rows = [
        [
            error["said"] or "(nothing)",
            error["heard"] or "(nothing)",
            error["times"],
            " · ".join(error["contexts"]),
        ]
        for error in sorted(errors, key=lambda error: -error["times"])[:top]
    ]
    return _table(["said", "written", "times", "where"], rows)


def _speed_table(speed: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        [
            *(name, one["batch_size"], f"{one['speech_seconds']:.0f}"),
            *(f"{one[key]:.2f}" for key in ("real_time_factor", "times_real_time")),
        ]
        for name, one in speed.items()
    ]
    heads = ["model", "batch size", "speech, s", "real-time factor", "times real time"]
    return _table(heads, rows)


def write_page(
    path: Path,
    report: Mapping[str, Any],
    rows: Sequence[Row],
    recipe: Recipe,
    waveforms: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write `build_page` as a file, whole or not at all."""
    write_atomically(path, build_page(report, rows, recipe, waveforms))
