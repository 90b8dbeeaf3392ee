# %% [markdown]
# # 1 · Environment: a first transcription
#
# You listen to a clip, see where Whisper gets it wrong, and check whether this machine can train a
# better model.
#
# - You will transcribe a real recording by hand, in three steps, and see its mistakes in colour.
# - You will see how Whisper is built, and which of its parts fine-tuning changes.
# - You will check versions, device and number format, and learn what each check is for.
#
# | Needs | Makes | Time |
# | --- | --- | --- |
# | nothing | `environment.json` | 1 minute on 2 cores, and one download of about 300 MB |

# %% tags=["parameters"]
RECIPE: str = "recipes/embedded.toml"  # which experiment to run
RUNS: str = "runs"  # where results are kept; in Colab a Drive folder survives the runtime

# %%
import io
from itertools import islice
from pathlib import Path

import pandas as pd
import soundfile
import torch
from IPython.display import HTML, Audio, display

import utils
from utils.artifacts import open_run, save_report
from utils.config import load_recipe
from utils.embedded.fetch import speech
from utils.environment import machine as environment
from utils.environment.colab import mount_drive
from utils.environment.diagrams import draw_boxes
from utils.environment.packages import check_versions, require_versions, versions
from utils.streaming.sound import decode_audio
from utils.streaming.sources import SAMPLING_RATE, stream
from utils.whisper.load import load_model

# %% [markdown]
# ## What is a recipe, and what is a run?
#
# Three words come up in every lesson:
#
# - a *recipe* is a file in `recipes/` that says all about one experiment: which model, which
#   speech, which settings;
# - a *run* is that experiment carried out: the folder `runs/RECIPE`, in which each lesson finds
#   what the one before has written;
# - a *split* is a part of the speech: *train* is learned from, *dev* is looked at during training,
#   *test* measures the result once, at the end.

# %%
mount_drive(RECIPE, RUNS)
recipe = load_recipe(RECIPE)
run = open_run(recipe, RUNS)
print(f"recipe {recipe.name}: {recipe.model.checkpoint}, results in {run.folder}")

# %% [markdown]
# ## What happens in the seven lessons?
#
# Each lesson reads files of the one before and writes its own. You can stop after any of them and
# go on tomorrow.

# %%
lessons = [
    [("1 Environment: can this machine train?", "blue")],
    [("2 Streaming: read speech, row by row", "")],
    [("3 Preprocessing: clips and labels → prepared/", "")],
    [("4 Training → model/", "green")],
    [("5 Evaluation: before and after → evaluation.json", "")],
    [("6 Demo: a page", ""), ("7 Export: files to deploy", "")],
]
draw_boxes(lessons, "The seven lessons in order, with the files that each writes", arrows=True)

# %% [markdown]
# Each box names what the lesson writes, for the next ones to read. Only the green one changes the
# model.

# %% [markdown]
# ## What do you want to repair?
#
# Listen first. This is the longest of the first ten clips of the recipe's first *source*, speech in
# one language from one place. The default recipe takes Czech dialogues from a computer game, spoken
# by actors and carried by a Debian package; the line below the player names the authors, as its
# licence asks.

# %%
source = recipe.sources[0]
first_ten = islice(stream(source, source.train or source.test), 10)
row = max(first_ten, key=lambda row: len(row["text"]))
clip = decode_audio(row["audio"])
display(Audio(clip, rate=SAMPLING_RATE))
if source.dataset == "embedded":
    print(speech(source.language, source.name).attribution)
print(f"{len(clip) / SAMPLING_RATE:.1f} s of {source.label}. Reference: {row['text']}")

# %% [markdown]
# The text is the *reference*: what was really said. If you do not know the language, that is no
# obstacle: you will compare texts, not judge them.

# %% [markdown]
# ## By hand
#
# A transcription takes three steps. The *processor* turns samples into a *log-mel spectrogram*, a
# picture of the sound: 80 bands of pitch by 3,000 columns of a hundredth of a second, which is
# always 30 seconds, padded with silence. `generate` returns *tokens*, numbered pieces of text, one
# after the other. The processor turns tokens into text.
#
# First the *checkpoint*, the weights that fine-tuning starts from:

# %%
device = environment.device()
model, processor = load_model(recipe)  # from_pretrained, and what older checkpoints lack
model = model.to(device)
print(
    f"{model.num_parameters() / 1e6:.0f} million weights on the {device.type.replace('cuda', 'GPU')}"
)

# %% [markdown]
# These numbers are what fine-tuning changes; nothing else about the model will. (OpenAI's own count
# for Whisper base is 74 million.)

# %%
from utils.whisper.decoding import most_tokens, transcribe

