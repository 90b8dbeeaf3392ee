# %% [markdown]
# # 4 · Fine-tune
#
# You measure the model as it is, train it on your speech, and keep the weights of the last step,
# unless the dev split shows those of an earlier checkpoint to be better.
#
# - You will measure a baseline first, so that you know what training changed.
# - You will write out the arguments and the trainer, and compute one step's loss by hand.
# - You will watch loss and word error rate while it trains, and load the saved model again.
#
# | Needs | Makes | Time |
# | --- | --- | --- |
# | lesson 3 | `model/`, `checkpoints/`, `metrics.jsonl`, `training.json` | 6 minutes on 2 cores |

# %% tags=["parameters"]
RECIPE: str = "recipes/embedded.toml"  # which experiment to run
RUNS: str = "runs"  # where results are kept; in Colab a Drive folder survives the runtime

# %%
import time

import pandas as pd
import torch
from datasets import load_from_disk
from IPython.display import display
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.artifacts import open_run, require, save_report
from utils.config import load_recipe
from utils.environment.colab import mount_drive
from utils.environment.machine import device, precision
from utils.evaluation.plotting import draw_curves
from utils.training.arguments import training_arguments
from utils.training.dev import count_dev_errors, dev_metric, dev_slice, verdict
from utils.training.progress import progress_line, progress_table, read_metrics, training_report
from utils.training.run import build_trainer, train
from utils.whisper.load import load_model

# %%
mount_drive(RECIPE, RUNS)
recipe = load_recipe(RECIPE)
run = open_run(recipe, RUNS)
require(run, "preprocessing")
splits = load_from_disk(str(run.prepared))
print("{} clips; training in {}, because {}".format(splits.num_rows, *precision()))

# %% [markdown]
# ## How good is the model before you train it?
#
# A *baseline* is the number that training has to beat. *WER*, the word error rate, is the share
# of words that are wrong, missing or too many; in a language without spaces between words the
# *CER*, of characters, is what counts. Lesson 5 takes both apart. They are measured on the
# *dev* split, which is there for such looks, and at the stock 30-second window: an untrained
# model knows no other. Of a large dev split half an hour is transcribed (`dev_minutes`), the same
# clips each time.

# %%
from utils.scoring.error_rates import error_rate

model, processor = load_model(recipe)
model.to(device())
dev = dev_slice(splits["dev"], recipe.evaluation.dev_minutes)
errors_before = count_dev_errors(model, processor, dev, recipe, context=None)
before = [{"step": 0, **{f"eval_{name}": error_rate(e) for name, e in errors_before.items()}}]
metric = dev_metric(recipe)  # "wer", or "cer" where words have no spaces between them
baseline = error_rate(errors_before[metric])
print(
    f"dev {metric.upper()} before training: {baseline:.1%}, {len(dev)} of {len(splits['dev'])} clips"
)

# %% [markdown]
# ## What is trained?
#
# Everything: the *encoder*, which turns the log-mel picture into a description of the sound, and
# the *decoder*, which writes text from it. The weights are 32-bit whatever the file holds,
# because an update of a hundred-thousandth vanishes in a 16-bit weight. The encoder's position
# table is fixed. The recipe's `[method]` can ask for less: the decoder alone, or thin matrices
# beside each weight, which are added to it at the end (*LoRA*).

# %%
parts = {"encoder": model.get_encoder(), "decoder": model.get_decoder()}
layers = {name: len(part.layers) for name, part in parts.items()}
million = {name: sum(w.numel() for w in part.parameters()) / 1e6 for name, part in parts.items()}
pd.DataFrame({"layers": layers, "weights, million": million, "type": str(model.dtype)}).round(1)

# %% [markdown]
# ## With which arguments?
#
# | Word | Meaning | Key |
# | --- | --- | --- |
# | *batch* | the clips that the model is shown at once | `per_device_train_batch_size` |
# | *gradient* | of each weight, how the loss would change with it | |
# | *step* | one change of all weights, against their gradients | `max_steps` |
# | *accumulation* | gradients of several batches added up to one step | `gradient_accumulation_steps` |
# | *learning rate* | how far a step goes | `learning_rate` |
# | *warm-up* | the first steps, in which the rate rises from 0 | `warmup_steps` |
# | *optimizer* | makes steps of gradients; AdamW evens them out by two running averages | `optim` |
# | *pass*, or epoch | every clip was shown once | `num_train_epochs` |
#
# The recipe's `[training]` table, unchanged. What depends on the machine or the folder is added
# here: precision, where checkpoints go, and that dev decides which weights are kept: the last,
# unless the best checkpoint made fewer errors than chance explains. The lowest of several dev WERs
# is mostly the luckiest: few words cannot tell neighbours apart. With `[method] patience`, which is
# *early stopping*, the best checkpoint is kept.

