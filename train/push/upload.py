"""`upload`: one commit in a repository of the Hugging Face Hub, after checks of what is there.

The Hub shows a commit whole or not at all. Files are sent before it, so an upload that is interrupted shows nothing.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, constants, hf_hub_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from stageproof.runtime.errors import HubError, InputError
from stageproof.runtime.system.regular_files import read_text
from stageproof.train.hub.access import LOG_IN, api, has_token, refusals
from stageproof.train.hub.contents import GIT, README, Privacy, is_part, kind_of, listed, run_file
from stageproof.train.hub.reference import DEFAULT_REVISION, Repository
from stageproof.train.hub.snapshot import Listing, list_files
from stageproof.train.push.plan import Plan
from stageproof.train.push.readme import license_of, readme

logger = logging.getLogger(__name__)

_LICENSES = ("LICENSE", "LICENSE.md", "LICENSE.txt")


@dataclass(frozen=True)
class Target:
    """Where an upload goes."""

    repository: Repository
    """Its revision is a branch, which is created if it does not exist."""
    private: bool = False
    """Whether a new repository is private."""
    message: str = ""
    """First line of the commit; empty: what is uploaded."""
    license_name: str | None = None
    """Licence stated in README.md; None: that of the README.md in the repository, if it states one."""


@dataclass(frozen=True)
class Uploaded:
    """A finished upload."""

    commit: str
    """SHA-1 of the commit: the present one if nothing had changed."""
    url: str
    changed: bool


def upload(plan: Plan, target: Target) -> Uploaded:
    """Upload the files of the plan and README.md in one commit. Logs what is created, deleted and kept.

    Files of an earlier run or bundle that the plan lacks are deleted in the same commit; others are kept.

    Raises InputError if there is no token, if it does not permit the upload, or if the repository contains something
    else; HubError if the Hub fails, with whether it shows a new commit.
    """
    repository = target.repository
    if not has_token():
        raise InputError(f"no token of the Hub was found, so nothing can be uploaded. {LOG_IN}.")
    before = _present(repository)
    if before is not None:
        _check_private(target, before[1], plan)
        _check_content(plan, before[0])
    text = readme(plan, repository.name, target.license_name or _stated_license(before))
    files: dict[str, Path | bytes] = {**plan.files, README: text}
    created = before is None
    if created:
        with refusals(repository):
            api().create_repo(repository.name, private=target.private or None)
            is_private = api().model_info(repository.name).private  # the default of an organisation may be private
        logger.info(f"created hf:{repository.name}, {'private' if is_private else 'public'}")
    head = _branch(repository)
    stale = [name for name in head.sizes if is_part(name, plan.kind) and name not in files]
    _log_rest(head, files, stale)
    message = target.message or f"Upload {plan.kind} with Stageproof"
    with _failure_explained(repository, head.commit, created), refusals(repository), _quiet():
        done = api().create_commit(
            repository.name,
            [
                *(CommitOperationDelete(name) for name in stale),
                *(CommitOperationAdd(name, source) for name, source in sorted(files.items())),
            ],
            commit_message=message,
            revision=repository.revision,
            parent_commit=head.commit,
        )
    after = list_files(Repository(repository.name, done.oid))
    if lost := set(files) - set(after.sizes):
        raise HubError(
            f"{after} lacks {listed(lost)}: the .gitignore of the repository excludes them. Remove it, and push again."
        )
    return Uploaded(done.oid, str(done.commit_url), done.oid != head.commit)


def _present(repository: Repository) -> tuple[Listing, bool] | None:
    """(what the branch contains, or the default branch if it is a new one; whether the repository is private); None if
    there is no repository of this name that the token may read."""
    with refusals(repository):
        try:
            info = api().model_info(repository.name)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return None
    return _head(repository), bool(info.private)


def _head(repository: Repository) -> Listing:
    """What the branch contains; the default branch if it does not exist."""
    try:
        return list_files(repository)
    except InputError as error:
        if not isinstance(error.__cause__, RevisionNotFoundError) or repository.revision == DEFAULT_REVISION:
            raise
        return list_files(Repository(repository.name))


def _branch(repository: Repository) -> Listing:
    """What the branch contains, created from the default branch if it does not exist."""
    head = _head(repository)
    if head.repository == repository:
        return head
    with refusals(repository):
        api().create_branch(repository.name, branch=repository.revision, revision=head.commit)
    logger.info(f"created the branch {repository.revision} from commit {head.commit[:12]}")
    return list_files(repository)


def _check_private(target: Target, is_private: bool, plan: Plan) -> None:
    name = f"hf:{target.repository.name}"
    if target.private and not is_private:
        raise InputError(
            f"{name} exists and is public; --private is for a new repository. Make it private on its page "
            f"({constants.ENDPOINT}/{target.repository.name}/settings), or give another name. Nothing was uploaded."
        )


def _check_content(plan: Plan, present: Listing) -> None:
    """Raise InputError unless the repository is empty or has a run or bundle as the plan does."""
    found = kind_of(present.sizes)
    if found == plan.kind:
        return
    if found is not None:
        what = "both a run and a bundle" if found == "both" else f"a {found}"
        raise InputError(f"{present} contains {what}, and this is a {plan.kind}. Give another repository.")
    foreign = set(present.sizes) - {README, *GIT, *_LICENSES}
    if foreign:
        raise InputError(
            f"{present} contains {listed(foreign)}, and neither a run nor a bundle. Give another repository. Nothing "
            "was uploaded."
        )


def _stated_license(before: tuple[Listing, bool] | None) -> str | None:
    """The licence in the README.md of the repository, which would otherwise be lost; None if there is none."""
    if before is None or README not in before[0].sizes:
        return None
    present = before[0]
    with refusals(present.repository):
        text = read_text(hf_hub_download(present.repository.name, README, revision=present.commit))
    found = license_of(text)
    if found is not None:
        logger.info(f"README.md keeps its licence: {found}")
    return found


def _log_rest(head: Listing, files: dict[str, Path | bytes], stale: list[str]) -> None:
    """Log which files of the repository are deleted and which are kept."""
    kept = set(head.sizes) - set(files) - set(stale) - set(GIT)
    if stale:
        logger.info(f"deleted from the branch, since this upload has no such files: {listed(stale)}")
    if any((found := run_file(name)) is not None and found.privacy is Privacy.PATIENTS for name in stale):
        logger.warning(
            "files that name patients are deleted from the branch, and remain in its earlier commits. To remove them "
            f"there, delete the repository on its page: {constants.ENDPOINT}/{head.repository.name}/settings"
        )
    if kept:
        logger.info(f"kept, since no part of what is uploaded: {listed(kept)}")


@contextmanager
def _failure_explained(repository: Repository, parent: str, created: bool) -> Iterator[None]:
    """Adds to an error whether the Hub made the commit: its answer may have been lost."""
    try:
        yield
    except (HubError, InputError) as error:
        try:
            now = list_files(repository).commit
        except (HubError, InputError):
            state = f"Whether it has a new commit is unknown: see {constants.ENDPOINT}/{repository.name}"
        else:
            new = " The new repository is empty." if created else ""
            state = (
                f"Nothing of this upload is visible.{new}" if now == parent else f"It has the new commit {now[:12]}."
            )
        raise type(error)(f"{error} {state}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Logs the library's warnings, and draws none of its progress bars, which move the cursor."""
    drawn = not are_progress_bars_disabled()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if drawn:
            disable_progress_bars()
        try:
            yield
        finally:
            if drawn:
                enable_progress_bars()
    for text in dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, UserWarning)):
        logger.warning(" ".join(text.split()))
