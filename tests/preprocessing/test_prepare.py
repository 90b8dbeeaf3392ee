import dataclasses

import numpy as np
import pytest
import torch
from transformers.models.whisper.modeling_whisper import shift_tokens_right

from tests.conftest import write_recipe
from utils.config import AudioContext, Augmentation, Preprocessing, load_recipe
from utils.preprocessing.collator import SpeechCollator
from utils.preprocessing.examples import prepare_example, waveform
from utils.preprocessing.prepare import PreprocessingError, prepare, prepare_split
from utils.preprocessing.quality import QualityReport, Unusable
from utils.streaming.sound import decode_audio
from utils.streaming.sources import stream
from utils.whisper.features import log_mel
from utils.whisper.labels import encode_text, is_multilingual, prefix_ids

RULES = Preprocessing()


@pytest.fixture(scope="module")
def tokenizer(base):
    return base[1].tokenizer


def test_a_clip_in_which_nobody_speaks_is_kept_with_an_empty_label(tokenizer, row, wav, tmp_path):
    silence = row(text=" <|nospeech|> ", audio=wav(samples=np.zeros(32_000)))
    example = prepare_example(silence, tokenizer, RULES)
    assert example["text"] == "" and example["labels"] == [50258, 50274, 50359, 50363, 50257]
    assert example["cut_samples"] == [32_000] and example["cut_tokens"] == [0]
    report = QualityReport(RULES)
    for split, seconds in (("test", (1, 2, 3)), ("train", (4, 5, 6))):
        (tmp_path / split).mkdir()
        streamed = [
            row(id=f"{split}{length}", audio=wav(length), text="<|nospeech|>")
            for length in seconds[1:]
        ]
        streamed.append(row(id=split, audio=wav(seconds[0]), text=f"Parole {split}."))
        kept = prepare_split(streamed, tokenizer, tmp_path / split, report, split)
        assert kept["text"][:] == ["", "", f"Parole {split}."]  # not dropped for being in test
        assert report.noted["it", split]["nobody speaks"] == 2


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("it", "Perché no?"),
        ("hi", "मैं हिन्दी बोलता हूँ।"),
        ("ru", "Ещё раз."),
        ("th", "ที่นี่"),
        ("ar", "مَرْحَبًا"),
    ],
)
def test_labels_equal_the_tokenizers_own_and_come_back_as_the_text(tokenizer, language, text):
    ids = encode_text(tokenizer, text, language)
    tokenizer.set_prefix_tokens(language=language, task="transcribe")
    # As Whisper writes it: a space before the first word, where there are spaces between words.
    assert ids == tokenizer(text if language == "th" else f" {text}").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text


def test_whisper_itself_begins_with_a_space_where_words_have_spaces(base, tokenizer):
    """The fact that `text_ids` stands on, asked of the real model."""
    model, processor = base
    clip = next(iter(stream(load_recipe("recipes/smoke.toml").sources[0], "test")))
    features = log_mel(processor, [decode_audio(clip["audio"])])
    begins = torch.tensor(
        [tokenizer.convert_ids_to_tokens(one).startswith("Ġ") for one in range(50257)]
    )
    for language, spaced in {"it": True, "en": True, "ru": True, "zh": False, "ja": False}.items():
        with torch.inference_mode():
            decoder_input_ids = torch.tensor([prefix_ids(tokenizer, language)])
            logits = model(input_features=features, decoder_input_ids=decoder_input_ids).logits
        share = logits[0, -1, :50257].softmax(-1)[begins].sum().item()
        assert (share > 0.5) == spaced, (language, share)


def test_an_english_only_checkpoint_gets_a_prefix_without_language_and_task():
    from transformers import WhisperTokenizer

    from utils.embedded.fetch import resolve

    tokenizer = WhisperTokenizer.from_pretrained(resolve("embedded/whisper-tiny.en"))
    assert not is_multilingual(tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(prefix_ids(tokenizer, "it"))
    assert tokens == ["<|startoftranscript|>", "<|notimestamps|>"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"audio": b"RIFF...."}, "undecodable audio"),
        ({"text": ""}, "empty transcript"),
        ({"text": " \n\t"}, "empty transcript"),
        ({"text": "parola " * 500}, "more than 448 label tokens"),
        ({"audio": b""}, "missing audio"),
        ({"audio": 0.2}, r"shorter than 0\.3 s"),
        ({"audio": 31}, "longer than 30 s"),
        ({"audio": b"never decoded", "seconds": 31.0}, "longer than 30 s"),
        ({"text": "nan"}, "placeholder for a transcript"),
        ({"text": "[noise] ..."}, "placeholder for a transcript"),
        ({"text": "Доброе утро всем."}, "another script than the language's"),
        ({"text": "parole " * 20}, "more than 40 characters a second"),
        ({"audio": 20.0, "text": "No."}, r"fewer than 0\.3 characters"),
    ],
)
@pytest.mark.fault(18, 19)
def test_a_bad_row_is_dropped_with_its_reason(tokenizer, row, wav, change, reason):
    audio = change.get("audio", 1.0)  # or its seconds
    clip = row(**change | {"audio": audio if isinstance(audio, bytes) else wav(audio)})
    with pytest.raises(Unusable, match=reason):
        prepare_example(clip, tokenizer, RULES)


