# %% [markdown]
# # 1 · Check the machine
#
# Before you wait for a training run, you find out in a minute whether this machine can do one.
#
# - You will compare the installed versions with the ones that this series needs.
# - You will see which device and which number format it trains with here, and why.
# - You will hear a real recording and read what Whisper, not yet fine-tuned, makes of it.
#
# | Needs | Makes | Time |
# | --- | --- | --- |
# | nothing | `environment.json` | 1 minute on 2 cores, and one download of about 150 MB |

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
from IPython.display import Audio, display
from transformers import WhisperForConditionalGeneration, WhisperProcessor

import utils
from utils.artifacts import open_run, save_report
from utils.config import load_recipe
from utils.embedded.fetch import resolve, speech
from utils.environment import machine as environment
from utils.environment.colab import mount_drive
from utils.environment.packages import check_versions, require_versions, versions
from utils.environment.panel import panel
from utils.streaming.sound import decode_audio
from utils.streaming.sources import SAMPLING_RATE, stream
from utils.whisper.decoding import most_tokens, transcribe

# %%
mount_drive(RECIPE, RUNS)
recipe = load_recipe(RECIPE)
run = open_run(recipe, RUNS)
print(f"{recipe.name}: {recipe.model.checkpoint}, results in {run.folder}")

# %% [markdown]
# ## What is Whisper?
#
# A network that OpenAI trained on 680,000 hours of speech from the web, in 97 languages, each
# stretch with the text that stood beside it (Radford et al. 2022). It has two halves: the *encoder*
# turns a picture of the sound into a description of what is heard, and the *decoder* writes text
# from that description, piece by piece, each from those before it.
#
# `sound → log-mel picture → encoder → description → decoder → text`
#
# It comes in sizes from tiny (39 million weights) to large (1,550 million); tiny, base, small and
# medium also as English-only `.en`. *Fine-tuning* goes on with the training, on your speech: hours
# where the first training took hundreds of thousands, and small steps, so that what it learned
# there is kept.

# %% [markdown]
# ## Is it our `utils` that you imported?
#
# Many projects have a folder called `utils`, and Python takes the first one it finds. If it found
# another one, errors far from here would make no sense, so you check the path of the file.

# %%
imported = Path(utils.__file__).resolve()
assert imported.is_relative_to(Path.cwd()), (
    f"Python imported {imported}, not the utils of this repository ({Path.cwd()}): "
    "start the kernel in the repository, and rename or uninstall the other one."
)
print(imported.relative_to(Path.cwd()))

# %% [markdown]
# ## Are the versions new enough?
#
# `requirements.txt` is the one list of what a reader needs; the set-up cell installs from it, and
# this table compares with it. A floor is the first version with a function that the lessons call, or
# the first without a known security hole. If a row is not ok, the cell stops with the `pip` line
# that puts it right.

# %%
packages = check_versions()
display(pd.DataFrame(packages))
require_versions(packages)

# %% [markdown]
# ## Where will the model run?
#
# A *GPU* multiplies large matrices many times faster than a CPU does. The default recipe, with its
# small model and short clips, trains on two CPU cores in minutes; a large model needs a GPU. The
# disk has to hold the model, the prepared speech and two checkpoints, each three times the size of
# the model: its weights, and two averages that the *optimizer*, which changes the weights in
# training, keeps for each of them.
#
# If there is an NVIDIA GPU that PyTorch cannot use, because its driver is too old, say, the cell
# stops and prints the commands that help: the alternative would be hours on the CPU beside an idle
# GPU. `WHISPER_CPU=1` in the environment says that the CPU is meant.

# %%
device = environment.device()
total, free = environment.memory_gib()
disk = environment.free_disk_gib(run.folder)
facts = environment.machine() | {"device": str(device)}
facts |= {"memory_free_gib": round(free, 1), "disk_free_gib": round(disk, 1)}
pd.Series(facts, name="this machine").to_frame()

# %% [markdown]
# ## In which precision will it train?
#
# *Precision* is how many bits a number has. Sixteen are faster than thirty-two on a GPU that was
# built for them, and there are two kinds: *bf16* has the range of 32-bit numbers with fewer
# digits; *fp16* has more digits, but the smallest changes that training asks for vanish in it
# unless they are scaled up.
# The weights stay in 32 bits in any case. A recipe cannot set this: it follows the hardware.

# %%
precision = environment.precision()
print(f"{precision.name}, because {precision.reason}")
print("arguments for the trainer:", environment.training_precision())

# %% [markdown]
# ## Does a forward pass work?
#
# Load the *checkpoint*: the weights that fine-tuning starts from. Given sound and the tokens
# (pieces of words) written so far, Whisper returns one score for every token that could come next:
# the *logits*. Their last dimension is the size of the vocabulary: 51,865 for a multilingual
# Whisper up to large-v2, 51,866 for large-v3, 51,864 for an English-only one.

# %%
checkpoint = resolve(recipe.model.checkpoint)
processor = WhisperProcessor.from_pretrained(checkpoint, revision=recipe.model.revision)
model = WhisperForConditionalGeneration.from_pretrained(
    checkpoint, revision=recipe.model.revision, dtype=torch.float32
).to(device)
silence = torch.zeros(1, model.config.num_mel_bins, 3000, device=device)
start = torch.tensor([[model.config.decoder_start_token_id]], device=device)
with torch.inference_mode():
    logits = model(input_features=silence, decoder_input_ids=start).logits
print("logits", tuple(logits.shape), "= (clips, tokens so far, vocabulary)")

