"""The model card: what was trained on what, how well it does and how to use it, from a run."""

import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from markupsafe import Markup

from utils.artifacts import Run, require
from utils.config import Recipe, Source
from utils.embedded.carried import PACKAGES, PREFIX, SPEAKERS
from utils.embedded.fetch import public_name, speech
from utils.environment.templates import render
from utils.evaluation.mistakes import frequent_errors, is_runaway
from utils.evaluation.page import window_line
from utils.export.documented import is_multilingual, snippet, whisper_cli
from utils.scoring.predictions import (
    MIN_SPEAKERS,
    bare_p,
    headline_window,
    load_predictions,
    percent,
)
from utils.streaming.hub import is_on_hub

TEMPLATE = Path(__file__).with_name("card.md")
# The Hub knows languages by ISO 639; Whisper's code for Javanese is an old one.
ISO = {"jw": "jv"}


def dataset_name(source: Source) -> str:
    """Return a source's name for the public, without any folder of this machine."""
    if source.dataset == "embedded":
        return SPEAKERS[source.language, source.name].package
    return source.dataset if is_on_hub(source) else Path(source.dataset).name


def data_line(source: Source) -> str:
    """Return a source with its use, licence and attribution, as an item of a list."""
    uses = {"trained": source.train, "tested": source.test}
    use = " and ".join(name for name, split in uses.items() if split) + " on"
    if not source.train:
        use += " only"
    if source.transcribe_with:
        use += ", with text that a model transcribed"
    if source.dataset == "embedded":
        licence = PACKAGES[dataset_name(source)].licence
        terms = f"{licence}. {speech(source.language, source.name).attribution}"
    elif is_on_hub(source):
        terms = f"licence: see https://huggingface.co/datasets/{source.dataset}."
    elif source.dataset == "common_voice":
        terms = "CC0-1.0, Mozilla Common Voice."
    else:
        terms = "recordings that are not published; their licence is for their owner to state."
    label = " ".join(source.label.split())
    return f"- **{label}** ({dataset_name(source)}), {use}: {terms}"


def results(recipe: Recipe, documented: Mapping[str, Mapping[str, Any]]) -> list[EvalResult]:
    """Return the rates of the documented call as the Hub's `model-index` has them, in percent."""
    return [
        EvalResult(
            task_type="automatic-speech-recognition",
            task_name="Speech recognition",
            dataset_type=dataset_name(source),
            dataset_name=source.label,
            # The Hub shows rates of one type, config and split under one name: two voices of one
            # package would become one. The name of a folder on this machine is private.
            dataset_config=source.name if is_on_hub(source) else source.label,
            dataset_split=source.test,
            metric_type=rate,
            metric_name=f"{rate.upper()}, normalised, faster-whisper int8 called as in this card",
            metric_value=round(100 * documented[source.label][rate], 2),
        )
        for source in recipe.sources
        if source.label in documented
        for rate in ("wer", "cer")
    ]


def _iso_codes(recipe: Recipe) -> list[str]:
    """Return the codes of the trained languages; one that Whisper lacks has no code here."""
    named = {one.language for one in recipe.sources if one.train and not one.speaks}
    return sorted(ISO.get(code, code) for code in named)


def _metadata(
    recipe: Recipe, repository: str, documented: Mapping[str, Mapping[str, Any]]
) -> ModelCardData:
    base = public_name(recipe.model.checkpoint)
    return ModelCardData(
        language=_iso_codes(recipe) or None,
        license="mit" if recipe.model.checkpoint.startswith(PREFIX) else None,
        library_name="transformers",
        pipeline_tag="automatic-speech-recognition",
        base_model=base if re.fullmatch(r"[\w.-]+/[\w.-]+", base) else None,
        datasets=sorted({source.dataset for source in recipe.sources if is_on_hub(source)}) or None,
        tags=["whisper"],
        metrics=["wer", "cer"],
        model_name=repository.split("/")[-1],
        eval_results=results(recipe, documented),
    )


