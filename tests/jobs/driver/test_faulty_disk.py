"""A disk that is away under a whole job, as operating systems say it: no file is blamed, and the job goes on later."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.errors import STOPPED
from tests.jobs import drive
from tests.jobs.tables import (
    assert_nothing_left_over,
    assert_summary_adds_up,
    parts,
    read_json,
    rows_of_output,
    wide_table,
    write_input,
)
from tests.jobs.workers.test_death import SECONDS, wait_until, written

ROWS = 400


@pytest.fixture(scope="module")
def faulty_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that stands in for a disk, compiled; without a compiler the test is skipped."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler; install gcc, which makes the library that stands in for a disk")
    library = tmp_path_factory.mktemp("library") / "faulty_disk.so"
    source = Path(__file__).with_name("faulty_disk.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


@contextmanager
def away(place: Path, number: int, fault: Path) -> Iterator[None]:
    """Whoever touches the place meanwhile hears this error."""
    aside = fault.with_suffix(".new")
    aside.write_text(f"{number} {place}")
    aside.rename(fault)
    try:
        yield
    finally:
        fault.unlink()


def assert_stopped(driver: subprocess.Popen[str], place: Path, number: int) -> None:
    """Resumably, with a message that names the place and says what the operating system said of it."""
    told, _ = driver.communicate(timeout=SECONDS)
    assert driver.returncode == STOPPED, told
    _, _, why = told.rpartition("stopped: ")
    assert str(place) in why.partition("To resume:")[0]
    assert os.strerror(number) in why
    assert "Traceback" not in told


LIST = """
import sys
from jobs.storage import list_input
try:
    print(len(list_input(sys.argv[1])))
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("pattern", ["in", "in/*", "in/*/x*", "in/*/x.parquet", "in/**/x.parquet", "i*/a", "i*/a/x*"])
def test_a_directory_that_is_away_is_not_taken_for_an_empty_one(
    tmp_path: Path, faulty_disk: Path, pattern: str
) -> None:
    """Else a job would be complete without the rows below it."""
    for name in "ab":
        write_input(tmp_path / "in" / name, x=wide_table(1))
    fault = tmp_path / "fault"
    command = [sys.executable, "-c", LIST, str(tmp_path / pattern)]
    environment = os.environ | {"LD_PRELOAD": str(faulty_disk), "FAULTY_DISK": str(fault)}
    listed = [subprocess.check_output(command, env=environment, cwd=drive.ROOT, text=True)]
    with away(tmp_path / "in" / "a", errno.ESTALE, fault):
        listed.append(subprocess.check_output(command, env=environment, cwd=drive.ROOT, text=True))
    assert listed[0] in ("1\n", "2\n")
    assert listed[1].startswith(f"[Errno {errno.ESTALE}] {os.strerror(errno.ESTALE)}: '{tmp_path}/in/a")


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(errno.EIO, marks=pytest.mark.slow),
        *(pytest.param(number, marks=pytest.mark.endurance) for number in (errno.ESTALE, errno.ENOTCONN)),
    ],
    ids=errno.errorcode.get,
)
def test_a_disk_that_is_away_stops_the_job_and_the_same_command_goes_on(
    tmp_path: Path, bert_directory: Path, faulty_disk: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """While INPUT is read, while OUTPUT is written, and when a driver starts meanwhile."""
    source, output, fault = tmp_path / "in", tmp_path / "out", tmp_path / "fault"
    table = wide_table(ROWS)
    write_input(source, a=table.slice(0, ROWS // 2), b=table.slice(ROWS // 2))
    monkeypatch.setenv("LD_PRELOAD", str(faulty_disk))
    monkeypatch.setenv("FAULTY_DISK", str(fault))
    command = ("SlowScorer", source, output, "--model", bert_directory, "--replicas", "1")
    for place in (source, output):
        before = written(output)
        with drive.start(*command) as driver:
            wait_until(lambda before=before: len(parts(output)) >= len(before) + 2, driver)  # type: ignore[misc]
            with away(place, number, fault):
                assert_stopped(driver, place, number)
                assert_stopped(drive.start(*command), place, number)
        assert not (output / "_summary.json").exists()
        assert written(output).items() >= before.items()
    with drive.start(*command) as driver:
        told, _ = driver.communicate(timeout=SECONDS)
    assert driver.returncode == 0, told
    assert_summary_adds_up(output, read_json(output / "_summary.json"), ROWS)
    assert_nothing_left_over(output)
    assert [row["query_id"] for row in rows_of_output(output)] == table["query_id"].to_pylist()
