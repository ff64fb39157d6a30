"""The tests mirror the packages; `tests.checkpoints` builds the models that they run on."""
