"""Dialogues of the game: every call is understood, every line is a clip or has its reason."""

import pytest

from utils.embedded.cache import FetchError
from utils.embedded.dialogues import GAME, lines, read_dialogues
from utils.embedded.fetch import speech


@pytest.fixture
def game(tmp_path):
    """A function that writes a dialogue file and empty recordings for the ids that are given."""

    def write(lua: str | bytes, *recorded: str):
        script = tmp_path / GAME / "script/city/dialogs_cs.lua"
        script.parent.mkdir(parents=True)
        script.write_bytes(lua.encode() if isinstance(lua, str) else lua)
        for name in recorded:
            path = tmp_path / GAME / f"sound/{name}.ogg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return write


def test_the_calls_are_read_however_they_are_laid_out(game):
    folder = game(
        'dialogId("a", "font_big", "What?!")\ndialogStr("Co?!")\n\n'
        '-- a comment with dialogStr("no")\n'
        'dialogId("b",  "font_small",\n  "She said \\"no\\".")\n  dialogStr(\n"Řekla \\"ne\\".")\n'
        'dialogId("c", "", "")\n'
    )
    sayings = {
        key[1]: (one.character, one.text) for key, one in read_dialogues(folder, "cs").items()
    }
    assert sayings == {
        "a": ("font_big", "Co?!"),
        "b": ("font_small", 'Řekla "ne".'),
        "c": ("", ""),
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Vítejte v našem městě, městě možností.", ""),
        ("Co to děláš?!", ""),
        ("Hmmm... těžko.", ""),
        ("Trrrhni si...", ""),
        ("...", "no text"),
        ("A%1.", "a number is put in: what was said is not written"),
        ("Подожди. Počkej.", "letters of another script"),
        ("Hmmm... Ehmmm... Hahmmm...", "a sound, not speech"),
        ("Pssst!", "a sound, not speech"),
        ("ááááaa", "a sound, not speech"),
        ("v adresáři C:\\\\\\\\WINDOWS", "signs whose reading is uncertain"),
    ],
)
def test_a_line_is_a_clip_or_has_a_reason(game, text, reason):
    folder = game(f'dialogId("a", "font_big", "x")\ndialogStr("{text}")\n', "city/cs/a")
    (line,) = lines(folder, folder, "cs", "font_big")
    assert (line.reason, line.speaker) == (reason, "cs-big")


def test_what_has_no_text_or_no_sound_is_counted_once(game):
    folder = game(
        'dialogId("a", "font_crab", "x")\ndialogStr("Ano.")\n'
        'dialogId("b", "font_big", "x")\ndialogStr("Ne.")\n',
        "city/cs/nobody",
        "city/cs/b",
    )
    others = [(line.id, line.path is None, line.reason) for line in lines(folder, folder, "cs", "")]
    assert others == [("city/a", True, ""), ("city/nobody", False, "no transcript")]
    (big,) = lines(folder, folder, "cs", "font_big")
    assert (big.id, big.path.name) == ("city/b", "b.ogg")


@pytest.mark.parametrize(
    ("lua", "says"),
    [
        ('dialogStr("Vítejte")'.encode("cp1250"), r"city/dialogs_cs\.lua.*not UTF-8 \(byte 12\)"),
        ('dialogId("a", font_big, "x")', r"has 1 calls.*of which 0 are understood"),
        ("dialogStr('Ano.')", r"has 1 calls.*of which 0 are understood"),
    ],
)
def test_another_encoding_or_layout_is_refused(game, lua, says):
    with pytest.raises(FetchError, match=says):
        read_dialogues(game(lua), "cs")


def test_one_lead_is_half_an_hour_and_the_others_are_many():
    big, small, others = (speech("cs", name) for name in ("big", "small", "others"))
    assert (len(big.clips), len(small.clips)) == (736, 778)
    assert {clip.speaker for clip in big.clips} == {"cs-big"}
    assert len({clip.speaker for clip in others.clips}) > 20
    assert others.dropped["no transcript"] == 3
