"""What can go wrong, as a tree. Each message names the thing, its value, the rule and the way out.

CrossrayError
├── InvalidInputError     the caller's texts or arguments (a row's `error`; 4xx over HTTP)
├── ConfigError           a setting has a value that cannot work (usage error)
└── ModelError            the model that was asked for cannot be loaded
    ├── ModelNotFoundError    there is no such directory or hub name, or the hub cannot be reached
    └── ModelRefusedError     it is there, but would score wrongly or would have to run foreign code
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum


class NoScore(StrEnum):
    """Why texts have no score: the word before the colon of a Ranking's `error` or of an InvalidInputError."""

    NOT_TEXT = "not_text"
    INVALID_UNICODE = "invalid_unicode"
    BLANK_QUERY = "blank_query"
    """The query has nothing but white space."""
    NOT_A_LIST = "not_a_list"
    NOT_A_PAIR = "not_a_pair"
    NON_FINITE_SCORE = "non_finite_score"
    """The model gave NaN or an infinity."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether fewer tokens at once may help.

    torch raises a RuntimeError: of a class of its own where a GPU is full, a plain one where a CPU's memory is.
    """
    signs = ("out of memory", "DefaultCPUAllocator")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    )


def missing_packages(what: str, packages: str, group: str = "the extra train") -> str:
    """What to say where packages of an extra or a group are not installed. No index has to know crossray itself."""
    return f"{what} needs packages that are missing: pip install {packages} ({group} of crossray)"


class CrossrayError(Exception):
    """Base of every error that this project raises on purpose."""


class InvalidInputError(CrossrayError, ValueError):
    """The caller's texts or arguments are wrong."""


class ConfigError(CrossrayError, ValueError):
    """A setting has a value that cannot work."""


class ModelError(CrossrayError):
    """The model that was asked for cannot be loaded."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """There is no such directory or hub name, or the hub cannot be reached."""


class ModelRefusedError(ModelError, ValueError):
    """The model is there, but it would score wrongly or would have to run foreign code."""


@contextmanager
def tokenizer_faults(what: str) -> Iterator[None]:
    """Makes a ModelRefusedError of what a tokenizer's Rust side raises: an Exception, or a panic, which is none."""
    try:
        yield
    except CrossrayError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelRefusedError(f"{what}: {error}") from None
