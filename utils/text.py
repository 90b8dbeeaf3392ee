"""Text before it is compared or trained on: normalisers by script, casing and punctuation."""

import unicodedata
import zlib
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Literal

import regex
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

# Whisper's codes of languages written without spaces between words. A "word" is a whole phrase
# there: one wrong character makes it wrong, so use CER first.
UNSPACED_LANGUAGES = frozenset({"bo", "ja", "km", "lo", "my", "th", "yue", "zh"})

MAX_COMPRESSION = 2.4  # Whisper's own bound: a text that zlib shrinks further repeats itself

# The scripts, by Unicode's names, of Whisper's languages that are not written in Latin letters.
SCRIPTS = {
    **dict.fromkeys(("ar", "fa", "ps", "sd", "ur"), "Arabic"),
    **dict.fromkeys(("ba", "be", "bg", "kk", "mk", "mn", "ru", "tg", "tt", "uk"), "Cyrillic"),
    **dict.fromkeys(("hi", "mr", "ne", "sa"), "Devanagari"),
    **dict.fromkeys(("as", "bn"), "Bengali"),
    **dict.fromkeys(("he", "yi"), "Hebrew"),
    **dict.fromkeys(("yue", "zh"), "Han Bopomofo"),
    **dict.fromkeys(("az", "sr", "tk", "uz"), "Latin Cyrillic"),  # both are in use
    "am": "Ethiopic",
    "bo": "Tibetan",
    "el": "Greek",
    "gu": "Gujarati",
    "hy": "Armenian",
    "ja": "Han Hiragana Katakana",
    "ka": "Georgian",
    "km": "Khmer",
    "kn": "Kannada",
    "ko": "Hangul Han",
    "lo": "Lao",
    "ml": "Malayalam",
    "my": "Myanmar",
    "pa": "Gurmukhi Arabic",
    "si": "Sinhala",
    "ta": "Tamil",
    "te": "Telugu",
    "th": "Thai",
}

