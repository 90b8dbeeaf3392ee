# %% [markdown]
# # 3 · Preprocessing: prepare speech and text
#
# A model learns what its data say, mistakes included: here you see what it is given, and drop what
# would teach it something wrong.
#
# - You will draw what the encoder is given, at 30 seconds and at the length of the clip.
# - You will turn text into label ids and back, and meet the start token that many published
#   scripts train twice.
# - You will filter the data with a reason for every clip that is dropped, and store it ready for
#   training.
#
# The lesson has two halves that can be read apart: sound and text first, filters and storage from
# "Which clips must not be trained on?".
#
# | Needs | Makes | Time |
# | --- | --- | --- |
# | lesson 2 | `prepared/`, `preprocessing.json` | 1 minute on 2 cores |

# %% tags=["parameters"]
RECIPE: str = "recipes/embedded.toml"  # which experiment to run
RUNS: str = "runs"  # where results are kept; in Colab a Drive folder survives the runtime

# %%
import dataclasses
from html import escape

import numpy as np
import pandas as pd
import torch
from IPython.display import Audio, display

from utils.artifacts import open_run, require, save_report
from utils.config import load_recipe
from utils.environment.colab import mount_drive
from utils.evaluation.plotting import draw_speech
from utils.preprocessing.collator import IGNORED, SpeechCollator
from utils.preprocessing.examples import prepare_example, waveform
from utils.streaming.hub import commits
from utils.streaming.sound import AudioError, decode_audio
from utils.streaming.sources import SAMPLING_RATE, seconds_of, stream
from utils.text import apply_casing, has_word_spaces, leading_unit, normalize
from utils.whisper.audio_context import context_seconds
from utils.whisper.features import log_mel
from utils.whisper.labels import encode_text, prefix_ids
from utils.whisper.load import load_model

# %%
mount_drive(RECIPE, RUNS)
recipe = load_recipe(RECIPE)
run = open_run(recipe, RUNS)
require(run, "streaming")
model, processor = load_model(recipe)
pd.set_option("display.max_colwidth", None)  # whole sentences in the tables
print(f"{recipe.model.checkpoint}: {len(processor.tokenizer):,} tokens")

# %% [markdown]
# ## What is the encoder given?
#
# Not samples: a *log-mel spectrogram*. Every hundredth of a second the *feature extractor*
# measures how strong the sound is in 80 bands, spaced as the ear perceives pitch, and takes the
# logarithm. Stock Whisper pads every clip with silence to 30 seconds.

# %%
first = list(stream(recipe.sources[0], recipe.sources[0].train).take(30))
row = min(first, key=lambda one: abs(seconds_of(one) - 4))
shortest = min((one for one in first if seconds_of(one) > 0.5), key=lambda one: len(one["text"]))
pair = [row, shortest]
samples = decode_audio(row["audio"])
features = log_mel(processor, [samples])
print(f"said: {row['text']}")
print(f"input_features: {tuple(features.shape)} = (clips, mel bands, frames)")
figure = draw_speech(samples, features[0].numpy(), row["text"])
figure.savefig(run.figures / "log_mel_30s.png", dpi=120)
figure

# %% [markdown]
# Look at how much of the spectrogram is empty: the encoder works on all of it.

# %% [markdown]
# ## What if the encoder got only the clip?
#
# The same clip, in a window as long as the clip and half a second of silence. This is the *short
# audio context*, and training uses it.

# %%
seconds = context_seconds(len(samples) / SAMPLING_RATE, 0.5, recipe.audio_context)
short = log_mel(processor, [samples], seconds)
# The last two frames touch the edge of the window, so they are left out of the comparison.
difference = (features[..., : short.shape[-1] - 2] - short[..., :-2]).abs().max()
print(f"{seconds:g} s of 30 s: {tuple(short.shape)}; largest difference {difference:.1e}")
draw_speech(samples, short[0].numpy(), "the same clip at a short audio context")

# %% [markdown]
# The numbers are those of the first part of the picture above: nothing that the model needs is
# lost, and the encoder has a fraction of the work. How small a fraction? Move the slider: the cost
# of training on this one clip grows with the window, although the speech stays the same.

