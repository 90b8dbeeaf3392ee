"""Hypotheses of an unmodified checkpoint: decoded once, and kept in the cache folder.

Every recipe is compared with the checkpoint that it starts from, at 30 s, where a clip costs up to
ten times as much as at a short window; and every recipe on the same data gets the same answer.

A folder for each checkpoint holds files of JSON lines, one for each call that decoded something.
The name of a file is the digest of its bytes: two processes cannot disturb each other, and what is
damaged shows itself.
"""

import functools
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
import xxhash
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.artifacts import write_atomically
from utils.embedded.cache import cache_folder
from utils.environment.machine import precision
from utils.whisper.audio_context import STOCK_SECONDS
from utils.whisper.decoding import transcribe
from utils.whisper.labels import prefix_ids

logger = logging.getLogger(__name__)


@functools.cache
def _code() -> bytes:
    """Return what the decoding code is: a change in this folder or of a library decodes anew."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    libraries = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return b"".join(path.read_bytes() for path in sources) + libraries.encode()


def _checkpoint(model: WhisperForConditionalGeneration, processor: WhisperProcessor) -> str:
    """Return a digest of all that turns a clip into a text: weights, settings, code, device."""
    total, settings = xxhash.xxh3_128(_code()), model.generation_config
    for name, weight in model.named_parameters():
        total.update(f"{name} {weight.dtype} {weight.shape}".encode())
        total.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    known = [settings.suppress_tokens, settings.begin_suppress_tokens, settings.eos_token_id]
    vocabulary = sorted(processor.tokenizer.get_vocab().items())
    told = [*known, vocabulary, model.device.type, *precision()]
    total.update(json.dumps(told).encode())
    total.update(np.ascontiguousarray(processor.feature_extractor.mel_filters))
    return total.hexdigest()


class Hypotheses:
    """What an unmodified checkpoint transcribes at the stock 30 s window, without decoding twice.

    Not for benchmarks: what is found here takes no time.

    Args:
        model: on the device to run on; its weights must stay as they are now.
        processor: the checkpoint's.
    """

    def __init__(self, model: WhisperForConditionalGeneration, processor: WhisperProcessor):
        self.model, self.processor = model, processor
        self.folder = cache_folder() / "hypotheses" / _checkpoint(model, processor)
        self._found: dict[str, str] = {}  # clip and prompt → text
        self._files: set[Path] = set()
        self._writable = True

    def transcribe(
        self,
        clips: Sequence[np.ndarray],
        *,
        language: Sequence[str],
        batch_size: int = 16,
        task: str = "transcribe",
    ) -> tuple[list[str], list[int]]:
        """Return `transcribe` of each clip, and which clips were decoded now.

        Args:
            clips: float32 samples at 16 kHz, each at most 30 s.
            language: Whisper's code for each clip.
            batch_size: clips decoded together.
            task: "transcribe" or "translate".

        Returns:
            The texts, in the order of the clips, and the positions of those that were not kept.
        """
        self._load()
        keys = [self._key(*one, task) for one in zip(clips, language, strict=True)]
        missing = [number for number, key in enumerate(keys) if key not in self._found]
        texts = transcribe(
            self.model,
            self.processor,
            [clips[number] for number in missing],
            language=[language[number] for number in missing],
            batch_size=batch_size,
            task=task,
        )
        new = {keys[number]: text for number, text in zip(missing, texts, strict=True)}
        self._found |= new
        self._save(new)
        return [self._found[key] for key in keys], missing

    def _key(self, clip: np.ndarray, language: str, task: str) -> str:
        prompt = prefix_ids(self.processor.tokenizer, language, task)
        sound = xxhash.xxh3_128_hexdigest(np.ascontiguousarray(clip, dtype=np.float32))
        return f"{sound}, {STOCK_SECONDS:g} s, prompt {prompt}"

    def _load(self) -> None:
        """Take in what this or another process has kept since the last call."""
        for path in set(self.folder.glob("*.jsonl")) - self._files:
            self._files.add(path)
            try:
                data = path.read_bytes()
                if xxhash.xxh3_128_hexdigest(data) != path.stem:
                    raise ValueError("other bytes than were written")
                lines = [json.loads(line) for line in data.decode().split("\n") if line]
                self._found |= {line["clip"]: line["text"] for line in lines}
            except (OSError, ValueError) as error:
                logger.warning(
                    "%s is damaged and not used (%s): its clips are decoded again. Delete it to "
                    "see this no more.",
                    path,
                    error,
                )

    def _save(self, new: dict[str, str]) -> None:
        if not new or not self._writable:
            return
        lines = (json.dumps({"clip": key, "text": text}) for key, text in new.items())
        text = "\n".join(lines) + "\n"
        path = self.folder / f"{xxhash.xxh3_128_hexdigest(text.encode())}.jsonl"
        try:
            write_atomically(path, text)
        except OSError as error:
            self._writable = False
            logger.warning(
                "The hypotheses of the unmodified checkpoint cannot be kept in %s (%s): the next "
                "evaluation decodes these clips again. Make room, or set WHISPER_CACHE.",
                self.folder,
                error,
            )
        self._files.add(path)
