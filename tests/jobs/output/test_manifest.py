"""What a job was asked to do, on disk; what a later run may change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.driver.planning import reconcile
from jobs.errors import RefusedError
from jobs.input.survey import plan_files, survey
from jobs.output.manifest import NAMES_OF_OPTIONS, Manifest, check_same_job
from jobs.output.options import JobOptions
from jobs.records import InputFile, PlannedFile
from jobs.storage import list_input
from jobs.table.columns import ColumnMapping, Layout
from tests.jobs.output.test_options import OPTIONS
from tests.jobs.tables import lists_table, wide_table, write_input

PLAIN = JobOptions(ColumnMapping(), Layout.LISTS)
planned_files = st.builds(
    PlannedFile,
    st.builds(InputFile, st.text(min_size=1), st.integers(0), st.text()),
    st.integers(0),
    st.lists(st.tuples(st.integers(0), st.integers(1))).map(tuple),
    st.none() | st.text(),
    st.dictionaries(st.text(), st.integers(1), max_size=2).map(lambda cut: tuple(cut.items())),
)
manifests = st.builds(
    Manifest,
    fingerprint=st.just({"hash": "abc", "max_length": 512, "max_chunks_per_doc": None}),
    options=OPTIONS,
    unit_bytes=st.integers(1),
    files=st.lists(planned_files, max_size=4).map(tuple),
    created=st.text(),
    versions=st.dictionaries(st.text(), st.text(), max_size=3),
    followed=st.booleans(),
)


@given(manifest=manifests)
def test_a_manifest_comes_back_from_disk_as_it_was(
    manifest: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = str(tmp_path_factory.getbasetemp() / "_manifest.json")
    manifest.write(path)
    assert Manifest.read(path) == manifest


def names_of(file: PlannedFile) -> set[str]:
    return {unit.name for unit in file.units()}


def manifest_of(source: Path) -> Manifest:
    files = list_input(str(source))
    unit_bytes, planned = plan_files(survey(files), files)
    return Manifest({"hash": "abc"}, PLAIN, unit_bytes, planned, "now", {})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_input(tmp_path / "in", a=wide_table(100), b=lists_table(5))


def test_the_same_input_has_the_same_plan(source: Path) -> None:
    assert manifest_of(source) == manifest_of(source)


def test_units_are_those_of_the_files_in_order(source: Path) -> None:
    manifest = manifest_of(source)
    assert manifest.rows == 105
    assert [(Path(unit.path).name, unit.start, unit.rows) for unit in manifest.units()] == [
        ("a.parquet", 0, 25),
        ("a.parquet", 25, 25),
        ("a.parquet", 50, 25),
        ("a.parquet", 75, 25),
        ("b.parquet", 0, 5),
    ]


def test_a_file_that_cannot_be_read_is_planned_without_units(source: Path) -> None:
    (source / "b.parquet").write_text("not Parquet")
    a, b = manifest_of(source).files
    assert a.error is None
    assert (b.rows, b.ranges) == (0, ())
    assert b.error is not None
    assert b.error.startswith("ArrowInvalid: ")


def test_a_file_damaged_behind_its_first_rows_keeps_its_units(source: Path) -> None:
    content = bytearray((source / "a.parquet").read_bytes())
    content[100:400] = b"\xaa" * 300
    (source / "a.parquet").write_bytes(content)
    assert manifest_of(source).files[0].rows == 100


def test_an_unchanged_input_changes_nothing(source: Path) -> None:
    manifest = manifest_of(source)
    finished = {unit.name for unit in manifest.units()}
    assert reconcile(manifest, list_input(str(source)), finished) == (manifest, False)


def test_new_files_are_planned_with_the_units_of_the_job(source: Path) -> None:
    """The same file is cut alike whether it was there from the start or came later."""
    before = manifest_of(source)
    write_input(source, c=wide_table(100))
    after, changed = reconcile(before, list_input(str(source)), set())
    assert changed
    assert after.files[:2] == before.files
    assert after.files[2].ranges == before.files[0].ranges
    assert after.unit_bytes == before.unit_bytes


def test_files_stay_sorted_by_path(source: Path) -> None:
    before = manifest_of(source)
    write_input(source, aa=lists_table(2))
    after, _ = reconcile(before, list_input(str(source)), set())
    assert [Path(file.file.path).name for file in after.files] == ["a.parquet", "aa.parquet", "b.parquet"]


def test_a_changed_file_is_refused_only_once_a_unit_of_it_is_finished(source: Path) -> None:
    before = manifest_of(source)
    write_input(source, a=wide_table(50))
    files = list_input(str(source))
    after, changed = reconcile(before, files, {unit.name for unit in before.files[1].units()})
    assert changed
    assert after.files[0].rows == 50
    with pytest.raises(RefusedError, match=r"a\.parquet has changed after units of it were finished; restore it"):
        reconcile(before, files, {next(before.files[0].units()).name})


@pytest.mark.parametrize("what", ["was removed", "has changed"])
def test_once_followed_a_finished_file_may_go_or_change(source: Path, what: str) -> None:
    """Its plan stays; of an unfinished one the units that have their part, and the reason why there are no others."""
    before = replace(manifest_of(source), followed=True)
    a, b = before.files
    (source / "a.parquet").unlink()
    (source / "b.parquet").unlink()
    if what == "has changed":
        write_input(source, a=wide_table(50), b=lists_table(6))
    first = next(a.units()).name
    after, changed = reconcile(before, list_input(str(source)) if what == "has changed" else [], {first, *names_of(b)})
    assert changed
    assert after.files[0].ranges == a.ranges[:1]
    assert after.files[0].error == f"{what} before all of it was ranked"
    assert after.files[1] == b
    assert after.rows_left_out == 0


def test_once_followed_new_files_are_cut_by_themselves(source: Path) -> None:
    before = replace(manifest_of(source), followed=True)
    write_input(source, c=wide_table(100))
    after, _ = reconcile(before, list_input(str(source)), set())
    assert len(before.files[0].ranges) == 4
    assert after.files[2].ranges == ((0, 100),)


@given(OPTIONS, OPTIONS)
def test_any_difference_is_refused_with_both_values(before: JobOptions, now: JobOptions) -> None:
    manifest = Manifest({"hash": "abc", "dtype": "float32"}, before, 1, (), "", {})
    fingerprint = {"hash": "abc", "dtype": "float32"}
    old, new = before.as_dict(), now.as_dict()
    different = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if not different:
        check_same_job(manifest, fingerprint, now)
        return
    with pytest.raises(RefusedError) as refusal:
        check_same_job(manifest, fingerprint, now)
    changes = "; ".join(f"{NAMES_OF_OPTIONS[name]} was {old.get(name)!r}, is {new.get(name)!r}" for name in different)
    assert f"begun with other settings: {changes}; give the same settings" in str(refusal.value)


def test_another_fingerprint_is_named_by_its_parts_and_not_by_its_hash() -> None:
    manifest = Manifest({"hash": "abc", "dtype": "float32"}, PLAIN, 1, (), "", {})
    with pytest.raises(RefusedError, match=r"other settings: --dtype was 'float32', is 'float16'; give"):
        check_same_job(manifest, {"hash": "def", "dtype": "float16"}, PLAIN)


def test_a_layout_of_the_rows_does_not_hide_one_of_the_checkpoint() -> None:
    """Both have the name `layout`."""
    manifest = Manifest({"hash": "abc", "layout": "bert"}, PLAIN, 1, (), "", {})
    with pytest.raises(RefusedError, match=r"layout of the model's checkpoint was 'bert', is 'modernbert'; give"):
        check_same_job(manifest, {"hash": "def", "layout": "modernbert"}, PLAIN)


def test_a_fingerprint_that_differs_in_nothing_but_its_hash_is_another() -> None:
    manifest = Manifest({"hash": "abc", "dtype": "float32"}, PLAIN, 1, (), "", {})
    with pytest.raises(RefusedError, match=r"fingerprint of the model was 'abc', is 'def'; give"):
        check_same_job(manifest, {"hash": "def", "dtype": "float32"}, PLAIN)


def test_versions_and_time_of_a_manifest_are_not_part_of_the_job(source: Path) -> None:
    manifest = manifest_of(source)
    later = replace(manifest, created="later", versions={"torch": "9"})
    check_same_job(later, manifest.fingerprint, manifest.options)
