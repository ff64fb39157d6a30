"""The demo: a small search log, and what reranking it changes."""
