# %% [markdown]
# # 4 · Training: fine-tune the model
#
# Here the model learns your speech: you measure it, train it, and keep the last weights, unless
# earlier ones are significantly better.
#
# - You will measure a baseline first, so that you know what training changed.
# - You will compute the loss of one step by hand, and see the arguments and the trainer written
#   out.
# - You will watch loss and word error rate during training, and load the saved model again.
#
# | Needs | Makes | Time |
# | --- | --- | --- |
# | lesson 3 | `model/`, `checkpoints/`, `metrics.jsonl`, `training.json` | 4 minutes on 2 cores, 7 without bf16, 12 without AVX-512 |

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
# A *baseline* is the number that training has to beat. *WER*, the word error rate, is the number
# of words that are wrong, missing or too many, divided by the number of words that were said. For
# languages written without spaces use the *CER*, which counts characters. Lesson 5 takes both
# apart.
#
# You measure on the *dev* split, which is there for this purpose, and at the stock window of 30
# seconds: the base model was trained at no other. From a large dev split, half an hour is
# transcribed (`dev_minutes`), the same clips each time. What the unmodified model transcribes is
# kept in the cache, so that the next recipe on the same clips does not wait for it again.

# %%
from utils.scoring.error_rates import error_rate

model, processor = load_model(recipe)
model.to(device())
dev = dev_slice(splits["dev"], recipe.evaluation.dev_minutes)
errors_before = count_dev_errors(model, processor, dev, recipe, context=None, unmodified=True)
before = [{"step": 0, **{f"eval_{name}": error_rate(e) for name, e in errors_before.items()}}]
metric = dev_metric(recipe)  # "wer", or "cer" where words have no spaces between them
baseline = error_rate(errors_before[metric])
print(
    f"dev {metric.upper()} before training: {baseline:.1%}, {len(dev)} of {len(splits['dev'])} clips"
)

# %% [markdown]
# Keep this number in mind: the curve below starts from it. Compare it only with other rates on the
# same clips; the test split of lesson 5 has other sentences and another rate.

# %% [markdown]
# ## What is trained?
#
# Everything: the *encoder*, which turns the log-mel spectrogram into vectors that describe the
# sound, and the *decoder*, which produces text from them. The weights are 32-bit even if the file
# stores 16: an update of a hundred-thousandth would be rounded away in a 16-bit weight. Only the
# encoder's position table stays fixed. With the recipe's `[method]` you can train less: the
# decoder alone, or thin matrices beside each weight, which are added to it at the end (*LoRA*).

# %%
parts = {"encoder": model.get_encoder(), "decoder": model.get_decoder()}
layers = {name: len(part.layers) for name, part in parts.items()}
million = {name: sum(w.numel() for w in part.parameters()) / 1e6 for name, part in parts.items()}
pd.DataFrame({"layers": layers, "weights, million": million, "type": str(model.dtype)}).round(1)

# %% [markdown]
# In the base model the decoder is the larger half, because it holds the table of all tokens.

# %% [markdown]
# ## With which arguments?
#
# | Word | Meaning | Key |
# | --- | --- | --- |
# | *batch* | the clips that the model processes together | `per_device_train_batch_size` |
# | *gradient* | for each weight, how the loss changes with it | |
# | *step* | one change of all weights, against their gradients | `max_steps` |
# | *accumulation* | adding up the gradients of several batches for one step | `gradient_accumulation_steps` |
# | *learning rate* | the size of a step | `learning_rate` |
# | *warm-up* | the first steps, in which the learning rate rises from 0 | `warmup_steps` |
# | *optimizer* | turns gradients into steps; AdamW smooths them with two running averages | `optim` |
# | *epoch*, or pass | every clip was used once | `num_train_epochs` |
#
# The recipe's `[training]` table goes to the trainer unchanged. The code adds precision and paths.
# It also picks the checkpoint: the last one, unless an earlier one is significantly better on dev.
# Picking the lowest dev WER would mostly reward luck, because dev has too few words to separate
# neighbouring checkpoints. With `[method] patience`, which is *early stopping*, the best
# checkpoint is kept.

# %%
arguments = training_arguments(recipe, run)
shown = [*recipe.training, "metric_for_best_model", "load_best_model_at_end", "bf16", "fp16"]
values = {name: getattr(arguments, name) for name in shown}
pd.Series({name: str(getattr(one, "value", one)) for name, one in values.items()}).to_frame("value")

# %% [markdown]
# The first rows are the recipe's, word for word; the last ones were added for this machine.

# %% [markdown]
# ## By hand
#
# One training step starts with a question: how surprised is the model by the right text? At each
# position it returns a score for every token of the vocabulary. *Cross-entropy* is minus the
# logarithm of the probability of the right token, averaged over all positions that are not −100.
# The average is over the whole update, even if it comes in several batches.

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

# %% [markdown]
# One number for two clips: this is what training makes smaller. A perfect model would have a loss
# of 0.

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
# The same number from the trainer, which is written out here with all its parts: model, arguments,
# data, collator.

# %% [markdown]
# ## By helper
#
# `build_trainer` does the same from the recipe. `WhisperTrainer` is `Seq2SeqTrainer` with four
# additions: the short audio context, updates with equal amounts of speech, dev error rates of real
# transcripts, and checkpoints that count only once they are complete.

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
# Both ways give the same loss, up to rounding.

