"""How the page looks: Gradio components around two models, and nothing that listens."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import soundfile

from utils.demo.answers import Answers, Transcriber
from utils.demo.guard import private_folder
from utils.demo.live import Live
from utils.demo.shown import LEGEND, SAVE
from utils.whisper.audio_context import SAMPLING_RATE
from utils.whisper.captions import FORMATS

if TYPE_CHECKING:
    import gradio

MODELS = "models"  # the line in which all wait that send a recording: one is served at a time
LIVE_SECONDS = 600  # that a microphone may stay open
LIVE_SPEAKERS = 4  # at once; each keeps a place as long as the microphone is open
KEPT_SECONDS = 3600  # recordings of visitors are deleted after so long
# Gradio converts sound for `type="numpy"` and for a `format` with FFmpeg, which follows a playlist
# to files that nobody uploaded: pages take the path, and decode it themselves. `buttons`: one of
# the defaults shares the recording on the Hub.
AUDIO = {"type": "filepath", "buttons": []}
PRIVATE = {"api_visibility": "private"}


def build_page(
    transcribers: Mapping[str, Transcriber],
    languages: Mapping[str, str],
    examples: Iterable[Mapping[str, Any]] = (),
    credit: str = "",
    corrections: Path | None = None,
) -> "gradio.Blocks":
    """Build the page; nothing listens until `utils.demo.serve.launch`.

    Args:
        transcribers: two, by the name they are shown by; the second is compared with the first.
        languages: to choose from, by Whisper's code what each is called.
        examples: prepared rows to try.
        credit: whom to name for them.
        corrections: where recordings whose text was corrected are kept, a folder for each
            language; None leaves the button out.
    """
    private_folder()
    import gradio  # 2 s, and only pages need it

    first, second = transcribers
    answers = Answers(transcribers.values(), corrections)
    tasks = [("Transcribe", "transcribe"), ("Translate into English", "translate")]
    choices = [(name, code) for code, name in languages.items()]
    with gradio.Blocks(title="Whisper", delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as page:
        state = gradio.State()
        gradio.Markdown(
            "# Whisper, before and after fine-tuning\nSpeak, or add a file of up to an hour."
        )
        with gradio.Row():
            language = gradio.Dropdown(choices, value=choices[0][1], label="Spoken language")
            task = gradio.Radio(tasks, value="transcribe", label="Task")
        audio = gradio.Audio(sources=["microphone", "upload"], label="Recording", **AUDIO)
        clips = _examples(list(examples), credit)
        with gradio.Row():
            start = gradio.Button("Transcribe", variant="primary", scale=3)
            halt = gradio.Button("Stop", min_width=100, interactive=False)
        shown = _results(first, second, clips, audio, language)
        _live(answers, second, language)
        shown = [*shown, _corrections(answers, state)]
        _buttons(answers, start, halt, [audio, language, task], state, shown)
    return page


def _buttons(
    answers: Answers,
    start: "gradio.Button",
    halt: "gradio.Button",
    given: list,
    state: "gradio.State",
    shown: list,
) -> None:
    """Let one button transcribe what is given, and the other stop it."""
    _pressable(start.click, halt, True)
    started = start.click(
        answers.transcribe,
        given,
        [*shown, state],
        api_name="transcribe",
        concurrency_id=MODELS,
        show_progress_on=shown[0],
    )
    halt.click(answers.stop, state, shown, cancels=started, queue=False, **PRIVATE)
    _pressable(started.then, halt, False)
    _pressable(halt.click, halt, False)


def _pressable(event: Any, halt: "gradio.Button", is_running: bool) -> None:
    """Let Stop be pressed, or not, from an event on, and look so.

    In the browser alone. An event's listeners are called one after the other, each when the one
    before has ended: what a click changes at once must be registered before what takes long.
    """
    change = f"() => ({{__type__: 'update', interactive: {str(is_running).lower()}}})"
    event(None, None, halt, js=change, queue=False, **PRIVATE)


def _examples(rows: Sequence[Mapping[str, Any]], credit: str) -> list[tuple]:
    """Return buttons of test clips, each with its file, its language and what is said in it."""
    import gradio

    clips = []
    if rows:
        from utils.preprocessing.examples import waveform  # with torch, that no other part needs

        gradio.Markdown("Or a clip of the test split, on which neither model was trained:")
        with gradio.Row(elem_id="clips"):
            for number, row in enumerate(rows, 1):
                path = str(private_folder() / f"test_{number}.wav")
                soundfile.write(path, waveform(row), SAMPLING_RATE)
                button = gradio.Button(row["text"], size="sm", min_width=240)
                clips.append((button, path, row["language"], row["text"]))
        gradio.Markdown(credit)
    return clips


def _results(
    first: str,
    second: str,
    clips: Sequence[tuple],
    audio: "gradio.Audio",
    language: "gradio.Dropdown",
) -> list:
    """Return progress, both texts, what changed, the timestamps and the captions."""
    import gradio

    progress = gradio.HTML(elem_id="progress")
    with gradio.Row():
        # On a phone one above the other.
        column = {"lines": 3, "max_lines": 12, "min_width": 280}
        copied = {**column, "buttons": ["copy"]}
        before, after = (gradio.Textbox(label=name, **copied) for name in (first, second))
        said = gradio.Textbox(label="Said in the clip", visible=bool(clips), **column)
    for button, *clip in clips:
        chosen = [audio, language, said]
        button.click(lambda clip=clip: clip, None, chosen, **PRIVATE)
    for own in (audio.upload, audio.start_recording, audio.clear):  # what is said in it, who knows
        own(lambda: "", None, said, queue=False, **PRIVATE)
    box = {"show_label": True, "container": True}
    changes = gradio.HTML(label=f"From {first} to {second}", elem_id="changes", **box)
    gradio.HTML(LEGEND, elem_id="legend")
    times = gradio.HTML(label=f"Timestamps · {second}", elem_id="timestamps", **box)
    captions = gradio.JSON(visible=False)
    with gradio.Row():
        saves = [
            gradio.Button(f"Save {kind.upper()}", size="sm", min_width=100, interactive=False)
            for kind in FORMATS
        ]
    for kind, save in zip(FORMATS, saves, strict=True):
        save.click(None, captions, None, js=SAVE % {"kind": kind})
    captions.change(
        lambda there: [gradio.Button(interactive=bool(there))] * len(saves),
        captions,
        saves,
        queue=False,
        **PRIVATE,
    )
    return [progress, before, after, changes, times, captions]


def _live(answers: Answers, second: str, language: "gradio.Dropdown") -> None:
    """Add a microphone whose speech is transcribed while it is open."""
    import gradio

    with gradio.Accordion("Live: transcribed while you speak", open=False):
        live = gradio.State(Live())
        microphone = gradio.Audio(
            sources=["microphone"], streaming=True, label="Microphone", **AUDIO
        )
        spoken = gradio.Textbox(label=f"Live · {second}", lines=3, elem_id="live")
    microphone.start_recording(lambda: ("", Live()), None, [spoken, live], **PRIVATE)
    microphone.stream(
        answers.go_on,
        [microphone, live, language],
        [spoken, live],
        stream_every=1.0,
        time_limit=LIVE_SECONDS,
        # Not in the line of the models: an open microphone would hold it until it is closed.
        concurrency_limit=LIVE_SPEAKERS,
        show_progress="hidden",
        **PRIVATE,
    )


def _corrections(answers: Answers, state: "gradio.State") -> "gradio.Textbox":
    """Add what a visitor corrects a text with; return the box of the text."""
    import gradio

    there = answers.corrections is not None
    with gradio.Accordion("That was wrong?", open=False, visible=there):
        said = gradio.Textbox(label="What was really said", lines=2)
        agreed = gradio.Checkbox(
            label="I agree that my recording and this text are kept on this machine, to train "
            "the model with. Nothing is kept otherwise."
        )
        correct = gradio.Button("That was wrong: keep the correction")
        thanks = gradio.Markdown()
    correct.click(answers.keep, [said, agreed, state], thanks, **PRIVATE)
    return said
