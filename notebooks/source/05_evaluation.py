# %% [markdown]
# # 5 · Evaluation: what was it worth?
#
# You measure what fine-tuning was worth, on speech that nothing has touched until now.
#
# - You will compute word and character error rates before and after, each with an interval.
# - You will test whether the difference could be chance.
# - You will see where it helped and where it hurt: speakers, lengths, languages, long recordings.
#
# | Needs | Makes | Time |
# | --- | --- | --- |
# | lesson 4 | `predictions.jsonl`, `evaluation.json`, `evaluation.html` | 5 minutes on 2 cores, 13 without AVX-512; less when repeated |

# %% tags=["parameters"]
RECIPE: str = "recipes/embedded.toml"  # which experiment to run
RUNS: str = "runs"  # where results are kept; in Colab a Drive folder survives the runtime

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from datasets import load_from_disk
from IPython.display import HTML, Image, display

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
from utils.scoring.error_rates import count_errors
from utils.scoring.intervals import confidence_interval, resampled_rates
from utils.scoring.metrics import WER
from utils.scoring.predictions import (
    bare_p,
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
# The *test* split: no clip of it was used for training or for choosing a checkpoint (that was the
# dev split). Sources without a training split are judged separately. *unseen* ones are in a
# language that was trained: here a *held-out speaker*, the other lead of the game, and minor
# characters, whose voices are often altered by effects. *untrained* ones are in other languages,
# and show what fine-tuning forgets.

# %%
prepared = load_from_disk(str(run.prepared))
facts = [
    {key: clip[key] for key in ("split", "source", "id", "seconds")}
    for clip in prepared_clips(prepared, recipe)
]
judged = pd.DataFrame(facts)
judged.groupby(["split", "source"]).agg(clips=("id", "count"), seconds=("seconds", "sum")).round(0)

# %% [markdown]
# Look at the number of clips in each row: the fewer there are, the less its error rate will tell.

# %% [markdown]
# ## What does each model transcribe?
#
# Both transcribe the same clips. The base model decodes at its stock window of 30 seconds: at a
# shorter one, which it was not trained for, it may repeat itself without end. The fine-tuned model
# decodes at the short window that it was trained at (*after*), and once more at 30 seconds, as
# other programs run it (*after_30s*). Every batch is stored as soon as it is decoded: if you
# interrupt this cell and run it again, it continues where it stopped.

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
# Compare *before* and *after* with *reference*, line by line: this table is all that the numbers
# below are made of.

# %% [markdown]
# ## What does the window cost?
#
# *Times real time* is seconds of speech per second of decoding. At the short window the encoder
# gets the clip and a little silence; at 30 seconds it spends most of its work on silence. Plan
# with the error rate at 30 seconds if your program knows no other window. Only what was decoded
# now is timed: clips of the base model that were in the cache do not count.

# %%
times = pd.DataFrame(speed).T
print(window_line(report["test"]) or "This recipe has one window: 30 seconds.")
times["times_real_time"] = times["speech_seconds"] / times["decode_seconds"]
times.rename(columns=lambda name: name.replace("_", " ")).round(1)

# %% [markdown]
# Compare the rows of the fine-tuned model: the same weights, two windows. The sentence above the
# table says what the window does to the error rate.

# %% [markdown]
# ## By hand
#
# Errors first. You count those of one clip with an *edit distance table*: the cell in row *i* and column
# *j* is the smallest number of edits that turn the first *i* words of the reference into the first
# *j* words of the hypothesis. Each cell follows from its neighbours: delete a word (from above),
# insert one (from the left), or keep or replace one (from the corner). The answer is at the bottom
# right.


# %%
def pieces(row, key):
    text = normalize(row[key], row["language"])
    return text.split() if has_word_spaces(row["language"]) else list(text)


wrong = [row for row in test if pieces(row, "reference") != pieces(row, "before")] or test
example = min(
    wrong, key=lambda row: abs(len(pieces(row, "reference") + pieces(row, "before")) - 10)
)  # neither the smallest table nor the largest
said, hypothesis = pieces(example, "reference"), pieces(example, "before")
table = np.zeros((len(said) + 1, len(hypothesis) + 1), dtype=int)
table[:, 0], table[0] = np.arange(len(said) + 1), np.arange(len(hypothesis) + 1)
for i in range(1, len(said) + 1):
    for j in range(1, len(hypothesis) + 1):
        replaced = table[i - 1, j - 1] + (said[i - 1] != hypothesis[j - 1])
        table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, replaced)
