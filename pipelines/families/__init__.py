"""The model families that we run, a file each, and which of them a model is of.

A further family is a new file beside `bert.py` with a `Family` in it, and its entry in `recognition.FAMILIES`. One that
computes otherwise than the packed encoder (`pipelines/encoder.py`) brings its forward pass along in that file.
"""

from .family import EncoderSpec, ModelSpec
from .recognition import family_of, model_limit, recognise, spec_of

__all__ = ["EncoderSpec", "ModelSpec", "family_of", "model_limit", "recognise", "spec_of"]
