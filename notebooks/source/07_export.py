# %% [markdown]
# # 7 · Export: share the model
#
# A model is useful once others can run it: on a laptop without PyTorch, in a phone app, or from
# the Hub with a card that says what it is.
#
# - You will convert the model for faster-whisper and whisper.cpp, and check that they return the
#   same transcripts.
# - You will compare size, speed and errors of each format, and measure the call that you
#   recommend.
# - You will make a model card from the run, start a Space on this machine, and see what a push
#   uploads.
#
# | Needs | Makes | Time |
# | --- | --- | --- |
# | lesson 5 | `export/repository`, `export/space`, `export.json` | 3 minutes on 2 cores, 8 without AVX-512 |

# %% tags=["parameters"]
RECIPE: str = "recipes/embedded.toml"  # which experiment to run
RUNS: str = "runs"  # where results are kept; in Colab a Drive folder survives the runtime

# %%
import ctranslate2
import numpy as np
import pandas as pd
import torch
from datasets import load_from_disk
from huggingface_hub import ModelCard, get_token
from IPython.display import HTML, Markdown
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.artifacts import open_run, require, save_report
from utils.config import load_recipe
from utils.environment.colab import mount_drive
from utils.export import formats, ggml, hub
from utils.export.measure import baseline, measure_documented, rate_programs, run_programs
from utils.export.programs import load_programs, with_faster_whisper
from utils.export.space import serve_space, stage_space
from utils.preprocessing.examples import waveform
from utils.whisper.audio_context import SAMPLING_RATE, decoding_seconds
from utils.whisper.decoding import most_tokens
from utils.whisper.features import log_mel
from utils.whisper.labels import prefix_ids

# %%
mount_drive(RECIPE, RUNS)
recipe = load_recipe(RECIPE)
run = open_run(recipe, RUNS)
require(run, "evaluation")
print(f"{recipe.name}: {run.model} goes into {run.repository}")

# %% [markdown]
# ## Does the folder hold what each program reads?
#
# Transformers keeps the settings of the feature extractor in `processor_config.json` and the
# vocabulary in `tokenizer.json`. Other programs look for older names: without
# `preprocessor_config.json`, faster-whisper assumes 80 mel bands, and a model that needs 128
# returns nonsense. Lesson 4 has stored all of these files.

# %%
rows = [
    {"program": program, "file": name, "there": (run.model / name).exists()}
    for program, names in formats.READS.items()
    for name in names
]
pd.DataFrame(rows).groupby("program", sort=False).agg(
    files=("file", ", ".join), all=("there", "all")
)

# %% [markdown]
# *all* must be True in every row.

# %% [markdown]
# ## How small does the model get?
#
# Training needs 32 bits for each weight, decoding does not. *CTranslate2*, the engine inside
# faster-whisper, stores weights in 16 bits or in 8: an *int8* matrix holds whole numbers from -127
# to 127 and, for each row, a factor that turns them back. *ggml* is the single file that
# whisper.cpp uses on phones, in browsers and on small boards.

# %%
from utils.environment.lock import only_writer

run.repository.mkdir(parents=True, exist_ok=True)
int8, float16 = (run.repository / f"ctranslate2-{name}" for name in ("int8", "float16"))
model = WhisperForConditionalGeneration.from_pretrained(run.model, dtype="float32").eval()
processor = WhisperProcessor.from_pretrained(run.model)
ggml_file = run.repository / "ggml-model.bin"
with only_writer(run.folder):
    for folder in (int8, float16):
        formats.to_ctranslate2(run.model, folder, folder.name.partition("-")[2])
    ggml.write_ggml(model, processor, ggml_file)
weights = {"float32": run.model / "model.safetensors", "float16": float16, "int8": int8}
megabytes = {name: formats.size_mb(path) for name, path in (weights | {"ggml": ggml_file}).items()}
pd.DataFrame(
    {
        "MB": megabytes,
        "% of float32": {
            name: 100 * size / megabytes["float32"] for name, size in megabytes.items()
        },
    }
).round(0)

# %% [markdown]
# Look at the last column: half for 16 bits, about a quarter for 8.

# %% [markdown]
# ## Which clips do the programs get?
#
# Some of the test split: each program transcribes them one at a time, which is slow, and what you
# want to see first is whether the conversion is right.

# %%
CLIPS = 10  # of the test split, evenly spread; more take longer and tell more
test = load_from_disk(str(run.prepared))["test"]
places = np.linspace(0, len(test) - 1, min(CLIPS, len(test))).astype(int)
picked = test.select(places)
clips = [waveform(row) for row in picked]
texts, languages = picked["text"][:], picked["language"][:]
pd.DataFrame({"seconds": picked["seconds"][:], "text": texts}).round(1)

