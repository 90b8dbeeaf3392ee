# %% [markdown]
# # 5 · Evaluate
#
# You measure what fine-tuning was worth, on speech that nothing has touched until now.
#
# - You will read word and character error rates before and after, each with an interval.
# - You will test whether the difference could be chance.
# - You will listen to the worst clips and see what kind of errors remain.
#
# | Needs | Makes | Time |
# | --- | --- | --- |
# | lesson 4 | `predictions.jsonl`, `evaluation.json`, `figures/wer.png` | 4 minutes on 2 cores |

# %% tags=["parameters"]
RECIPE: str = "recipes/embedded.toml"  # which experiment to run
RUNS: str = "runs"  # where results are kept; in Colab a Drive folder survives the runtime

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from datasets import concatenate_datasets, load_from_disk
from IPython.display import HTML, display
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils import evaluation
from utils.artifacts import open_run, require, save_report
from utils.config import load_recipe
from utils.decoding import transcribe
from utils.environment import device
from utils.preprocessing import waveform
from utils.text import has_word_spaces, normalize, normalizer_name
from utils.training import load_model

recipe = load_recipe(RECIPE)
run = open_run(recipe, RUNS)
require(run, "training")
print(f"{recipe.name}: {recipe.model.checkpoint} before, {run.model} after")

# %% [markdown]
# ## Which clips are judged?
#
# The *test* split: no clip of it was trained on, and none helped to choose a checkpoint (that was
# the dev split). A source without a training split is judged apart, as *unseen*: in the default
# recipe it is a second speaker. One limit there: the reference for that speaker is the first
# speaker's script of the same prompt, so that another wording counts as an error, before and
# after alike.

# %%
prepared = load_from_disk(str(run.prepared))
parts = [
    prepared[split].add_column("split", [split] * len(prepared[split]))
    for split in ("test", "unseen")
    if split in prepared
]
judged = concatenate_datasets(parts)
facts = judged.remove_columns(["audio", "labels"]).rename_column("text", "reference").to_pandas()
facts.groupby(["split", "source"]).agg(clips=("id", "count"), seconds=("seconds", "sum")).round(0)

# %% [markdown]
# ## What does each model write?
#
# Both hear the same clips. The base model hears them in its stock window of 30 seconds, whatever
# the recipe says: it was trained on nothing else, and on a shorter window it may repeat itself
# without end. The fine-tuned model is read with the short window that it was trained on, and the
# test split once more at 30 seconds, as most other programs will run it. A recipe that has the short window off
# leaves out the third pass: its fine-tuned model is read at 30 seconds anyway.

# %%
clips = [waveform(row) for row in judged.with_format("numpy", columns=["audio"])]
base, _ = load_model(recipe)
tuned = WhisperForConditionalGeneration.from_pretrained(run.model, dtype="float32")
processor = WhisperProcessor.from_pretrained(run.model)  # training leaves it as it was
passes = {"before": (base, None, clips), "after": (tuned, recipe.audio_context, clips)}
if recipe.audio_context.enabled:
    passes["after_30s"] = (tuned, None, clips[: len(prepared["test"])])
settings = {"batch_size": recipe.evaluation.batch_size, "task": recipe.model.task}
texts, decode_seconds = {"after_30s": []}, {}
for name, (model, context, heard) in passes.items():
    settings |= {"language": judged["language"][: len(heard)], "context": context}
    started = time.perf_counter()
    texts[name] = transcribe(model.to(device()), processor, heard, progress=name, **settings)
    decode_seconds[name] = round(time.perf_counter() - started, 1)
    print(f"{name}: {len(heard)} clips, the first says {texts[name][0]!r}")

# %% [markdown]
# ## How long did that take?
#
# *Times real time* is seconds of speech for each second of decoding. With the short window the
# encoder hears the clip and little silence; at 30 seconds it spends most of its work on silence.
# The first pass also pays for warming up: compare the two passes of the fine-tuned model.

# %%
speech = {name: facts["seconds"][: len(heard)].sum() for name, (*_, heard) in passes.items()}
times = pd.DataFrame({"speech, s": speech, "decoding, s": decode_seconds})
times.assign(**{"× real time": times["speech, s"] / times["decoding, s"]}).round(1)

