"""Offline reranking: Parquet in, Parquet out, on Ray Data; and the command line."""
