# %% [markdown]
# # 5 · Evaluate
#
# You measure what fine-tuning was worth, on speech that nothing has touched until now.
#
# - You will read word and character error rates before and after, each with an interval.
# - You will test whether the difference could be chance.
# - You will see where it helped and where it hurt: speakers, lengths, languages, long recordings.
#
# | Needs | Makes | Time |
# | --- | --- | --- |
# | lesson 4 | `predictions.jsonl`, `evaluation.json`, `evaluation.html` | 5 minutes on 2 cores |

# %% tags=["parameters"]
RECIPE: str = "recipes/embedded.toml"  # which experiment to run
RUNS: str = "runs"  # where results are kept; in Colab a Drive folder survives the runtime

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from datasets import load_from_disk
from IPython.display import HTML, display

from utils.artifacts import open_run, require, save_report
from utils.config import load_recipe
from utils.environment.colab import mount_drive
from utils.evaluation.differences import count_kinds_of_error, say_difference
from utils.evaluation.evaluate import (
    complete_report,
    describe_evaluation,
    transcribe_long_form,
    transcribe_probes,
)
from utils.evaluation.mistakes import clips_html, find_worst, most_frequent
from utils.evaluation.page import draw_rates, verdict, verdict_word, window_line, write_page
from utils.evaluation.readers import load_readers, prepared_clips, read_clips
from utils.evaluation.report import build_report
from utils.scoring.error_rates import WER, count_errors
from utils.scoring.intervals import confidence_interval, resampled_rates
from utils.scoring.predictions import (
    count_row_errors,
    drawn,
    first_unit,
    load_predictions,
    measure,
    percent,
    save_predictions,
    say_p,
)
from utils.text import has_word_spaces, normalize, normalizer_name

# %%
mount_drive(RECIPE, RUNS)
recipe = load_recipe(RECIPE)
run = open_run(recipe, RUNS)
require(run, "training")
print(f"{recipe.name}: {recipe.model.checkpoint} before, {run.model} after")

# %% [markdown]
# ## Which clips are judged?
#
# The *test* split: no clip of it was trained on, and none helped to choose a checkpoint (that was
# the dev split). Sources without a training split are judged apart: *unseen* ones in the same
# language, here the other lead and the minor characters, whose voices are often altered by effects,
# and *untrained* languages, which show what fine-tuning forgets.

# %%
prepared = load_from_disk(str(run.prepared))
facts = [
    {key: clip[key] for key in ("split", "source", "id", "seconds")}
    for clip in prepared_clips(prepared, recipe)
]
judged = pd.DataFrame(facts)
judged.groupby(["split", "source"]).agg(clips=("id", "count"), seconds=("seconds", "sum")).round(0)

# %% [markdown]
# ## What does each model write?
#
# Both transcribe the same clips. The base model does so in its stock window of 30 seconds: it was
# trained on nothing else, and on a shorter window it may repeat itself without end. The fine-tuned
# model decodes with the short window that it was trained on (*after*), and once more at 30 seconds,
# as other programs will run it (*after_30s*). Each batch goes into a journal: if you interrupt this
# cell and run it again, it goes on where it stopped.

# %%
readers = load_readers(recipe, run.model, stock_window=False)
journal = run.folder / "predictions.partial.jsonl"
rows, speed = read_clips(
    prepared_clips(prepared, recipe),
    readers,
    recipe,
    journal,
    describe_evaluation(recipe, run.model),
)
report = build_report(rows, recipe)
test = [row for row in rows if row["split"] == "test"]
pd.DataFrame(test)[["reference", "before", "after"]].head(8)

# %% [markdown]
# ## What does the window cost?
#
# *Times real time* is seconds of speech for each second of decoding. With the short window the
# encoder is given the clip and little silence; at 30 seconds it spends most of its work on silence.
# The rate at 30 seconds is what you get in programs that know no other window: plan with that one.

# %%
times = pd.DataFrame(speed).T
print(window_line(report["test"]) or "This recipe has one window: 30 seconds.")
times.assign(times_real_time=times["speech_seconds"] / times["decode_seconds"]).round(1)

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
    "normalised": measure(test, resamples),
    "orthographic": measure(test, resamples, normalized=False),
}
print({code: normalizer_name(code) for code in sorted({row["language"] for row in test})})
pd.DataFrame(
    {
        "texts": kind,
        "model": name,
        "WER": percent(rates, f"wer_{name}"),
        "CER": percent(rates, f"cer_{name}"),
    }
    for kind, rates in measured.items()
    for name in ("before", "after")
)

# %% [markdown]
# ## Could the difference be chance?
#
# Two intervals may overlap and the difference still be real, because both models heard the *same*
# clips. The paired test asks: if both were equally good, it would not matter which text of a clip
# came from which model. It swaps them at random, many times, and counts how often the difference
# gets as large as the real one. That share is *p*: below 0.05, chance is a poor explanation. With
# `p ≤` no exchange came near: more of them might find a smaller one.