# Characters that people and keyboards use for the apostrophe. For Unicode, some are letters (ʼ ʻ)
# and some punctuation (’ '): a normaliser would keep one spelling of a word and split the other.
APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼʻ`´′＇", "'"))
# Armenian puts question, exclamation and stress signs inside the word: ինչո՞ւ is one word. Arabic's
# tatweel only stretches it: سـلام is سلام.
MARKS_INSIDE_WORDS = str.maketrans("", "", "՛՜՞\u0640")
# Brackets of Chinese and Japanese, whose content goes as that of [] and () does.
BRACKETS = str.maketrans("（）［］【】", "()[][]")

# Punctuation that is spoken or belongs to the word: apostrophes and the Catalan middle dot between
# letters, Hebrew's gershayim, for which keyboards have a quotation mark (צה"ל); separators between
# digits; %, &, @, #; Tibetan's syllable dot.
KEPT_PUNCTUATION = (
    r"(?<=[\p{L}\p{M}])['’‘ʼ׳·](?=[\p{L}\p{M}])|(?<=\p{Hebrew})[\"”״](?=\p{Hebrew})"
    r"|(?<=\p{Nd})[.,:/](?=\p{Nd})|[%&@#]|\u0f0b"
)


# Names of Whisper's languages besides its own codes and English names: ISO 639-3, older and
# narrower codes, the languages' own names: code=name=name.
_NAMES = """
af=afr am=amh ar=ara=arb=العربية as=asm az=aze=azj ba=bak be=bel bg=bul=български bn=ben
bo=bod=tib br=bre bs=bos ca=cat=català cs=ces=cze=čeština=česky cy=cym=wel=cymraeg da=dan=dansk
de=deu=ger=deutsch el=ell=gre=ελληνικά en=eng es=spa=español et=est=ekk eu=eus=baq=euskara
fa=fas=per=pes=farsi=فارسی=dari=prs fi=fin=suomi fo=fao fr=fra=fre=français gl=glg=galego gu=guj
ha=hau he=iw=heb=עברית hi=hin=हिन्दी hr=hrv=hrvatski ht=hat hu=hun=magyar hy=hye=arm id=in=ind
is=isl=ice=íslenska it=ita=italiano ja=jp=jpn=日本語 jw=jv=jav ka=kat=geo kk=kaz=қазақ km=khm
kn=kan ko=kr=kor=한국어 la=lat lb=ltz ln=lin lo=lao lt=lit=lietuvių lv=lav=lvs=ltg=latviešu
mg=mlg=plt mi=mri=mao mk=mkd=mac ml=mal mn=mon=khk mr=mar ms=msa=zsm=may mt=mlt my=mya=bur
ne=nep=npi nl=nld=dut=nederlands nn=nno no=nb=nob=nor=bokmål=bokmal=norsk oc=oci pa=pan=pnb
pl=pol=polski ps=pus=pbt pt=por=português ro=mo=ron=rum=română ru=rus=русский sa=san sd=snd
si=sin sk=slk=slo=slovenčina sl=slv=slovenščina sn=sna so=som sq=sqi=alb=als=shqip sr=srp=hbs=sh
su=sun sv=swe=svenska sw=swa=swh=kiswahili ta=tam te=tel tg=tgk=tajik th=tha=ไทย tk=tuk
tl=fil=tgl=filipino tr=tur=türkçe tt=tat uk=ua=ukr=українська ur=urd uz=uzb=uzn vi=vie
yi=ji=yid=ydd yo=yor zh=cn=cmn=chi=zho=中文=putonghua
"""
LANGUAGE_NAMES = {
    name: code for entry in _NAMES.split() for code, *names in [entry.split("=")] for name in names
}


def languages() -> dict[str, str]:
    """Return Whisper's languages: code -> English name, by code."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    return dict(sorted(LANGUAGES.items()))


@lru_cache(maxsize=4096)  # asked of every row of a stream
def nearest_language(name: str) -> str:
    """Return Whisper's code for a language's code, name, region ("it-IT") or alias; "" for none."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    known = {**LANGUAGE_NAMES, **TO_LANGUAGE_CODE, **{code: code for code in LANGUAGES}}
    plain = unicodedata.normalize("NFC", name).strip().lower().replace("_", "-")
    if plain in known:
        return known[plain]
    # "it-IT", "Portuguese (Brazil)", "zh-Hant-TW", "Brazilian Portuguese"; a code of two letters
    # may only come first: "Tok Pisin" is no Pashto.
    words = regex.findall(r"[\p{L}\p{M}]+", plain)
    if {"cantonese", "yue"} & {*words} or (words[:1] == ["zh"] and {"hk", "mo"} & {*words}):
        return "yue"
    words.sort(key=lambda word: word != "nynorsk")  # it comes second in "Norwegian Nynorsk"
    named = [known[word] for word in words if word in known and len(word) > 3]
    if words and (first := known.get(words[0])) and "-" in plain:
        named.insert(0, first)
    if named:
        return named[0]
    close = get_close_matches(plain, [word for word in known if len(word) > 3], n=1, cutoff=0.8)
    return known[close[0]] if close else ""


# Invisible characters: byte-order marks, zero-width spaces, soft hyphens, direction marks, control
# characters. The joiners stay, which Persian and Indic spelling needs, and so do the Arabic signs
# around numbers, which are visible.
INVISIBLE = regex.compile(
    r"[[\p{Cf}\p{Cc}]--[\u200c\u200d\s\p{Prepended_Concatenation_Mark}]]", regex.V1
)
# Two spellings of the same: (70%)/(칠십 퍼센트), as the Korean corpora of AI Hub have them.
EITHER = regex.compile(r"\(([^()]*)\)\s?/\s?\([^()]*\)")
# [laughter], (unintelligible), <noise>: `normalize` removes these on both sides, too.
TAGS = regex.compile(r"\[[^\[\]]*\]|\([^()]*\)|</?\p{L}[^<>]*>|（[^（）]*）|【[^【】]*】")


def has_word_spaces(language: str) -> bool:
    """Return whether a language (Whisper's code) has spaces between words; if not, use CER."""
    return language not in UNSPACED_LANGUAGES


def word_gap(language: str) -> str:
    """Return what stands between two words of a language (Whisper's code): a space, or nothing."""
    return " " if has_word_spaces(language) else ""


def units_of(text: str, language: str) -> list[str]:
    """Return the words of a normalised text; its characters where words have no spaces."""
    return text.split() if has_word_spaces(language) else list(text)


def leading_unit(languages: Iterable[str]) -> Literal["word", "char"]:
    """Return the unit of errors if one number decides or is shown first.

    Words, unless one of the languages (Whisper's codes) has no spaces between them: a whole
    sentence is one "word" there, and WER is near 100 % whatever a model learns.
    """
    return "word" if all(has_word_spaces(language) for language in languages) else "char"


def wrong_script_share(text: str, language: str, script: str = "") -> float:
    """Return the share of a text's letters that are not in its language's script.

    Args:
        text: a text; without letters its share is 0.
        language: Whisper's code.
        script: Unicode's name, or several with spaces between, if it is not the language's.

    Raises:
        regex.error: Unicode has no script of that name.
    """
    scripts = (script or SCRIPTS.get(language, "Latin")).split()
    inside = "".join(rf"\p{{Script={name}}}" for name in (*scripts, "Common", "Inherited"))
    letters = len(regex.findall(r"\p{L}", text))
    return len(regex.findall(rf"(?=\p{{L}})[^{inside}]", text)) / max(letters, 1)


def _lower(text: str, language: str) -> str:
    if language in ("tr", "az"):  # the only two where I is the capital of ı, and İ of i
        text = text.replace("İ", "i").replace("I", "ı")
    return text.lower().replace("i\u0307", "i")  # str.lower leaves a stray dot after İ


@cache
def _normalizer(language: str) -> EnglishTextNormalizer | BasicTextNormalizer:
    # English: Whisper's own, with its spelling map (colour → color), numbers and contractions.
    return EnglishTextNormalizer() if language == "en" else BasicTextNormalizer(preserve_marks=True)


def normalizer_name(language: str) -> str:
    """Return what `normalize` does to a language, for reports: a rate without it means little."""
    name = "EnglishTextNormalizer" if language == "en" else "BasicTextNormalizer, marks kept"
    extra = {"ru": ", ё as е"}.get(language, "" if has_word_spaces(language) else ", no spaces")
    return f"{name}{extra} (whisper-normalizer {version('whisper-normalizer')})"


@lru_cache(maxsize=4096)  # filters and breakdowns ask for the same texts again
def normalize(text: str, language: str) -> str:
    """Return a text without what is not spoken: case, punctuation, symbols, text in brackets.

    Whisper's rules, so that rates compare with published ones, except for four points where its
    rules count a spelling as an error or hide a real one:

    * combining marks stay. Whisper's normaliser turns them into spaces: Hindi, Tamil, Thai and
      Dhivehi lose their vowels. Vowel points of Arabic and Hebrew stay as well, so hypotheses are
      compared with them if the reference has them.
    * every apostrophe is the same one before it becomes a space, as in Whisper's rules: Italian
      c'è and c’è are both "c è", two words. English contractions are written out instead.
    * invisible characters (joiners, direction marks, byte-order marks) go, and Arabic's tatweel.
    * Russian ё is е, as most people write it; İ and I follow Turkish where the language is Turkish
      or Azerbaijani; languages without word spaces lose the spaces that punctuation leaves.

    Args:
        text: a reference or a hypothesis.
        language: Whisper's code.
    """
    text = "".join(c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c) != "Cf")
    text = text.translate(APOSTROPHES | BRACKETS | MARKS_INSIDE_WORDS)
    text = _lower(text, language)
    if language == "ru":
        text = text.replace("ё", "е")
    words = _normalizer(language)(text).split()
    return word_gap(language).join(words)


def apply_casing(text: str, lower_case: bool, remove_punctuation: bool, language: str = "") -> str:
    """Return a transcript in the format of the recipe's [preprocessing], for training and test.

    NFC-composed, with single spaces and without invisible characters in any case. Combining marks,
    apostrophes inside a word, separators between digits and the spoken signs % & @ # stay.

    Args:
        text: the data set's.
        lower_case: write it in lower case.
        remove_punctuation: leave punctuation out.
        language: Whisper's code; Turkish and Azerbaijani have a lower case of their own, and in
            languages without word spaces punctuation leaves no space.
    """
    text = unicodedata.normalize("NFC", INVISIBLE.sub("", text))
    if remove_punctuation:
        gap = word_gap(language)
        text = text.translate(MARKS_INSIDE_WORDS)
        text = regex.sub(rf"({KEPT_PUNCTUATION})|\p{{P}}", lambda found: found[1] or gap, text)
    if lower_case:
        text = _lower(text, language)
    return " ".join(text.split())


def compression_ratio(text: str) -> float:
    """Return the zlib compression ratio of a text, Whisper's measure of repetition."""
    # A byte for each letter: with UTF-8's three for each, ordinary Tamil seemed to repeat itself.
    data = bytes(text.find(char) % 256 for char in text)
    return len(data) / len(zlib.compress(data))