# %%
from utils.environment.diagrams import draw_boxes
from utils.environment.estimate import Checkpoint, training_flops
from utils.environment.slider import draw_slider

names = "encoder_layers", "decoder_layers", "d_model", "num_mel_bins"
size = Checkpoint(model.num_parameters(), *(getattr(model.config, name) for name in names))
said_in = len(samples) / SAMPLING_RATE


def draw_window(window):
    cost = training_flops(size, window) / 1e9
    silence = "silence" if window > said_in + 5 else ""  # where there is room for the word
    parts = [("speech", "blue", said_in), (silence, "", window - said_in)]
    told = f"{cost:,.0f} billion operations, {cost / training_flops(size, 30) * 1e11:.0f} % of 30 s"
    return draw_boxes(
        [[*parts, ("", "none", 30 - window)], [(told, "none")]],
        f"{said_in:.0f} s of speech in {window} s",
    ).data


longer = sorted({seconds, 30, *(one for one in (5, 10, 15, 20, 25) if one > said_in)})
draw_slider(draw_window, "window, seconds", longer, first=30)

# %% [markdown]
# The operations are computed, not timed. They fall nearly in proportion to the window; what stays
# is the decoder's work for the text.

# %% [markdown]
# ## What is text to the model?
#
# A list of *token ids*. A token is a frequent piece of text, a word or a part of one, in any
# script; what is rare is spelled with smaller pieces, down to single bytes. So every text can be
# encoded and comes back unchanged, and a language that Whisper saw little of costs more tokens a
# word.

# %%
tokenizer = processor.tokenizer
ids = tokenizer(row["text"], add_special_tokens=False).input_ids
print([tokenizer.decode([one]) for one in ids])
pd.DataFrame(
    [
        {"text": text, "characters": len(text), "tokens": len(ids), "round trip": back}
        for text in (row["text"], "Where is the station?", "स्टेशन कहाँ है?", "สถานีอยู่ที่ไหน")
        for ids in [tokenizer(text, add_special_tokens=False).input_ids]
        for back in [tokenizer.decode(ids)]
    ]
)

# %% [markdown]
# The last two rows have fewer characters than the English one and more tokens. "round trip" equals
# "text" in every row.
#
# Five clips, from short to long, each with its sound, its spectrogram and its tokens:

# %%
from IPython.core.pylabtools import print_figure

by_length = sorted(first, key=seconds_of)
five = [by_length[at] for at in np.linspace(0, len(first) - 1, 5).astype(int)]


def draw_clip(number):
    one = five[number - 1]
    try:
        sound = decode_audio(one["audio"])
    except AudioError as error:
        return f"<p>{escape(str(error))}</p>"
    window = context_seconds(len(sound) / SAMPLING_RATE, 0.5, recipe.audio_context)
    figure = draw_speech(sound, log_mel(processor, [sound], window)[0].numpy(), one["text"])
    parts = tokenizer(one["text"], add_special_tokens=False).input_ids
    boxes = [(tokenizer.decode([part]).replace(" ", "␣"), "blue") for part in parts]
    boxes += [("", "none")] * (-len(boxes) % 6)
    tokens = draw_boxes([boxes[at : at + 6] for at in range(0, len(boxes), 6)], "tokens").data
    image = (
        f'<img alt="spectrogram" src="data:image/png;base64,{print_figure(figure, base64=True)}">'
    )
    return image + Audio(sound, rate=SAMPLING_RATE)._repr_html_() + tokens


draw_slider(draw_clip, "clip", [1, 2, 3, 4, 5], first=2)

# %% [markdown]
# Compare a short clip with a long one: more sound, more tokens. A word that Whisper saw often is
# one box; a rare one is several. A box with � holds only some of the bytes of a letter.

# %% [markdown]
# ## What comes before the text?
#
# The decoder's first tokens say what to do: start, the language, the task, and that no timestamps
# are wanted. A multilingual model learns each language under its own token. An English-only
# checkpoint has no language tokens that mean anything, and its prefix is two tokens long.

# %%
for code in dict.fromkeys(["en", *recipe.languages, "hi"]):
    prefix = prefix_ids(tokenizer, code)
    print(code, prefix, tokenizer.convert_ids_to_tokens(prefix))

# %% [markdown]
# With a multilingual checkpoint only the second token differs: it is the language.

