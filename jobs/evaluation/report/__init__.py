"""The report of an evaluation: results -> the sections of a page. All its numbers are those of `results.json`."""