print(f"table {table.shape}: {table[-1, -1]} edits, {len(said)} said")
pd.DataFrame(table, index=["", *said], columns=["", *hypothesis])

# %% [markdown]
# Follow the smallest numbers from the bottom right to the top left: where the number falls,
# there is an error. The next cell does that, and draws what it meets: S is a word replaced
# (*substitution*), D one left out (*deletion*), I one too many (*insertion*).

# %%
from utils.environment.diagrams import draw_boxes

i, j, met = len(said), len(hypothesis), []
while i or j:
    if i and j and table[i, j] == table[i - 1, j - 1] + (said[i - 1] != hypothesis[j - 1]):
        i, j = i - 1, j - 1
        met.append((said[i], hypothesis[j], "" if said[i] == hypothesis[j] else "S"))
    elif i and table[i, j] == table[i - 1, j] + 1:
        i -= 1
        met.append((said[i], "", "D"))
    else:
        j -= 1
        met.append(("", hypothesis[j], "I"))
colours = {"": "", "S": "orange", "D": "red", "I": "green"}
boxes = [(f"{one}\n{other}\n{mark}", colours[mark]) for one, other, mark in met[::-1]]
boxes += [("", "none")] * (-len(boxes) % 5)
draw_boxes(
    [boxes[at : at + 5] for at in range(0, len(boxes), 5)],
    "The words that were said, above those transcribed, with S, D and I",
)

# %% [markdown]
# Above is what was said, below what was transcribed. Grey boxes agree; each coloured one is an
# error, and the word error rate is their number divided by the number of words in the upper line.
#
# Now the interval. A *resample* draws as many clips as there are, with replacement, so that some
# come twice and some not at all. Its error rate is what another test set might have given. Take
# many of them and leave out the lowest and the highest 2.5 %: this is the *percentile bootstrap*.

# %%
resamples, unit = recipe.evaluation.resamples, first_unit(test)
before, after = (drawn(test, count_row_errors(test, name, unit)) for name in ("before", "after"))
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
# The shaded part holds 95 % of the resamples. Where a few clips cause most errors, the histogram has
# a longer tail on the right.

# %% [markdown]
# ## By helper
#
# `count_errors` counts with jiwer, and `resampled_rates` draws with the same seed: both must agree
# with what you did.
#
# `confidence_interval` takes one more step. With a long right tail, percentiles come out too narrow:
# in our simulations they hold the true rate less often than in 95 % of cases. Cube roots make the
# histogram symmetric, so the interval is computed there and its ends are cubed. If there is no
# error at all, it uses the *rule of three*: with no error in *n* clips, up to 3 in *n* may still be
# wrong.

# %%
references, hypotheses = [" ".join(said)], [" ".join(hypothesis)]
edits, length = count_errors(references, hypotheses, "word")[0]
assert (edits, length) == (table[-1, -1], len(said)), "the table and jiwer count differently"
wer = WER().compute(predictions=hypotheses, references=references)["wer"]
assert wer == edits / max(length, 1), "the metric divides by something else than the length"
assert np.allclose(rates, resampled_rates(after, resamples, seed=0)), "other resamples were drawn"
by_helper = confidence_interval(after, resamples, seed=0)
print(f"{edits} edits / {length} said = {wer:.1%} either way")
print(f"percentiles {low:.1%} to {high:.1%}, by helper {by_helper[0]:.1%} to {by_helper[1]:.1%}")

# %% [markdown]
# The same edits and the same resamples; the corrected interval differs a little from the
# percentiles.

# %% [markdown]
# ## How many errors are left?
#
# *WER* is the rate that you have counted by hand, *CER* the same for characters. Each comes with its
# 95 % interval, made to contain the rate of endlessly many clips of the same kind. For languages
# written without spaces look at CER first: a "word" there is a whole phrase.
#
# *Orthographic* rates compare the texts as they are written: a missing full stop is an error.
# *Normalised* rates first bring both texts to the same form, lower case without punctuation, with
# the normaliser of lesson 3, which keeps the vowel signs of Hindi or Thai.

# %%
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
# Look at the intervals first: the true rate could be anywhere in them. Orthographic rates are usually
# higher, because capitals and commas count there.

# %% [markdown]
# ## How many test clips do you need?
#
# Take only some of them, and see what becomes of the interval of *after*:

