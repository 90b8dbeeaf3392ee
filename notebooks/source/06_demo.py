# %% [markdown]
# # 6 · Try it on a page
#
# A number says how good a model is; a page where people speak to it says what it is good for.
#
# - You will serve both models on a page with a microphone, and see their words side by side.
# - You will call the page from a program, and check that it hears what the model hears.
# - You will see who can reach the page, what it says to a recording that it cannot use, and what
#   it keeps.
#
# | Needs | Makes | Time |
# | --- | --- | --- |
# | lessons 3 and 4 | `demo.json` | 1 minute on 2 cores |

# %% tags=["parameters"]
RECIPE: str = "recipes/embedded.toml"  # which experiment to run
RUNS: str = "runs"  # where results are kept; in Colab a Drive folder survives the runtime

# %%
import time
from pathlib import Path

import torch
from gradio_client import Client, handle_file
from IPython.display import HTML, Audio, display
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.artifacts import open_run, require, save_report
from utils.config import load_recipe
from utils.demo import serve as demo
from utils.demo.kept import METADATA, UnusableRecording, keep_recording, read_recording
from utils.demo.page import build_page
from utils.environment.colab import mount_drive
from utils.environment.machine import device
from utils.preprocessing.prepare import waveform
from utils.streaming.sound import decode_audio
from utils.streaming.sources import SAMPLING_RATE
from utils.whisper.decoding import most_tokens

# %%
mount_drive(RECIPE, RUNS)
recipe = load_recipe(RECIPE)
run = open_run(recipe, RUNS)
require(run, "training")
print(f"{recipe.name}: the fine-tuned model is in {run.model}")

# %% [markdown]
# ## Which two models will answer?
#
# The one you started from and the one you made. Both hear the stock 30-second window, in which
# short speech is padded with silence: that is how the model will run wherever else it is used, and
# one clip at a time there is no hurry.

# %%
transcribers = demo.load_transcribers(recipe, run)
print(*transcribers, sep="\n")

# %% [markdown]
# ## What does the page say to a recording that it cannot use?
#
# People press the button before they speak, add a film, or leave the microphone off. Whisper would
# answer silence with invented words. So every recording is checked first, and each fault has a
# sentence of its own; the page goes on working. An hour is the limit; here it is set to 30 seconds,
# so that you need not wait for an hour of sound.

# %%
import tempfile

import soundfile

scratch = tempfile.TemporaryDirectory(prefix="demo-")  # deleted when the kernel ends
folder = Path(scratch.name)
soundfile.write(folder / "silent.wav", [0.0] * SAMPLING_RATE, SAMPLING_RATE)
soundfile.write(folder / "long.wav", [0.5] * 40 * SAMPLING_RATE, SAMPLING_RATE)
(folder / "film.wav").write_bytes(b"not a sound at all")
for name in (None, "silent.wav", "long.wav", "film.wav"):
    try:
        read_recording(name and str(folder / name), max_seconds=30)
    except UnusableRecording as problem:
        print(f"{name or 'nothing'}: {problem}")

# %% [markdown]
# ## How does the page look?
#
# `build_page` puts it together and `launch` serves it in the background, so that the notebook goes
# on. Below it is framed in the notebook; the printed address opens it in a tab. If the notebook
# runs on another machine, forward the port first: `ssh -N -L PORT:127.0.0.1:PORT HOST`. A browser
# gives the microphone only to `https` pages and to your own machine, which a forwarded port counts
# as.

# %%
started = time.perf_counter()
examples, credit = demo.example_rows(run), demo.credits(recipe)
page = build_page(transcribers, recipe.languages, examples, credit, run.corrections)
url = demo.launch(page)
seconds_to_start = time.perf_counter() - started
print(f"{url} is open after {seconds_to_start:.1f} s")
demo.show(url)

# %% [markdown]
# ## Who can reach it, and what can they read?
#
# The page listens on 127.0.0.1: programs on this machine reach it, the network does not. `share`,
# which would give it a public address, is off; `python -m utils.demo RECIPE --share` asks for it,
# behind a password. It takes files of up to 200 MB, has one request in work and at most 16 waiting,
# deletes recordings after an hour, and sends no statistics. A page that serves files must not serve
# every file, so you ask for one that is none of its business.

# %%
import httpx

status = httpx.get(f"{url}gradio_api/file=/etc/passwd").status_code
print(f"/etc/passwd: status {status} (403 means refused)")

# %% [markdown]
# ## Does it answer a program?
#
# Every button of a Gradio page is also an address that programs can call. `gradio_client` uploads
# a clip of the test split and returns what the two models heard: the same path that a click takes.

# %%
row = examples[0]
wav = folder / "clip.wav"
soundfile.write(wav, waveform(row), SAMPLING_RATE)
client = Client(url, verbose=False, analytics_enabled=False)
started = time.perf_counter()
question = handle_file(str(wav)), row["language"], "transcribe"
_, before, after, changes, *_, captions, _ = client.predict(*question, api_name="/transcribe")
seconds_to_answer = time.perf_counter() - started
print(f"said:   {row['text']}\nbefore: {before}\nafter:  {after}\n{seconds_to_answer:.1f} s")

# %% [markdown]
# ## What changed?
#
# The page marks it: what the fine-tuned model no longer writes is struck out, what it writes
# instead is underlined. Capitals and punctuation count here; they do not in the word error rate
# that lesson 5 gives for normalised text.

# %%
display(Audio(waveform(row), rate=SAMPLING_RATE))
print(credit)
HTML(changes)