# %% [markdown]
# ## What stands in the predictions?
#
# One row a clip: what was said, and what each model wrote. Everything below is computed from
# these rows alone, and so can you: they are saved as `predictions.jsonl`.

# %%
rows = [
    fact | {name: heard[number] if number < len(heard) else None for name, heard in texts.items()}
    for number, fact in enumerate(facts.to_dict("records"))
]
test = [row for row in rows if row["split"] == "test"]
pd.DataFrame(test)[["reference", "before", "after"]].head(8)

# %% [markdown]
# ## What counts as a difference?
#
# *Orthographic* rates compare texts as they are written: a missing full stop is an error.
# *Normalised* rates first bring both texts to one form: lower case, no punctuation. Whisper's own
# normaliser takes combining marks for punctuation; Hindi and Thai write vowels and tones with
# them, so that it tears words apart and makes different words equal. Ours keeps them.

# %%
from transformers.models.whisper.english_normalizer import BasicTextNormalizer

whisper_own = BasicTextNormalizer()
samples = {"की": "hi", "का": "hi", "हिन्दी": "hi", "ที่นี่": "th", "C’è, qui!": "it"}
pd.DataFrame(
    {
        "written": text,
        "language": language,
        "Whisper's own": whisper_own(text).strip(),
        "ours": normalize(text, language),
    }
    for text, language in samples.items()
)

# %% [markdown]
# ## How many errors are left?
#
# *WER* (word error rate) is how many words you must replace, drop or add, divided by the words
# that were said; *CER* is the same for characters. Each comes with its 95 % interval: how far the
# rate would move with other clips of the same kind. In languages without spaces between words
# read CER first: a "word" there is a whole phrase.

# %%
resamples = recipe.evaluation.resamples
measured = {
    "normalised": evaluation.measure(test, resamples),
    "orthographic": evaluation.measure(test, resamples, normalized=False),
}
print({code: normalizer_name(code) for code in sorted({row["language"] for row in test})})
pd.DataFrame(
    {
        "texts": kind,
        "model": name,
        "WER": evaluation.percent(rates, f"wer_{name}"),
        "CER": evaluation.percent(rates, f"cer_{name}"),
    }
    for kind, rates in measured.items()
    for name in passes
)

# %% [markdown]
# ## Could the difference be chance?
#
# Two intervals may overlap and the difference still be real, because both models heard the *same*
# clips. The paired test asks: if both were equally good, it would not matter which text of a clip
# came from which model. It swaps them at random, many times, and counts how often the difference
# gets as large as the real one. That share is *p*: below 0.05, chance is a poor explanation.

# %%
summary = measured["normalised"]
unit = evaluation.first_unit(test)
before, after = (evaluation.count_row_errors(test, name, unit) for name in ("before", "after"))
better, worse = (after[:, 0] < before[:, 0]).sum(), (after[:, 0] > before[:, 0]).sum()
print(f"{unit} errors: {before[:, 0].sum()} → {after[:, 0].sum()} in {len(test)} clips")
print(f"{better} clips better, {worse} worse, {len(test) - better - worse} with as many errors")
print(
    f"p = {summary['p_value']:.4f} (the smallest that {resamples} swaps can show: "
    f"{2 / min(2 ** len(test), resamples + 1):.4f})"
)

# %% [markdown]
# ## How does each source fare?
#
# One pooled number hides that a language got worse while another got better. A source that
# training never saw tells whether the model learned the language or one voice.

# %%
report = evaluation.build_report(rows, recipe)
pd.DataFrame(
    {
        "source": source,
        "split": rates["split"],
        "clips": rates["clips"],
        **{k: evaluation.percent(rates, f"wer_{k}") for k in passes if f"wer_{k}" in rates},
        "p": round(rates["p_value"], 4),
    }
    for source, rates in report["languages"].items()
)

# %% [markdown]
# ## What does it look like?
#
# The bars are normalised WER, the lines their intervals. A short line means many clips or errors
# that are spread evenly; a long one means few clips, or a few clips with most of the errors.