inputs = processor(audio=clip, sampling_rate=SAMPLING_RATE, return_tensors="pt")
print("samples   ", clip.shape, "->", "input_features", tuple(inputs.input_features.shape))
# An English-only checkpoint has no language to choose, and refuses the question.
multilingual = model.generation_config.is_multilingual
asked = {"language": source.language, "task": "transcribe"} if multilingual else {}
# A guard: nobody speaks 45 tokens a second, and a model that repeats itself stops here.
limit = most_tokens(clip)
tokens = model.generate(inputs.input_features.to(device), max_new_tokens=limit, **asked)
print("tokens    ", tuple(tokens.shape), tokens[0, :6].tolist(), "…")
by_hand = processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
print("hypothesis", by_hand)
print("reference ", row["text"])

# %% [markdown]
# Follow the shapes: 16,000 samples a second become 80 × 3,000 numbers, and those become a few dozen
# tokens. What the model returns is called the *hypothesis*.

# %% [markdown]
# ## By helper
#
# `transcribe` does this for many clips at once. It batches clips of similar length and drops a
# clip from the batch as soon as its text is finished. Every lesson from here on uses it.

# %%
(by_helper,) = transcribe(model, processor, [clip], language=source.language)
if device.type != "cuda":
    kept = by_helper and by_hand.startswith(by_helper.rstrip("\ufffd"))  # part of a letter, too
    same = kept or by_helper == by_hand
    assert same, f"the helper returns {by_helper!r}, by hand it was {by_hand!r}"
by_helper

# %% [markdown]
# The same text as by hand; the `assert` would have stopped here otherwise. Where a model repeats a
# phrase without end, as it may in a language that it hardly knows, the helper keeps it once. On a
# GPU the helper multiplies in 16 bits, which is quicker, and a word in doubt may differ from the
# one above.

# %% [markdown]
# ## Where is it wrong?
#
# Red and struck out: said, but not transcribed. Green: transcribed, but not said. Case and
# punctuation do not count here.

# %%
from utils.evaluation.mistakes import word_diff_html
from utils.scoring.error_rates import count_errors
from utils.text import leading_unit, normalize

pair = [normalize(text, source.language) for text in (row["text"], by_helper)]
unit = leading_unit([source.language])  # "char" where words have no spaces between them
errors, length = count_errors([pair[0]], [pair[1]], unit)[0]
display(HTML(word_diff_html(*pair, unit)))
name = {"word": "word error rate (WER)", "char": "character error rate (CER)"}[unit]
print(f"{errors} errors in {length} {unit}s: a {name} of {errors / max(length, 1):.0%}")

# %% [markdown]
# Each coloured word is one that the next lessons try to repair. One clip proves nothing; lesson 4
# measures a *baseline* on many, and lesson 5 says whether the difference after training could be
# chance.

# %% [markdown]
# ## How is Whisper built?
#
# OpenAI trained it on 680,000 hours of speech from the web in 97 languages, each stretch with the
# text that stood beside it (Radford et al. 2022). It has two halves. The *encoder* turns the
# spectrogram into vectors that describe the sound. The *decoder* produces the text, one token at a
# time, from those vectors and from the tokens so far.
#
# It comes in sizes from tiny (39 million weights) to large (1,550 million); tiny, base, small and
# medium also as English-only `.en`. *Fine-tuning* continues the training on your speech: hours
# instead of hundreds of thousands of hours, and small steps, so that what the model knows is kept.

# %%
layers = f"{model.config.encoder_layers} layers", f"{model.config.decoder_layers} layers"
parts = [
    [("sound: 16,000 samples a second", "")],
    [(f"log-mel spectrogram: {model.config.num_mel_bins} bands × 3,000 columns", "blue")],
    [(f"encoder, {layers[0]}", "orange")],
    [(f"1,500 vectors of {model.config.d_model} numbers", "")],
    [(f"decoder, {layers[1]}", "orange"), ("tokens so far", "green")],
    [("scores for the next token", "")],
]
draw_boxes(parts, "From sound through encoder and decoder to next-token scores", arrows=True)

# %% [markdown]
# Orange are the parts with weights: full fine-tuning changes both, and a recipe can also leave the
# encoder as it is.

# %% [markdown]
# ## What does the decoder return?
#
# One score for every token that could come next: the *logits*. Their last dimension is the size of
# the vocabulary: 51,865 for a multilingual Whisper up to large-v2, 51,866 for large-v3, 51,864 for
# an English-only one.

# %%
silence = torch.zeros(1, model.config.num_mel_bins, 3000, device=device)
start = torch.tensor([[model.config.decoder_start_token_id]], device=device)
with torch.inference_mode():
    logits = model(input_features=silence, decoder_input_ids=start).logits
