"""The tokens that Whisper reads and writes around and in a transcript."""

from transformers import WhisperTokenizer

from utils.config import RecipeError
from utils.text import has_word_spaces

END = "<|endoftext|>"


def is_multilingual(tokenizer: WhisperTokenizer) -> bool:
    """Tell whether a checkpoint has language tokens that mean something.

    The English-only tokenizer has one token less before its special ones, so that its end token is
    50256 and not 50257.
    """
    return tokenizer.convert_tokens_to_ids(END) != 50256


def prefix_ids(tokenizer: WhisperTokenizer, language: str, task: str = "transcribe") -> list[int]:
    """Return the ids that tell the decoder what to do: start, language, task, no timestamps.

    An English-only checkpoint knows start and no timestamps alone.

    Raises:
        RecipeError: the checkpoint knows no such language or task.
    """
    task_tokens = [f"<|{language}|>", f"<|{task}|>"] if is_multilingual(tokenizer) else []
    tokens = ["<|startoftranscript|>", *task_tokens, "<|notimestamps|>"]
    ids = tokenizer.convert_tokens_to_ids(tokens)
    if tokenizer.unk_token_id in ids:  # <|endoftext|>, which would end the text before it begins
        unknown = tokens[ids.index(tokenizer.unk_token_id)]
        raise RecipeError(
            f"This checkpoint has no token {unknown}. Give Whisper's code of a language, such as "
            "'it', and the task 'transcribe' or 'translate'."
        )
    return ids


def text_ids(tokenizer: WhisperTokenizer, text: str, language: str) -> list[int]:
    """Return the ids of a transcript as Whisper itself writes it: a space before the first word.

    Where words have no spaces between them, it writes none before the first one either. A special
    token that a text contains is spelt out: as a token, `<|endoftext|>` would end it.
    """
    space = " " if has_word_spaces(language) else ""
    whole = space + text
    return tokenizer(whole, add_special_tokens=False, split_special_tokens=True).input_ids


def encode_text(tokenizer: WhisperTokenizer, text: str, language: str) -> list[int]:
    """Return the label ids of a transcript: prefix, text, end token."""
    return [
        *prefix_ids(tokenizer, language),
        *text_ids(tokenizer, text, language),
        tokenizer.convert_tokens_to_ids(END),
    ]
