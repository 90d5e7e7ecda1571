"""Puts a release on a model hub; without upload=true it only tells what would be put where.

The folder must be whole (SHA256SUMS), free of pickles, and name no path of this machine. What an
older release in the same repository had and this one has not is deleted there, and told. Files
that no release has put there are an error, unless replace=true has them deleted as well. The
token is that of `hf auth login` or of the environment variable HF_TOKEN.
"""

import contextlib
import glob
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain.checksums import SUMS, check_checksums, read_checksums
from pretrain.release.hub import hub_errors, why
from pretrain.release.privacy import private_paths
from recaption.common.config import ConfigError, UserError, load_config, print_json, run_command

USAGE = f"""usage: python -m tools.publish release=FOLDER repository=OWNER/NAME [upload=true]

{__doc__.strip()}"""
#: Whatever a release holds is text, numbers or pictures; nothing that runs when it is opened.
_SUFFIXES = {"", ".gz", ".json", ".md", ".png", ".safetensors", ".txt"}
#: The hub's own, which an upload leaves alone.
_OF_THE_HUB = {".gitattributes"}


@dataclass
class PublishConfig:
    release: str = "???"  # folder of the release
    repository: str = "???"  # OWNER/NAME on the hub; made if it is not there
    revision: str = "main"  # branch that is written to
    private: bool = True  # a repository that is made is seen by its owner only
    upload: bool = False  # do it
    replace: bool = False  # delete what is in the repository, even what no release has put there
    message: str = ""  # of the commit; empty: the name of the release

    def __post_init__(self) -> None:
        if len([part for part in self.repository.split("/") if part]) != 2:
            raise ConfigError(f"repository={self.repository}: write OWNER/NAME")


def main(argv: list[str]) -> None:
    config = load_config(PublishConfig, argv, USAGE)
    folder = Path(config.release)
    sizes = check_publishable(folder)
    for name, size in sizes.items():
        print(f"  {size:>15,} bytes  {name}")
    where = f"{config.repository} (branch {config.revision})"
    total = f"{len(sizes)} files, {sum(sizes.values()) / 1e6:,.1f} MB"
    figures: dict[str, Any] = {"num_files": len(sizes), "num_bytes": sum(sizes.values())}
    if config.upload:
        figures["url"] = upload(config, list(sizes))
        print(f"{total} of {folder.resolve().name} are at {figures['url']}")
        print(f'open it with pretrain.load("hf://{config.repository}")')
    else:
        print(f"{total} would go to {where}; nothing was sent: upload=true does it")
    print_json(argv, figures | {"uploaded": config.upload})


def check_publishable(folder: Path) -> dict[str, int]:
    """File -> its size in bytes, of all that is to be published.

    Raises:
        UserError: the folder is no whole release, or names a path, or a file could hold code.
    """
    check_checksums(folder)
    names = [*read_checksums(folder), SUMS]
    for name in names:
        if Path(name).suffix not in _SUFFIXES:
            raise UserError(f"{folder / name} may hold code: a release is safetensors and text")
    paths = private_paths(folder)
    if paths:
        raise UserError(f"{folder} names a path of somebody's machine: {paths[0]}")
    return {name: (folder / name).stat().st_size for name in names}


def upload(config: PublishConfig, names: list[str]) -> str:
    """Sends the files in one commit; returns its address.

    Raises:
        UserError: the hub cannot be reached, or refuses, or there is no huggingface_hub, or the
            repository holds what no release has put there.
    """
    try:  # an optional package, and not for telling what would go
        from huggingface_hub import HfApi
    except ImportError:
        raise UserError("upload=true needs the package huggingface_hub: pip install it") from None
    folder = Path(config.release)
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        hub.create_repo(config.repository, private=config.private, exist_ok=True)
        if config.revision != "main":
            hub.create_branch(config.repository, branch=config.revision, exist_ok=True)
        former = _in_the_way(hub, config, names)
        commit = hub.upload_folder(
            repo_id=config.repository,
            folder_path=folder,
            revision=config.revision,
            allow_patterns=names,
            delete_patterns=[glob.escape(name) for name in former],
            commit_message=config.message or f"Release {folder.resolve().name}",
        )
    except hub_errors() as error:
        raise UserError(f"{config.repository} cannot be written ({why(error)})") from None
    for name in former:
        print(f"  deleted there: {name}")
    return commit.commit_url


def _in_the_way(hub: Any, config: PublishConfig, names: list[str]) -> list[str]:
    """What is in the repository and not in the release: it will be deleted.

    Raises:
        UserError: no release has put it there, and `replace` was not given.
    """
    repository, revision = config.repository, config.revision
    there = {*hub.list_repo_files(repository, revision=revision)} - _OF_THE_HUB
    known: set[str] = set()
    if SUMS in there:
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(UserError):  # no list
            hub.hf_hub_download(repository, SUMS, revision=revision, local_dir=folder)
            known = {SUMS, *read_checksums(Path(folder))}
    foreign = sorted(there - known)
    if foreign and not config.replace:
        raise UserError(
            f"{repository} (branch {revision}) holds {len(foreign)} files that no release has put "
            f"there: {', '.join(foreign[:5])}{', ...' if foreign[5:] else ''}; replace=true "
            "deletes them, or give another repository"
        )
    return sorted(there - {*names})


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
