# %% [markdown]
# # 6 · Demo: try it on a page
#
# A number says how good a model is; a page where people speak shows what it is good for.
#
# - You will serve both models on a page with a microphone, and see their transcripts side by side.
# - You will call the page from a program, and check that it returns what the model returns.
# - You will see who can reach the page, what it says about a recording that it cannot use, and
#   what it keeps.
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
from utils.preprocessing.examples import waveform
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
# The one you started from and the one you made. Both transcribe at the stock window of 30 seconds,
# in which short speech is padded with silence: other programs will run the model like this, and
# for one clip at a time speed matters little.

# %%
transcribers = demo.load_transcribers(recipe, run)
print(*transcribers, sep="\n")

# %% [markdown]
# These are the names that the page shows beside the two transcripts.

# %% [markdown]
# ## By hand
#
# What the fine-tuned half of the page does, in a few lines: the saved model, loaded as any program
# would load it, and a test clip as a file. The example is a clip in which fine-tuning changed many
# words. Captions need timestamps, so `return_timestamps` is on; with them the model may choose other
# words than without.

# %%
import tempfile

import soundfile

scratch = tempfile.TemporaryDirectory(prefix="demo-")  # deleted when the kernel ends
folder = Path(scratch.name)
examples = demo.example_rows(run)
row = examples[0]
wav = folder / "clip.wav"
soundfile.write(wav, waveform(row), SAMPLING_RATE)
clip = decode_audio(wav.read_bytes())
print(f"said: {row['text']}")
display(Audio(clip, rate=SAMPLING_RATE))

# %% [markdown]
# This is the sound, and what was really said. Now the model: features in, tokens out.

# %%
processor = WhisperProcessor.from_pretrained(run.model)
model = WhisperForConditionalGeneration.from_pretrained(run.model, dtype=torch.float32)
model = model.to(device()).eval()
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
# `<|0.00|>` and the like are the timestamps, between them is the text. Captions are made of these.

# %% [markdown]
# ## By helper
#
# `transcribe_long` returns segments window by window; this clip is one window. It is the function
# that the page calls.

# %%
from utils.demo.answers import join
from utils.whisper.long_recordings import transcribe_long

windows = transcribe_long(model, processor, clip, language=row["language"])
by_helper = join((one for _, segments in windows for one in segments), row["language"])
if model.device.type != "cuda":  # there the helper multiplies in 16 bits
    # Of endless repetitions it keeps one.
    kept = by_helper and by_hand.startswith(by_helper.rstrip("\ufffd"))
    same = kept or by_helper == by_hand
    assert same, f"the helper returned {by_helper!r}, by hand it was {by_hand!r}"
by_helper

# %% [markdown]
# The same text, but for words in doubt on a GPU. Further down, the page has to return it, too.

# %% [markdown]
# ## What does the page say about a recording that it cannot use?
#
# People press the button before they speak, upload a film, or leave the microphone off. Whisper
# would return invented words for silence. So the page checks every recording first; each problem
# has its own sentence, and the page goes on working. The limit is an hour. Here you set it to 30
# seconds, so that a recording of 40 seconds is too long.

# %%
soundfile.write(folder / "silent.wav", [0.0] * SAMPLING_RATE, SAMPLING_RATE)
soundfile.write(folder / "long.wav", [0.5] * 40 * SAMPLING_RATE, SAMPLING_RATE)
(folder / "film.wav").write_bytes(b"not a sound at all")
for name in (None, "silent.wav", "long.wav", "film.wav"):
    try:
        read_recording(name and str(folder / name), max_seconds=30)
    except UnusableRecording as problem:
        print(f"{name or 'nothing'}: {problem}")

# %% [markdown]
# Four problems, four sentences: each says what is wrong and, where it helps, what to do.

# %% [markdown]
# ## How does the page look?
#
# `build_page` builds it and `launch` serves it in the background, so that the notebook goes on.
# You see it below in a frame; the printed address opens it in a tab. If the notebook runs on
# another machine, forward the port first: `ssh -N -L PORT:127.0.0.1:PORT HOST`. Browsers allow the
# microphone only for `https` pages and for your own machine; a forwarded port counts as your own
# machine.

# %%
started = time.perf_counter()
credit = demo.credits(recipe)
page = build_page(transcribers, recipe.spoken, examples, credit, run.corrections)
url = demo.launch(page)
seconds_to_start = time.perf_counter() - started
print(f"{url} is open after {seconds_to_start:.1f} s")
demo.show(url)

# %% [markdown]
# Click one of the recordings on the page and wait for both transcripts. They are test clips in which
# fine-tuning changed most words for the better: good to see what changed, and no proof; the rates
# of lesson 5 are that. (In a copy without a kernel the frame is empty; `docs/demo.png` is a picture
# of the page.)

# %% [markdown]
# ## Does it answer a program?
#
# Every button of a Gradio page is also an address that programs can call. `gradio_client` uploads
# a clip of the test split and returns both transcripts, exactly as if you had clicked.

# %%
client = Client(url, verbose=False, analytics_enabled=False)
started = time.perf_counter()
question = handle_file(str(wav)), row["language"], "transcribe"
_, before, after, changes, *_, captions, _ = client.predict(*question, api_name="/transcribe")
seconds_to_answer = time.perf_counter() - started
print(f"said:   {row['text']}\nbefore: {before}\nafter:  {after}\n{seconds_to_answer:.1f} s")
assert after == by_helper, f"the page returned {after!r}, the helper {by_helper!r}"

# %% [markdown]
# Compare *before* and *after* with *said*. The last line is the time for both models together. The
# page agrees with the helper and with what you did by hand: people try the model that you saved.

