"""Figures that more than one lesson draws."""

from collections.abc import Mapping, Sequence
from typing import Any

import librosa.display
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from utils.whisper.audio_context import FRAMES_PER_SECOND, SAMPLING_RATE

plt.rcParams["text.parse_math"] = False  # a $ in a name opens no formula


def _drawable(text: str) -> str:
    """Return a text, or "" where matplotlib's font lacks a letter, as of Hindi, Thai or Chinese.

    It would draw boxes, and warn of each letter.
    """
    known = get_font(findfont(FontProperties())).get_charmap()
    return text if all(ord(one) in known for one in text) else ""


def draw_speech(samples: np.ndarray, log_mel: np.ndarray, title: str = "") -> Figure:
    """Draw a clip as samples and as the log-mel spectrogram that the model is given.

    Args:
        samples: float32 at 16 kHz, shape `(samples,)`.
        log_mel: shape `(mels, frames)`.
        title: above the figure, if its letters can be drawn.
    """
    figure, (wave, mel) = plt.subplots(2, 1, figsize=(9, 4.5), sharex=True, layout="constrained")
    librosa.display.waveshow(samples, sr=SAMPLING_RATE, ax=wave, color="C0")
    wave.set(ylabel="amplitude", xlabel="", title=_drawable(title), ylim=(-1, 1))
    seconds = log_mel.shape[1] / FRAMES_PER_SECOND
    image = mel.imshow(
        log_mel, origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, len(log_mel))
    )
    mel.set(ylabel="mel band", xlabel="seconds", xlim=(0, seconds))
    figure.colorbar(image, ax=mel, label="log-mel, as given to the encoder")
    plt.close(figure)  # the caller shows it; otherwise it appears a second time at the cell's end
    return figure


def draw_curves(metrics: Sequence[Mapping[str, Any]], max_steps: int) -> Figure:
    """Draw training loss and dev error rate over steps.

    Args:
        metrics: the trainer's logs, each with "step" and either "loss" or "eval_wer" and
            "eval_cer"; the first of the two is the one that decides.
        max_steps: where the run will end: the axis does not jump while it grows.
    """
    rates = [key for row in metrics for key in row if key in ("eval_wer", "eval_cer")]
    rate = rates[0] if rates else "eval_wer"
    figure, (loss, dev) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for axes, key, scale, label in (
        (loss, "loss", 1, "training loss"),
        (dev, rate, 100, f"dev {rate[5:].upper()}, %"),
    ):
        points = [(row["step"], scale * row[key]) for row in metrics if key in row]
        axes.plot(*zip(*points, strict=True) if points else ((), ()), marker="o", markersize=3)
        axes.set(xlabel="step", ylabel=label, xlim=(0, max_steps))
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    plt.close(figure)
    return figure


def draw_learning_curve(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw WER and CER over minutes of training speech, with 95 % intervals, a line a source.

    Args:
        rows: of `learning_curve`; those of 0 minutes, the untrained model, are dashed lines.
    """
    figure, pair = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axes, rate in zip(pair, ("wer", "cer"), strict=True):
        for number, source in enumerate(dict.fromkeys(row["source"] for row in rows)):
            own = [row for row in rows if row["source"] == source]
            before = [row for row in own if not row["minutes"]]
            own = [row for row in own if row["minutes"]]
            middle = np.array([100 * row[rate] for row in own])
            low, high = (
                np.array([100 * row[f"{rate}_{bound}"] for row in own]) for bound in ("low", "high")
            )
            axes.errorbar(
                [row["minutes"] for row in own],
                middle,
                # A rate of 0 may lie below its own interval by rounding alone.
                yerr=np.clip([middle - low, high - middle], 0, None),
                marker="o",
                capsize=3,
                color=f"C{number}",
                label=source,
            )
            for row in before:
                axes.axhline(100 * row[rate], linestyle="--", color=f"C{number}", alpha=0.5)
        minutes = sorted({row["minutes"] for row in rows} - {0})
        axes.set_xscale("log", base=2)
        axes.set_xticks(minutes, [f"{one:g}" for one in minutes], minor=False)
        axes.set(xlabel="minutes of training speech", ylabel=f"{rate.upper()} at 30 s, %")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    pair[0].legend(title="dashed: before training", fontsize="small")
    plt.close(figure)
    return figure
