import numpy as np
import pytest
import torch

from tests.conftest import write_recipe
from utils.artifacts import open_run, save_report
from utils.config import AudioContext, Augmentation, RecipeError, Windows, load_recipe
from utils.evaluation.report import find_overlaps
from utils.preprocessing.collator import SpeechCollator
from utils.preprocessing.examples import prepare_example, waveform
from utils.preprocessing.prepare import prepare
from utils.preprocessing.windows import POSITIONS, PROMPT_TOKENS, as_one, cut, join, timed_labels
from utils.training.run import build_trainer

FULL = Windows(seconds=30.0, timestamps=1.0, previous_text=1.0)


@pytest.fixture(scope="module")
def tokenizer(base):
    return base[1].tokenizer


@pytest.fixture
def clips(tokenizer, row, wav):
    """Twelve clips of two sources, of 3 and 4 s in turn."""
    rules = load_recipe("recipes/smoke.toml").preprocessing
    return [
        prepare_example(
            row(
                text=f"Frase numero {number}.",
                id=str(number),
                source=f"it {number % 2}",
                speaker="ada",
                audio=wav(3 + number % 2),
                recording=f"{number % 2}.mp3",
                start=(3.0 + number % 2) * (number // 2),
            ),
            tokenizer,
            rules,
        )
        for number in range(24)
    ]


def test_every_clip_is_in_one_window_of_its_own_source_and_none_is_too_long(clips):
    windows = list(join(clips, FULL))
    texts = [text for window in windows for text, _ in cut(window)]
    assert sorted(texts) == sorted(clip["text"] for clip in clips)
    assert all(window["seconds"] <= 30 for window in windows)
    assert {clip["source"] for clip in clips} == {window["source"] for window in windows}
    for window in windows:
        for text, samples in cut(window):
            (clip,) = (one for one in clips if one["text"] == text)
            assert clip["source"] == window["source"]
            assert np.array_equal(clip["audio"], samples)
    # 12 clips of 3 s fill a window and a bit; 12 of 4 s do not fill two.
    assert sorted(len(cut(window)) for window in windows) == [2, 5, 7, 10]


@pytest.mark.parametrize(
    ("names", "company"),
    [
        ({"speaker": ["ada", "bob"]}, "speaker"),
        ({"recording": ["one", "two"], "speaker": ["ada", "ada"]}, "recording"),
        ({"speaker": ["", ""]}, None),
    ],
)
def test_windows_join_one_recording_or_speaker_and_never_strangers(clips, caplog, names, company):
    rows = [
        {**clip, "source": "it", "speaker": "", "recording": ""}
        | {key: both[number % 2] for key, both in names.items()}
        for number, clip in enumerate(clips)
    ]
    windows = list(join(rows, FULL))
    by_text = {row["text"]: row for row in rows}
    for window in windows:
        together = [by_text[text] for text, _ in cut(window)]
        assert len({row[company] for row in together}) == 1 if company else len(together) == 1
    assert len(windows) < len(rows) / 3 if company else len(windows) == len(rows)
    assert ("neither recording nor speaker" in caplog.text) == (company is None)
    assert len(caplog.records) == (company is None), "each source is told once"


def test_windows_of_many_speakers_do_not_wait_in_memory(clips, monkeypatch):
    monkeypatch.setattr("utils.preprocessing.windows.MOST_OPEN", 3)
    rows = [{**clip, "recording": str(number)} for number, clip in enumerate(clips)]
    taken, windows = 0, 0

    def counted():
        nonlocal taken
        for row in rows:
            taken += 1
            yield row

    for _ in join(counted(), FULL):
        windows += 1
        assert taken - windows <= 3
    assert windows == len(rows)


def test_the_labels_of_a_window_are_those_of_its_whole_text(clips, tokenizer):
    for window in join(clips, FULL):
        text = window["text"].replace("\n", " ")
        assert window["labels"][4:-1] == tokenizer(f" {text}", add_special_tokens=False).input_ids
        assert tokenizer.decode(window["labels"], skip_special_tokens=True) == f" {text}"


def test_a_window_keeps_to_the_decoders_positions(clips, tokenizer):
    limit = 60
    windows = list(join(clips, FULL, max_label_tokens=limit))
    first = tokenizer.convert_tokens_to_ids("<|notimestamps|>") + 1
    assert max(len(timed_labels(window, first)) for window in windows) <= limit
    assert sum(len(cut(window)) for window in windows) == len(clips)


def test_without_seconds_each_clip_stays_what_and_where_it_was(clips):
    clips = clips[:3] + clips[7:3:-2]  # sources one, two, one and then one alone
    for before, after in zip(clips, join(clips, Windows()), strict=True):
        assert before.keys() == after.keys()
        assert all(np.array_equal(before[key], after[key]) for key in before)


def test_times_are_those_of_the_cuts_and_follow_the_speed(clips, tokenizer):
    window = next(iter(join(clips, FULL)))
    first = tokenizer.convert_tokens_to_ids("<|notimestamps|>") + 1
    for stretch in (1.0, 0.9):
        ids = timed_labels(window, first, stretch)
        times = [(token - first) * 0.02 for token in ids if token >= first]
        each = window["cut_samples"][0] / 16_000 * stretch
        expected = [each * number for number in range(len(window["cut_samples"]) + 1)]
        assert times[0::2] == pytest.approx(expected[:-1], abs=0.011)
        assert times[1::2] == pytest.approx(expected[1:], abs=0.011)
        assert tokenizer.convert_ids_to_tokens(ids[:4])[:3] == [
            *("<|startoftranscript|>", "<|it|>", "<|transcribe|>"),
        ]
        assert [token for token in ids if token < 50257] == window["labels"][4:-1]


def test_the_reader_of_timestamps_understands_what_the_writer_wrote(clips, tokenizer):
    window = next(iter(join(clips, FULL)))
    first = tokenizer.convert_tokens_to_ids("<|notimestamps|>") + 1
    ids = timed_labels(window, first)
    told = tokenizer.decode(ids, output_offsets=True, skip_special_tokens=True)["offsets"]
    assert [one["text"].strip() for one in told] == [text for text, _ in cut(window)]
    assert told[0]["timestamp"][0] == 0
    assert told[-1]["timestamp"][1] == pytest.approx(window["seconds"], abs=0.02)


def test_the_text_before_is_read_and_never_written(base, clips, tiny_model):
    windows = list(join(clips, FULL))
    later = [window for window in windows if window["previous"]]
    assert later and len(later) < len(windows)
    collator = SpeechCollator(base[1], AudioContext(enabled=False), windows=FULL)
    batch = collator(later)
    start, prev = (
        base[1].tokenizer.convert_tokens_to_ids(name)
        for name in ("<|startoftranscript|>", "<|startofprev|>")
    )
    for reads, writes, window in zip(
        batch["decoder_input_ids"].tolist(), batch["labels"].tolist(), later, strict=True
    ):
        begin = reads.index(start)
        assert reads[:begin] == [prev, *window["previous"]]
        assert set(writes[:begin]) == {-100} and -100 not in writes[begin : begin + 5]
        assert reads.count(start) == 1 and start not in writes
        assert reads[begin + 1 : begin + 9] == writes[begin : begin + 8]
    tiny_model(**batch).loss.backward()


@pytest.mark.parametrize(
    ("changes", "prompted"),
    [
        ({}, True),
        ({"start": 30.0}, True),  # after a pause
        ({"start": 60.0}, False),  # something was left out in between
        ({"start": 1.0}, False),
        ({"start": None}, False),
        ({"recording": "other.mp3"}, False),
        ({"recording": ""}, False),
    ],
)
def test_a_window_is_prompted_with_what_was_said_before_it_and_nothing_else(
    clips, changes, prompted
):
    first, second = clips[0], clips[2] | changes
    _, window = join([first, second], Windows(previous_text=1.0))
    assert window["previous"] == (first["labels"][4:-1] if prompted else [])


TIMED = "<|0.50|> Ciao a tutti.<|1.20|><|2.00|> Come va?<|3.00|>"


def test_times_in_a_text_become_those_of_the_labels_and_go_where_a_test_is_read(
    tokenizer, row, wav
):
    rules = load_recipe("recipes/smoke.toml").preprocessing
    clip = prepare_example(row(text=TIMED, audio=wav(4.0), speaker="ada"), tokenizer, rules)
    first = tokenizer.convert_tokens_to_ids("<|notimestamps|>") + 1
    said = tokenizer.decode(timed_labels(clip, first)[3:-1], decode_with_timestamps=True)
    assert said == TIMED
    assert tokenizer.decode(clip["labels"][4:-1]) == " Ciao a tutti. Come va?"
    assert [(text, len(samples) / 16_000) for text, samples in cut(clip)] == [
        ("Ciao a tutti.", pytest.approx(0.7)),
        ("Come va?", 1.0),
    ]
    assert sum(clip["cut_samples"]) == len(clip["audio"]) == 64_000
    (window,) = join([clip, {**clip, "id": "2"}], FULL)
    times = [(i - first) * 0.02 for i in timed_labels(window, first) if i >= first]
    assert times == pytest.approx([0.5, 1.2, 2, 3, 4.5, 5.2, 6, 7])
    whole = as_one(clip)
    assert (whole["text"], whole["cut_samples"]) == ("Ciao a tutti. Come va?", [64_000])
    assert whole["labels"] == clip["labels"] and sum(whole["cut_tokens"]) == whole["cut_tokens"][0]


@pytest.mark.parametrize("count", [1, 200, 440])
def test_prompt_and_labels_fit_the_decoder_together(base, clips, tiny_model, count):
    (clip,) = list(join(clips[:1], FULL))
    clip["previous"] = [50] * PROMPT_TOKENS
    clip["labels"] = [*clip["labels"][:4], *[60] * count, clip["labels"][-1]]
    clip["cut_tokens"] = [count]
    batch = SpeechCollator(base[1], AudioContext(enabled=False), windows=FULL)([clip])
    assert batch["labels"].shape[1] <= POSITIONS
    tiny_model(**batch)


def test_a_share_is_drawn_for_each_window_and_again_in_a_resumed_run(base, clips):
    half = Windows(timestamps=0.5)
    collator = SpeechCollator(base[1], AudioContext(), windows=half)
    first = base[1].tokenizer.convert_tokens_to_ids("<|notimestamps|>") + 1
    timed = [(collator([clip])["labels"] >= first).any().item() for clip in clips]
    assert timed == [(collator([clip])["labels"] >= first).any().item() for clip in clips]
    assert 4 < sum(timed) < 20


def test_speed_moves_the_times_that_the_labels_tell(base, clips):
    window = next(iter(join(clips, FULL)))
    faster = Augmentation(speed=0.1)
    batch = SpeechCollator(base[1], AudioContext(), 1, faster, Windows(timestamps=1.0))([window])
    first = base[1].tokenizer.convert_tokens_to_ids("<|notimestamps|>") + 1
    told = (batch["labels"].max() - first) * 0.02
    context = batch["input_features"].shape[-1] / 100
    assert abs(told - len(waveform(window)) / 16_000) > 0.1, "the clip kept its length"
    assert told <= context


def test_joined_clips_train_and_their_overlaps_are_found(tmp_path, base):
    path = write_recipe(
        tmp_path / "joined.toml",
        **{"[training]": "[windows]\nseconds = 30\ntimestamps = 0.5\n[training]"},
    )
    recipe = load_recipe(path)
    run = open_run(recipe, tmp_path / "runs")
    splits, report = prepare(recipe, base[1].tokenizer, run.prepared)
    kept = report.table().loc["kept"].groupby(level=1).sum()["train"]
    assert len(splits["train"]) < kept / 3
    assert sum(len(one) for one in splits["train"]["cut_samples"][:]) == kept
    assert all(len(one) == 1 for one in splits["test"]["cut_samples"][:])
    assert find_overlaps({"train": splits["train"], "test": splits["train"].select([0])})[
        "train/test"
    ] == dict.fromkeys(("texts", "clips"), len(splits["train"][0]["cut_samples"]))
    save_report(run, "preprocessing", {})
    trainer = build_trainer(recipe, run)
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch)).item()
    assert loss < 6, "a real model knows most of what is said in a window"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("seconds = 31", "seconds = 31 must be at most 30"),
        ("timestamps = 2.0", "timestamps = 2.0 must be at most 1"),
        ("previous_text = -0.1", "previous_text = -0.1 must be at least 0"),
        ("second = 30", 'did you mean "seconds"'),
    ],
)
def test_windows_that_cannot_be_are_refused(tmp_path, line, said):
    path = write_recipe(tmp_path / "bad.toml", **{"[training]": f"[windows]\n{line}\n[training]"})
    with pytest.raises(RecipeError, match=said):
        load_recipe(path)