# %% [markdown]
# So few clips say little about the error rate: that comes below, on all of them.

# %% [markdown]
# ## By hand
#
# One clip through the int8 model, with nothing around it: features in, token ids out. The *prompt*
# is start, language and task, the same tokens that the training labels began with.

# %%
clip, language = clips[0], languages[0]
short = recipe.decoding_context
seconds = decoding_seconds(len(clip) / SAMPLING_RATE, short)
# As in lesson 3. With those of the feature extractor, equal to six digits, int8 sometimes rounds
# to another letter.
features = log_mel(processor, [clip], seconds).numpy()
prompt = prefix_ids(processor.tokenizer, language)
engine = ctranslate2.models.Whisper(str(int8), device="cpu", intra_threads=torch.get_num_threads())
given = ctranslate2.StorageView.from_array(np.ascontiguousarray(features))
# A guard: nobody speaks 45 tokens a second, and a model that repeats itself stops here.
(result,) = engine.generate(given, [prompt], beam_size=1, max_length=most_tokens(clip))
ids = result.sequences_ids[0]
by_hand = processor.decode(ids, skip_special_tokens=True).strip()
print(f"input_features {features.shape} and prompt {prompt} -> {len(ids)} ids -> {by_hand}")

# %% [markdown]
# The shape of `input_features` shows the window: a hundred frames a second.

# %% [markdown]
# ## By helper
#
# `load_programs` returns a function for each program and format; the one called below does the same
# steps. Both must agree, or the tables that follow would describe another decoding than the one you
# have just done.

# %%
programs = load_programs(recipe, run, model, processor)
print(*programs, sep="\n")
by_helper = programs["CTranslate2 int8, short"](clip, language)
assert by_helper == by_hand, f"the helper returned {by_helper!r}, by hand it was {by_hand!r}"
by_helper

# %% [markdown]
# The same text as by hand. The list has every program, with its window.

# %% [markdown]
# ## Do they still return the same text?
#
# Each program transcribes the same clips of the test split, one at a time, on the CPU and with the
# same number of threads. *As documented* is the call that the model card, the handbook and the
# page recommend: without timestamps, like the training labels, and at a window of 30 seconds.
# There most of the time goes into the encoder, and int8 gains little. The documented calls of
# faster-whisper and of Transformers follow the five best beginnings of a text at once (*beam
# search*), the others only the best one. With five the text may differ, and is often better. *Short*
# is the window that your model was trained at; CTranslate2 and whisper.cpp can use it too, with
# more code around them.

# %%
returned = run_programs(programs, clips, languages)
print(f"{len(programs)} programs, {sum(map(len, clips)) / SAMPLING_RATE:.0f} s of speech")

# %% [markdown]
# All programs have transcribed the clips; the next table compares them.

# %% [markdown]
# ## What does each format cost, and what does it gain?
#
# *Speed* is relative to the first line. The error rates are for these few clips alone. *differing*
# counts clips whose text is not identical to that of Transformers in the same window; *apart* is
# the share of characters that differ. A CPU computes with float16 weights in float32: they save
# space, but no time.

# %%
rated = rate_programs(returned, texts, languages)
for name, row in rated.items():
    program, kind = name.partition(",")[0].split()
    row["megabytes"] = megabytes["ggml" if program == "whisper.cpp" else kind]
table = pd.DataFrame(rated).T[["megabytes", "speed", "wer", "cer", "differing", "apart"]]
shares = {"wer": "WER, %", "cer": "CER, %", "apart": "apart, %"}
units = shares | {"megabytes": "MB", "speed": "speed, times the first"}
table.assign(**{name: 100 * table[name] for name in shares}).rename(columns=units).astype(
    float
).round(1)

# %% [markdown]
# Compare *apart* before you compare WER: a small number means that the conversion is right. (With
# beam search it is larger.) On this many clips, one word moves the WER.

# %% [markdown]
# ## What will others get?
#
# The number that counts is that of the call that others will make. This is the call that the card
# recommends, on all test clips and on those of speakers that were never trained on. Its rates go
# into the card, and from there to the Hub.

# %%
from utils.environment.machine import usable_cores
from utils.export.documented import is_multilingual, snippet
from utils.scoring.predictions import percent