@pytest.mark.fault(19)
def test_448_labels_are_kept_and_449_are_dropped_because_the_model_refuses_them(
    tokenizer, row, tiny_model
):
    word = tokenizer(" si", add_special_tokens=False).input_ids
    assert len(word) == 1, "the test needs a word that is one token"
    fits = "si" + " si" * (448 - 6)
    extra = len(encode_text(tokenizer, fits, "it")) - 448
    fits = fits[: len(fits) - 3 * extra]
    rules = Preprocessing(max_characters_per_second=9999)
    kept = prepare_example(row(text=fits), tokenizer, rules)
    assert len(kept["labels"]) == 448
    with pytest.raises(Unusable, match="448"):
        prepare_example(row(text=fits + " si"), tokenizer, rules)
    features = torch.zeros(1, 80, 3000)
    tiny_model(input_features=features, labels=torch.tensor([kept["labels"]]))
    with pytest.raises(ValueError, match="448"):
        tiny_model(input_features=features, labels=torch.tensor([[*kept["labels"], 50257]]))


def test_samples_survive_the_way_through_int16(tokenizer, row, wav):
    samples = np.array([0.0, 0.5, -0.5, 1.0, -1.0] * 4000)
    prepared = prepare_example(row(audio=wav(samples=samples, subtype="FLOAT")), tokenizer, RULES)
    assert prepared["audio"].dtype == np.int16
    assert np.abs(waveform(prepared) - samples).max() < 1 / 32767


def test_the_text_rules_reach_text_and_labels(tokenizer, row):
    rules = Preprocessing(lower_case=True, remove_punctuation=True)
    prepared = prepare_example(row(text="Ciao, Mondo!"), tokenizer, rules)
    assert prepared["text"] == "ciao mondo"
    assert tokenizer.decode(prepared["labels"], skip_special_tokens=True) == " ciao mondo"


def test_drops_are_counted_and_the_rest_arrives(tokenizer, row, wav, tmp_path):
    rows = [row(id=str(i), audio=wav(1 + i / 10)) for i in range(8)]
    rows[3]["audio"], rows[5]["text"] = b"corrupt", ""
    report = QualityReport(Preprocessing(max_dropped_share=0.5))
    prepared = prepare_split(rows, tokenizer, tmp_path, report)
    assert prepared["id"][:] == ["0", "1", "2", "4", "6", "7"]
    assert report.dropped["it", "train"] == {"undecodable audio": 1, "empty transcript": 1}
    (shown,) = report.to_json()["examples"]["undecodable audio"]
    assert shown["id"] == "3" and shown["why"].startswith("3: text that cannot be decoded (")


@pytest.mark.fault(20)
def test_too_many_drops_stop_the_run_with_the_reasons(tokenizer, row, tmp_path):
    rows = [row(text="" if i else "ciao") for i in range(4)]
    with pytest.raises(
        PreprocessingError, match=r"3 of 4 clips of it were dropped \(3 empty transcript\)"
    ):
        prepare_split(rows, tokenizer, tmp_path, QualityReport(RULES))


@pytest.mark.fault(20)
def test_a_split_with_nothing_in_it_stops_the_run(tokenizer, tmp_path):
    with pytest.raises(PreprocessingError, match="there are no clips"):
        prepare_split([], tokenizer, tmp_path, QualityReport(RULES))