print("logits", tuple(logits.shape), "= (clips, tokens so far, vocabulary)")

# %% [markdown]
# The token with the highest of these scores comes next. Here there was silence, and one token so far:
# the start.

# %% [markdown]
# ## Is it our `utils` that you imported?
#
# Now the checks. Python imports the first `utils` it finds. If that is the wrong one, you get
# baffling errors later, so check it now.

# %%
imported = Path(utils.__file__).resolve()
assert imported.is_relative_to(Path.cwd()), (
    f"Python imported {imported}, not the utils of this repository ({Path.cwd()}): "
    "start the kernel in the repository, and rename or uninstall the other one."
)
print(imported.relative_to(Path.cwd()))

# %% [markdown]
# The path begins with `utils`: it is the one of this repository.

# %% [markdown]
# ## Are the versions new enough?
#
# `requirements.txt` is the one list of what a reader needs; the set-up cell installs from it, and
# this one compares with it. A floor is the first version with a function that the lessons call,
# or the first without a known security hole. If a version is out of range, the cell stops with the
# `pip` line that helps.

# %%
packages = check_versions()
require_versions(packages)
print(f"{len(packages)} packages are in range; the first six:")
pd.DataFrame(packages[:6])

# %% [markdown]
# `environment.json` will list all of them, for whoever repeats the run.

# %% [markdown]
# ## Where will the model run?
#
# A *GPU* multiplies large matrices many times faster than a CPU does. The default recipe, with its
# small model and short clips, trains on two CPU cores in minutes; a large model needs a GPU. The
# disk has to hold the model, the prepared speech and two checkpoints, each three times the size of
# the model: its weights, and two averages that the *optimizer*, which changes the weights in
# training, keeps for each of them.
#
# If there is an NVIDIA GPU that PyTorch cannot use, for example because its driver is too old, the
# cell stops and prints the commands that help: the alternative would be hours on the CPU beside an
# idle GPU. `WHISPER_CPU=1` in the environment says that the CPU is meant.

# %%
total, free = environment.memory_gib()
disk = environment.free_disk_gib(run.folder)
facts = environment.machine() | {"device": str(device)}
facts |= {"memory_free_gib": round(free, 1), "disk_free_gib": round(disk, 1)}
named = {name.replace("_gib", ", GiB").replace("_", " "): value for name, value in facts.items()}
pd.Series(named, name="this machine").to_frame()

# %% [markdown]
# Look at *device* first: `cuda` is a GPU, `cpu` is none. Then at the free memory and disk.

# %% [markdown]
# ## In which precision will it train?
#
# *Precision* is how many bits a number has. Sixteen are faster than thirty-two on a GPU or a CPU
# that was built for them, and there are two kinds: *bf16* has the range of 32-bit numbers with
# fewer digits; *fp16* has more digits, but very small gradients vanish in it unless they are scaled
# up. The weights stay in 32 bits in any case. A recipe cannot set this: it follows the hardware.

# %%
precision = environment.precision()
print(f"{precision.name}, because {precision.reason}")
bits = {"fp32": (8, 23), "bf16": (8, 7), "fp16": (5, 10)}  # besides one for the sign
numbers = [
    [
        (name, "none", 3),
        (f"{e} range", "blue", e),
        (f"{m} digits", "green", m),
        ("", "none", 31 - e - m),
    ]
    for name, (e, m) in bits.items()
]
draw_boxes(numbers, "The bits of a number: bf16 has fp32's range, fp16 has more digits")

# %% [markdown]
# Compare the blue boxes: bf16 has the range of fp32, and fewer digits.

# %% [markdown]
# ## Which audio files can be read here?
#
# You need no FFmpeg and no git-lfs: `soundfile` brings decoders for WAV, FLAC, MP3 and Ogg, PyAV
# for what phones and cameras record, and the Hub's client fetches large files itself. Here the
# clip is written in four formats and read again.

# %%
rows = []
for name, subtype in [("WAV", None), ("FLAC", None), ("MP3", None), ("OGG", "OPUS")]:
    file = io.BytesIO()
    soundfile.write(file, clip, SAMPLING_RATE, format=name, subtype=subtype)
    again = decode_audio(file.getvalue())
    shorter = min(len(again), len(clip))
    change = abs(again[:shorter] - clip[:shorter]).max()
    rows.append({"format": name, "kB": len(file.getvalue()) / 1000, "largest change": change})
formats = pd.DataFrame(rows).set_index("format")
formats.style.format({"kB": "{:.0f}", "largest change": "{:.4f}"})

# %% [markdown]
# WAV and FLAC come back as they were, up to the rounding to 16 bits; MP3 and Opus are smaller and
# slightly changed, by less than you would hear.