# %%
arguments = training_arguments(recipe, run)
shown = [*recipe.training, "metric_for_best_model", "load_best_model_at_end", "bf16", "fp16"]
pd.Series({name: str(getattr(arguments, name)) for name in shown}, name="value").to_frame()

# %% [markdown]
# ## By hand
#
# One training step is: show the model a batch, and ask how surprised it is by the right text. At
# each position it gives every token of the vocabulary a score; *cross-entropy* is minus the
# logarithm of the probability that the right token got, averaged over the positions that are not
# −100: those of the whole update, however many batches it comes in. The trainer, too, is written
# out: model, arguments, data, collator.

# %%
from utils.preprocessing.collator import SpeechCollator
from utils.whisper.audio_context import audio_context

rows = splits["train"].with_format("numpy", columns=["audio"], output_all_columns=True)
collator = SpeechCollator(
    processor, recipe.audio_context, arguments.seed, recipe.augmentation, recipe.windows
)
batch = {name: values.to(model.device) for name, values in collator([rows[0], rows[1]]).items()}
features, labels = batch["input_features"], batch["labels"]
with torch.no_grad(), audio_context(model, features.shape[-1]):
    logits = model(**batch).logits
print(f"input_features {tuple(features.shape)} -> logits {tuple(logits.shape)}")
kept, scores = labels != -100, logits.log_softmax(-1)
chosen = scores[kept].gather(1, labels[kept][:, None])
spread = arguments.label_smoothing_factor  # what the recipe gives to all other tokens; mostly 0
by_hand = -((1 - spread) * chosen.mean() + spread * scores[kept].mean()).item()
print(f"{kept.sum()} positions count, {(~kept).sum()} are padding; loss {by_hand:.5f}")

# %%
from utils.training.trainer import WhisperTrainer

written_out = WhisperTrainer(
    recipe=recipe,
    model=model,
    args=arguments,
    train_dataset=rows,
    eval_dataset=dev,
    data_collator=collator,
    processing_class=processor,
)
with torch.no_grad():
    print(f"trainer's loss {written_out.compute_loss(model, dict(batch)).item():.5f}")

# %% [markdown]
# ## By helper
#
# `build_trainer` does the same from the recipe. `WhisperTrainer` is `Seq2SeqTrainer` with four
# additions: the short audio context, updates of equal speech, dev error rates of what the model
# transcribes, and checkpoints that count only when they are whole.

# %%
trainer = build_trainer(recipe, run)
trainer.model.eval()
with torch.no_grad():
    helped = trainer.compute_loss(trainer.model, dict(batch)).item()
# Fewer bits round differently; in float32 the two losses agree to the last digits.
rounded = arguments.bf16 or arguments.fp16 or recipe.method.base_8bit
assert abs(helped - by_hand) < (2e-2 if rounded else 1e-4), helped
print(f"loss by hand {by_hand:.5f}, by helper {helped:.5f}")
del trainer, written_out, model, parts, batch, features, labels, logits, kept, scores, chosen

# %% [markdown]
# ## What happens while it trains?
#
# The loss falls at once and then slowly; the dev WER, which begins with the baseline, follows with
# jumps, since a single word may tip. Figure and table grow at every log; *audio, h/h* is hours heard
# in an hour. If the run is interrupted or killed, run the lesson again: it goes on from the last
# whole checkpoint and, on a CPU, ends with the same weights to the last bit. On a GPU the largest
# batch that fits is tried out first; what it lacks of the recipe's is accumulated, and each update
# is one of the same clips.

# %%
figure = display(draw_curves(before, 1), display_id=True)
table = display(progress_table(before), display_id=True)

# %%
started = time.perf_counter()


def watch(rows, max_steps):
    figure.update(draw_curves(before + rows, max_steps))
    table.update(progress_table(before + rows))
    print(progress_line(rows, max_steps))


trainer = train(recipe, run, watch)
seconds = time.perf_counter() - started
used, last = trainer.args, trainer.state.global_step
print(f"{trainer.selection.verdict()}; step {trainer.kept_step()} of {last}")
print(f"{used.per_device_train_batch_size} clips x {used.gradient_accumulation_steps} an update")

# %% [markdown]
# ## Is the saved model the trained one?
#
# Load it as anyone would who gets the folder, and let both transcribe the same clips. The saved
# folder is an ordinary Whisper: nothing of this series is needed to use it.

