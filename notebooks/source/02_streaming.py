# %% [markdown]
# # 2 · Streaming: read speech row by row
#
# Before you train on speech, listen to it: read as a stream, row by row, even a thousand hours start
# at once.
#
# - You will look at clips, listen to them and count them.
# - You will see what a wrong sampling rate does to a transcript.
# - You will turn several languages into one stream, and choose how much of each the model gets.
#
# | Needs | Makes | Time |
# | --- | --- | --- |
# | lesson 1 | `streaming.json`, `figures/lengths.png` | 1 minute on 2 cores |

# %% tags=["parameters"]
RECIPE: str = "recipes/embedded.toml"  # which experiment to run
RUNS: str = "runs"  # where results are kept; in Colab a Drive folder survives the runtime

# %%
import time
from collections import Counter
from itertools import islice

import librosa
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Audio, display

from utils.artifacts import open_run, require, save_report
from utils.config import STOPS, Source, load_recipe
from utils.embedded.fetch import speech
from utils.environment.colab import mount_drive
from utils.streaming.hub import commits
from utils.streaming.mixing import mix, mixing_shares
from utils.streaming.sound import AudioError, decode_audio
from utils.streaming.sources import SAMPLING_RATE, seconds_of, stream
from utils.whisper.decoding import transcribe
from utils.whisper.load import load_model

# %%
mount_drive(RECIPE, RUNS)
recipe = load_recipe(RECIPE)
run = open_run(recipe, RUNS)
require(run, "environment")
print(f"{recipe.name}: {len(recipe.sources)} sources, the first is {recipe.sources[0].label}")

# %% [markdown]
# ## How soon do you have the first clip?
#
# A *stream* is a plan for reading: nothing is read when you make it, and one row is read when you
# ask for one. With a data set of a thousand hours on a server, the first clip arrives after
# seconds and the disk stays empty. The default recipe's speech is a package that lesson 1 has
# already fetched, so here it comes from the disk. Some files on the Hub must be read whole before
# their first row is there (FLEURS has them): such a file is fetched once, and a line says so.

# %%
source = recipe.sources[0]
started = time.perf_counter()
rows = stream(source, source.train)
first = next(iter(rows))
print(f"first row after {time.perf_counter() - started:.2f} s: {first['text']!r}")

# %% [markdown]
# One clip has arrived, and no other was read before it.

# %% [markdown]
# ## What does a row contain?
#
# Every source has the same columns here, whatever the original data set calls them. `audio` holds
# the bytes of an *encoded* file (WAV, FLAC, MP3 …), not samples: decoding comes later, clip by
# clip, so that one damaged file costs one clip and not the rest of the stream. `speaker` and
# `recording` are empty where nobody knows them; lesson 5 needs them to say how sure its numbers
# are. The last three serve parts of long recordings, and clips with something to report.

# %%
pd.DataFrame(
    {
        "column": first.keys(),
        "type": [type(value).__name__ for value in first.values()],
        "value": [
            f"{len(value):,} bytes" if isinstance(value, bytes) else value
            for value in first.values()
        ],
    }
)

# %% [markdown]
# ## By hand
#
# From bytes to what the model is given, in three steps: decode to samples, average the channels,
# and resample to 16,000 samples a second, the *sampling rate* that Whisper was trained on.
# `soundfile` decodes WAV, FLAC, MP3 and Ogg; for what a phone writes (M4A, AMR, video),
# `decode_audio` asks FFmpeg, and here the clip is stored as WAV first. A clip that cannot be decoded
# is named and left out, here and in lesson 3.

# %%
import io

import soundfile


def decoded(rows):
    for row in rows:
        try:
            yield row, decode_audio(row["audio"], name=row["id"])
        except AudioError as error:
            print(f"left out: {error}")


row, sound = next(decoded(rows))
print(f"{row['id']}: {len(row['audio']):,} bytes")

# %% [markdown]
# That is the size of this one clip's file. Now the three steps.

# %%
encoded = io.BytesIO(row["audio"])
try:
    soundfile.info(encoded)
except soundfile.SoundFileError:
    soundfile.write(encoded := io.BytesIO(), sound, SAMPLING_RATE, "FLOAT", format="WAV")
encoded.seek(0)
samples, rate = soundfile.read(encoded, dtype="float32", always_2d=True)
print(f"decoded:   shape {samples.shape} (samples, channels) at {rate:,} Hz")
mono = samples.mean(axis=1)
print(f"mono:      shape {mono.shape}")
if rate != SAMPLING_RATE:
    mono = librosa.resample(mono, orig_sr=rate, target_sr=SAMPLING_RATE, res_type="soxr_hq")
