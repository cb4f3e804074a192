"""`python -m train.push RUN|BUNDLE OWNER/NAME`: upload a run or a bundle to the Hugging Face Hub."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from stageproof.runtime.cli.exit_status import exit_status, report_error
from stageproof.runtime.cli.extras import require
from stageproof.runtime.cli.messages import shown
from stageproof.runtime.errors import StageproofError
from stageproof.runtime.text.hints import command, program
from stageproof.train.hub.reference import DEFAULT_REVISION, PREFIX, Repository, branch_name, repository_name

logger = logging.getLogger("stageproof.train.push")  # __name__ is __main__ under python -m

_EPILOG = """\
README.md of the repository is the model card. Files of a run that name
patients or slices, or show slices, are left out unless --with-patients is
given; what is left out is printed. A run on synthetic phantoms shows nobody,
and is uploaded whole. Everything is one commit.

The token is that of the library huggingface_hub: log in with hf auth login, or
set HF_TOKEN. HF_ENDPOINT names another hub.

Exit status: 0 uploaded; 1 the hub failed; 2 invalid usage or input.
Needs the extra: pip install 'stageproof[hub]'
"""


@shown()
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status of the command."""
    options = _parser().parse_args(argv)
    try:
        name = repository_name(options.repository.removeprefix(PREFIX))
        repository = Repository(name, branch_name(options.revision))
        require("hub", "huggingface_hub")
        from stageproof.train.hub.contents import README
        from stageproof.train.push.plan import plan
        from stageproof.train.push.readme import check_license, readme

        check_license(options.license)
        planned = plan(options.source, with_patients=options.with_patients)
        sizes = {**planned.sizes, README: len(readme(planned, name, options.license))}
        _print_plan(planned.kind, sizes, planned.left_out)
        if options.with_patients:
            logger.warning(
                "files that name patients or slices are uploaded (--with-patients). Whoever can read the repository "
                "can read them, also in its history."
            )
        if options.license is None:
            logger.info("no --license was given: README.md states the licence that it stated before, if any")
        if options.dry_run:
            print(f"dry run: nothing was uploaded to {repository}, and what it contains was not looked at")
            return 0
        from stageproof.train.push.upload import Target, upload

        done = upload(planned, Target(repository, options.private, options.message, options.license))
    except StageproofError as error:
        return report_error(error)
    print(f"{'uploaded' if done.changed else 'unchanged'}: {done.url}")
    use = ("runtime", "scan.jpg") if planned.kind == "bundle" else ("export",)
    print(f"\nNext: {command(use[0], '--from', f'hf:{name}@{done.commit}', *use[1:])}")
    return 0


def _print_plan(kind: str, sizes: dict[str, int], left_out: dict[str, str]) -> None:
    """Print the files to upload with their sizes in bytes, and what is left out."""
    print(f"{kind}, {len(sizes)} files, {sum(sizes.values())} bytes:")
    for name, size in sorted(sizes.items()):
        print(f"{size:>12}  {name}")
    for name, why in sorted(left_out.items()):
        print(f"    left out  {name}: {why}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("train.push"),
        description="Upload a run or a bundle to a repository of the Hugging Face Hub.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = f"run directory that {program('train')} wrote, or bundle that {program('export')} wrote"
    parser.add_argument("source", type=Path, metavar="RUN|BUNDLE", help=what)
    parser.add_argument("repository", metavar="OWNER/NAME", help="repository; created if it does not exist")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    branch = f"branch to commit to, created if it does not exist (default: {DEFAULT_REVISION})"
    parser.add_argument("--revision", default=DEFAULT_REVISION, metavar="BRANCH", help=branch)
    parser.add_argument("--message", default="", metavar="TEXT", help="message of the commit")
    stated = "licence stated in README.md, by its identifier, such as apache-2.0 (default: as stated there before)"
    parser.add_argument("--license", metavar="ID", help=stated)
    patients = "also upload the files of a run that name patients or slices, or show slices"
    parser.add_argument("--with-patients", action="store_true", help=patients)
    parser.add_argument("--dry-run", action="store_true", help="print what would be uploaded; open no connection")
    return parser


if __name__ == "__main__":
    sys.exit(exit_status(main, extra="hub"))