# %%
unit = first_unit(test)
before, after = (drawn(test, count_row_errors(test, name, unit)) for name in ("before", "after"))
better, worse = (after[:, 0] < before[:, 0]).sum(), (after[:, 0] > before[:, 0]).sum()
print(f"{unit} errors: {before[:, 0].sum()} → {after[:, 0].sum()} in {len(test)} clips")
print(f"of {report['test']['over']}: {better} better, {worse} worse, the others as before")
print(say_p(measured["normalised"]))

# %% [markdown]
# What is exchanged are clips, or all clips of a speaker together where ten speakers and more are
# known: the clips of one speaker gain or lose together, and taken for independent they make a
# difference look sure that is not. Over clips, the test knows nothing of other speakers.

# %% [markdown]
# ## How does each source fare?
#
# One pooled number hides that a language got worse while another got better. A source that
# training never saw tells whether the model learned the language or one voice; an untrained
# language tells what it forgot. A difference counts as *better* or *worse* only where *p* is below
# 0.05, and with few clips it seldom is. Whoever tests many rows finds one below 0.05 by chance, so
# these are corrected for the number of rows (Holm's method).

# %%
table = {
    source: {key: rates[key] for key in ("split", "clips")}
    | {name: percent(rates, f"wer_{name}") for name in ("before", "after")}
    | {"p": say_p(rates).removeprefix("p "), "verdict": verdict_word(rates)}
    for source, rates in report["languages"].items()
}
figure = draw_rates(report)
figure.savefig(run.figures / "wer.png", dpi=150)
display(pd.DataFrame(table).T, figure)

# %% [markdown]
# ## Which clips gained, and which lost?
#
# Errors seldom spread evenly. Short clips give the model little context, and noisy ones little to
# go by. The *signal-to-noise ratio* (SNR) is guessed from each clip's loud and quiet moments: good
# enough to sort clips, not to quote. No row is tested: look here for what to try next, and decide
# on other clips.

# %%
groups = report["breakdowns"]["duration"] | report["breakdowns"]["snr"]
pd.DataFrame(
    {"clips": rates["clips"]}
    | {f"WER {name}": percent(rates, f"wer_{name}") for name in ("before", "after")}
    for rates in groups.values()
).set_index(pd.Index(groups, name="band"))

# %% [markdown]
# ## What did it really learn?
#
# A rate counts `1` for *uno* as an error like any other. Each error is put into one of three kinds:
# *digits* (a number in figures for one in letters), *spelling* (accents, spaces, variants of one
# character: nobody would say that it is another word), and *words*. A gain in digits is worth having
# if you want digits written so; it is not a better ear.

# %%
kinds = count_kinds_of_error(test)
print(say_difference(kinds))
pd.DataFrame(kinds).T[["before", "after"]].rename_axis("errors in")

# %% [markdown]
# ## Which clips are worst?
#
# Listen before you blame the model: the reference may be wrong, or the clip may be cut off.
# The line below the table says how to read the colours.

# %%
worst = find_worst(test, recipe.evaluation.worst_clips)
wanted = {row["id"] for row in worst}
heard_again = prepared_clips(prepared, recipe)
waveforms = {clip["id"]: clip["samples"] for clip in heard_again if clip["id"] in wanted}
HTML(clips_html(worst, waveforms))

# %% [markdown]
# ## What kind of errors remain?
#
# *Form* counts orthographic errors that are none to the ear: case, punctuation, the shape of an
# apostrophe. A *runaway* is a text more than three times as long as the reference; a *repetitive*
# one shrinks so far when compressed that it must repeat itself. In the second table, the brackets
# show the place: the same word in many clips is often a matter of spelling in the references.

# %%
kinds = [report[part] for part in ("edits", "error_kinds", "flags")]
sides = {side: {k: v for part in kinds for k, v in part[side].items()} for side in report["edits"]}
shown = most_frequent(report["errors"]["after"])
frequent = pd.DataFrame(shown, columns=["said", "heard", "times", "contexts"])
display(pd.DataFrame(sides).round(2), frequent.rename(columns={"heard": "written"}))

# %% [markdown]
# ## What does it write where nobody speaks?
#
# Whisper learned from subtitles, and subtitles have words for silence and music. Whatever stands
# in this table is invented: a *hallucination*. Fine-tuning on clean clips, each with a sentence,
# teaches a model that there is always one.

# %%
probes = transcribe_probes(readers, recipe)
pd.DataFrame(probes).T

# %% [markdown]
# ## Does it still transcribe long recordings?
#
# Clips of the test split, joined with pauses: the borders are known. The recording is decoded as
# the page of lesson 6 does it, window after window, the next one from where the model's own
# timestamps say that the last sentence ended. The labels had no timestamps, so that the model may
# unlearn them: `kept` says whether they are in order, and near the known borders and the end.