# %% [markdown]
# ## Who are you on the Hub?
#
# The Hugging Face Hub is where most checkpoints and data sets are. The default recipe does not use
# it, so an account is optional here. You need one to read gated data or to publish your model:
#
# - in Colab: add a secret called `HF_TOKEN` (the key symbol on the left) and allow this notebook
#   to read it;
# - in Jupyter: run `from huggingface_hub import notebook_login; notebook_login()`;
# - in a terminal: `.venv/bin/hf auth login`.
#
# A token is a password. Never put it in a cell or a recipe. The next cell does not print it.

# %%
print(environment.hub_account())

# %% [markdown]
# No account is a fine answer for the default recipe.

# %% [markdown]
# ## What would your own experiment need?
#
# Choose a language, a checkpoint and some speech, and the panel says what memory, disk and time a
# card would need. These numbers are computed from the model's size and not measured. *Write recipe*
# makes a file, whose name you then give as `RECIPE`. You can do without: a copy of a file in
# `recipes/`, edited, is the same thing.

# %%
from utils.environment.panel import panel

panel()

# %% [markdown]
# Choose another card and read the text below it: the same steps, and another time.

# %% [markdown]
# ## When this is good, and when to expect trouble
#
# - Two cores and 8 GiB of memory are enough for the default recipe. A checkpoint of 244 million
#   weights (small) needs a GPU with 8 GiB or more, one of 1,550 million (large) 24 GB for LoRA and
#   40 GB for full fine-tuning.
# - On a shared server other people's jobs take memory and disk too: look again before a long run.
# - In Colab every notebook gets a machine of its own, and it is emptied when it stops. Set `RUNS`
#   to a folder under `/content/drive/MyDrive`, and results survive; you are asked for access.

# %% [markdown]
# ## Save

# %%
report = {
    "versions": versions(),
    "machine": environment.machine(),
    "device": str(device),
    "precision": precision._asdict(),
    "logits": list(logits.shape),
    "first_transcription": {"id": row["id"], "reference": row["text"], "text": by_helper},
}
print(save_report(run, "environment", report))

# %% [markdown]
# ## Check

# %%
assert all(package.ok for package in packages), "the cell of versions says what to install"
assert logits.shape[-1] == model.config.vocab_size, (
    f"{logits.shape[-1]} logits for a vocabulary of {model.config.vocab_size}: the checkpoint is "
    "damaged; delete it from the cache and run this lesson again"
)
assert torch.isfinite(logits).all(), "logits that are no numbers: the weights are damaged"
assert by_helper, "the transcription is empty: play the clip, it may be silent"
assert disk > 5, f"{disk:.1f} GiB are free, 5 are needed: make room, or set RUNS to another disk"
print(f"{device}, {precision.name}: this machine can train; first transcription: {by_helper!r}")

# %% [markdown]
# ## What you saw
#
# A clip goes through spectrogram, encoder and decoder and comes out as text, with mistakes. The
# versions are in range, the model loads, and its logits fit its vocabulary: this machine can train.
#
# ## Try it
#
# Predict first, then run, then open the answer.
#
# 1. How many bytes has one minute of the clip as samples in 32-bit numbers?
# 2. The decoder starts from one token. How many scores does it return for three tokens of one clip?
# 3. Replace `source.language` in "By hand" and "By helper" by another language's code. What
#    changes in the text?
# 4. Transcribe a recording of your own: put it beside `README.md`, replace the line `clip = …` by
#    `clip = decode_audio(Path("my.m4a").read_bytes())`, the code as in 3, and run from there.
#
# <details><summary>Answers</summary>
#
# 1. 60 × 16,000 samples × 4 bytes = 3,840,000 bytes.
# 2. Three times the vocabulary: `(1, 3, 51865)` for a multilingual base model.
# 3. It is forced into that language, often as a translation that nobody asked for: the decoder
#    starts from a token that names the language. Lesson 3 shows it.
#
# </details>
#
# ### Three questions
#
# <details><summary>What does fine-tuning change, and what stays as it was?</summary>
#
# The weights of encoder and decoder change. Spectrogram, vocabulary and the way a text is
# produced, token after token, stay.
#
# </details>
#
# <details><summary>Why is a clip of four seconds padded to thirty?</summary>
#
# Whisper was trained on windows of 30 seconds and nothing else. Lesson 3 shows how to save that
# work.
#
# </details>
#
# <details><summary>A clip is transcribed without a mistake. Does the model need no fine-tuning?</summary>
#
# One clip cannot tell. Lesson 4 measures many before anything is trained.
#
# </details>
#
# ## Next
#
# [2 · Stream speech](02_streaming.ipynb)
