"""The answers that the lessons give to their exercises, computed; and three questions a lesson."""

import re
from pathlib import Path
from types import SimpleNamespace

import ctranslate2
import numpy as np
import pytest
import torch
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    get_scheduler,
)

from utils.config import Source, load_recipe
from utils.demo.serve import HOST
from utils.scoring.error_rates import count_errors, error_rate
from utils.scoring.intervals import confidence_interval
from utils.streaming.mixing import mixing_shares
from utils.streaming.sources import SAMPLING_RATE
from utils.whisper.audio_context import STOCK_SECONDS
from utils.whisper.features import log_mel
from utils.whisper.labels import prefix_ids

LESSONS = sorted(Path(__file__).parents[1].glob("notebooks/source/[0-9]*.py"))
DEFAULT = "recipes/embedded.toml"
WEIGHTS = 74e6  # of the base model, as the exercises say


def prose(lesson):
    """A lesson's text, its comment signs and line breaks taken away."""
    lines = LESSONS[lesson - 1].read_text(encoding="utf-8").splitlines()
    return " ".join(" ".join(line.removeprefix("#") for line in lines).split())


def answer(lesson, number):
    (given,) = re.findall(r"<summary>Answers</summary> (.*?) </details>", prose(lesson))
    (found,) = re.findall(rf"(?:^|\s){number}\. (.*?)(?=\s{number + 1}\. |$)", given)
    return found


def percent(share):
    return f"{100 * share:.0f} %"


def bytes_of_a_minute():
    return [f"{np.zeros(60 * SAMPLING_RATE, np.float32).nbytes:,} bytes"]


def scores_for_three_tokens():
    heads = dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 1)
    sizes = dict(encoder_layers=1, decoder_layers=1, d_model=16, vocab_size=51865)
    model = WhisperForConditionalGeneration(WhisperConfig(**sizes, **heads)).eval()
    tokens = torch.zeros(1, 3, dtype=torch.long)
    scores = model(input_features=torch.zeros(1, 80, 3000), decoder_input_ids=tokens).logits
    return [str(tuple(scores.shape))]


def share_of_welsh():
    sources = [Source("x", code, hours=hours) for code, hours in (("es", 100), ("cy", 1))]
    _, welsh = mixing_shares(sources, 3)
    _, by_hours = mixing_shares(sources, 1)
    return [f"{welsh:.2f}", percent(welsh), percent(by_hours)]


def rows_of_twelve():
    return [{11: "about eleven"}[round(12 * 10 / (10 + 1))]]


def played_at_half_the_rate():
    tone = np.sin(2 * np.pi * 440 * np.arange(SAMPLING_RATE) / SAMPLING_RATE)
    peak = np.abs(np.fft.rfft(tone)).argmax()
    lower = 440 / np.fft.rfftfreq(len(tone), 2 / SAMPLING_RATE)[peak]
    longer = len(tone) / (SAMPLING_RATE / 2)
    return [{2: "by an octave"}[lower], {2: "twice as long"}[longer]]


def features_of_two_clips():
    processor = SimpleNamespace(feature_extractor=WhisperFeatureExtractor())
    return [str(tuple(log_mel(processor, [np.zeros(9, np.float32)] * 2, 4.0).shape))]


def tokens_of_the_longest_text(base):
    around = [*prefix_ids(base[1].tokenizer, "cs"), base[1].tokenizer.eos_token_id]
    return [f"= {base[0].config.max_target_positions - len(around)};"]


def loss_of_a_guess():
    scores, right = torch.zeros(1, 51865), torch.tensor([7])
    return [f"= {torch.nn.functional.cross_entropy(scores, right).item():.1f}."]


def learning_rates():
    told = load_recipe(DEFAULT).training
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], told["learning_rate"])
    steps = told["warmup_steps"], told["max_steps"]
    factor = get_scheduler(told["lr_scheduler_type"], optimizer, *steps).lr_lambdas[0]
    first, last = (told["learning_rate"] * factor(step) for step in steps)
    first = f"{first:.0e}".replace("e-0", "e-")
    return [f"{first} at step {steps[0]}, where warm-up ends", f"{last:g} at step {steps[1]}."]


def size_of_a_checkpoint():
    return [f"{WEIGHTS * 3 * torch.float32.itemsize / 1e9:.2f} GB"]


def first_checkpoint():
    return [f"step {load_recipe(DEFAULT).training['save_steps']} of the default recipe"]


def wer(said, hypothesis):
    return percent(error_rate(count_errors([said], [hypothesis], "word")))


def rule_of_three():
    _, high = confidence_interval(np.array([[0, 1]] * 50), 100)
    return [f"About {100 * high:.0f}:"]


def corrections_as_a_source(tmp_path):
    lines = re.findall(r"`(\w+ = \"\w+\")`", answer(6, 5))
    recipe = Path(DEFAULT).read_text(encoding="utf-8").split("[[sources]]")[0]
    path = tmp_path / "corrections.toml"
    training = "[training]\nmax_steps = 1\n"
    tables = ["[[sources]]", *lines, 'name = "cs"', training]
    path.write_text(recipe + "\n".join(tables), encoding="utf-8")
    (source,) = load_recipe(path).sources
    return [f'dataset = "{source.dataset}"', f'language = "{source.language}"']


def sizes_in_megabytes():
    return ["{:.0f}, {:.0f} and {:.0f} MB".format(*(WEIGHTS * n / 1e6 for n in (4, 2, 1)))]


def types_of_a_cpu():
    assert "float16" not in ctranslate2.get_supported_compute_types("cpu")
    return ["computes in float32"]


CHECKED = {
    (1, 1): bytes_of_a_minute,
    (1, 2): scores_for_three_tokens,
    (2, 1): share_of_welsh,
    (2, 2): rows_of_twelve,
    (2, 3): played_at_half_the_rate,
    (3, 1): features_of_two_clips,
    (3, 2): tokens_of_the_longest_text,
    (4, 1): loss_of_a_guess,
    (4, 2): learning_rates,
    (4, 3): size_of_a_checkpoint,
    (4, 4): first_checkpoint,
    (5, 1): lambda: [wer("the cat sat down", "a cat sat down here")],
    (5, 2): lambda: [wer("no", "no no no")],
    (5, 3): rule_of_three,
    (6, 1): lambda: [f"= {3600 / STOCK_SECONDS:.0f}."],
    (6, 2): lambda: [HOST],
    (6, 5): corrections_as_a_source,
    (7, 1): sizes_in_megabytes,
    (7, 2): types_of_a_cpu,
}


@pytest.mark.parametrize(("lesson", "number"), CHECKED)
def test_an_answer_is_what_comes_out(lesson, number, request):
    compute = CHECKED[lesson, number]
    names = compute.__code__.co_varnames[: compute.__code__.co_argcount]
    for computed in compute(*map(request.getfixturevalue, names)):
        assert computed in answer(lesson, number)


@pytest.mark.parametrize("lesson", range(1, len(LESSONS) + 1))
def test_a_lesson_has_checked_answers_and_three_questions(lesson):
    assert sum(checked == lesson for checked, _ in CHECKED) >= 2
    _, quiz = prose(lesson).split("### Three questions ")
    answers = re.findall(r"<details><summary>[^<]+\?</summary> (.+?) </details>", quiz)
    assert len(answers) == 3