print(f"resampled: shape {mono.shape} at {SAMPLING_RATE:,} Hz = {len(mono) / SAMPLING_RATE:.2f} s")

# %% [markdown]
# Follow the shapes: two dimensions become one, and a change of the rate changes the number of samples.

# %% [markdown]
# ## By helper
#
# `decode_audio` does the same, and raises an `AudioError` with the reason if the bytes are not audio.

# %%
helped = decode_audio(encoded.getvalue())
assert (helped == mono).all(), "decode_audio and the three steps by hand disagree"
print(f"equal: {len(helped):,} samples, from {helped.min():+.2f} to {helped.max():+.2f}")

# %% [markdown]
# Both ways give the same samples, to the last bit.

# %% [markdown]
# ## What does it sound like?
#
# Listen before you train: no table tells you about a hum, a second voice, or a text that says
# something else than the speaker. The default recipe's speech are the dialogues of a game that Debian
# packages carry; the lines below the players name its makers and its licence.

# %%
longer = (pair for pair in decoded(rows) if len(pair[1]) > 2 * SAMPLING_RATE)
for row, samples in islice(longer, 3):
    print(f"{row['id']}: {row['text']}")
    display(Audio(samples, rate=SAMPLING_RATE))
embedded_sources = [one for one in recipe.sources if one.dataset == "embedded"]
print(*{speech(one.language, one.name).attribution: None for one in embedded_sources}, sep="\n")

# %% [markdown]
# Does each text say what you heard? If one does not, look at more clips of that source before you
# train on it.

# %% [markdown]
# ## How long are the clips, and how long are the texts?
#
# There are two limits: Whisper takes 30 seconds at once and returns at most 448 tokens. And
# whatever is far from the rest deserves a look: a ten-second clip with three letters, or a
# one-second clip with a paragraph. The first 1,000 rows are enough to see it.


# %%
def measure(row):
    return {"seconds": seconds_of(row), "characters": len(row["text"]), "id": row["id"]}


lengths = pd.DataFrame(measure(row) for row in islice(rows, 1000))
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for axis, column in zip(axes, ["seconds", "characters"], strict=True):
    axis.hist(lengths[column], bins=30)
    axis.set(xlabel=f"{column} per clip", ylabel="clips")
figure.savefig(run.figures / "lengths.png", dpi=120)
plt.close(figure)
display(figure, lengths.describe().round(1))

# %% [markdown]
# Look at both ends of the histograms, and at *min* and *max* in the table: lesson 3 drops what is
# outside the limits, and says how many clips that were.

# %% [markdown]
# ## What does a wrong sampling rate do?
#
# A *sampling rate* is how many numbers a second of sound has. Telephones use 8,000, CDs 44,100,
# and Whisper was trained on 16,000. Give it other samples and nothing complains: to the model the
# voice is too fast or too slow.