# %%
figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
positions, width = np.arange(len(report["languages"])), 0.8 / len(passes)
for number, name in enumerate(passes):
    rate, low, high = 100 * np.array(
        [
            [rates.get(f"wer_{name}{bound}", np.nan) for rates in report["languages"].values()]
            for bound in ("", "_low", "_high")
        ]
    )
    errors = np.maximum([rate - low, high - rate], 0)
    axes.bar(positions + number * width, rate, width, yerr=errors, capsize=4, label=name)
names = [f"{source}\n({rates['split']})" for source, rates in report["languages"].items()]
axes.set_xticks(positions + width * (len(passes) - 1) / 2, names)
axes.set(ylabel="WER, %", title="Word error rate with 95 % intervals")
axes.legend()
figure.savefig(run.figures / "wer.png", dpi=150)
plt.close(figure)  # shown by the next line, and not a second time at the cell's end
figure

# %% [markdown]
# ## Which clips are worst?
#
# Listen before you blame the model: the reference may be wrong, or the clip may be cut off.
# Struck out on red is what was said and not written; underlined on green is what was written and
# not said.

# %%
worst = evaluation.find_worst(test, recipe.evaluation.worst_clips)
place = {row["id"]: number for number, row in enumerate(rows)}
HTML(evaluation.clips_html(worst, {row["id"]: clips[place[row["id"]]] for row in worst}))

# %% [markdown]
# ## What kind of errors remain?
#
# *Form* counts orthographic errors that are none to the ear: case, punctuation, the shape of an
# apostrophe. A *runaway* is a text more than three times as long as the reference: the model
# repeats itself, as a model does that has learned too few steps at the short window. The second
# table shows the words that go wrong most often; the same word in many clips is often a matter of
# spelling in the references.

# %%
kinds = pd.DataFrame(report["error_kinds"]).T.assign(runaways=pd.Series(report["runaways"]))
frequent = report["errors"]["after"]
often = [[said, heard, times] for said, heard, times in frequent["substitutions"]]
often += [[said, "(nothing)", times] for said, times in frequent["deletions"]]
often += [["(nothing)", heard, times] for heard, times in frequent["insertions"]]
often.sort(key=lambda error: -error[-1])
display(kinds.round(2), pd.DataFrame(often[:12], columns=["said", "written", "times"]))

# %% [markdown]
# ## By hand
#
# The errors of one clip, by an *edit distance table*: the cell in row *i* and column *j* is the
# smallest number of edits that turn the first *i* words said into the first *j* words written.
# Each cell comes from its neighbours: drop a word (from above), add one (from the left), or keep
# or replace one (from the corner). The answer stands at the bottom right.


# %%
def pieces(row, key):
    text = normalize(row[key], row["language"])
    return text.split() if has_word_spaces(row["language"]) else list(text)


wrong = [row for row in test if pieces(row, "reference") != pieces(row, "before")] or test
example = min(
    wrong, key=lambda row: abs(len(pieces(row, "reference") + pieces(row, "before")) - 10)
)  # neither the smallest table nor the largest
said, heard = pieces(example, "reference"), pieces(example, "before")
table = np.zeros((len(said) + 1, len(heard) + 1), dtype=int)
table[:, 0], table[0] = np.arange(len(said) + 1), np.arange(len(heard) + 1)
for i in range(1, len(said) + 1):
    for j in range(1, len(heard) + 1):
        replaced = table[i - 1, j - 1] + (said[i - 1] != heard[j - 1])
        table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, replaced)
print(f"table {table.shape}: {table[-1, -1]} edits, {len(said)} said")
pd.DataFrame(table, index=["", *said], columns=["", *heard])

# %% [markdown]
# The interval by hand: a *resample* draws as many clips as there are, with replacement, so that
# some come twice and some not at all. Its error rate is what another test set might have given.
# The middle
# 95 % of many resamples are the interval.

