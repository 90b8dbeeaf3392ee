"""The model card: what was trained on what, how well it does and how to use it, from a run."""

import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from utils.artifacts import Run, require
from utils.config import Recipe, Source
from utils.embedded.carried import PREFIX, SPEAKERS
from utils.embedded.fetch import speech
from utils.evaluation.page import window_line
from utils.scoring.predictions import percent
from utils.streaming.hub import is_on_hub

# The Hub knows languages by ISO 639; Whisper's code for Javanese is an old one.
ISO = {"jw": "jv"}


def language_name(code: str) -> str:
    """Return a language's English name."""
    return LANGUAGES.get(code, code).title()


def dataset_name(source: Source) -> str:
    """Return what to call a source in public: no folder of this machine stands in it."""
    if source.dataset == "embedded":
        return SPEAKERS[source.language, source.name].package
    return source.dataset if is_on_hub(source) else Path(source.dataset).name


def data_line(source: Source) -> str:
    """Return a source with its use, licence and attribution, as an item of a list."""
    use = "trained and tested on" if source.train else "tested on only"
    if source.dataset == "embedded":
        licence = SPEAKERS[source.language, source.name].licence
        terms = f"{licence}. {speech(source.language, source.name).attribution}"
    elif is_on_hub(source):
        terms = f"licence: see https://huggingface.co/datasets/{source.dataset}."
    elif source.dataset == "common_voice":
        terms = "CC0-1.0, Mozilla Common Voice."
    else:
        terms = "recordings that are not published; their licence is for their owner to state."
    return f"- **{source.label}** ({dataset_name(source)}), {use}: {terms}"


def base_model(recipe: Recipe) -> str:
    """Return the Hub id of the checkpoint that the training started from."""
    name = recipe.model.checkpoint
    return f"openai/{name.removeprefix(PREFIX)}" if name.startswith(PREFIX) else name


def results(recipe: Recipe, evaluation: Mapping[str, Any]) -> list[EvalResult]:
    """Return the measured rates as the Hub's `model-index` has them, in percent."""
    found = []
    for source in recipe.sources:
        row = evaluation["languages"].get(source.label)
        if row is None or row["split"] == "untrained":
            continue  # a few clips that show what was forgotten are no result
        # What others will measure, whose Whisper hears 30 s, where all clips were read at that.
        side, window = ("after_30s", "30 s") if "wer_after_30s" in row else ("after", "as trained")
        found += [
            EvalResult(
                task_type="automatic-speech-recognition",
                task_name="Speech recognition",
                dataset_type=dataset_name(source),
                dataset_name=source.label,
                # A name of something on this machine is no config, and nobody's business.
                dataset_config=source.name if is_on_hub(source) else None,
                dataset_split=source.test,
                metric_type=rate,
                metric_name=f"{rate.upper()}, normalised, window {window}",
                metric_value=round(100 * row[f"{rate}_{side}"], 2),
            )
            for rate in ("wer", "cer")
        ]
    return found


def write_card(
    recipe: Recipe, run: Run, repository: str, formats: Mapping[str, Mapping[str, Any]]
) -> str:
    """Return the text of README.md for a model's repository.

    Args:
        recipe: the experiment.
        run: with the reports of training and evaluation.
        repository: `owner/name` on the Hub.
        formats: per exported format `wer`, `speed` and `megabytes` (see `export.judge`).

    Raises:
        MissingArtifact: the evaluation has not been run.
    """
    evaluation = require(run, "evaluation")
    base = base_model(recipe)
    data = ModelCardData(
        language=sorted({ISO.get(code, code) for code in recipe.languages}),
        license="mit" if recipe.model.checkpoint.startswith(PREFIX) else None,
        library_name="transformers",
        pipeline_tag="automatic-speech-recognition",
        base_model=base if re.fullmatch(r"[\w.-]+/[\w.-]+", base) else None,
        datasets=sorted({source.dataset for source in recipe.sources if is_on_hub(source)}) or None,
        tags=["whisper"],
        metrics=["wer", "cer"],
        model_name=repository.split("/")[-1],
        eval_results=results(recipe, evaluation),
    )
    text = "\n\n".join(
        [
            *_opening(recipe, base),
            *_rates(evaluation, recipe),
            *_usage(recipe, repository),
            *_formats(formats),
            *_limits(recipe, evaluation),
            *_making(recipe, run),
        ]
    )
    # content, not a template: a transcript with braces in it stays what it is.
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n").content


def _opening(recipe: Recipe, base: str) -> list[str]:
    spoken = ", ".join(map(language_name, recipe.languages))
    licence = (
        "The weights it started from are OpenAI's, under the MIT licence."
        if recipe.model.checkpoint.startswith(PREFIX)
        else f"For the licence of the weights it started from, see {base}."
    )
    return [
        f"# Whisper for {spoken}: {recipe.name}",
        f"{base}, fine-tuned to transcribe {spoken}.",
        "## Data and licences",
        "\n".join(data_line(source) for source in recipe.sources),
        licence,
    ]


