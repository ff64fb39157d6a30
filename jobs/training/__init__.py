"""Training on Ray: rows of Parquet become token lists, workers train on them, mined and labelled rows feed them."""
