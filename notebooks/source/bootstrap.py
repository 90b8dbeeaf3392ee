# @title Set-up: finds the folder of this series, or fetches it, and installs what is missing
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote
from urllib.request import urlopen

RECORDED = ("__REPOSITORY__", "__BRANCH__")  # of which `make notebooks` has made this notebook
if os.name == "nt" or sys.version_info < (3, 11):
    raise RuntimeError(
        f"This kernel is Python {sys.version.split()[0]} on {sys.platform}, and the lessons need 3.11 "
        "or newer on Linux or macOS: take another kernel or runtime; on Windows they run in WSL."
    )


def opened_in_colab():
    """The GitHub repository and branch of the notebook that Colab has opened; else nothing."""
    server = f"http://{os.environ.get('COLAB_JUPYTER_IP', '')}:9000/api/sessions"
    try:
        with urlopen(server, timeout=5) as answer:
            places = [str(session.get("path")) for session in json.load(answer)]
    except (OSError, ValueError, AttributeError):
        return None
    address = re.compile(r"github\.com/([\w.-]+/[\w.-]+)/blob/(.+)/notebooks/[^/]+\.ipynb")
    found = [address.search(unquote(unquote(place))) for place in places]
    return next((match.groups() for match in found if match), None)


def fetch(folder):
    """Clone the series, without asking anything: a wrong address ends in a sentence."""
    repository, branch = os.environ.get("WHISPER_NOTEBOOKS_REPO", ""), ""
    if not repository:
        repository, branch = opened_in_colab() or RECORDED
    if not repository:
        raise RuntimeError(
            "Where this series is on GitHub is not known here: put "
            'import os; os.environ["WHISPER_NOTEBOOKS_REPO"] = "ACCOUNT/REPOSITORY" before this cell.'
        )
    if re.fullmatch(r"[\w.-]+/[\w.-]+", repository) and not Path(repository).exists():
        repository = f"https://github.com/{repository}"
    chosen = ["--branch", branch] if branch else []
    command = ["git", "clone", "--depth", "1", *chosen, repository, str(folder)]
    try:
        env = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
        subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    except FileNotFoundError:
        raise RuntimeError("git is missing: run `apt-get install git`, then this cell.") from None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().split("\n")[-1]
        if "resolve host" in reason and "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
            reason = "there is no Internet: switch it on in Kaggle's Session options"
        elif "could not read Username" in reason:
            reason = "there is no such repository, or it is private"
        said = f"{repository} could not be cloned: {reason}"
        raise RuntimeError(re.sub(r"//[^/@\s]*@", "//", said)) from None  # shows no password


here = Path.cwd()
for root in (here, *here.parents, here / "whisper-fine-tuning"):
    if (root / "utils/artifacts.py").exists() and (root / "recipes").is_dir():
        break
else:  # nowhere: fetch it into the last of these folders
    fetch(root)
os.chdir(root)
sys.path.insert(0, str(root))

from utils.environment.packages import install_missing

install_missing()
print("Working in", root.name)