# %%
from utils.environment.slider import draw_slider

mixed = np.random.default_rng(0).permutation(after)


def draw_interval(count):
    low, high = (min(end, 1) for end in confidence_interval(mixed[:count], resamples))
    words = f"{low:.0%} to {high:.0%}"
    bar = [(words, "none", 0.4), ("", "none", low), ("", "blue", high - low)]
    return draw_boxes([[*bar, ("", "none", 1 - high)]], f"95 % interval: {words}").data


counts = [*(one for one in (5, 10, 20, 50, 100, 200, 500) if one < len(mixed)), len(mixed)]
draw_slider(draw_interval, report["test"]["over"].split()[1], counts, first=counts[-1])

# %% [markdown]
# The bar shrinks slowly: about four times as many clips are needed to halve it.

# %% [markdown]
# ## Could the difference be chance?
#
# Two intervals may overlap although the difference is real, because both models transcribed the
# *same* clips. The paired test uses that: if the models were equally good, swapping their two
# transcripts of a clip would change nothing on average. It swaps them at random, many times, and
# counts how often the difference becomes as large as the real one. That share is *p*: below 0.05,
# chance is a poor explanation. `p ≤` means that no swap came near: with more swaps the number
# might be smaller.

# %%
better, worse = (after[:, 0] < before[:, 0]).sum(), (after[:, 0] > before[:, 0]).sum()
print(f"{unit} errors: {before[:, 0].sum()} → {after[:, 0].sum()} in {len(test)} clips")
print(f"of {report['test']['over']}: {better} better, {worse} worse, the others as before")
print(say_p(measured["normalised"]))

# %% [markdown]
# Look at how many clips got worse: even a clear gain has some. The test swaps single clips, or all
# clips of a speaker together if at least ten speakers are known. The clips of one speaker gain or
# lose together; if you treat them as independent, a difference looks more certain than it is. With
# few speakers the test says nothing about other speakers.

# %% [markdown]
# ## How does each source fare?
#
# A pooled rate can hide that one language got worse while another got better. The held-out speaker
# shows whether the model learned the language or one voice; an untrained language shows what it
# forgot. A difference counts as *better* or *worse* only if *p* is below 0.05, which is rare with
# few clips. If you test many rows, one of them falls below 0.05 by chance, so the *p* are corrected
# for the number of rows (Holm's method). *p* and verdict are about the first column after training:
# at 30 seconds if that was measured, because this is what other programs will give you.

# %%
from utils.scoring.predictions import headline_window

window = headline_window(report["test"])  # other programs', if measured
rate = report["first_rate"]  # wer, or cer where words have no spaces
columns = dict.fromkeys(["before", f"after{window}", "after"])
table = {
    source: {key: rates[key] for key in ("split", "clips")}
    | {f"{rate.upper()} {name}": percent(rates, f"{rate}_{name}") for name in columns}
    | {"p": bare_p(rates, window)}
    | {"verdict": verdict_word(rates, window)}
    for source, rates in report["languages"].items()
}
figure = draw_rates(report)
figure.savefig(run.figures / "wer.png", dpi=150)
display(pd.DataFrame(table).T, figure)

# %% [markdown]
# Compare the trained speaker with the held-out one: if only the first gains, the model learned a
# voice. Then look at the untrained language: a higher rate *after* is what fine-tuning cost.
# Sources with few clips are pale.

# %% [markdown]
# ## Which clips gained, and which lost?
#
# Errors are rarely spread evenly. Short clips give the model little context, and noise hides what
# was said. The *signal-to-noise ratio* (SNR) is estimated from the loud and quiet moments of each
# clip: good enough to sort clips, not to quote. These rows are not tested: use them for ideas, and
# test the ideas on other clips.

# %%
groups = report["breakdowns"]["duration"] | report["breakdowns"]["snr"]
pd.DataFrame(
    {"clips": rates["clips"]}
    | {f"{rate.upper()} {name}": percent(rates, f"{rate}_{name}") for name in ("before", "after")}
    for rates in groups.values()
).set_index(pd.Index(groups, name="band"))

# %% [markdown]
# Look for a band whose rate is far from the others and has enough clips: more training speech of
# that kind may help most.