# %% [markdown]
# ## What is the first token of a sentence?
#
# A word with the space before it. Whisper's tokens include the space before a word, even for the
# first word of a sentence; only languages without spaces, such as Chinese, Japanese or Thai, begin
# without. Without the leading space the tokenizer produces a different first token.
#
# The table shows how surprised the base model is (−log probability) by the first token and, on
# average, by all tokens.

# %%
surprise = {}
for name, text in {"bare text": row["text"], "space in front": " " + row["text"]}.items():
    told = tokenizer(text, add_special_tokens=False).input_ids
    read = [*prefix_ids(tokenizer, row["language"]), *told]
    with torch.no_grad():
        scores = model(input_features=features, decoder_input_ids=torch.tensor([read])).logits
    lost = -scores[0, -len(told) - 1 : -1].log_softmax(-1).gather(1, torch.tensor(told)[:, None])
    first_piece = tokenizer.decode(told[:1]).replace(" ", "␣")
    surprise[name] = {"first piece": first_piece, "its surprise": lost[0].item()}
    surprise[name]["mean surprise"] = lost.mean().item()
pd.DataFrame(surprise).T

# %% [markdown]
# The bare text's first piece surprises the model far more. Labels without the space spend the
# first training steps on teaching the model to leave it out.

# %% [markdown]
# ## Where are Whisper's limits?
#
# The encoder has positions for 30 seconds of sound, the decoder for 448 tokens. Longer audio is
# silently cut, so that the label then contains words that the encoder never got. Longer labels
# raise an error, hours into a training run, unless they are dropped before.

# %%
limit = model.config.max_target_positions
too_long = torch.full((1, limit + 1), ids[0])
try:
    model(input_features=features, labels=too_long)
except ValueError as error:
    print(f"{limit + 1} labels: {error}")
print("an hour of silence:", tuple(log_mel(processor, [np.zeros(3600 * SAMPLING_RATE)]).shape))

# %% [markdown]
# The labels raise an error; the hour of silence is cut to 3,000 columns, 30 seconds, without a
# word.

# %% [markdown]
# ## How should the text be written?
#
# Three choices, each a setting of the recipe. The second is the default, and lesson 5 reports the
# error rate both ways.
#
# | Trained on | Checkpoint chosen by | In the recipe | Good for | The price |
# | --- | --- | --- | --- | --- |
# | text as it is | WER of text as it is | `[evaluation] normalized = false` | what people read; Whisper's own way | WER counts each comma; needs data that are consistent |
# | text as it is | normalised WER | nothing | the same, and comparing with others | the choice is blind to case and commas |
# | lower case, no punctuation | the same | `[preprocessing] lower_case = true`, `remove_punctuation = true` | mixing sources that disagree | the model unlearns punctuation |

# %%
forms = {
    "as it is": apply_casing(row["text"], False, False),
    "lower case": apply_casing(row["text"], True, False),
    "lower case, no punctuation": apply_casing(row["text"], True, True),
}
tokens = {form: len(tokenizer.tokenize(text)) for form, text in forms.items()}
pd.DataFrame({"text": forms, "tokens": tokens})

# %% [markdown]
# The number of tokens differs a little: capitals and commas are tokens, or parts of them.

# %% [markdown]
# ## What does a normaliser do to your language?
#
# Before errors are counted, a *normaliser* removes what you cannot hear: case, commas. The usual
# one treats every *combining mark* as punctuation, and in Hindi, Thai or Dhivehi those are the
# vowels: words fall apart, and a wrong vowel is no longer an error. `normalize` keeps them, and
# uses Whisper's own rules for English. For languages written without spaces, use the character
# error rate (CER).

# %%
from whisper_normalizer.basic import BasicTextNormalizer

spoken = {"hi": "मैं हिन्दी बोलता हूँ।", "si": "ދިވެހި ބަސް،", "th": "ที่นี่", "en": "Don't colour it!"}
spoken |= {row["language"]: row["text"]}
usual = BasicTextNormalizer()
pd.DataFrame(
    {
        "text": text,
        "usual": usual(text),
        "normalize": normalize(text, code),
        "read first": "WER" if leading_unit([code]) == "word" else "CER",
    }
    for code, text in spoken.items()
)

