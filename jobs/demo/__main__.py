"""`python -m jobs.demo build | report`."""

from __future__ import annotations

from jobs.demo.report import app

if __name__ == "__main__":
    app()
