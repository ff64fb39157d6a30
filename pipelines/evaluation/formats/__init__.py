"""Readers of public benchmark formats: a publisher's files on disks -> a benchmark set. One file for each format."""
