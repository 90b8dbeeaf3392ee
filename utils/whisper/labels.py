"""The tokens around and in a transcript, in Whisper's format."""

from transformers import WhisperTokenizer

from utils.config import RecipeError
from utils.text import word_gap

END = "<|endoftext|>"
POSITIONS = 448  # of Whisper's decoder, for prompt and labels together
# As the text of a clip: nobody speaks in it. An empty text is a missing one, and is dropped.
NO_SPEECH = "<|nospeech|>"


def is_multilingual(tokenizer: WhisperTokenizer) -> bool:
    """Return whether a checkpoint has language tokens that mean something.

    The English-only tokenizer has one token fewer before its special ones, so its end token is
    50256 instead of 50257.
    """
    return tokenizer.convert_tokens_to_ids(END) != 50256


def prefix_ids(tokenizer: WhisperTokenizer, language: str, task: str = "transcribe") -> list[int]:
    """Return the ids of the decoder's prompt: start, language, task, no timestamps.

    An English-only checkpoint has only start and no timestamps.

    Raises:
        RecipeError: the checkpoint does not have this language or task.
    """
    task_tokens = [f"<|{language}|>", f"<|{task}|>"] if is_multilingual(tokenizer) else []
    tokens = ["<|startoftranscript|>", *task_tokens, "<|notimestamps|>"]
    ids = tokenizer.convert_tokens_to_ids(tokens)
    if tokenizer.unk_token_id in ids:  # <|endoftext|>, which would end the text before it begins
        unknown = tokens[ids.index(tokenizer.unk_token_id)]
        raise RecipeError(
            f"This checkpoint has no token {unknown}. Give Whisper's code of a language, such as "
            "'it', and the task 'transcribe' or 'translate'. Cantonese, 'yue', came with large-v3: "
            'for other checkpoints, give language = "zh" and speaks = "Cantonese".'
        )
    return ids


def text_ids(tokenizer: WhisperTokenizer, text: str, language: str) -> list[int]:
    """Return the ids of a transcript in Whisper's own format: a space before the first word.

    For languages without spaces between words there is none before the first one either. A
    special token inside a text is spelt out: as a token, `<|endoftext|>` would end it.
    """
    whole = word_gap(language) + text
    return tokenizer(whole, add_special_tokens=False, split_special_tokens=True).input_ids


def encode_text(tokenizer: WhisperTokenizer, text: str, language: str) -> list[int]:
    """Return the label ids of a transcript: prefix, text, end token."""
    return [
        *prefix_ids(tokenizer, language),
        *text_ids(tokenizer, text, language),
        tokenizer.convert_tokens_to_ids(END),
    ]