# %% [markdown]
# ## How does an hour go through a window of 30 seconds?
#
# In steps: the model hears 30 seconds and writes between *timestamps* what was said. The next
# window starts where the last finished sentence ended, so that no sentence is cut in two. The page
# shows each window as it comes, which is also where its stop button can step in. The timestamps
# make *captions*: SRT and VTT are what video players read.

# %%
import numpy as np

from utils.whisper.captions import to_srt

rows = [*examples] * 3
pause = np.zeros(SAMPLING_RATE, np.float32)
long = np.concatenate([part for row in rows for part in (waveform(row), pause)])
segments = []
hear = transcribers[list(transcribers)[1]]
for heard, new in hear(long, rows[0]["language"], "transcribe"):
    segments += new
    print(f"heard {heard:.1f} of {len(long) / SAMPLING_RATE:.1f} s, {len(segments)} segments")
print(to_srt(segments[:4]))

# %% [markdown]
# ## What becomes of "That was wrong"?
#
# Whoever corrects a text and agrees to it gives you the best training data there is: a mistake of
# this very model. The page keeps nothing without that. Recording and text land in a folder for
# each language, in the layout that `datasets` calls *audiofolder*: own recordings, as lesson 2
# streams them. Here the clip's reference plays the correction.

# %%
kept = keep_recording(str(wav), row["text"], folder / "corrections" / row["language"])
print((kept.parent / METADATA).read_text(encoding="utf-8"))
print("from the page they go to", run.corrections)

# %% [markdown]
# ## By hand
#
# What stands behind the right half of the page: the saved model, loaded as any program would load
# it, and the same file. With `return_timestamps` the model may choose another word than without,
# as in lesson 5; it is a habit of writing, and the rates differ little.

# %%
processor = WhisperProcessor.from_pretrained(run.model)
model = WhisperForConditionalGeneration.from_pretrained(run.model, dtype=torch.float32)
model = model.to(device()).eval()
clip = decode_audio(wav.read_bytes())
inputs = processor(audio=clip, sampling_rate=SAMPLING_RATE, return_tensors="pt")
print("samples", clip.shape, "-> input_features", tuple(inputs.input_features.shape))
multilingual = model.generation_config.is_multilingual
asked = {"language": row["language"], "task": "transcribe"} if multilingual else {}
# A guard: nobody speaks 45 tokens a second, and a model that repeats itself stops here.
limit = most_tokens(clip)
features = inputs.input_features.to(device())
tokens = model.generate(features, max_new_tokens=limit, return_timestamps=True, **asked)
by_hand = processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
print(
    "tokens",
    tuple(tokens.shape),
    "->",
    processor.tokenizer.decode(tokens[0], decode_with_timestamps=True),
)

# %% [markdown]
# ## By helper
#
# `transcribe_long` gives segments window by window; this clip is one window. The page must agree
# with it: otherwise people would try another model than the one you saved.

# %%
from utils.whisper.long_recordings import transcribe_long

heard = transcribe_long(model, processor, clip, language=row["language"])
by_helper = " ".join(segment.text for _, new in heard for segment in new)
assert by_helper == by_hand, f"the helper hears {by_helper!r}, by hand it was {by_hand!r}"
assert by_helper == after, f"the helper hears {by_helper!r}, the page {after!r}"
by_helper

# %% [markdown]
# ## When this is good, and when to expect trouble
#
# - Good to let the people whose speech it is judge the model: they notice what no rate shows.
# - A microphone in a room is not the recording you trained on. If the page does worse than lesson
#   5, that is why: train on speech that sounds like what the model will hear.
# - On two cores an answer takes seconds, and visitors wait in line. For many of them use a GPU.
# - Timestamps were not trained here: what Whisper knew about them it may forget, the more the
#   longer you train without. Look whether the times of a long recording still fit.

# %% [markdown]
# ## Save

# %%
report = {
    "clip": row["id"],
    "language": row["language"],
    "reference": row["text"],
    "before": before,
    "after": after,
    "captions": captions["srt"],
    "seconds_to_start": seconds_to_start,
    "seconds_to_answer": seconds_to_answer,
}
print(save_report(run, "demo", report))

# %% [markdown]
# ## Check

# %%
assert url.startswith("http://127.0.0.1:"), f"{url} is open to more than this machine"
assert status == 403, f"the page answers {status} to /etc/passwd: is allowed_paths set?"
assert after == by_helper, "the page and the helper disagree: do both load the same folder?"
assert segments[-1].end <= len(long) / SAMPLING_RATE, "a caption ends after the recording"
assert seconds_to_answer < 60, f"{seconds_to_answer:.0f} s for one clip: is the machine busy?"
print(f"The page answered both models' texts in {seconds_to_answer:.1f} s.")

# %% [markdown]
# ## What you saw
#
# Two models on one page, which answers people and programs alike, takes an hour in steps, tells
# people in a sentence what is wrong with a recording, keeps what they agree to and nothing else,
# and is open to this machine alone.
#
# ## Try it
#
# - Speak the sentence of the first example yourself, and compare.
# - Record a second of silence, or add a picture.
# - Add a long recording, stop it halfway, and save its captions.
# - Correct a text on the page, and name the folder as a source in a copy of the recipe.
# - Serve the page without a notebook: `python -m utils.demo recipes/embedded.toml`.
#
# When you have tried enough, close the page with the cell below; "Run all" comes by here too. To
# open it again, run the cell under "How does the page look?".

# %%
demo.close(page)
print(f"{url} is closed")

# %% [markdown]
# ## Next
#
# [Lesson 7](07_export.ipynb) turns the model into files that other programs run, and shares it.