# %% [markdown]
# ## What does the speech sound like?
#
# Take the recipe's first source and listen to the longest of its first ten clips. The default
# recipe's speech is not synthetic: it is an actor in the dialogues of a game, carried by a Debian
# package. Its makers and its licence are named wherever a clip is played.

# %%
source = recipe.sources[0]
first_ten = islice(stream(source, source.train or source.test), 10)
row = max(first_ten, key=lambda row: len(row["text"]))
clip = decode_audio(row["audio"])
display(Audio(clip, rate=SAMPLING_RATE))
if source.dataset == "embedded":
    print(speech(source.language, source.name).attribution)
print(f"{len(clip) / SAMPLING_RATE:.1f} s of {source.label}: {row['text']}")

# %% [markdown]
# ## Which audio files can be read here?
#
# You need no FFmpeg: `soundfile` brings its own decoders. Here the clip is written in each format
# and read again. MP3 and Ogg drop what few people hear, so the samples come back slightly changed.
# You need no git-lfs either: the Hub's client fetches large files itself.

# %%
rows = []
for name, subtype in [("WAV", None), ("FLAC", None), ("MP3", None), ("OGG", "OPUS")]:
    file = io.BytesIO()
    soundfile.write(file, clip, SAMPLING_RATE, format=name, subtype=subtype)
    seconds = len(decode_audio(file.getvalue())) / SAMPLING_RATE
    rows.append({"format": name, "bytes": len(file.getvalue()), "seconds read back": seconds})
formats = pd.DataFrame(rows)
formats

# %% [markdown]
# ## Who are you on the Hub?
#
# The Hugging Face Hub is where most checkpoints and data sets are. The default recipe does not use
# it, so an account is optional here. You need one to read gated data or to publish your model:
#
# - in Colab: add a secret called `HF_TOKEN` (the key symbol on the left) and allow this notebook
#   to read it;
# - in Jupyter: run `from huggingface_hub import notebook_login; notebook_login()`;
# - in a terminal: `hf auth login`.
#
# A token is a password. It belongs into none of the cells and into no recipe, and it is not shown
# below.

# %%
print(environment.hub_account())

# %% [markdown]
# ## What would your own experiment need?
#
# Choose a language, a checkpoint and some speech, and the panel says what memory and time a card
# would need. These numbers are computed from the model's size and not measured. *Write recipe*
# makes a file, whose name you then give as `RECIPE`. You can do without: one of `recipes/`, copied
# and edited, is the same thing.

# %%
panel()

# %% [markdown]
# ## By hand
#
# A transcription takes three steps. The *processor* turns samples into a log-mel spectrogram: 80
# bands of pitch by 3,000 frames, which is always 30 seconds, padded with silence. `generate`
# writes token after token. The processor turns tokens into text.

# %%
inputs = processor(audio=clip, sampling_rate=SAMPLING_RATE, return_tensors="pt")
print("samples       ", clip.shape, "->", "input_features", tuple(inputs.input_features.shape))
# An English-only checkpoint has no language to choose, and refuses the question.
multilingual = model.generation_config.is_multilingual
asked = {"language": source.language, "task": "transcribe"} if multilingual else {}
# A guard: nobody speaks 45 tokens a second, and a model that repeats itself stops here.
limit = most_tokens(clip)
tokens = model.generate(inputs.input_features.to(device), max_new_tokens=limit, **asked)
print("tokens        ", tuple(tokens.shape), tokens[0, :6].tolist(), "…")
by_hand = processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
print("Whisper hears ", by_hand)
print("it should hear", row["text"])

# %% [markdown]
# ## By helper
#
# `transcribe` does the same for any number of clips, in batches of like length that a clip leaves
# when its text has ended. Every lesson from here on uses it.

# %%
(by_helper,) = transcribe(model, processor, [clip], language=source.language)
assert by_helper == by_hand, f"the helper hears {by_helper!r}, by hand it was {by_hand!r}"
by_helper

# %% [markdown]
# ## When this is good, and when to expect trouble
#
# - Two cores and 8 GiB of memory are enough for the default recipe. A checkpoint of 244 million
#   parameters (small) wants a GPU with 8 GiB or more, one of 1,550 million (large) 24 GB for LoRA
#   and 40 GB for all weights.
# - On a shared server other people's jobs take memory and disk too: look again before a long run.
# - In Colab every notebook gets a machine of its own, and it is emptied when it stops. Set `RUNS`
#   to a folder under `/content/drive/MyDrive`, and results survive; you are asked for access.
# - A clip that Whisper already hears without a mistake proves little: lesson 4 measures many.

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
assert all(package.ok for package in packages), "the table of versions says what to install"
assert logits.shape[-1] == model.config.vocab_size, (
    f"{logits.shape[-1]} logits for a vocabulary of {model.config.vocab_size}: the checkpoint is "
    "damaged; delete it from the cache and run this lesson again"
)
assert torch.isfinite(logits).all(), "logits that are no numbers: the weights are damaged"
assert by_helper, "Whisper heard nothing: play the clip, it may be silent"
assert disk > 5, f"{disk:.1f} GiB are free, 5 are needed: make room, or set RUNS to another disk"
print(f"{device}, {precision.name}: this machine can train, and heard {by_helper!r}")

# %% [markdown]
# ## What you saw
#
# The versions are in range, the model loads and its logits fit its vocabulary, and it already
# understands some of what it hears. How much is what fine-tuning starts from.
#
# ## Try it
#
# - Replace `source.language` in "By hand" and "By helper" by another language's code, and read what
#   comes out.
# - Decode one of your own recordings: `decode_audio(Path("my.mp3").read_bytes())`.
# - Set the task to `"translate"`: Whisper then writes English.
#
# ## Next
#
# [2 · Stream speech](02_streaming.ipynb)
