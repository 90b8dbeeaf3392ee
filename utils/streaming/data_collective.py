"""The Mozilla Data Collective, from which Common Voice is downloaded."""

import os
import platform
import re
from pathlib import Path

from utils.config import RecipeError

SITE = "https://mozilladatacollective.com"


def download(locale: str, kind: str = "scripted speech") -> Path:
    """Download the newest release of a locale from the Mozilla Data Collective; resumes.

    Needs an account, the data set's terms accepted on its page, and the account's key in
    `MDC_API_KEY`. `MDC_DOWNLOAD_PATH` is the folder for it (~/.mozdata/datasets).

    Raises:
        RecipeError: one of these is missing, there is no such locale, or the download broke off.
    """
    ways_out = f"Or download the archive from {SITE} by hand and name it in the recipe."
    try:
        # Imported here: only this function needs it, and it brings an HTTP client with it.
        import datacollective
        from datacollective.errors import DownloadError
        from requests import RequestException
    except ModuleNotFoundError as error:
        raise RecipeError(
            f"Downloading Common Voice needs the package {error.name}, which wants Python 3.11.4 "
            f"or newer (this is {platform.python_version()}). {ways_out}"
        ) from None
    if not os.environ.get("MDC_API_KEY"):
        raise RecipeError(
            f"Common Voice is downloaded with a key: make an account at {SITE}, accept the data "
            f"set's terms, and put the key into the environment as MDC_API_KEY. {ways_out}"
        )
    try:
        # Ids change with every release, and only the latest stay: so look up the locale.
        listed = datacollective.list_datasets(f"Common Voice {kind}", locale=locale)
        offered = [one for one in listed if kind in (one.name or "").lower()]
        if offered:
            # As numbers: 9.0 is older than 27.0.
            newest = max(offered, key=lambda one: [int(n) for n in re.findall(r"\d+", one.name)])
            print(f"{newest.name}: {(newest.sizeBytes or 0) / 1e9:.1f} GB, {newest.datasetUrl}")
            return Path(datacollective.download_dataset(newest.id))
    # No network, terms not accepted or no such file, a wrong key or too many requests, an answer
    # of a different shape, an interrupted download.
    except (RequestException, OSError, RuntimeError, ValueError, DownloadError) as error:
        raise RecipeError(f"{error} Run again to resume. {ways_out}") from None
    raise RecipeError(
        f'The Mozilla Data Collective has no Common Voice {kind} for "{locale}". {ways_out}'
    )
