"""Rows become answered rows: with a model that the process loads, or with the replicas of an app."""