# %% [markdown]
# Compare the Hindi and the Thai row: *usual* has lost the vowel signs.

# %% [markdown]
# ## By hand
#
# Two clips of different length become one batch. First the labels of each:

# %%
labels = []
for one in pair:
    space = " " if has_word_spaces(one["language"]) else ""
    ids = [
        *prefix_ids(tokenizer, one["language"]),
        *tokenizer(space + one["text"], add_special_tokens=False).input_ids,
        tokenizer.eos_token_id,
    ]
    labels.append(ids[1:])  # without <|startoftranscript|>: the next section says why
    print(f"{len(ids)} ids, {len(ids) - 1} labels: {tokenizer.convert_ids_to_tokens(ids)[:6]} …")

# %% [markdown]
# `Ġ` is how the tokenizer shows a space. Labels of different length are padded with −100, which the
# loss leaves out. If we padded with a real token, the model would learn to produce it.

# %%
longest = max(map(len, labels))
by_hand = torch.tensor([ids + [IGNORED] * (longest - len(ids)) for ids in labels])
print(f"labels: {tuple(by_hand.shape)}\n{by_hand}")

# %% [markdown]
# Look at the −100 at the end of the shorter row. The model makes the decoder's input itself: it
# moves the labels one place to the right and puts `<|startoftranscript|>` in front. If the labels
# begin with it too, the model is trained to produce its own start token. Most published collators
# look for `bos_token`, which for Whisper is `<|endoftext|>`, never find it, and train the start
# twice.

# %%
from transformers.models.whisper.modeling_whisper import shift_tokens_right

start, pad = model.config.decoder_start_token_id, model.config.pad_token_id
doubled = torch.tensor([encode_text(tokenizer, row["text"], row["language"])])
for name, one in (("right", by_hand[:1]), ("doubled", doubled)):
    decoder_input = shift_tokens_right(one, pad, start)[0, :6]
    print(f"{name:8}", tokenizer.convert_ids_to_tokens(decoder_input))
print("bos_token is", tokenizer.bos_token)

# %% [markdown]
# The second line has the start token twice. The next picture shows what the decoder reads, and
# what it should return at each place:

# %%
short_names = {"startoftranscript": "start", "notimestamps": "no\ntimestamps"}
words = [tokenizer.decode([one]).strip("<|>").replace(" ", "␣") for one in (start, *by_hand[0, :4])]
words = [short_names.get(word, word) for word in words]
shift = [
    [("decoder reads", "none"), *[(word, "green") for word in words[:-1]]],
    [("label", "none"), *[(word, "blue") for word in words[1:]]],
]
draw_boxes(shift, "The label of each place is the token that the decoder reads at the next one")

# %% [markdown]
# Each label is the token that the decoder reads one place further on: it learns to say what comes
# next. "start" is read and never a label.

# %% [markdown]
# ## By helper
#
# `prepare_example` prepares one row, `SpeechCollator` makes a batch of rows. Training adds a
# silent tail of random length, so that the model learns that speech ends where it ends and not
# where the window does. A recipe's `[augmentation]` also plays each clip a little slower or
# faster, which moves the pitch as another speaker would; the labels stay.

# %%
# The recipe's limits come below, with their drop table; these two clips should pass.
limits = {"min_seconds": 0.0, "max_seconds": 30.0, "max_label_tokens": 448}
rules = dataclasses.replace(recipe.preprocessing, **limits)
examples = [prepare_example(one, tokenizer, rules) for one in pair]
varied = dataclasses.replace(recipe.augmentation, non_speech=0.0)  # it would take the text away
collator = SpeechCollator(processor, recipe.audio_context, augmentation=varied)
batch = collator(examples)
same_text = [one["text"] for one in examples] == [one["text"] for one in pair]
if same_text:  # else the recipe's casing changed the text, and with it the ids
    assert (batch["labels"] == by_hand).all(), "the collator and the labels by hand disagree"
print({name: tuple(values.shape) for name, values in batch.items()}, "equal:", same_text)

# %% [markdown]
# The same labels as by hand, unless the recipe changes the text. The width of `input_features`
# follows the longer clip, and not 30 seconds.