# %%
random = np.random.default_rng(1)
draws = random.integers(0, len(after), (resamples, len(after)))
edits, lengths = after[draws, 0], after[draws, 1]
print(f"after {after.shape} (clips, edits and length) → draws {draws.shape} (resamples, clips)")
rates = edits.sum(axis=1) / np.maximum(lengths.sum(axis=1), 1)
print(f"first resample: {edits[0].sum()} edits / {lengths[0].sum()} said = {rates[0]:.1%}")
by_hand = np.percentile(rates, [2.5, 97.5])
print(f"95 % of {rates.shape} resamples lie between {by_hand[0]:.1%} and {by_hand[1]:.1%}")

# %% [markdown]
# ## By helper
#
# `count_errors` counts with jiwer, and `confidence_interval` draws with SciPy. The edits must be
# equal; the interval may differ by the chance of other draws.

# %%
references, hypotheses = [" ".join(said)], [" ".join(heard)]
edits, length = evaluation.count_errors(references, hypotheses, "word")[0]
assert (edits, length) == (table[-1, -1], len(said)), "the table and jiwer count differently"
wer = evaluation.WER().compute(predictions=hypotheses, references=references)["wer"]
assert wer == edits / max(length, 1), "the metric divides by something else than the length"
by_helper = np.array(evaluation.confidence_interval(after, resamples))
noise = 0.25 * (by_helper[1] - by_helper[0]) + 1e-9
assert (np.abs(by_hand - by_helper) <= noise).all(), "the two bootstraps differ by more than chance"
print(f"{edits} edits / {length} said = {wer:.1%} either way")
print(f"interval by hand {by_hand.round(4)}, by helper {by_helper.round(4)}")

# %% [markdown]
# ## When this is good, and when to expect trouble
#
# *Intervals* are good from some 50 clips on. Expect trouble with fewer than 20: they come out too
# narrow. They also know one kind of chance only, other clips of the same speakers: they say
# nothing about other speakers, rooms or telephones.
#
# *WER* is good to compare two models on the same clips. Expect trouble between papers: another
# normaliser alone can move it by several points. Always name the normaliser, as the report does.
#
# *The test split* is good once. If you change the recipe because of what you saw here and measure
# again, it has become a dev split; decide on dev, and keep a part aside for the end.

# %% [markdown]
# ## Save
#
# First the predictions, then the report: where `evaluation.json` stands, both are complete.

# %%
evaluation.save_predictions(run.predictions, rows)
report["decode_seconds"] = decode_seconds
path = save_report(run, "evaluation", report)
print(f"{run.predictions}: {len(rows)} clips; {path}:")
pd.Series(report["summary"], name="summary").to_frame()

# %% [markdown]
# ## Check

# %%
import jiwer

saved = evaluation.load_predictions(run.predictions)
assert [row["id"] for row in saved] == list(judged["id"]), "clips are missing: decode again"
assert report["summary"]["clips"] == len(prepared["test"]), "the summary leaves test clips out"
shared = set(prepared["train"]["id"]) & set(judged["id"])
assert not shared, f"trained on and tested with {sorted(shared)[:3]}: give the sources other splits"
for name in ("before", "after"):
    pair = [
        [normalize(row[key], row["language"]) for row in saved if row["split"] == "test"]
        for key in ("reference", name)
    ]
    rate, low, high = (report["summary"][f"wer_{name}{bound}"] for bound in ("", "_low", "_high"))
    assert abs(jiwer.wer(*pair) - rate) < 1e-9, f"{run.predictions} gives another WER {name}"
    assert low <= rate <= high, f"the interval {name} does not hold its rate: raise resamples"
print("evaluation works")

# %% [markdown]
# ## What you saw
#
# Two models heard the same clips, and you counted their errors as written and as heard, with an
# interval for each rate and a test for the difference. You listened to the worst clips, and you
# know whether what remains is wrong words or form.

# %% [markdown]
# ## Try it
#
# - Sort the clips by `before` minus `after`: which ones did fine-tuning make worse?
# - Normalise with `whisper_own` instead, and see how the WER of your language moves.
# - Keep the first 10 test clips only, and watch the interval.

# %% [markdown]
# ## Next
#
# [Lesson 6](06_demo.ipynb) puts both models on a page where you speak and read.