print(snippet("faster-whisper", "ctranslate2-int8", languages[0], is_multilingual(run.model)))
workers = usable_cores()  # a clip each: faster than all of them on one clip, the same texts
recommended = with_faster_whisper(run.repository / "ctranslate2-int8", workers=workers)
prepared = load_from_disk(str(run.prepared))
documented = measure_documented(recommended, prepared, recipe, workers=workers)
pd.DataFrame(
    {"split": row["split"], "clips": row["clips"]}
    | {rate.upper(): percent(row, rate) for rate in ("wer", "cer")}
    for row in documented.values()
).set_index(pd.Index(documented, name="source"))

# %% [markdown]
# The first lines are the code that others will copy; the table is what they get with it. Lesson 5
# took the most likely token at each step, so its rates are others, and mostly higher.

# %% [markdown]
# ## Which clips differ?
#
# Rounding the weights changes every probability a little, and if two words are nearly as likely,
# the other one may win. Look at such clips before you trust a rate: to people, a lost comma and an
# invented sentence are not the same. Here "said" is what Transformers returned in the same window.
# The documented calls, which may search differently, are left out.

# %%
from utils.evaluation.mistakes import LEGEND, word_diff_html
from utils.text import leading_unit

differing = [
    f"<tr><td>{name}</td><td style='text-align:left'>"
    f"{word_diff_html(ours, theirs, leading_unit(languages))}</td></tr>"
    for name in programs
    if not name.endswith("as documented")
    for ours, theirs in zip(returned[baseline(name)]["texts"], returned[name]["texts"], strict=True)
    if ours != theirs
]
HTML(f"<table>{''.join(differing)}</table>{LEGEND}" if differing else "No clip differs.")

# %% [markdown]
# Most differences should be in a letter, a word or a comma. A sentence that only one program returns
# deserves a look at its settings.

# %% [markdown]
# ## What should a stranger know about it?
#
# The *model card*, the README of a repository on the Hub, is made from the reports of this run:
# data with licences, rates with their intervals, limits, how to use it, how it was made. The block
# at its top is metadata, from which the Hub shows the rates. Check it with a stranger's eyes, and
# add what no run can know: whose speech this is, and what the model must not be used for. What you
# write into `README.md` is pushed by the command at the end of this lesson; the cell below writes
# the file anew.

# %%
REPOSITORY = f"{hub.NOBODY}/whisper-{recipe.name}"  # put your name on the Hub before the slash
measured = {"formats": rated, "documented": documented}
folder = hub.stage_model(recipe, run, REPOSITORY, measured)
card = ModelCard.load(folder / "README.md")
for one in card.data.eval_results:
    print(f"{one.dataset_name}, {one.metric_name}: {one.metric_value} %")
Markdown(card.text)

# %% [markdown]
# Everything from the first heading on is the card as the Hub will show it. Can you find the error
# rate, the licence of the speech and the known limits?

# %% [markdown]
# ## Does the page start without this series?
#
# A *Space* is a page that the Hub runs for you: here one Gradio file around the int8 model. You
# start the same folder on this machine first, to see it work before anybody else does. On the Hub,
# Spaces on the free hardware need a paid subscription (`huggingface_hub` 2.4 says so); the folder
# also runs on any server with Python.

# %%
import soundfile
from gradio_client import Client, handle_file

space = stage_space(recipe, run)
wav = run.folder / "export/clip.wav"
soundfile.write(wav, clip, SAMPLING_RATE)
with serve_space(space) as url:
    client = Client(url, verbose=False, analytics_enabled=False)
    spoken = language if model.generation_config.is_multilingual else "en"
    on_page = client.predict(handle_file(str(wav)), spoken, api_name="/transcribe")
wav.unlink()
print(f"said: {texts[0]}\npage: {on_page}")

# %% [markdown]
# The page ran in a process of its own, without `utils`, and returned this text.

# %% [markdown]
# ## What would a push upload?
#
# These files and no others. The list says what is allowed, so the trainer's pickles, the optimizer
# and your recordings stay here. The training notebook and the recipe go along, so that others can
# repeat the run. A new repository is private until you make it public on its page.

# %%
uploads = {"model": folder, "space": space}
pd.DataFrame(
    {"repository": kind, "file": name.as_posix(), "kB": 1000 * formats.size_mb(place / name)}
    for kind, place in uploads.items()
    for name in hub.contents(place, kind)
).style.format({"kB": "{:,.0f}"})

# %% [markdown]
# Look for names that you do not expect: this table is all that leaves the machine.