# %% [markdown]
# ## What changed?
#
# The page marks it: words that only the base model returned are struck out, words that only the
# fine-tuned model returned are underlined. Capitals and punctuation count here; in the normalised
# word error rate of lesson 5 they do not.

# %%
display(Audio(waveform(row), rate=SAMPLING_RATE))
print(credit)
HTML(changes)

# %% [markdown]
# Listen, and decide for each marked word which model is right.

# %% [markdown]
# ## How does an hour go through a window of 30 seconds?
#
# In steps: the model transcribes 30 seconds and puts *timestamps* between the sentences. The next
# window starts where the last finished sentence ended, so that no sentence is cut in two. The page
# shows each window as soon as it is ready, and its stop button works between two windows. The
# timestamps make *captions*: video players use SRT and VTT files.

# %%
import numpy as np

from utils.whisper.captions import to_srt

rows = [*examples] * 3
pause = np.zeros(SAMPLING_RATE, np.float32)
long = np.concatenate([part for row in rows for part in (waveform(row), pause)])
segments = []
fine_tuned = transcribers[list(transcribers)[1]]
for done, new in fine_tuned(long, rows[0]["language"], "transcribe"):
    segments += new
    print(f"transcribed {done:.1f} of {len(long) / SAMPLING_RATE:.1f} s, {len(segments)} segments")
print(to_srt(segments[:4]))

# %% [markdown]
# Look at the first lines: each is one window, and it says how far the model got. Below are the
# first captions, with start and end.

# %% [markdown]
# ## What becomes of "That was wrong"?
#
# If somebody corrects a transcript and agrees to share it, you get the best training data there
# is: a mistake of this very model. Without that agreement the page keeps nothing. Recording and
# text are stored in a folder for each language, in the layout that `datasets` calls *audiofolder*;
# you can train on it as on any own recordings of lesson 2. In this cell the reference of the clip
# is used as the correction.

# %%
kept = keep_recording(str(wav), row["text"], folder / "corrections" / row["language"])
print((kept.parent / METADATA).read_text(encoding="utf-8"))
print("from the page they go to", run.corrections)

# %% [markdown]
# One line of metadata for each recording: the file and the corrected text.

# %% [markdown]
# ## Who can reach it, and what can they read?
#
# The page listens on 127.0.0.1: programs on this machine reach it, the network does not. `share`,
# which would give it a public address, is off; `python -m utils.demo RECIPE --share` switches it
# on, behind a password. The page accepts files up to 200 MB, processes one request at a time and
# queues up to 16; it deletes recordings after an hour and sends no statistics. A page that serves
# files must not serve every file, so here you request one that it must refuse.

# %%
import httpx

status = httpx.get(f"{url}gradio_api/file=/etc/passwd").status_code
print(f"/etc/passwd: status {status} (403 means refused)")

# %% [markdown]
# 403 is the right answer: the file exists, and the page does not hand it out.

# %% [markdown]
# ## When this is good, and when to expect trouble
#
# - A page is good to let the people whose speech it is judge the model: they notice what no rate
#   shows.
# - A microphone in a room differs from the recordings you trained on. If the page does worse than
#   lesson 5, this is the first suspect: train on speech that sounds like what people will say to
#   it.
# - On two cores an answer takes seconds, and visitors wait in line. For many visitors use a GPU.
# - Timestamps were not trained here. The longer you train without them, the more Whisper may
#   forget about them: check that the times of a long recording still fit.

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
# Two models on one page. It answers people and programs, takes an hour of speech in steps, says in
# a sentence what is wrong with a recording, keeps what people agree to and nothing else, and can
# be reached from this machine only.
#
# ## Try it
#
# Predict first, then try it on the page, then open the answer.
#
# 1. How many windows does an hour of speech need at least?
# 2. Somebody else in your network opens the page at your machine's own address. What do they see?
# 3. Say the sentence of the first example yourself. Which model makes more mistakes with your
#    voice?
# 4. Switch your microphone off and record; then record a quiet room. What does the page say?
# 5. Correct a transcript on the page. Which three lines make the corrections a source in a recipe?
#
# <details><summary>Answers</summary>
#
# 1. 3600 / 30 = 120. Usually more, because each window starts at the end of the last finished
#    sentence and not at the end of the last window.
# 2. Nothing: their browser cannot connect. The page listens on 127.0.0.1 only.
# 3. Both may do worse than in lesson 5: your room and microphone are not those of the training
#    speech.
# 4. Without a signal it says that the recording is silent. A quiet room is not silent, so the
#    models do transcribe it, and any word is invented.
# 5. `dataset = "recordings"`, `language = "cs"`, and as `name` the folder `cs` in the one that the
#    cell under "What becomes of …" printed.
#
# </details>
#
# ### Three questions
#
# <details><summary>The page listens on 127.0.0.1 of a rented machine. How do you open it at home?</summary>
#
# Forward the port: `ssh -N -L 7860:127.0.0.1:7860 HOST`, then open 127.0.0.1:7860 in your browser.
#
# </details>
#
# <details><summary>Why does the next window start at the end of the last sentence and not after 30 seconds?</summary>
#
# A sentence that a window cuts in two would be transcribed wrongly in both.
#
# </details>
#
# <details><summary>Why does the page check for silence before it transcribes?</summary>
#
# Whisper returns words for silence, too, and they are invented.
#
# </details>
#
# Without a notebook, `python -m utils.demo recipes/embedded.toml` serves the same page.
#
# When you are done, run the cell below to close the page. ("Run all" also runs it.) To open it
# again, run the cell under "How does the page look?".

# %%
demo.close(page)
print(f"{url} is closed")

# %% [markdown]
# ## Next
#
# [Lesson 7](07_export.ipynb) converts the model for other programs, and shares it.