# %% [markdown]
# ## What if short clips shared one window?
#
# The other way to waste nothing: fill the stock 30 seconds with several clips of one recording or
# one speaker. We know where we cut, so the labels can carry timestamps, as they did when Whisper
# was trained; a model that is fine-tuned on single clips alone forgets them. A recipe asks for it
# with `[windows] seconds = 30`, `timestamps = 0.2` for a fifth of the windows, and `previous_text`
# for the text before the window as a prompt.

# %%
from utils.config import Windows
from utils.preprocessing.windows import join, timed_labels

window = next(join(examples, Windows(seconds=30.0)))
timed = timed_labels(window, tokenizer.convert_tokens_to_ids("<|notimestamps|>") + 1)
print(f"{len(window['cut_samples'])} clips, {window['seconds']:.1f} s, {len(timed)} label ids")
print(tokenizer.decode(timed, decode_with_timestamps=True))
draw_speech(waveform(window), log_mel(processor, [waveform(window)])[0].numpy(), "two clips joined")

# %% [markdown]
# Find the border of the two clips in the picture, and the two timestamps in the text that mark it.

# %% [markdown]
# ## Which clips must not be trained on?
#
# Here are clips with one thing wrong each. A clip that breaks a rule of `[preprocessing]` is
# dropped and counted under its reason; the rest of the stream goes on. Silence, an impossible
# number of characters a second, and what is also in the test split are dropped too.

# %%
from utils.preprocessing.quality import Unusable

broken = {
    "damaged file": {**row, "audio": row["audio"][:20]},
    "no text": {**row, "text": "  "},
    "empty cell": {**row, "text": "nan"},
    "wrong script": {**row, "text": "สถานีอยู่ที่ไหน"},
    "much text": {**row, "text": row["text"] * 200},
    "nothing wrong": row,
}
for name, one in broken.items():
    try:
        prepared = prepare_example(one, tokenizer, rules)
        print(f"{name:14} kept: {len(prepared['labels'])} labels")
    except Unusable as reason:
        print(f"{name:14} dropped: {reason}")

# %% [markdown]
# Only the last one is kept; the others are dropped with their reason, and the cell went on.

# %% [markdown]
# ## How much of a batch is padding?
#
# Batches are drawn by length, so that a short clip does not wait for a long one. The table
# compares 64 clips in batches of 8: as the stock recipe sees them, and as this series does.