# %%
from utils.preprocessing.prepare import waveform
from utils.whisper.decoding import transcribe

reloaded = WhisperForConditionalGeneration.from_pretrained(run.model, dtype=torch.float32)
contestants = {
    "trained": (trainer.model, processor),
    "reloaded": (reloaded.to(device()), WhisperProcessor.from_pretrained(run.model)),
}
some = splits["dev"].select(range(min(8, len(splits["dev"]))))
clips, asked = [waveform(row) for row in some], {"language": some["language"][:]}
texts = {"reference": some["text"][:]}
for name, pair in contestants.items():
    texts[name] = transcribe(*pair, clips, context=recipe.audio_context, **asked)
pd.DataFrame(texts)

# %% [markdown]
# ## What did training change?
#
# The saved model and the one that you began with, on the same dev clips and at the same window of
# 30 seconds; and once more at the short one that it was trained for. A result that disappoints is
# a result: the line says what to try, and the next lessons run all the same.

# %%
saved = contestants["reloaded"]
errors_after = count_dev_errors(*saved, dev, recipe, context=None)
print(verdict(errors_before[metric], errors_after[metric], metric))
at_recipe = count_dev_errors(*saved, dev, recipe, recipe.audio_context)
saved_rate = error_rate(at_recipe[metric])
print(f"at the recipe's window: dev {metric.upper()} {saved_rate:.1%}")

# %% [markdown]
# ## When this is good, and when to expect trouble
#
# Training every weight is good when it fits the memory: it reaches the lowest error. The default,
# 80 steps each way (`python -m benchmarks.variants`, 2 CPU cores):
#
# | `[method] weights` | Test WER | Time of a step | Memory | Kept beside the base model |
# | --- | ---: | ---: | ---: | ---: |
# | `full` | 6.6 % | 1 | 3.3 GiB | 296 MB |
# | `frozen_encoder` | 8.8 % | 0.54 | 2.3 GiB | 296 MB |
# | `lora` | 9.2 % | 0.91 | 3.4 GiB | 17 MB |
# | `dora` | 9.0 % | 1.36 | 4.5 GiB | 18 MB |
#
# That is one run each, with one learning rate for LoRA and DoRA (ten times that of `full`): it says
# what they cost, and not how good they can be. A checkpoint too large for one card can be divided
# among several: `docs/headless.md`. Expect trouble with a learning rate made for pretraining:
# fine-tuning wants 1e-5 for small and larger, 2.5e-5 for base (the default, with 80 steps only,
# takes 4e-5, which was chosen on dev). If the loss falls and the dev WER rises,
# the model learns your few sentences by heart: train for fewer steps, or add speech. A loss that is
# no number stops the run and names the step.

# %% [markdown]
# ## Save

# %%
logs = read_metrics(run.metrics)
draw_curves(before + logs, trainer.state.max_steps).savefig(run.figures / "training.png", dpi=120)
report = training_report(trainer, run, seconds)
report |= {f"dev_{metric}_before": baseline, f"dev_{metric}_saved": saved_rate}
report[f"dev_{metric}_saved_30s"] = error_rate(errors_after[metric])
save_report(run, "training", report)
pd.Series(report).to_frame("value")

# %% [markdown]
# ## Check

# %%
losses = [row["loss"] for row in logs if "loss" in row]
assert torch.tensor(losses).isfinite().all(), "a loss is no number: lower learning_rate"
assert texts["reloaded"] == texts["trained"], "the saved model differs: run the training cell again"
assert (run.model / "model.safetensors").exists(), "no weights were saved: is the disk full?"
assert not list(run.model.glob("*.bin")), "a pickle lies in model/: it must not be shared"
print(f"{len(losses)} losses logged, all finite; {run.model} is whole")

# %% [markdown]
# ## What you saw
#
# A baseline, one step's loss by hand, a curve that grew, and a saved model that transcribes as the
# trained one does. The checkpoint was chosen on dev, so the test split is still untouched.

# %% [markdown]
# ## Try it
#
# Each in a copy of the recipe under a new name, which `make run RECIPE=…` runs from the first lesson:
#
# - Double `learning_rate`: does the dev WER fall faster, or jump?
# - Add `[method]` with `weights = "lora"`, and ten times the `learning_rate`: how large is
#   `adapter/`, and how much worse or better the dev WER?
# - Set `[audio_context] enabled = false` and compare the time of a step.
# - Interrupt the training cell, run it again, and read at which step it goes on.

# %% [markdown]
# ## Next
#
# [Lesson 5](05_evaluation.ipynb) opens the test split.