# %% [markdown]
# ## What did it really learn?
#
# An error rate treats `1` for *one* like any other error. Here each error is put into one of three
# kinds: *digits* (a number in figures where the reference has letters), *spelling* (accents,
# spaces, variants of a character: nobody would call it a different word), and *words*. A gain in
# digits is worth having if you want digits written that way; it does not mean that the model
# understands speech better.

# %%
kinds = count_kinds_of_error(test)
print(say_difference(kinds))
pd.DataFrame(kinds).T.rename_axis("errors in")

# %% [markdown]
# The sentence says how much of the gain is in words.

# %% [markdown]
# ## Which clips are worst?
#
# Listen before you blame the model: the reference may be wrong, or the clip may be cut off. The
# line below the table explains the colours.

# %%
worst = find_worst(test, recipe.evaluation.worst_clips)
wanted = {row["id"] for row in worst}
heard_again = prepared_clips(prepared, recipe)
waveforms = {clip["id"]: clip["samples"] for clip in heard_again if clip["id"] in wanted}
HTML(clips_html(worst, waveforms))

# %% [markdown]
# If several references turn out to be wrong, correct the data before you change the recipe.

# %% [markdown]
# ## What kind of errors remain?
#
# The first table begins with what was right (*hits*) and the edits of the normalised texts. Then it
# counts the errors of the texts as they are written: in *words*, some of them in another *script*,
# and in *form*, which you cannot hear: case, punctuation, the shape of an apostrophe. Last come
# transcripts that look invented: a *runaway* is more than three times as long as the reference, a
# *repetitive* one compresses so well that it must repeat itself, *too fast* is more than eight
# words a second. The second table lists the most frequent errors with their context in brackets:
# the same word in many clips is often a matter of spelling in the references.

# %%
kinds = [report[part] for part in ("edits", "error_kinds", "flags")]
sides = {side: {k: v for part in kinds for k, v in part[side].items()} for side in report["edits"]}
shares = ["form_share", "flagged_share", "words_per_second"]  # these stay in the report
counts = pd.DataFrame(sides).drop(shares).astype(int).rename({"too_fast": "too fast"})
shown = most_frequent(report["errors"][f"after{window}"])
frequent = pd.DataFrame(shown, columns=["said", "hypothesis", "times", "contexts"])
display(counts, frequent.rename(columns={"hypothesis": "written"}))

# %% [markdown]
# Compare the columns of the first table: which kind did training remove? Runaways and repetitions
# should be near 0 afterwards.

# %% [markdown]
# ## What does it transcribe where nobody speaks?
#
# Whisper was trained on subtitles, and subtitles have words for silence and music. Whatever it
# returns here is invented: a *hallucination*. Fine-tuning on clean clips, each with a sentence,
# teaches the model that there is always one.

# %%
probes = transcribe_probes(readers, recipe)
pd.DataFrame(probes).T

# %% [markdown]
# The right answer is an empty cell, which Whisper's own settings forbid: the first token may not be
# the end. If a column has text, leave silence out before you transcribe: voice activity detection
# does that. Or train on some: with `non_speech = 0.05` in `[augmentation]` every twentieth clip
# becomes silence or noise with an empty label, and the model may return nothing.

# %% [markdown]
# ## Does it still transcribe long recordings?
#
# Here clips of the test split are joined with pauses, so that the borders between sentences are
# known. The recording is decoded as the page of lesson 6 does it, window after window; each one
# starts where, according to the model's own timestamps, the last sentence ended. The training
# labels had no timestamps, so the model may unlearn them. `kept` says whether they are in order
# (*monotonic*) and close to the known borders (*drift*) and the end.

# %%
long_form = transcribe_long_form(prepared_clips(prepared, recipe), readers, recipe)
found = {side: long_form[side] for side in ("before", "after") if long_form}
table = pd.DataFrame(found).drop("text", errors="ignore").T.infer_objects()
for rate in table.columns.intersection(["wer", "cer"]):
    table[rate] = table[rate].map("{:.1%}".format)
table.rename(columns=lambda name: name.replace("_", " ")).round(2)

# %% [markdown]
# Look at `kept` in the row *after*. The default joins little more than one window: set
# `long_seconds` of `[evaluation]` to several minutes before you rely on it.

# %% [markdown]
# ## Would more speech help?
#
# It is the usual remedy for a high rate. A *learning curve* shows how much would help. This one is of
# the default's Czech, measured before:

# %%
Image("benchmarks/results/gpu/hours_steps.png", width=800)