# %%
first = stream(recipe.sources[0], recipe.sources[0].train).take(64)
lengths = np.sort([seconds_of(one) for one in first])
batches = np.array_split(lengths, max(len(lengths) // 8, 1))
always = dataclasses.replace(recipe.audio_context, enabled=False)
windows = {
    name: sum(len(batch) * context_seconds(batch[-1], 0.5, context) for batch in batches)
    for name, context in (("30 s windows", always), ("short context", recipe.audio_context))
}
pd.DataFrame(
    {
        "encoded seconds": windows,
        "speech": {name: lengths.sum() / windows[name] for name in windows},
    }
).style.format({"speech": "{:.0%}", "encoded seconds": "{:.0f}"})

# %% [markdown]
# The row "30 s windows" is what stock recipes compute: most of it is silence.

# %% [markdown]
# ## What if the disk cannot hold the speech?
#
# Then training reads it from the source, pass by pass: `[preprocessing] stored = false`. The same
# filters apply, and what is tested on is kept out clip by clip. A checkpoint holds the place in the
# sources, so that a run that breaks off goes on there. Beside a GPU, several processes read, each its
# own part of the sources. Below are three updates of one batch, each with about as much speech as
# four average clips:

# %%
from itertools import islice

from utils.preprocessing.stream import SpeechStream

for (clips,) in islice(SpeechStream(recipe, tokenizer, {}, clips=4, collate=list), 3):
    print(f"{len(clips)} clips, {sum(clip['seconds'] for clip in clips):.1f} s")

# %% [markdown]
# Long clips come in smaller batches, so that each update has a similar amount of speech.

# %% [markdown]
# ## When this is good, and when to expect trouble
#
# A short audio context is good when clips are much shorter than 30 seconds, as in most speech
# corpora. Expect trouble when you *evaluate* a model at a short context that was never trained at
# one: it repeats itself without end. Lesson 5 shows both windows.
#
# Joined clips are good when the model should keep its timestamps and transcribe long recordings;
# `docs/choosing.md` compares both ways with the stock window. It works badly if the joined clips
# come from different speakers: real recordings don't change speaker every few seconds.
#
# Storing the prepared clips is good as long as the disk is large enough: an hour takes 115 MB, a
# thousand take 115 GB. A stream that is not stored decodes every clip anew in every pass: a fast
# GPU waits for it unless many cores read.

# %% [markdown]
# ## Save
#
# Every split goes through the same filters and is stored as Arrow, a format that is read from
# disk without being loaded whole. The report counts each reason by source and split, with clips
# to listen to. If too much of a source is dropped, this cell stops and says why.

# %%
from utils.preprocessing.prepare import prepare

splits, quality = prepare(recipe, tokenizer, run.prepared)
figure = quality.draw()
figure.savefig(run.figures / "quality.png", dpi=120)
for reason, examples in quality.examples.items():
    for one in examples:
        place = f"{one['source']}, {one['split']}, {one['id']}"
        print(f"{reason} | {place}: {one['text']}", one["why"])
        display(Audio(one["audio"]) if one["audio"] else "no sound")
save_report(
    run,
    "preprocessing",
    {
        "clips": {name: len(rows) for name, rows in splits.items()},
        "minutes": {name: sum(rows["seconds"][:]) / 60 for name, rows in splits.items()},
        "quality": quality.to_json(),
        "commits": commits(recipe.sources),
    },
)
display(quality.table(), figure)

# %% [markdown]
# Read the table from top to bottom: how many clips came, how many were kept, and why the others
# were dropped. *unseen* are the test clips of sources that are not trained on.

# %% [markdown]
# ## Check

# %%
train_texts, test_texts = (set(splits[name]["text"][:]) for name in ("train", "test"))
longest = max(len(labels) for labels in splits["train"]["labels"][:])
assert difference < 1e-5, "the short log-mel is not the start of the long one"
assert longest <= limit, f"a label of {longest} tokens is left: look at max_label_tokens"
assert not (train_texts & test_texts and rules.drop_tested_sentences), (
    "a sentence of the test split is trained on: look at the splits"
)
assert (batch["labels"][:, 0] != start).all(), "the start token is in the labels: it trains twice"
print(f"{len(splits['train'])} clips are ready for training, the longest has {longest} labels")

# %% [markdown]
# ## What you saw
#
# Sound becomes a log-mel spectrogram, text becomes ids with a prefix that says language and task.
# Labels are padded with −100 and do not contain the start token. Nothing is dropped without a
# reason that is counted.

# %% [markdown]
# ## Try it
#
# Predict first, then run, then open the answer.
#
# 1. The shape of `input_features` for two clips at a context of 4 seconds?
# 2. How many tokens may a text have if its prefix has four and the end one?
# 3. Find a sentence in your language and look at its tokens: how many does a word take?
# 4. Set `lower_case = true` in a copy of the recipe under a new name; run lessons 1 to 3 with it,
#    and look at the column "tokens" again.
#
# <details><summary>Answers</summary>
#
# 1. `(2, 80, 400)`: 100 columns a second; 128 bands in place of 80 for large-v3 and turbo.
# 2. 448 − 4 − 1 = 443; the recipe's `max_label_tokens` counts prefix and end, too.
# 3. Between one and two in languages that Whisper saw much of, three and more in others.
# 4. Often a few more or fewer: capitals and small letters are different tokens.
#
# </details>
#
# ### Three questions
#
# <details><summary>Why are labels padded with −100 and not with a token?</summary>
#
# The loss leaves −100 out. A token would be trained: the model would learn to produce padding.
#
# </details>
#
# <details><summary>Who puts the start token in front of the labels?</summary>
#
# The model itself, when it moves the labels one place to the right. If the labels begin with it
# too, it is trained twice.
#
# </details>
#
# <details><summary>A clip lasts 31 seconds. What would happen without the filter?</summary>
#
# The last second is cut off without a word, and the label contains words that the encoder never
# got.
#
# </details>

# %% [markdown]
# ## Next
#
# [Lesson 4](04_training.ipynb) trains on what you have just stored.