def _rates(evaluation: Mapping[str, Any], recipe: Recipe) -> list[str]:
    table = "| Source | Split | Clips | WER before | WER after | CER before | CER after | p |\n"
    table += "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    keys = ("wer_before", "wer_after", "cer_before", "cer_after")
    for source, row in evaluation["languages"].items():
        cells = [escape(source), row["split"], str(row["clips"])]
        cells += [*(percent(row, key) for key in keys), f"{row['p_value']:.2g}"]
        table += f"| {' | '.join(cells)} |\n"
    named = "; ".join(f"{code}: {name}" for code, name in evaluation["normalizer"].items())
    apart = "No sentence of *test* or *unseen* was trained on. "
    if not recipe.preprocessing.drop_tested_sentences:
        apart = "The same sentences, other recordings of them, may have been trained on. "
    return [
        "## Results",
        "Word and character error rates in percent, with 95 % bootstrap intervals over clips; p "
        "is the chance of so large a difference if both models were equally good.",
        table.rstrip(),
        *([window_line(evaluation["after_30s"])] if evaluation["after_30s"] else []),
        "Protocol: *before* is the base model in its stock window of 30 s, *after* this model in "
        "the window it was trained in. Decoding is greedy and without timestamps, "
        "and breaks off a phrase that is written again and again. "
        f"{apart}The checkpoint was chosen on a third split; of an *unseen* source nothing was "
        f"trained on. Texts are normalised before they are compared ({named}).",
    ]


def _usage(recipe: Recipe, repository: str) -> list[str]:
    code = recipe.languages[0]
    english_only = recipe.model.checkpoint.endswith(".en")
    asked = "" if english_only else f'language="{code}", task="transcribe"'
    kwargs = f", generate_kwargs=dict({asked})" if asked else ""
    spoken = "en" if english_only else code
    return [
        "## How to use it",
        "With Transformers:",
        f"""```python
import librosa
from transformers import pipeline

transcribe = pipeline("automatic-speech-recognition", model="{repository}")
samples, _ = librosa.load("speech.wav", sr=16_000)
print(transcribe(samples{kwargs})["text"])
```""",
        "With faster-whisper, quicker and smaller (`pip install faster-whisper 'av<19'`, since "
        "1.2.1 cannot open files with PyAV 19):",
        f"""```python
from faster_whisper import WhisperModel
from huggingface_hub import snapshot_download

folder = snapshot_download("{repository}", allow_patterns="ctranslate2-int8/*")
model = WhisperModel(f"{{folder}}/ctranslate2-int8")
segments, _ = model.transcribe("speech.wav", language="{spoken}")
print(" ".join(segment.text.strip() for segment in segments))
```""",
        "With whisper.cpp:",
        f"""```bash
hf download {repository} ggml-model.bin --local-dir .
whisper-cli -m ggml-model.bin -l {spoken} -f speech.wav
```""",
    ]


def _formats(formats: Mapping[str, Mapping[str, Any]]) -> list[str]:
    table = "| Program and format | MB | Speed | WER, % |\n| --- | ---: | ---: | ---: |\n"
    for name, row in formats.items():
        table += f"| {name} | {row['megabytes']:.0f} | {row['speed']:.1f}× "
        table += f"| {100 * row['wer']:.1f} |\n"
    clips = next(iter(formats.values()))["clips"]
    return [
        f"Measured on {clips} clips of the test split, one at a time on the CPU; speed is relative "
        "to the first line. So few clips show whether a format hears the same, not how well.",
        table.rstrip(),
    ]


def _limits(recipe: Recipe, evaluation: Mapping[str, Any]) -> list[str]:
    edits = evaluation["errors"]["after"]["substitutions"][:5]
    # A transcript is input from outside: here it is text, whatever stands in it.
    wrong = ", ".join(f"“{_inline(edit['said'])}” as “{_inline(edit['heard'])}”" for edit in edits)
    trained = [source for source in recipe.sources if source.train]
    lines = [
        f"It has heard {len(trained)} source(s) of speech. Other speakers, rooms, microphones and "
        "topics are not covered by the figures above, unless a row says *unseen*.",
        "Like every Whisper it may write words where nobody speaks: leave silence out first. On "
        f"the test clips, {evaluation['flags']['after']['runaway']} hypothesis(es) ran on far "
        "beyond what was said.",
        _timestamps(recipe),
    ]
    if wrong:
        lines.append(f"Most frequent confusions on the test split: {wrong}.")
    return ["## Limits and known failures", "\n".join(f"- {line}" for line in lines)]


def _timestamps(recipe: Recipe) -> str:
    if recipe.windows.timestamps:
        return (
            f"{recipe.windows.timestamps:.0%} of its training labels told times, those at which "
            "clips were joined: check timestamps within a sentence before you rely on them."
        )
    return (
        "It was trained on single clips without timestamps: check timestamps and long recordings "
        "before you rely on them (not measured)."
    )


def _inline(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]()#+.!|~-])", r"\\\1", escape(text, quote=False))


def _making(recipe: Recipe, run: Run) -> list[str]:
    environment, training = require(run, "environment"), require(run, "training")
    prepared = require(run, "preprocessing")
    machine = ", ".join(f"{key} {value}" for key, value in environment["machine"].items() if value)
    told = ("python", "torch", "transformers", "datasets", "accelerate")
    versions = ", ".join(
        f"{key} {environment['versions'][key]}" for key in told if key in environment["versions"]
    )
    what = "windows of joined clips" if recipe.windows.seconds else "clips"
    speech = f"{prepared['clips']['train']} {what}, {prepared['minutes']['train'] / 60:.2f} hours"
    if not recipe.preprocessing.stored:
        speech = f"{what} read from their sources while training, and not counted"
    kept = f"the weights kept are those of step {training['best_step']}"
    return [
        "## How it was made",
        f"- Training speech: {speech}.\n"
        f"- Training: {training['steps']} steps in {training['seconds'] / 60:.0f} minutes, "
        f"precision {training['precision']}; {kept}.\n"
        f"- Machine: {machine}.\n"
        f"- Versions: {versions}.\n"
        "- To make it again: `04_training.ipynb` fetches the series of lessons that it belongs to "
        "in its first cell; copy `recipe.toml` into that folder's `recipes/`, and run the lessons "
        "with it.",
    ]