# %% [markdown]
# Each point is one training, or the mean of three. Both leads gain with every doubling; for the
# altered voices nothing is shown. Where such a curve still falls at its end, record more.
# `python -m utils.evaluation RECIPE --learning-curve` draws that of your clips, which takes as long
# as a few runs of lesson 4.

# %% [markdown]
# ## When this is good, and when to expect trouble
#
# *Intervals* are good from about 50 clips on. With fewer than 20 they are so wide that they say
# little. If fewer than ten speakers are known, they cover one kind of chance only, other clips of
# the same speakers, and say nothing about other speakers or rooms.
#
# *WER* is good to compare two models on the same clips. Expect trouble between papers: a different
# normaliser alone can change it by several points. Always name the normaliser, as the report does.
#
# *The test split* is good once. If you change the recipe because of what you saw here and measure
# again, it has become a dev split. Decide on dev, and keep some speech aside for the end.

# %% [markdown]
# ## Save
#
# First the predictions, then the report: if `evaluation.json` exists, both are complete.
# `evaluation.html` says the same to people who have no notebook, the answer first. For a
# checkpoint from elsewhere, `python -m utils.evaluation RECIPE --checkpoint FOLDER` makes the same
# report.

# %%
save_predictions(run.predictions, rows)
report = complete_report(report, speed, recipe, run, run.model)
report |= {"probes": probes, "long_form": long_form}
write_page(run.folder / "evaluation.html", report, rows, recipe, waveforms)
path = save_report(run, "evaluation", report)
journal.unlink(missing_ok=True)
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
for name in columns:
    pair = [
        [normalize(row[key], row["language"]) for row in saved if row["split"] == "test"]
        for key in ("reference", name)
    ]
    rate = report["test"][f"wer_{name}"]
    assert abs(jiwer.wer(*pair) - rate) < 1e-9, f"{run.predictions} gives another WER {name}"
before, after, *_ = (report["test"][f"wer_{name}"] for name in columns)
at = " at 30 s" if window else ""
print(f"test WER {before:.1%} -> {after:.1%}{at}, {say_p(report['test'], window)}; jiwer agrees")

# %% [markdown]
# ## What you saw
#
# Two models transcribed the same clips. You counted their errors, as written and normalised, with
# an interval for each rate and a test for the difference. You know where the gain is and what it
# cost: other speakers, other languages, silence, long recordings.

# %% [markdown]
# ## Try it
#
# Predict first, then run, then open the answer.
#
# 1. The reference is *the cat sat down*, the hypothesis *a cat sat down here*. What is the WER?
#    Check it with `count_errors(["the cat sat down"], ["a cat sat down here"], "word")`.
# 2. Can a WER be above 100 %?
# 3. A model makes no error in 50 clips. How many of a hundred other clips may still be wrong?
# 4. With `errors = count_row_errors(test, "after", unit)`, compare
#    `confidence_interval(errors[:10], resamples)` with that of all clips. Which one is wider?
# 5. Which clips did fine-tuning make worse? Sort them by errors before minus errors after:
#    `np.argsort(count_row_errors(test, "before", unit)[:, 0] - errors[:, 0])`.
#
# <details><summary>Answers</summary>
#
# 1. One word replaced, one inserted, four said: 2 / 4 = 50 %.
# 2. Yes. Insertions count, too: *no no no* for *no* is two errors in one word, 200 %.
# 3. About 6: the rule of three, 3 / 50.
# 4. Usually that of the ten: fewer clips tell less. It can be the narrower one if these ten happen
#    to be alike.
# 5. The first numbers are the places in `test` of the clips that lost most. Read them: a loss in
#    one word is often luck, the same word lost in several clips is not.
#
# </details>
#
# ### Three questions
#
# <details><summary>The test says p = 0.3. Are the two models equally good?</summary>
#
# That is not shown: these clips cannot tell them apart. More clips might.
#
# </details>
#
# <details><summary>The trained speaker gains, the held-out speaker does not. What did the model learn?</summary>
#
# The voice, or the kind of sentences, and not the language as others speak it. Train on more
# speakers.
#
# </details>
#
# <details><summary>Two papers report a WER of 12 % and 10 % on the same test split. Which model is better?</summary>
#
# You cannot tell before you know both normalisers and the window: either can be worth two
# points.
#
# </details>

# %% [markdown]
# ## Next
#
# [Lesson 6](06_demo.ipynb) puts both models on a page where you speak and see the text.