def write_card(recipe: Recipe, run: Run, repository: str, exported: Mapping[str, Any]) -> str:
    """Return the text of README.md for a model's repository.

    Args:
        recipe: the experiment.
        run: with the reports of training and evaluation.
        repository: `owner/name` on the Hub.
        exported: lesson 7's report: `formats`, of `rate_programs` and with `megabytes`, and
            `documented`, of `measure_documented`.

    Raises:
        MissingArtifact: the evaluation has not been run.
    """
    evaluation = require(run, "evaluation")
    code, has_languages = recipe.languages[0], is_multilingual(run.model)
    window = headline_window(evaluation["test"])
    # Not of the report: those of older versions count them in the short window alone.
    tested = [row for row in load_predictions(run.predictions) if row["split"] == "test"]
    confused = frequent_errors(tested, f"after{window}")["substitutions"]
    metadata = _metadata(recipe, repository, exported["documented"])
    text = render(
        TEMPLATE,
        **_making(recipe, run),
        **exported,
        recipe=recipe,
        repository=repository,
        evaluation=evaluation,
        base=public_name(recipe.model.checkpoint),
        spoken=", ".join(recipe.spoken.values()),
        is_openai=recipe.model.checkpoint.startswith(PREFIX),
        data_lines=[data_line(source) for source in recipe.sources],
        window=window,
        at=", at 30 s" if window else "",
        window_line=window_line(evaluation["test"]),
        # Code of ours, and names that the Hub allows: nothing to escape.
        faster_whisper=Markup(snippet("faster-whisper", "ctranslate2-int8", code, has_languages)),
        transformers=Markup(snippet("Transformers", repository, code, has_languages)),
        whisper_cpp=Markup(snippet("whisper.cpp", "ggml-model.bin", code, has_languages)),
        whisper_cli=whisper_cli("ggml-model.bin", code, has_languages),
        trained=sum(bool(source.train) for source in recipe.sources),
        timestamps=timestamps_line(recipe, evaluation.get("long_form")),
        runaways=sum(is_runaway(row, f"after{window}") for row in tested),
        wrong=[edit for edit in confused if edit["times"] > 1][:5],
        min_speakers=MIN_SPEAKERS,
        rate=percent,
        bare_p=bare_p,
        plain=plain,
    )
    # content, not a template: a transcript with braces in it stays what it is.
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}").content


def timestamps_line(recipe: Recipe, long_form: Mapping[str, Any] | None) -> str:
    """Return what is known of the model's timestamps and long recordings, as a sentence or two."""
    trained = "It was trained on single clips without timestamps."
    if recipe.windows.timestamps:
        trained = (
            f"{recipe.windows.timestamps:.0%} of its training labels had times, those at which "
            "clips were joined."
        )
    if not long_form:
        return f"{trained} Timestamps and long recordings are not measured."
    after = long_form["after"]
    return (
        f"{trained} On one recording of {long_form['seconds']:.0f} s, joined from test clips, its "
        f"own timestamps were {'in place' if after['kept'] else 'wrong'} (WER {after['wer']:.1%}, "
        f"CER {after['cer']:.1%}); more is not measured."
    )


def plain(text: str) -> Markup:
    """Return a transcript, which is input from outside, escaped for Markdown."""
    escaped = escape(text, quote=False)
    return Markup(re.sub(r"([\\`*_{}\[\]()#+.!|~-])", r"\\\1", escaped))


def _making(recipe: Recipe, run: Run) -> dict[str, Any]:
    environment, training = require(run, "environment"), require(run, "training")
    prepared = require(run, "preprocessing")
    told = ("python", "torch", "transformers", "datasets", "accelerate")
    versions = environment["versions"]
    what = "windows of joined clips" if recipe.windows.seconds else "clips"
    speech = f"{prepared['clips']['train']} {what}, {prepared['minutes']['train'] / 60:.2f} hours"
    if not recipe.preprocessing.stored:
        speech = f"{what} read from their sources while training, and not counted"
    kept = f"the weights kept are those of step {training['best_step']}"
    return {
        "training": training,
        "speech": speech,
        "kept": kept,
        "machine": ", ".join(f"{key} {one}" for key, one in environment["machine"].items() if one),
        "versions": ", ".join(f"{key} {versions[key]}" for key in told if key in versions),
    }
