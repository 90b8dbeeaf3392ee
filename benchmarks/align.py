"""How well a transcript without times is aligned: joined clips whose borders are known.

    python -m benchmarks.align

Test clips of embedded speech are joined with pauses of 0.6 s to recordings of four minutes; their
texts, without any times, are aligned by what base decodes, at its own error rate. Once as they are,
and once with every tenth sentence missing from the text and every tenth one added from elsewhere.
"""

import sys
from collections.abc import Sequence
from typing import Any

import librosa
import numpy as np
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from benchmarks.common import save_result
from utils.config import load_recipe
from utils.embedded.fetch import speech
from utils.evaluation.long_form import JoinedClips, join_clips
from utils.scoring.error_rates import count_errors, error_rate
from utils.streaming.align import NOT_ALIGNED, Alignment, align, decode
from utils.streaming.sound import decode_audio
from utils.text import normalize
from utils.whisper.audio_context import SAMPLING_RATE
from utils.whisper.captions import Segment
from utils.whisper.load import load_model

VOICES = (("it", "carlo"), ("cs", "small"), ("cs", "others"))
RECORDINGS, SECONDS = 3, 240
SILENT_DB = 35  # below the loudest part of a clip
TARGET = "95 % of the borders at most 0.2 s off, nine of ten cues with the right text"


def sounding(long: JoinedClips) -> np.ndarray:
    """Return the start and end of each clip's sound, without the silence at its ends; seconds."""
    found = []
    for start, end in long.borders:
        clip = long.samples[round(start * SAMPLING_RATE) : round(end * SAMPLING_RATE)]
        _, inside = librosa.effects.trim(clip, top_db=SILENT_DB)
        found.append(start + inside / SAMPLING_RATE)
    return np.array(found)


def shared(cue: Segment, sounds: np.ndarray) -> np.ndarray:
    """Return how many seconds of each clip's sound a cue has."""
    return (np.minimum(cue.end, sounds[:, 1]) - np.maximum(cue.start, sounds[:, 0])).clip(0)


def judge(
    found: Alignment, long: JoinedClips, sounds: np.ndarray, given: Sequence[str]
) -> tuple[list[float], list[bool]]:
    """Return how far borders are from the pause that they belong in, and which cues are right.

    A border between two clips is at its place anywhere between the sound of both. A cue is right if
    it has nine tenths of the sound of the clips that it has the whole text of, and at most a tenth
    of it is the sound of others.
    """
    places = {text: number for number, text in enumerate(long.texts)}
    starts = np.cumsum([0, *(len(text) + 1 for text in given)])
    whole, place, errors, right = " ".join(given), 0, [], []
    before = np.concatenate([[0.0], sounds[:-1, 1]])  # where the pause before each clip begins
    behind = np.concatenate([sounds[1:, 0], [len(long.samples) / SAMPLING_RATE]])
    for cue in found.cues:
        if cue.text == NOT_ALIGNED:
            continue
        at = whole.index(cue.text, place)
        place = at + len(cue.text)
        first, last = np.searchsorted(starts, [at, place], side="right") - 1
        inside = [places[text] for text in given[first : last + 1] if text in places]
        if len(inside) <= last - first:  # a text that nobody says there
            right.append(False)
            continue
        own = slice(inside[0], inside[-1] + 1)
        heard, length = shared(cue, sounds), np.diff(sounds[own])
        is_first, is_last = at == starts[first], place == starts[last + 1] - 1
        complete = heard[own].sum() >= 0.9 * length.sum() or not (is_first and is_last)
        foreign = heard.sum() - heard[own].sum()
        right.append(bool(complete and foreign <= 0.1 * (cue.end - cue.start)))
        for asked, border, pause in (
            (is_first, cue.start, (before[inside[0]], sounds[inside[0], 0])),
            (is_last, cue.end, (sounds[inside[-1], 1], behind[inside[-1]])),
        ):
            errors += [max(pause[0] - border, border - pause[1], 0.0)] * int(asked)
    return errors, right


def disturb(texts: Sequence[str], elsewhere: Sequence[str]) -> list[str]:
    """Return the texts with every tenth one missing, and as many that nobody says there."""
    kept = [text for number, text in enumerate(texts) if number % 10 != 4]
    for number, text in enumerate(elsewhere[: len(texts) // 10]):
        kept.insert(min(10 * number + 7, len(kept)), text)
    return kept


def measure(
    language: str,
    speaker: str,
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
) -> list[dict[str, Any]]:
    """Return two rows for a voice: its texts as they are, and disturbed."""
    clips = [clip for clip in speech(language, speaker).clips if clip.split != "train"]
    sounds = [decode_audio(clip.path.read_bytes()) for clip in clips]
    texts = [" ".join(clip.text.split()) for clip in clips]
    rows = {arm: {"errors": [], "right": [], "aligned": 0.0} for arm in ("whole", "disturbed")}
    seconds, counts, number = 0.0, [], 0
    for _ in range(RECORDINGS):
        long = join_clips(sounds[number:], texts[number:], language, SECONDS)
        if not long.texts:
            break
        number += len(long.texts)
        decoded = decode(model, processor, long.samples, language)
        said = [
            normalize(" ".join(part), language) for part in (long.texts, [d.text for d in decoded])
        ]
        counts.append(count_errors([said[0]], [said[1]], "word"))
        inside = sounding(long)
        seconds += float(np.diff(inside).sum())
        for arm, given in (("whole", long.texts), ("disturbed", disturb(long.texts, texts[::-1]))):
            found = align("\n".join(given), decoded, long.samples, language)
            errors, right = judge(found, long, inside, given)
            rows[arm]["errors"] += errors
            rows[arm]["right"] += right
            cues = [cue for cue in found.cues if cue.text != NOT_ALIGNED]
            rows[arm]["aligned"] += sum(float(shared(cue, inside).sum()) for cue in cues)
    return [
        {
            "voice": f"{language} {speaker}",
            "text": arm,
            "minutes": round(seconds / 60, 1),
            "wer_decoded": round(error_rate(np.concatenate(counts)), 3),
            "share_aligned": round(float(row["aligned"] / seconds), 3),
            "cues": len(row["right"]),
            "border_median_s": round(float(np.median(row["errors"])), 3),
            "border_p95_s": round(float(np.percentile(row["errors"], 95)), 3),
            "share_right": round(float(np.mean(row["right"])), 3),
        }
        for arm, row in rows.items()
    ]


def main() -> int:
    """Measure every voice and write the result."""
    model, processor = load_model(load_recipe("recipes/embedded.toml"))
    rows = []
    for voice in VOICES:
        rows += measure(*voice, model, processor)
        print(*rows[-2:], sep="\n", flush=True)
    right = [row["share_right"] for row in rows]
    ratio = {"median": np.median(right), "low": min(right), "high": max(right)}
    save_result("align", TARGET, ratio, rows, on_cpu=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
