"""What can go wrong, as a tree. Each message names the thing, its value, the rule and the way out.

CrossrayError
├── InvalidInputError     the caller's texts or arguments (a row's `error`; 4xx over HTTP)
├── ConfigError           a setting has a value that cannot work (usage error)
└── ModelError            the model that was asked for cannot be loaded
    ├── ModelNotFoundError    there is no such directory or hub name, or the hub cannot be reached
    └── ModelRefusedError     it is there, but would score wrongly or would have to run foreign code
"""


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
