"""The Hugging Face Hub: what its client's errors mean for the user, adapters by name, folders pushed as models.

Where the Hub is (`HF_ENDPOINT`), where its cache is (`HF_HOME`) and who you are (`HF_TOKEN`, `hf auth login`) are
huggingface_hub's settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from veridical.errors import UserError

# One slash where the name went through a Path.
_MODEL = re.compile(r"hf:/{1,2}(?P<repo>[\w.\-]+/[\w.\-]+)(?:@(?P<revision>[\w.\-/]+))?")
_REPO = re.compile(r"[\w.\-]+/[\w.\-]+")
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json")


def is_hub_name(source: str | Path) -> bool:
    """Whether a source names something on the Hub: hf://OWNER/NAME."""
    return str(source).startswith("hf:/")


def fetched_adapter(place: Path) -> Path:
    """The folder of an adapter that is named `hf://OWNER/NAME[@REVISION]`, downloaded unless the cache has it; any
    other path as it is. Raises UserError where there is none."""
    if not is_hub_name(place):
        return place
    from huggingface_hub import snapshot_download

    named = _MODEL.fullmatch(str(place))
    if named is None:
        raise UserError(f"{place}: write an adapter on the Hub as hf://OWNER/NAME.")
    with hub_errors(named["repo"], "adapter"):
        folder = Path(snapshot_download(named["repo"], revision=named["revision"]))
    if not (folder / "adapter_config.json").is_file():
        raise UserError(f"{place}: holds no adapter; a whole model on the Hub is named {named['repo']}.")
    return folder


def check_repo(repo: str) -> None:
    """Raise UserError for what can't be a repository's name."""
    if not _REPO.fullmatch(repo):
        raise UserError(f"push {repo!r}: write where to on the Hub as OWNER/NAME.")


def push_model(folder: Path, repo: str, message: str, *, private: bool = False) -> str:
    """Upload a folder as a model on the Hub, in place of the weights that were there; returns its address.

    Raises UserError for what the Hub refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with hub_errors(repo, "model"):
        where = api.create_repo(repo, private=private or None, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message, delete_patterns=list(_WEIGHTS))
    return str(where)


@contextmanager
def hub_errors(repo: str, what: str = "data set") -> Iterator[None]:
    """Say what the Hub refuses, and what to do, in place of its client's errors."""
    from huggingface_hub import errors

    try:
        yield
    except (errors.RepositoryNotFoundError, errors.GatedRepoError, errors.RevisionNotFoundError) as error:
        kind = {"RevisionNotFoundError": "there is no such revision"}.get(
            type(error).__name__, "not found, or not open to you"
        )
        raise UserError(
            f"{repo}: {kind} at the Hub. Check the name; for a private or gated {what}, set HF_TOKEN or run "
            "`hf auth login`, and accept its terms on its page."
        ) from None
    except errors.HFValidationError as error:
        raise UserError(f"{repo}: no name of a {what} ({error}).") from None
    except Exception as error:
        # The client's own errors, and those of the HTTP library below it, whichever that is.
        if not isinstance(error, OSError | errors.HfHubHTTPError) and not type(error).__module__.startswith("httpx"):
            raise
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise UserError(
                f"{repo}: the Hub refuses it; set HF_TOKEN to a token that may, or `hf auth login`."
            ) from None
        raise UserError(f"{repo}: the Hub can't be asked ({str(error).splitlines()[0][:200]}); try again.") from None