# %%
model, processor = load_model(recipe)
_, right = max(islice(decoded(rows), 10), key=lambda pair: len(pair[0]["text"]))
fast = librosa.resample(right, orig_sr=SAMPLING_RATE, target_sr=SAMPLING_RATE // 2)
returned = transcribe(model, processor, [right, fast], language=source.language)
print(f"at 16,000 Hz: {returned[0]}\nat  8,000 Hz, taken for 16,000: {returned[1]:.200} …")
display(Audio(fast, rate=SAMPLING_RATE))

# %% [markdown]
# The second line is what a wrong rate costs. `decode_audio` resamples, so that it cannot happen
# here.

# %% [markdown]
# ## How do several languages become one stream?
#
# `mix` draws each row from a source at random, by weight. A batch then holds several languages,
# and the model learns them together instead of forgetting the first while it learns the second.
# Each line below is one batch of 12 rows; Czech has twice the weight of Dutch. Both voices come as
# Debian packages: on a machine that has no way to get them the recipe's own sources are taken.

# %%
import os
import shutil

several = [Source("embedded", "cs", "big", weight=2), Source("embedded", "nl", "big")]
if not (shutil.which("apt-get") or os.environ.get("WHISPER_SPEECH")):
    several = [one for one in recipe.sources if one.train]
codes = sorted({one.language for one in several})
mixed = mix([stream(one, one.train) for one in several], [one.weight for one in several], seed=1)
reader = iter(mixed)
for number in range(5):
    batch = list(islice(reader, 12))
    counts = Counter(row["language"] for row in batch)
    shares = " | ".join(f"{code} {counts[code]:2d}" for code in codes)
    print(f"batch {number} | {shares} | {sum(map(seconds_of, batch)):5.1f} s speech")

# %% [markdown]
# The shares differ from batch to batch and are right on average.

# %% [markdown]
# ## How much of each language, and when does the mix end?
#
# If you sample in proportion to hours, small languages almost disappear; if you sample evenly,
# their few clips repeat. A *temperature* T is a compromise: each share is proportional to
# hours^(1/T). Move the slider until Welsh has about 10 %.

# %%
from utils.environment.diagrams import draw_boxes
from utils.environment.slider import draw_slider

hours = {"Spanish": 400, "Italian": 200, "Welsh": 10}  # an example
sized = [Source("x", code, hours=hour) for code, hour in hours.items()]


def draw_shares(temperature):
    rows = [
        [(f"{name} {100 * share:.0f} %", "none", 0.4), ("", "blue", share), ("", "none", 1 - share)]
        for name, share in zip(hours, mixing_shares(sized, temperature), strict=True)
    ]
    return draw_boxes(rows, f"Shares of three languages at temperature {temperature}").data


draw_slider(draw_shares, "temperature", [1, 1.5, 2, 2.5, 3, 4, 5, 10, 20, 100], first=3)

# %% [markdown]
# At temperature 1 Welsh has its share of the hours, 2 %; at 100 almost a third.
#
# And when does the mix end? The table mixes 40 clips of one source with 10 of another, evenly.
# `[mixing]` in the recipe says whether the mix stops when one has run out, goes on and repeats, or
# takes every clip once.

# %%
ends = {}
for stop in STOPS:
    two = several[0], several[1 % len(several)]
    pair = [stream(one, one.train).take(most) for one, most in zip(two, (40, 10), strict=True)]
    drawn = Counter(row["source"] for row in mix(pair, [1, 1], seed=1, stop=stop))
    ends[stop] = {f"{one.label} drawn": drawn[one.label] for one in two}
pd.DataFrame(ends).T

# %% [markdown]
# In the second row the ten clips of the small source come again and again.

# %% [markdown]
# ## How do you join splits?
#
# First, who may look at which split:

# %%
who = [
    [("train", "blue", 3), ("dev", "green", 2), ("test", "orange", 2)],
    [
        ("the model learns from it", "none", 3),
        ("you choose by it:\nsettings, checkpoint", "none", 2),
        ("is measured once,\nat the end", "none", 2),
    ],
]
draw_boxes(who, "Training learns from train, you choose by dev, and test is measured once")

# %% [markdown]
# What was looked at to choose something cannot measure the result: it would be too good.
#
# With little data you may want to train on what others call validation as well. Split names are
# joined with a plus sign; never join the test split, or the result means nothing.


# %%
def count(split):
    return sum(1 for _ in islice(stream(several[0], split), 1000))


apart = several[0].train, several[0].dev
joined = "+".join(apart)
counts = {split: count(split) for split in (*apart, joined)}
counts

# %% [markdown]
# The joined split has as many rows as both together.

# %% [markdown]
# ## What changes for a data set on the Hub?
#
# Only the source in the recipe. `name` is the *config*, the part of the data set that you want,
# and `text_column` names the column with the transcript. A *revision* is a state of the data set:
# a branch moves on when its owner changes something, a commit never does. Whatever you write, the
# commit that was read is kept in the report, so that you can write it into the recipe later.

# %%
on_the_hub = load_recipe("recipes/fleurs.toml").sources[0]
keys = pd.DataFrame([vars(source), vars(on_the_hub)], index=["this recipe", "fleurs.toml"]).T
keys[keys["this recipe"] != keys["fleurs.toml"]]

# %% [markdown]
# Only these keys differ; everything after this point is the same code.

# %% [markdown]
# ## What if you have no recordings?
#
# Then read some aloud: half an hour of one voice is enough to see a difference. The page shows
# one sentence after the other, and a folder on this machine gets your voice with its text. As a
# source it is `dataset = "recordings"` with the folder as `name`, as in
# `recipes/own_recordings.toml`.

# %%
RECORD = False  # True opens the page; it is the same as `python -m utils.recorder FILE FOLDER`
to_read = [row["text"] for row in islice(stream(source, source.train), 20)]  # or your own
if RECORD:
    from pathlib import Path

    from utils import recorder
    from utils.demo import serve as demo

    demo.show(demo.launch(recorder.build_recorder(to_read, Path("recordings") / source.language)))
print(*to_read[:3], f"… {len(to_read)} sentences to read", sep="\n")

# %% [markdown]
# Sentences of the source itself are good to read: you can compare your voice with the speaker's.

# %% [markdown]
# ## When this is good, and when to expect trouble
#
# *Streaming* is good when the data are larger than the disk, or when you want to see something
# now. Expect trouble when the network stops for long, and when you pass over the data many times:
# each pass reads it again. Lesson 3 therefore stores what it prepared.
#
# *Mixing by weight or temperature* is good when one language has ten times the hours of another.
# Expect trouble when a small source gets a large share: its clips come again and again, and the
# model learns them by heart. `first_exhausted` never repeats and wastes what is left of the large
# source; every clip once wastes nothing, and ends in a stretch of the large source alone. Sources
# that are written differently, one with capitals and one without, are refused: a recipe says of
# each what it has (`cased`, `punctuated`), and the error says how to make them alike.

# %% [markdown]
# ## Save
#
# The report counts every source and split, up to its first 1,000 rows, and what the transcripts
# lost on the way: lines that describe a tone, have no recording, or whose wording is in doubt. For
# a data set on the Hub it holds the commit that was read.


# %%
def describe(source, split):
    rows = [measure(row) for row in islice(stream(source, split), 1000)]
    minutes = sum(row["seconds"] for row in rows) / 60
    return {"source": source.label, "split": split, "clips": len(rows), "minutes": minutes}


table = [
    describe(one, split)
    for one in recipe.sources
    for split in (one.train, one.dev, one.test)
    if split
]
dropped = {one.label: dict(speech(one.language, one.name).dropped) for one in embedded_sources}
report = {"splits": table, "commits": commits(recipe.sources), "dropped_transcripts": dropped}
save_report(run, "streaming", report)
display(pd.DataFrame(table).round(1), pd.DataFrame(dropped).fillna(0).astype(int))

# %% [markdown]
# ## Check

# %%
assert first["text"], "the first row has no text: is text_column of the recipe right?"
assert len(right) > 0.1 * SAMPLING_RATE, "the first clip is shorter than 0.1 s: look at the source"
assert abs(len(fast) * 2 - len(right)) <= 2, "half the rate must give half the samples"
assert counts[joined] == min(sum(counts[one] for one in apart), 1000), "joined splits lost rows"
assert all(row["clips"] for row in table), "a split is empty: see the table above"
clips, minutes = (sum(row[key] for row in table) for key in ("clips", "minutes"))
print(f"{clips:,} clips, {minutes:.0f} minutes of speech, in {len(table)} splits")

# %% [markdown]
# ## What you saw
#
# A stream starts at once and reads what you ask for. Every source has the same columns. Whisper
# takes 16,000 samples a second and cannot notice if you give it others. Several languages become
# one stream, sampled by weight.

# %% [markdown]
# ## Try it
#
# Predict first, then run, then open the answer.
#
# 1. 100 hours of Spanish and 1 hour of Welsh at temperature 3: what is the share of Welsh?
# 2. Set the weight of the first source of the mix to 10 and read the five lines again. How many of
#    twelve rows do you expect?
# 3. Play a clip at half the rate: `Audio(right, rate=8000)`. What happens to the pitch?
# 4. Use your own speech: `recipes/own_recordings.toml` says what a folder must look like.
#
# <details><summary>Answers</summary>
#
# 1. 1 / (1 + 100^(1/3)) = 0.18: 18 % in place of 1 %.
# 2. 10 of 11 parts of twelve rows: about eleven.
# 3. It falls by an octave, and the clip takes twice as long.
#
# </details>
#
# ### Three questions
#
# <details><summary>You make a stream of a data set of a thousand hours. How much has been read?</summary>
#
# Nothing: a row is read when you ask for it.
#
# </details>
#
# <details><summary>Why does nothing complain about a wrong sampling rate?</summary>
#
# Samples are numbers without a unit: any array looks right. You notice by listening, or by the
# transcripts.
#
# </details>
#
# <details><summary>Test clips were in the training data by mistake. What is wrong with the result?</summary>
#
# It is too good: the model has seen these sentences, and new ones will have more errors.
#
# </details>

# %% [markdown]
# ## Next
#
# [Lesson 3](03_preprocessing.ipynb) turns a clip and its text into what the model trains on.