def test_prepare_publishes_all_splits_or_nothing(tokenizer, tmp_path):
    recipe = load_recipe(write_recipe(tmp_path / "few.toml", **{"max_clips = 24": "max_clips = 6"}))
    folder = tmp_path / "run" / "prepared"
    splits, report = prepare(recipe, tokenizer, folder)
    assert set(splits) == {"train", "dev", "test", "unseen"}
    assert set(splits["train"]["source"][:]) == {"it carlo"}
    assert set(splits["unseen"]["source"][:]) == {"it menardi", "en allison"}
    total = report.table().loc["clips"].groupby(level=1).sum().to_dict()
    assert total == {"train": 6, "dev": 6, "test": 6, "unseen": 10}
    assert {name: len(rows) for name, rows in splits.items()} == (
        report.table().loc["kept"].groupby(level=1).sum().to_dict()
    )

    strict = dataclasses.replace(recipe, preprocessing=Preprocessing(min_seconds=29))
    other = tmp_path / "other" / "prepared"
    with pytest.raises(PreprocessingError, match=r"few\.toml, split test: 6 of 6"):
        prepare(strict, tokenizer, other)
    left = [path.name for path in tmp_path.glob("other/*")]
    assert left == [".lock"], "something half-made was left behind"


def test_report_and_order_are_the_same_for_any_number_of_processes(
    tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr("utils.preprocessing.parallel.INLINE", 3)
    recipe = load_recipe(write_recipe(tmp_path / "few.toml", **{"max_clips = 24": "max_clips = 9"}))
    found = []
    for processes in (1, 2):
        splits, report = prepare(recipe, tokenizer, tmp_path / str(processes), processes)
        found.append(({name: rows.to_list() for name, rows in splits.items()}, report.to_json()))
    assert found[0] == found[1]


@pytest.fixture
def examples(tokenizer, row, wav):
    texts = ["Buongiorno.", "Buongiorno a tutti quanti."]
    return [
        prepare_example(row(text=text, id=text, audio=wav(seconds)), tokenizer, RULES)
        for text, seconds in zip(texts, (1.0, 2.2), strict=True)
    ]


def test_the_decoder_starts_with_exactly_one_start_token(base, examples):
    model, processor = base
    start = model.config.decoder_start_token_id
    batch = SpeechCollator(processor, AudioContext())(examples)
    decoder_input = batch["decoder_input_ids"]
    # What the model would make of the labels itself, but for what fills up.
    of_the_model = shift_tokens_right(batch["labels"], model.config.pad_token_id, start)
    read = batch["labels"] != -100
    assert torch.equal(decoder_input[read], of_the_model[read])
    assert (decoder_input == start).sum(dim=1).tolist() == [1, 1]
    assert decoder_input[0, :4].tolist() == prefix_ids(processor.tokenizer, "it")
    # bos_token_id, which many collators compare with, would have left the start token in.
    assert processor.tokenizer.bos_token_id != start


def test_padding_is_out_of_the_loss_and_the_end_token_is_in(base, examples):
    processor = base[1]
    labels = SpeechCollator(processor, AudioContext())(examples)["labels"]
    for ids, example in zip(labels, examples, strict=True):
        length = len(example["labels"]) - 1
        assert ids[:length].tolist() == example["labels"][1:]
        assert ids[length - 1] == processor.tokenizer.eos_token_id
        assert (ids[length:] == -100).all()


def test_the_context_is_that_of_the_longest_clip_with_a_tail_that_a_resumed_run_repeats(
    base, examples
):
    processor = base[1]
    frames = set()
    for seed in range(12):
        context = AudioContext(step_seconds=0.1)
        batch = SpeechCollator(processor, context, seed)(examples)
        again = SpeechCollator(processor, context, seed)(examples)
        assert torch.equal(batch["input_features"], again["input_features"])
        frames.add(batch["input_features"].shape[-1])
    assert len(frames) > 3, "the tail does not vary"
    assert min(frames) >= 220
    assert max(frames) <= 330


def test_with_the_context_off_the_features_are_the_feature_extractors(base, examples):
    processor = base[1]
    batch = SpeechCollator(processor, AudioContext(enabled=False))(examples)
    stock = processor.feature_extractor(
        [waveform(one) for one in examples], sampling_rate=16_000, return_tensors="pt"
    ).input_features
    assert torch.allclose(batch["input_features"], stock, atol=1e-5)


def test_augmentation_changes_the_features_not_the_labels_and_a_resumed_run_repeats_it(
    base, examples
):
    def batch(seed, **settings):
        collator = SpeechCollator(base[1], AudioContext(enabled=False), seed, **settings)
        return collator(examples)

    plain, varied = batch(1), batch(1, augmentation=Augmentation(speed=0.1))
    assert torch.equal(plain["labels"], varied["labels"])
    assert not torch.equal(plain["input_features"], varied["input_features"])
    again = batch(1, augmentation=Augmentation(speed=0.1))
    assert torch.equal(varied["input_features"], again["input_features"])
    other = batch(2, augmentation=Augmentation(speed=0.1))
    assert not torch.equal(varied["input_features"], other["input_features"])
