"""Speech without a text: a model transcribes it, and what is doubtful is dropped by reason."""

import math

import numpy as np
import pytest
import torch

from utils.config import Preprocessing, RecipeError, Source
from utils.preprocessing.prepare import PreprocessingError, prepare_split
from utils.preprocessing.quality import QualityReport
from utils.streaming import pseudo_labels
from utils.streaming.pseudo_labels import PSEUDO, Labeller, judge, mean_log_probabilities
from utils.streaming.sources import SCHEMA, stream
from utils.whisper.audio_context import SAMPLING_RATE
from utils.whisper.features import log_mel
from utils.whisper.labels import encode_text

SAID = "To je ale ošklivá ryba."


@pytest.mark.parametrize(
    ("first", "second", "likely", "reason"),
    [
        (SAID, SAID, -0.3, ""),
        (SAID, "to je ale ošklivá ryba", -0.3, ""),  # case and punctuation are no doubt
        (SAID, "To je ale oškliva ryba.", -0.3, ""),
        (SAID, "To byla ošklivá chyba.", -0.3, "two decodings differ"),
        (SAID, "", -0.3, "two decodings differ"),
        (SAID, SAID, -1.2, "improbable"),
        ("ne " * 60, "ne " * 60, -0.1, "it repeats itself"),
        ("", "", -0.1, "no text"),
        (" …", " …", -0.1, "no text"),
    ],
)
def test_doubtful_transcripts_have_a_reason(first, second, likely, reason):
    assert judge(first, second, likely, "cs") == (PSEUDO + reason if reason else "")


def test_log_probabilities_of_a_batch_are_those_of_each_clip_alone(base, tiny_model):
    random = np.random.default_rng(0)
    clips = [random.normal(0, 0.1, 16_000 * n).astype(np.float32) for n in (1, 2, 3)]
    texts, processor = ["Ano.", SAID, "Proč?"], base[1]
    found = mean_log_probabilities(tiny_model, processor, clips, texts, "cs", batch_size=2)
    for clip, text, mean in zip(clips, texts, found, strict=True):
        ids = torch.tensor([encode_text(processor.tokenizer, text, "cs")])
        with torch.inference_mode():
            logits = tiny_model(log_mel(processor, [clip]), decoder_input_ids=ids[:, :-1]).logits
        scores = logits[0].log_softmax(-1)
        by_hand = [scores[place, ids[0, place + 1]].item() for place in range(3, ids.shape[1] - 1)]
        assert mean == pytest.approx(np.mean(by_hand), abs=1e-4)
        assert -2 * math.log(tiny_model.config.vocab_size) < mean < 0


@pytest.fixture
def folder(tmp_path, wav):
    """Five sound files without any text, one of them no sound."""
    for number in range(4):
        (tmp_path / f"{number}.wav").write_bytes(wav(seconds=1 + number))
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    return tmp_path


def source(folder, **changes):
    plain = {"train": "train", "dev": "", "test": "", "transcribe_with": "embedded/whisper-base"}
    return Source("recordings", "cs", str(folder), **plain | changes)


def test_a_folder_of_sound_becomes_training_clips_and_drops_are_counted(
    base, folder, tmp_path, monkeypatch
):
    seen = []

    def told(model, clips, language, progress=""):
        assert language == "cs"
        seen.extend(len(clip) // SAMPLING_RATE for clip in clips)
        return [(SAID, "" if len(clip) < 40_000 else f"{PSEUDO}improbable") for clip in clips]

    monkeypatch.setattr(pseudo_labels, "pseudo_label", told)
    monkeypatch.setattr(Labeller, "_open", lambda self: None)
    rows = list(stream(source(folder), "train"))
    assert list(rows[0]) == list(SCHEMA) and sorted(seen) == [1, 2, 3, 4]
    report = QualityReport(Preprocessing(max_dropped_share=0.2))
    (tmp_path / "kept").mkdir()
    kept = prepare_split(rows, base[1].tokenizer, tmp_path / "kept", report)
    assert kept["text"][:] == [SAID, SAID] and sorted(kept["seconds"][:]) == [1, 2]
    reasons = report.dropped[source(folder).label, "train"]
    assert reasons.pop(f"{PSEUDO}improbable") == 2 and reasons.total() == 1  # the broken file
    # A fault of the data itself still counts.
    (tmp_path / "again").mkdir()
    strict = QualityReport(Preprocessing(max_dropped_share=0.1))
    with pytest.raises(PreprocessingError, match="3 of 5"):
        prepare_split(rows, base[1].tokenizer, tmp_path / "again", strict)
    # A clip that comes again is not transcribed again.
    labeller = Labeller("embedded/whisper-base", "cs")
    batch = {key: [row[key] for row in rows] for key in ("id", "audio", "fault")}
    batch["fault"] = [None] * len(rows)
    assert labeller(batch) == labeller(batch) and len(seen) == 8


def test_what_cannot_be_transcribed_says_why(tmp_path, base):
    with pytest.raises(RecipeError, match="no folder with sound files"):
        stream(source(tmp_path / "none"), "train")
    english = Labeller("embedded/whisper-tiny.en", "cs")
    with pytest.raises(RecipeError, match="knows English alone"):
        english._open()