# %%
long_form = transcribe_long_form(prepared_clips(prepared, recipe), readers, recipe)
found = {side: long_form[side] for side in ("before", "after") if long_form}
pd.DataFrame(found).drop("text", errors="ignore").T.rename(
    columns=lambda name: name.replace("_", " ")
)

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
# Of many of them, leave out the lowest and the highest 2.5 %: the *percentile bootstrap*.

# %%
random = np.random.default_rng(0)
draws = random.integers(0, len(after), (resamples, len(after)))
edits, lengths = after[draws, 0].sum(axis=1), after[draws, 1].sum(axis=1)
rates = edits / np.maximum(lengths, 1)
low, high = np.percentile(rates, [2.5, 97.5])
plt.hist(rates, 30)
plt.gca().set(xlabel="error rate of a resample", ylabel="resamples")
plt.axvspan(low, high, alpha=0.2)
plt.show()
print(
    f"draws {draws.shape} (resamples, drawn) of {report['test']['over']}: {low:.1%} to {high:.1%}"
)

# %% [markdown]
# ## By helper
#
# `count_errors` counts with jiwer, `resampled_rates` draws from the same seed: both must agree.
# `confidence_interval` takes only the spread from the resamples, on the scale of cube roots, because
# with few errors the percentiles are too narrow: they hold the true rate in 88 % of cases and not in
# 95 %. Where no error was seen at all, all resamples have none, and it falls back on the rule of
# three: with no error in *n* clips, up to 3 in *n* may still be wrong.

# %%
references, hypotheses = [" ".join(said)], [" ".join(heard)]
edits, length = count_errors(references, hypotheses, "word")[0]
assert (edits, length) == (table[-1, -1], len(said)), "the table and jiwer count differently"
wer = WER().compute(predictions=hypotheses, references=references)["wer"]
assert wer == edits / max(length, 1), "the metric divides by something else than the length"
assert np.allclose(rates, resampled_rates(after, resamples, seed=0)), "other resamples were drawn"
by_helper = confidence_interval(after, resamples, seed=0)
print(f"{edits} edits / {length} said = {wer:.1%} either way")
print(f"percentiles {low:.1%} to {high:.1%}, by helper {by_helper[0]:.1%} to {by_helper[1]:.1%}")

# %% [markdown]
# ## When this is good, and when to expect trouble
#
# *Intervals* are good from some 50 clips on. Expect trouble with fewer than 20: they come out so
# wide that they tell little. Where fewer than ten speakers are known, they also cover one kind of
# chance only, other clips of the same speakers: they say nothing about other speakers or rooms.
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
# `evaluation.html` says the same to people who have no notebook, the answer first. For a checkpoint
# from elsewhere, `python -m utils.evaluation RECIPE --checkpoint FOLDER` makes the same report.

# %%
save_predictions(run.predictions, rows)
report = complete_report(report, speed, recipe, run, run.model)
report |= {"probes": probes, "long_form": long_form}
write_page(run.folder / "evaluation.html", report, rows, recipe, waveforms)
path = save_report(run, "evaluation", report)
journal.unlink()
print(f"{run.predictions}: {len(rows)} clips; {path}; {path.with_suffix('.html')}\n")
print(verdict(report))

# %% [markdown]
# ## Check

# %%
import jiwer

saved = load_predictions(run.predictions)
assert [row["id"] for row in saved] == list(judged["id"]), "clips are missing: decode again"
assert report["summary"]["clips"] == len(prepared["test"]), "the summary leaves test clips out"
shared = {pair: found for pair, found in report["overlaps"].items() if any(found.values())}
print("in two splits:", shared or "nothing")
apart = recipe.preprocessing.drop_tested_sentences
for pair, found in shared.items():
    told = found["clips"] or (apart and found["texts"] and pair.startswith("train/"))
    assert not told, f"{pair} share {found}: give the sources other splits"
for name in ("before", "after"):
    pair = [
        [normalize(row[key], row["language"]) for row in saved if row["split"] == "test"]
        for key in ("reference", name)
    ]
    rate = report["summary"][f"wer_{name}"]
    assert abs(jiwer.wer(*pair) - rate) < 1e-9, f"{run.predictions} gives another WER {name}"
before, after = (report["summary"][f"wer_{name}"] for name in ("before", "after"))
print(f"test WER {before:.1%} -> {after:.1%}, {say_p(report['test'])}; jiwer agrees")

# %% [markdown]
# ## What you saw
#
# Two models transcribed the same clips, and you counted their errors as written and normalised, with
# an interval for each rate and a test for the difference. You know where the gain is and what it
# cost: other speakers, other languages, silence, long recordings.

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
