"""`crossray train`: Parquet rows to a calibrated reranker with its card, on Ray Data and Ray Train."""
