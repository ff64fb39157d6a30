"""A real Spark writes the input and reads the output. Needs Java, and `pyspark` beside this Python or in the one that
SPARK_PYTHON names; skipped without them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.input.conditions import parse_condition
from tests.jobs.conftest import RunJob

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_ray")]

SPARK = """
import sys
from pyspark.sql import SparkSession

settings = {
    "spark.ui.enabled": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "INT96",  # the default for long
    "spark.sql.parquet.int96RebaseModeInWrite": "CORRECTED",
}
builder = SparkSession.builder.master("local[1]")
for name, value in settings.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
if sys.argv[1] == "write":
    rows = spark.sql('''
        SELECT concat('q', id) AS query_id,
               concat('apple ', id) AS query,
               array(named_struct('id', 'd1', 'text', 'bread'), named_struct('id', 'd2', 'text', 'candle'))
                   AS documents,
               CASE WHEN id % 2 = 0 THEN timestamp'9999-12-31 00:00:00' ELSE timestamp'1900-01-01 12:30:00.123456' END
                   AS valid_to,
               CAST(id + 0.25 AS DECIMAL(20, 2)) AS price,
               date'1969-07-20' AS day_of_landing,
               map('shop', id) AS counts,
               CAST(id AS TINYINT) AS small,
               CAST('bytes' AS BINARY) AS raw,
               CASE WHEN id < 10 THEN 'monday' ELSE 'tuesday' END AS _day
        FROM range(20)
    ''')
    rows.repartition(2).write.partitionBy("_day").parquet(sys.argv[2])
for row in spark.read.parquet(sys.argv[2]).toJSON().collect():
    print("row", row)
"""


def python_with_spark() -> str:
    """The Python that has pyspark; skips the test where there is none."""
    python = os.environ.get("SPARK_PYTHON", sys.executable)
    found = subprocess.run([python, "-c", "import pyspark"], capture_output=True, check=False).returncode == 0
    if not found or shutil.which("java") is None:
        pytest.skip("there is no Spark; SPARK_PYTHON names a Python that has pyspark, which needs Java")
    return python


def spark(what: str, path: Path) -> dict[str, dict[str, Any]]:
    """The rows that Spark sees at a path, by their query's id; "write" writes them first."""
    ended = subprocess.run(
        [python_with_spark(), "-c", SPARK, what, str(path)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line.removeprefix("row ")) for line in ended.stdout.splitlines() if line.startswith("row ")]
    return {row["query_id"]: row for row in rows}


def test_spark_sees_what_it_wrote_and_the_new_columns(tmp_path: Path, output: Path, run_job: RunJob) -> None:
    written = spark("write", tmp_path / "in")
    assert run_job(tmp_path / "in", output)["rows"] == 20
    read = spark("read", output)
    rankings = {query_id: row.pop("ranking") for query_id, row in read.items()}
    assert read == written
    assert all(sorted(one["id"] for one in ranking) == ["d1", "d2"] for ranking in rankings.values())


def test_conditions_hold_for_sparks_timestamps(tmp_path: Path, output: Path, run_job: RunJob) -> None:
    written = spark("write", tmp_path / "in")
    run_job(tmp_path / "in", output, where=(parse_condition("valid_to >= 2026-11-01"),))
    wanted = {query_id for query_id, row in written.items() if row["valid_to"].startswith("9999")}
    assert spark("read", output).keys() == wanted
    assert len(wanted) == 10
