"""A release stands where another stood, and nothing else is lost, whatever ends the command."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.release import command, main, placing, replacing
from recaption.common.config import UserError
from tests.places import CHECKOUT
from tests.pretrain.untrained import TINY_CLIP, write_run


@pytest.fixture(autouse=True)
def no_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "open_in_fresh_process", lambda folder: {})  # it takes time


def contents(folder: Path) -> dict[str, bytes | None]:
    found = (path for path in sorted(folder.rglob("*")))
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in found}


def test_a_release_takes_the_place_of_an_older_one(run: Path, copy: Path) -> None:
    main([f"run={run}", f"output={copy}", "name=second"])
    assert "# second" in (copy / "README.md").read_text()
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def add_file(name: str) -> Callable[[Path], object]:
    def add(release: Path) -> None:
        (release / name).parent.mkdir(parents=True, exist_ok=True)
        (release / name).write_text("mine")

    return add


def edit_card(release: Path) -> None:
    with (release / "README.md").open("a") as file:
        file.write("Written by hand.\n")


def link_weights(release: Path) -> None:
    (release / "model.safetensors").rename(release.parent / "weights")
    (release / "model.safetensors").symlink_to(release.parent / "weights")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_file("notes.txt"), r"notes\.txt is no part of the release there"),
        (add_file(".notes"), r"\.notes is no part"),
        (add_file(".git/HEAD"), r"\.git is no part"),
        (add_file("samples/.cache/mine"), r"samples/\.cache is no part"),
        (lambda release: (release / "empty").mkdir(), "empty is no part"),
        (lambda release: (release / "gone").symlink_to("nowhere"), "gone is no part"),
        (lambda release: (release / "up").symlink_to(".."), "up is no part"),
        (lambda release: os.mkfifo(release / "pipe"), "pipe is no part"),
        (link_weights, r"model\.safetensors is no part"),
        (edit_card, r"README\.md was changed since it was released"),
    ],
)
def test_what_no_release_has_put_there_is_kept(
    run: Path, copy: Path, change: Callable[[Path], object], message: str
) -> None:
    change(copy)
    before = contents(copy)
    with pytest.raises(UserError, match=message):
        main([f"run={run}", f"output={copy}"])
    assert contents(copy) == before


def test_a_release_of_the_same_name_and_other_weights_is_kept(tmp_path: Path) -> None:
    """1,000 and 1,002 steps of 8 samples are both s8K."""
    run = write_run(tmp_path / "run", TINY_CLIP, step=1000)
    write_run(run, TINY_CLIP, step=1002)
    main([f"run={run}", "data=X", "step=1000"])
    (first,) = (run / "releases").iterdir()
    before = contents(first)
    with pytest.raises(
        UserError, match=rf"{first} holds .* step 1000, and step 1002 .*: give name"
    ):
        main([f"run={run}", "data=X", "step=1002"])
    with pytest.raises(UserError, match="step 1000, and step 1002"):
        main([f"run={run}", f"name={first.name}"])
    assert contents(first) == before and [*first.parent.iterdir()] == [first]
    main([f"run={run}", "data=X", "step=1000", "hardware=2 x CPU"])  # of the same weights
    assert "2 x CPU" in (first / "README.md").read_text()
    main([f"run={run}", f"output={first}"])  # told which one to replace
    assert "| steps | 1,002 |" in (first / "README.md").read_text()


def test_what_came_while_it_was_written_is_kept(
    run: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "open_in_fresh_process", lambda folder: add_file("late")(copy))
    with pytest.raises(UserError, match="late is no part of the release there"):
        main([f"run={run}", f"output={copy}"])
    assert (copy / "late").read_text() == "mine"
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_came_between_the_check_and_the_naming_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    output, name_new = tmp_path / "export", Path.rename
    theirs = output / "theirs" if kind == "folder" else output

    def come_first(new: Path, target: Path) -> Path:
        theirs.parent.mkdir(exist_ok=True)
        theirs.write_text("theirs")
        return name_new(new, target)

    monkeypatch.setattr(Path, "rename", come_first)
    with (
        pytest.raises(UserError, match="is there already"),
        placing.new_folder(output) as folder,
    ):
        (folder / "mine").touch()
    assert theirs.read_text() == "theirs"
    assert [*tmp_path.iterdir()] == [output]


def test_all_whom_the_umask_lets_may_read_it(tmp_path: Path) -> None:
    former = os.umask(0o027)
    try:
        with placing.new_folder(tmp_path / "export") as folder:
            (folder / "below").mkdir()
            for path in (folder / "weights", folder / "below" / "weights"):
                path.touch(0o600)
    finally:
        os.umask(former)
    for path in (tmp_path / "export").rglob("weights"):
        assert path.stat().st_mode & 0o777 == 0o640


def test_the_folder_where_one_is_cannot_be_replaced(
    run: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "load_for_inference", None)  # refused before the work
    before = contents(copy)
    for here in (copy, copy / "samples"):
        monkeypatch.chdir(here)
        with pytest.raises(UserError, match=f"{copy} is where you are, and cannot be replaced"):
            main([f"run={run}", f"output={os.path.relpath(copy)}"])
    assert contents(copy) == before


def test_a_link_to_a_release_stays_one(run: Path, copy: Path) -> None:
    link = copy.parent / "newest"
    link.symlink_to(copy)
    main([f"run={run}", f"output={link}", "name=second"])
    assert link.readlink() == copy
    assert "# second" in (copy / "README.md").read_text()
    assert {path.name for path in copy.parent.iterdir()} == {copy.name, "newest"}


def test_what_fails_half_way_leaves_a_whole_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new, output = tmp_path / "new", tmp_path / "output"
    for folder in (new, output):
        folder.mkdir()
        (folder / "whose").write_text(folder.name)
    with pytest.raises(FileNotFoundError):
        placing.put_in_place(tmp_path / "nowhere", output)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "output"}
    assert (output / "whose").read_text() == "output"

    rename = Path.rename

    def stop(folder: Path, target: Path) -> Path:
        if folder == new:
            raise KeyboardInterrupt
        return rename(folder, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stop)
        with pytest.raises(KeyboardInterrupt):
            placing.put_in_place(new, output)
    assert (output / "whose").read_text() == "output"

    def fail(folder: Path) -> None:
        raise OSError("a file is held")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", fail)
        placing.put_in_place(new, output)
    assert (output / "whose").read_text() == "new"
    (old,) = (path for path in tmp_path.iterdir() if path != output)
    assert (old / "whose").read_text() == "output"
    assert f"the former folder stays in {old}: a file is held" in capsys.readouterr().err


KILLED = """
import os, signal, sys
from pathlib import Path
from pretrain.release import replacing