# %% [markdown]
# ## Is it pushed?
#
# Only if you are logged in (lesson 1 says how), have put your name into `REPOSITORY` above, and have
# run the cells from there. A push is one commit; a second push finds everything there and does
# nothing. In a shell, the first of these lines does the same, with the card as it lies there, and
# the others do it with `hf` alone:
#
# ```bash
# .venv/bin/python -m utils.export recipes/embedded.toml --repository YOU/whisper-embedded
# .venv/bin/hf upload YOU/whisper-embedded runs/embedded/export/repository . --private
# .venv/bin/hf repos create YOU/whisper-page --type space --sdk gradio --private
# .venv/bin/hf upload YOU/whisper-page runs/embedded/export/space . --type space
# ```

# %%
if REPOSITORY.startswith(f"{hub.NOBODY}/"):
    print("Nothing is pushed: REPOSITORY names nobody. What would go is in the table above.")
elif not get_token():
    print("Nothing is pushed: no token is set. What would go is in the table above.")
else:
    print(hub.push_line(hub.push(folder, REPOSITORY)))

# %% [markdown]
# ## When this is good, and when to expect trouble
#
# - int8 on a CPU, float16 on a GPU, ggml where there is no Python: that is nearly always right.
# - The short window is for models that were trained at it. Stock Whisper repeats itself there.
# - Beam search, voice activity detection and timestamps differ between programs. Compare with the
#   settings that you will deploy, on more clips than here.
# - A licence travels with the weights. "Share alike" speech, or a base model with terms of its
#   own, may decide who can use yours: check them before you make a repository public.

# %% [markdown]
# ## Save

# %%
report = measured | {"int8_share": megabytes["int8"] / megabytes["float32"]}
report |= {"on_page": on_page, "ids": picked["id"][:], "repository": REPOSITORY}
print(save_report(run, "export", report))

# %% [markdown]
# ## Check

# %%
for name, row in rated.items():
    # A word or two where rounding decides, and more where the model guesses; a broken conversion
    # gives another text. What is documented may differ for other reasons, too: it cuts out what it
    # takes for silence.
    most = 0.2 + rated[baseline(name)]["cer"]
    told = row["apart"] > most and not name.endswith("as documented")
    assert not told, f"{name} returns a different text: was it converted from this model?"
assert report["int8_share"] <= 0.3, "int8 is too large: was it converted from this model?"
assert isinstance(on_page, str), "the page did not answer: see export/space.log in the run's folder"
assert set(documented) >= set(test["source"][:]), (
    "the documented call was not measured: run it again"
)
assert hub.find_secrets(folder, hub.contents(folder, "model")) == [], "a file holds a token"
assert not list(run.repository.rglob("training_args.bin")), "a pickle is about to be shared"
print(f"int8 is {report['int8_share']:.0%} of float32's size; the model can be shared.")

# %% [markdown]
# ## What you saw
#
# One model in several formats, the smallest about a quarter of the size; the error rate of the
# call that you recommend; a card that says how the model was made and how good it is; a page that
# runs on its own; and a list of what leaves this machine.
#
# ## Try it
#
# Predict first, then run, then open the answer.
#
# 1. How many MB do 74 million weights need at 32, 16 and 8 bits? Compare with the table of sizes.
# 2. Why is float16 no faster than float32 on a CPU?
# 3. Set `CLIPS` to 50. Which columns of the table change much, and which hardly?
# 4. Load `export/repository/ctranslate2-int8` in a program of your own with faster-whisper.
# 5. Start the page with `python app.py` in `export/space`. Which files does it need?
#
# <details><summary>Answers</summary>
#
# 1. 296, 148 and 74 MB. The int8 folder is a little larger: the factors and the tokenizer come on
#    top.
# 2. The CPU computes in float32; the weights are converted first.
# 3. WER and CER move, since they depend on the clips; size does not, and speed only a little.
# 4. The cell under "What will others get?" has printed the lines.
# 5. The table of what a push uploads lists them, under `space`.
#
# </details>
#
# ### Three questions
#
# <details><summary>Why does the card state the error rate of the recommended call and not that of lesson 5?</summary>
#
# Others will run that call: another program and another window give other texts.
#
# </details>
#
# <details><summary>The int8 model is a quarter of the size. Is it four times as fast?</summary>
#
# No: size and speed are different things. The table has measured it on your machine.
#
# </details>
#
# <details><summary>The training speech is under a licence with "share alike". May the model be under any licence?</summary>
#
# Perhaps not: what a licence of data asks of a model has to be checked before you publish it.
#
# </details>
#
# ## Next
#
# This was the last lesson. [The README](../README.md) says where to go from here.
