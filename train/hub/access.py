"""Access to the Hugging Face Hub through `huggingface_hub`, whose exceptions become ours: `api` and `refusals`.

The token is the library's own (`hf auth login`, or the environment variable HF_TOKEN). It is never an option of a
command, and no message contains it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from stageproof.runtime import __version__
from stageproof.runtime.errors import HubError, InputError, StageproofError

if TYPE_CHECKING:
    from stageproof.train.hub.reference import Repository

LOG_IN = "Log in with: hf auth login, or set HF_TOKEN"
# The HTTP client's own exceptions are those of httpx2, httpx or requests, by the version of huggingface_hub; all three
# are reached through the class that the library derives from them. RuntimeError: an upload that failed.
_FAILURES: tuple[type[BaseException], ...] = (OSError, *HfHubHTTPError.__bases__, RuntimeError, ValueError)


def api() -> HfApi:
    """The library's client. Opens no connection yet."""
    return HfApi(library_name="stageproof", library_version=__version__)


def is_offline() -> bool:
    """Whether the user forbade connections (HF_HUB_OFFLINE=1)."""
    return bool(constants.HF_HUB_OFFLINE)


def has_token() -> bool:
    """Whether the user is logged in."""
    return get_token() is not None


@contextmanager
def refusals(repository: Repository) -> Iterator[None]:
    """Raises InputError where the user must change something (name, revision, access), otherwise HubError, in place of
    the library's exceptions."""
    name = f"hf:{repository.name}"
    try:
        yield
    except StageproofError:
        raise
    except GatedRepoError as error:
        page = f"{constants.ENDPOINT}/{repository.name}"
        raise InputError(f"{name} is gated: its owner decides who may read it. Ask at {page}. {LOG_IN}.") from error
    except RepositoryNotFoundError as error:
        token = "the token in use has no access to it" if has_token() else "it is private and no token was sent"
        raise InputError(f"{name} does not exist, or {token}. Check the name. {LOG_IN}.") from error
    except RevisionNotFoundError as error:
        raise InputError(
            f"{name} has no revision {repository.revision!r}. Give a branch, a tag or a commit: {name}@REVISION"
        ) from error
    except OfflineModeIsEnabled as error:
        raise HubError(
            f"{name}: HF_HUB_OFFLINE is set, so no request was sent. Unset it to use the network."
        ) from error
    except LocalEntryNotFoundError as error:
        raise HubError(f"{name} cannot be read: {_one_line(error)}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            token = "the token in use does not permit it" if has_token() else "no token was sent"
            raise InputError(f"{name}: the Hub refused the request ({status}): {token}. {LOG_IN}.") from error
        raise HubError(f"{name}: the Hub at {constants.ENDPOINT} answered: {_one_line(error)}") from error
    except _FAILURES as error:
        raise HubError(
            f"{name}: the Hub at {constants.ENDPOINT} cannot be used: {_one_line(error)}. Check the network and "
            "HF_ENDPOINT; HF_HUB_OFFLINE=1 uses what was downloaded before."
        ) from error


def _one_line(error: BaseException) -> str:
    """Type and text of the exception, and of its cause if it has no text of its own."""
    causes = [error, error.__cause__]
    texts = [f"{type(one).__name__}: {' '.join(str(one).split())}" for one in causes if one is not None]
    return "; caused by ".join(text.rstrip(".: ") for text in texts[: 2 if isinstance(error, RuntimeError) else 1])