# %% [markdown]
# ## What happens while it trains?
#
# The loss falls at once and then slowly. It drops again where a new pass begins, after step 75 of
# the default: the model has seen these clips before. The dev WER starts at the baseline and is then
# that of the recipe's window; on so few words it may also rise by chance. The figure and the table
# grow with every log; the table shows the newest twelve, and *audio, h/h* is hours of speech
# processed in an hour.
#
# If the run is interrupted, run the lesson again: it continues from the last complete checkpoint
# and, on a CPU, ends with the same weights to the last bit. On a GPU the code first finds the
# largest batch that fits, and uses gradient accumulation to reach the recipe's batch size; each
# update still uses the same clips.

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
# Look at the two curves together: while both fall, the model learns the language. If the loss
# falls and the dev WER rises, it learns your sentences by heart. The last lines say which step was
# kept, and why.

# %% [markdown]
# ## Is the saved model the trained one?
#
# Load the folder as anyone would who downloads it, and transcribe the same clips with both. The
# saved folder is an ordinary Whisper: nobody needs this series to use it.

# %%
from utils.preprocessing.examples import waveform
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
    texts[name] = transcribe(*pair, clips, context=recipe.decoding_context, **asked)
pd.DataFrame(texts)

# %% [markdown]
# The columns *trained* and *reloaded* must be equal. Compare them with *reference*: which mistakes
# are left?

# %% [markdown]
# ## What did training change?
#
# The saved model and the base model on the same dev clips, both at 30 seconds; then the saved
# model once more at the short window, in which it was trained. (A share of the batches, the
# recipe's `stock_share`, had 30 seconds, for programs that decode there.) A disappointing result
# is a result: the line says what to try, and the next lessons still run.

# %%
saved = contestants["reloaded"]
errors_after = count_dev_errors(*saved, dev, recipe, context=None)
print(verdict(errors_before[metric], errors_after[metric], metric))
at_recipe = count_dev_errors(*saved, dev, recipe, recipe.decoding_context)
saved_rate = error_rate(at_recipe[metric])
print(f"at the recipe's window: dev {metric.upper()} {saved_rate:.1%}")

# %% [markdown]
# The first line compares two models at one window, the second gives one model at the other window.
# A small difference between the windows on so few clips can be luck.

# %% [markdown]
# ## When this is good, and when to expect trouble
#
# Training all weights is good if they fit into memory. Training the decoder alone takes about half
# of the time, and LoRA keeps 17 MB in place of 296, but needs a learning rate of its own:
# `docs/choosing.md` compares them, under "Which weights". A model too large for one card can be
# divided among several: `docs/headless.md`.
#
# Expect trouble with a learning rate made for pretraining: use about 1e-5 for small and 2.5e-5 for
# base; the default recipe, which is short, takes 4e-5. If the loss falls and the dev WER rises,
# train for fewer steps or add speech. If a loss is not a number, the run stops and names the step.

# %% [markdown]
# ## Save

# %%
logs = read_metrics(run.metrics)
draw_curves(before + logs, trainer.state.max_steps).savefig(run.figures / "training.png", dpi=120)
report = training_report(trainer, run, seconds)
report |= {f"dev_{metric}_before": baseline, f"dev_{metric}_saved": saved_rate}
report[f"dev_{metric}_saved_30s"] = error_rate(errors_after[metric])
save_report(run, "training", report)
shown = {
    "steps": report["steps"],
    "the step that was kept": report["best_step"],
    "training loss": f"{report['loss_first'] or 0:.2f} → {report['loss_last'] or 0:.2f}",
    f"dev {metric.upper()} at 30 s": f"{baseline:.1%} → {error_rate(errors_after[metric]):.1%}",
    f"dev {metric.upper()} at the recipe's window": f"{saved_rate:.1%}",
    "minutes": f"{report['seconds'] / 60:.1f}",
}
pd.Series(shown).to_frame("value")

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
# You measured a baseline, computed one step's loss by hand, watched the curves, and loaded a saved
# model that returns the same transcripts as the trained one. The checkpoint was chosen on dev, so
# the test split is still untouched.

# %% [markdown]
# ## Try it
#
# Predict first, then run, then open the answer.
#
# 1. What is the loss if the model gives all 51,865 tokens the same probability?
# 2. What is the learning rate at step 15 of the default recipe, and at step 150?
# 3. AdamW keeps two running averages for each weight. How large is a checkpoint of 74 million
#    weights, if all three are 32-bit numbers?
# 4. Train a copy of the recipe under a new name, interrupt the training cell between two
#    checkpoints and run it again. At which step does it continue?
# 5. In a copy of the recipe under a new name, add `[method]` with `weights = "lora"` and multiply
#    `learning_rate` by ten; `make run RECIPE=…` runs it from the first lesson. How large is
#    `adapter/`, compared with `model/`?
#
# <details><summary>Answers</summary>
#
# 1. ln 51,865 = 10.9. Every loss that you saw is far below: the base model knows a lot already.
# 2. 4e-5 at step 15, where warm-up ends; from there it falls on a straight line to 0 at step 150.
# 3. 74 million × 3 × 4 bytes = 0.89 GB. Look at `checkpoints/`.
# 4. At the last complete checkpoint: step 75 of the default recipe, or 0 before that.
# 5. A small part of it: about 17 MB beside 296 MB.
#
# </details>
#
# ### Three questions
#
# <details><summary>The training loss falls and the dev WER rises. What is going on, and what helps?</summary>
#
# The model learns your sentences by heart: *overfitting*. Fewer steps or more speech help.
#
# </details>
#
# <details><summary>Why is the checkpoint with the lowest dev WER not always kept?</summary>
#
# Dev is small, and among several checkpoints the lowest is often the luckiest.
#
# </details>
#
# <details><summary>Why may the test split not choose the checkpoint?</summary>
#
# It would then have been looked at to choose, and its rate would be too good: that of lesson 5
# could not be believed.
#
# </details>

# %% [markdown]
# ## Next
#
# [Lesson 5](05_evaluation.ipynb) opens the test split.
