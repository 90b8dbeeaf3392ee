"""A page on which people read sentences aloud: each becomes a clip to train on.

`python -m utils.recorder SENTENCES.txt FOLDER` serves it, and lesson 2 streams FOLDER as own
recordings. What is recorded stays on this machine.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from utils.config import UserError
from utils.demo.guard import end_on_signals, private_folder
from utils.environment.command import command

if TYPE_CHECKING:
    import gradio


def sentences_left(sentences: Sequence[str], folder: Path) -> list[str]:
    """Return the sentences without a recording in the folder, each once."""
    from utils.demo.kept import kept_rows  # as below: an import that takes seconds

    read = {row["text"] for row in kept_rows(folder)}
    clean = [" ".join(sentence.split()) for sentence in sentences]
    return [one for one in dict.fromkeys(clean) if one and one not in read]


def build_recorder(sentences: Sequence[str], folder: Path) -> "gradio.Blocks":
    """Build a page that shows one sentence after the other; `utils.demo.serve.launch` serves it.

    Args:
        sentences: to be read; those already recorded in `folder` are left out, so that you can
            continue another day.
        folder: gets the WAV files and `metadata.jsonl`; it is made by the first recording.
    """
    private_folder()
    import gradio  # 2 s, and only pages need it

    from utils.demo.answers import refusal
    from utils.demo.kept import UnusableRecording, keep_recording
    from utils.demo.page import AUDIO

    left = sentences_left(sentences, folder)

    def show(number: int) -> tuple[str, str, None, int]:
        done = number >= len(left)
        place = "All sentences are read." if done else f"Sentence {number + 1} of {len(left)}"
        return place, "" if done else left[number], None, number

    def keep(path: str | None, text: str, number: int) -> tuple[str, str, None, int]:
        try:
            keep_recording(path, text, folder)
        except UnusableRecording as problem:
            raise refusal(problem) from None
        return show(number + 1)

    with gradio.Blocks(title="Read aloud", delete_cache=(3600, 3600)) as page:
        gradio.Markdown(
            f"# Read aloud\nRead the sentence as you would say it, then keep it. Your voice goes "
            f"into `{folder.name}` on this machine, and nowhere else."
        )
        first = show(0)
        number = gradio.State(0)
        place = gradio.Markdown(first[0])
        text = gradio.Textbox(
            first[1], label="Read this; if you said something else, write what you said", lines=3
        )
        audio = gradio.Audio(sources=["microphone", "upload"], label="Your voice", **AUDIO)
        with gradio.Row():
            keeps = gradio.Button("Keep, and next", variant="primary")
            skips = gradio.Button("Skip")
        shown = [place, text, audio, number]
        keeps.click(keep, [audio, text, number], shown, api_name="keep")
        skips.click(lambda at: show(at + 1), number, shown, api_visibility="private")
    return page


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the page until Ctrl+C."""
    parser = argparse.ArgumentParser(prog="python -m utils.recorder", description=main.__doc__)
    parser.add_argument("sentences", type=Path, help="a UTF-8 text file, one sentence a line")
    parser.add_argument("folder", type=Path, help="where the recordings go")
    parser.add_argument("--port", type=int, default=7860, help="(%(default)s)")
    chosen = parser.parse_args(arguments)
    end_on_signals()
    from utils.demo.serve import announce, launch

    try:
        sentences = chosen.sentences.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{chosen.sentences} is not text in UTF-8: save it as UTF-8.") from None
    if not sentences_left(sentences, chosen.folder):
        raise UserError(f"{chosen.sentences} holds no sentence that {chosen.folder} lacks.")
    page = build_recorder(sentences, chosen.folder)
    url = launch(page, chosen.port)
    announce(url, chosen.port)
    page.block_thread()


if __name__ == "__main__":
    sys.exit(main())