where, output = sys.argv[1], Path(sys.argv[2])
rename = Path.rename

def kill(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

def rename_once(folder, target):
    Path.rename = kill
    return rename(folder, target)

with replacing.folder_in_place_of(output) as folder:
    (folder / "model.safetensors").touch()
    if where == "while it is written":
        kill()
    Path.rename = rename_once
"""


@pytest.mark.parametrize("where", ["while it is written", "between the two renames"])
def test_what_a_kill_has_left_is_cleared_away(copy: Path, where: str) -> None:
    before = contents(copy)
    done = subprocess.run([sys.executable, "-c", KILLED, where, str(copy)], cwd=CHECKOUT)
    assert done.returncode == -9
    left = {path.name.split("-")[0] for path in copy.parent.iterdir()}
    is_away = where != "while it is written"
    assert left == ({".copy.tmp", ".copy.old"} if is_away else {".copy.tmp", "copy"})
    assert copy.exists() != is_away
    with pytest.raises(OSError, match="full"), replacing.folder_in_place_of(copy):
        assert contents(copy) == before
        raise OSError("the disk is full")
    assert contents(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_a_killed_command_does_not_leave_its_new_folder_for_ever(tmp_path: Path) -> None:
    output = tmp_path / "export"
    script = KILLED.replace("replacing.folder_in_place_of", "placing.new_folder")
    script = script.replace("import replacing", "import placing")
    for _ in range(2):
        command = [sys.executable, "-c", script, "while it is written", str(output)]
        assert subprocess.run(command, cwd=CHECKOUT).returncode == -9
        (left,) = tmp_path.iterdir()  # not that of the time before
    with placing.new_folder(output) as folder:
        assert [*tmp_path.iterdir()] == [folder] != [left]
        (folder / "model.safetensors").touch()
    assert [*tmp_path.iterdir()] == [output]
    with pytest.raises(UserError, match="is there already"), placing.new_folder(output):
        pass


def test_what_others_write_is_left_alone(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host, elsewhere = socket.gethostname(), copy.parent / ".copy.tmp-gpu-7-12"
    others = [
        copy.parent / f".copy.tmp-{host}-{os.getppid()}",  # runs
        copy.parent / f".copy2.tmp-{host}-{2**22 + 1}",  # of another release
        elsewhere,
    ]
    for folder in others:
        folder.mkdir()
    with replacing.folder_in_place_of(copy.parent / "copy") as folder:
        folder.joinpath("new").touch()
    assert {*copy.parent.iterdir()} == {*others, copy}
    assert f"{elsewhere} was left by process 12 of gpu-7" in capsys.readouterr().err


def test_what_was_set_aside_under_the_number_of_another_program_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / f".copy.old-{socket.gethostname()}-{os.getppid()}"
    (old / "samples").mkdir(parents=True)
    with replacing.folder_in_place_of(tmp_path / "copy") as folder:
        folder.joinpath("new").touch()
    assert {*tmp_path.iterdir()} == {old, tmp_path / "copy"}
    assert f"{old} is what was in {tmp_path / 'copy'}, set aside by" in capsys.readouterr().err


def test_a_file_of_the_name_of_what_was_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / f".copy.tmp-{socket.gethostname()}-{2**22 + 1}"
    left.write_text("of whoever")
    with placing.new_folder(tmp_path / "copy"):
        pass
    assert [*tmp_path.iterdir()] == [tmp_path / "copy"]


@pytest.mark.parametrize("kind", ["tmp", "old"])
def test_two_commands_clear_the_same_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The other one is always first."""
    left = tmp_path / f".copy.{kind}-{socket.gethostname()}-{2**22 + 1}"
    (left / "samples").mkdir(parents=True)
    rename, remove = Path.rename, shutil.rmtree

    def rename_twice(folder: Path, target: Path) -> Path:
        rename(folder, target)
        return rename(folder, target)

    def remove_twice(folder: Path) -> None:
        remove(folder)
        remove(folder)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename_twice)
        patch.setattr(shutil, "rmtree", remove_twice)
        placing._clear_leftovers(tmp_path / "copy")
    assert [*tmp_path.iterdir()] == ([tmp_path / "copy"] if kind == "old" else [])
