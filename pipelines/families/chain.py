"""Reads what sentence-transformers puts behind a model: pooling, dense layers and norms that end in a score.

`modules.json` lists the modules, and each has a config in its folder. Whatever would compute something that we do not
is refused by name; nothing is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, ModelRefusedError
from ..model_files import (
    MODULES,
    SENTENCE_TRANSFORMERS,
    TRANSFORMER_CONFIG,
    ModelFiles,
    ModuleEntry,
    is_classifier,
    read_json,
    shown,
)
from ..tokens import check_instruction
from .encoder_config import choice, flag, size
from .head import ACTIVATIONS, Dense, Norm, Step

POOLINGS = ("cls", "mean")
OLDER_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Keys that older configs of a Pooling set to true, and what `pooling_mode` calls that now."""
VECTOR, SCORES = "sentence_embedding", "scores"
"""What the modules read and write, in their own words."""
EPSILON = 1e-5
"""Of a LayerNorm there: torch's default, which no config changes."""
AS_PUBLISHED: dict[str, tuple[Any, ...]] = {
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}},),
    "do_lower_case": (False,),
}
"""What the Transformer's own config may say; what it says of padding and length changes no score."""
LOGITS = {"method": "forward", "method_output_name": "logits"}
AS_LANGUAGE_MODEL: dict[str, tuple[Any, ...]] = {
    "transformer_task": ("text-generation",),
    "module_output_name": ("causal_logits",),
    "modality_config": ({"text": LOGITS, "message": LOGITS | {"format": "flat"}},),
    "do_lower_case": (False,),
}
"""As AS_PUBLISHED, before a LogitScore."""
AS_CLASSIFIER: dict[str, tuple[Any, ...]] = {
    "transformer_task": ("sequence-classification",),
    "module_output_name": ("scores",),
    "modality_config": ({"text": LOGITS},),
    "do_lower_case": (False,),
}
"""As AS_PUBLISHED, of a model that gives the score itself."""
HARMLESS = ("unpad_inputs", "max_seq_length")


@dataclass(frozen=True, slots=True)
class Chain:
    """The modules behind a model."""

    pooling: str
    """One of POOLINGS: the first token's vector, or the mean of all."""
    steps: tuple[Step, ...]
    """From the pooled vector to the score; at least one, and the last gives the score."""
    width: int
    """Numbers of the pooled vector."""


@dataclass(frozen=True, slots=True)
class LogitScore:
    """The module behind a causal language model: the logit of a token, or of one minus another."""

    true_token_id: int
    false_token_id: int | None
    chat_template: str
    """The text of the template that puts query and passage into words."""
    instruction: str | None
    """What the template is told to look for, where it is told by default."""


def chain_of(files: ModelFiles) -> Chain | LogitScore | None:
    """The modules behind a model, or None where it gives a score by itself.

    Raises ModelRefusedError for a module, or a setting of one, that would not be computed here.
    """
    modules = files.modules()
    if not modules or is_classifier(files.config()):
        check_scores_itself(files)
        return None
    (first, transformer), (second, pooling), *others = [(kind_of(module), module) for module in modules]
    if first != "Transformer" or second not in ("Pooling", "LogitScore") or transformer.path:
        raise ModelRefusedError(
            f"{MODULES} begins with {first} and {second}; supported are a Transformer, and a Pooling or LogitScore"
        )
    settings = files.transformer_config()
    if second == "LogitScore":
        template = files.chat_template()
        if template is None:  # first: without one, sentence-transformers writes other settings
            raise ModelRefusedError(
                "there is no chat template, which puts query and passage into words before a LogitScore. If the model "
                f"was trained with the words of Qwen3-Reranker or mxbai-rerank-v2, delete {MODULES} (or give a "
                "revision without it), and it is asked in them"
            )
        check_known(settings, AS_LANGUAGE_MODEL, (*HARMLESS, "processing_kwargs"), TRANSFORMER_CONFIG)
        check_processing(settings)
        if others:
            raise ModelRefusedError(f"{MODULES} has {others[0][0]} behind a LogitScore, which gives the score")
        return logit_score(files, pooling, template)
    check_known(settings, AS_PUBLISHED, HARMLESS, TRANSFORMER_CONFIG)
    pooled = read_json(files.directory / pooling.path / "config.json")
    width = size({"embedding_dimension": pooled.get("word_embedding_dimension")} | pooled, "embedding_dimension")
    steps: list[Step] = []
    given = width
    for i, (kind, module) in enumerate(others):
        step = step_of(kind, module, files, is_last=i == len(others) - 1)
        takes, gives = (step.width, step.width) if isinstance(step, Norm) else (step.in_features, step.out_features)
        if takes != given:
            raise ModelRefusedError(f"{module.path} reads {takes} numbers, and what stands before it gives {given}")
        steps.append(step)
        given = gives
    if not steps:
        raise ModelRefusedError(f"{MODULES} ends with a Pooling: this is an embedding model, which gives no score")
    return Chain(pooling_of(pooled), tuple(steps), width)


def check_scores_itself(files: ModelFiles) -> None:
    """Raises ModelRefusedError where sentence-transformers would make other scores than the model's own."""
    modules = files.listed_modules()
    listed = [f"{kind_of(module)} in {module.path}" if module.path else kind_of(module) for module in modules]
    if listed not in ([], ["Transformer"]):
        raise ModelRefusedError(
            f"{MODULES} lists {shown(listed)}; of a model for sequence classification it lists a Transformer, with "
            "nothing behind it and in no folder"
        )
    check_known(files.transformer_config(), AS_CLASSIFIER, HARMLESS, TRANSFORMER_CONFIG)


def logit_score(files: ModelFiles, module: ModuleEntry, chat_template: str) -> LogitScore:
    """The rows of the language model's head that a LogitScore names."""
    where = f"{module.path}/config.json"
    config = read_json(files.directory / where)
    check_known(config, {"module_input_name": ("causal_logits",)}, ("true_token_id", "false_token_id"), where)
    yes = size(config, "true_token_id", least=0)
    no = None if config.get("false_token_id") is None else size(config, "false_token_id", least=0)
    if yes == no:
        raise ModelRefusedError(
            f"{where}: true_token_id and false_token_id are both {yes}, so all scores would be equal"
        )
    return LogitScore(yes, no, chat_template, default_instruction(files))


def kind_of(module: ModuleEntry) -> str:
    """The class of a module of sentence-transformers, whose package has moved; of another package all of its name."""
    package, _, name = module.type.rpartition(".")
    return name if package.split(".")[0] == "sentence_transformers" else module.type


def step_of(kind: str, module: ModuleEntry, files: ModelFiles, is_last: bool) -> Step:
    """A module after the pooling; the last gives the score."""
    if kind not in ("Dense", "LayerNorm") or not module.path or (is_last and kind != "Dense"):
        place = "ends with" if is_last else "has"
        raise ModelRefusedError(
            f"{MODULES} {place} {shown(kind)} ({shown(module.path)}); supported are Transformer, Pooling, Dense and "
            "LayerNorm, and at the end a Dense that gives the score"
        )
    config = read_json(files.directory / module.path / "config.json")
    where = f"{module.path}/config.json"
    if kind == "LayerNorm":
        check_known(config, {}, ("dimension",), where)
        return Norm(f"{module.path}/norm", size(config, "dimension"), EPSILON, bias=True)
    config = {"module_output_name": None} | config
    known: dict[str, tuple[Any, ...]] = {"module_input_name": (VECTOR,), "use_residual": (False,)}
    known |= (
        {"module_output_name": (SCORES,), "out_features": (1,)} if is_last else {"module_output_name": (VECTOR, None)}
    )
    check_known(config, known, ("in_features", "out_features", "bias", "activation_function"), where)
    activation = choice(config, "activation_function", "torch.nn.modules.activation.Tanh", ACTIVATIONS)
    features = size(config, "in_features"), size(config, "out_features")
    return Dense(f"{module.path}/linear", *features, flag(config, "bias", True), activation)


def pooling_of(config: Mapping[str, Any]) -> str:
    """How a Pooling makes one vector of the tokens'; raises ModelRefusedError for another way than POOLINGS."""
    if "pooling_mode" in config:
        mode = config["pooling_mode"]
        modes = mode if isinstance(mode, list) else [mode]
    else:
        modes = [mode for key, mode in OLDER_POOLINGS.items() if config.get(key)] or ["mean"]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise ModelRefusedError(f"pooling_mode is {shown(modes)}; supported are {' and '.join(POOLINGS)}")
    return str(modes[0])


def default_prompt(files: ModelFiles) -> str | None:
    """The text that sentence-transformers puts before each pair unless it is told another; raises for what is none.

    In a chat template it stands for the instruction.
    """
    settings = files.sentence_transformers()
    name, prompts = settings.get("default_prompt_name"), settings.get("prompts")
    if name is None:
        return None
    prompt = prompts.get(name) if isinstance(name, str) and isinstance(prompts, dict) else None
    if not isinstance(prompt, str):
        raise ModelRefusedError(
            f"{SENTENCE_TRANSFORMERS}: default_prompt_name is {shown(name)}, and prompts has no text for it"
        )
    return prompt or None


def default_instruction(files: ModelFiles) -> str | None:
    """As `default_prompt`, of a model that is asked with it; raises also for one that no caller could give."""
    prompt = default_prompt(files)
    if prompt is not None:
        try:
            check_instruction(prompt)
        except ConfigError as error:
            raise ModelRefusedError(
                f"{SENTENCE_TRANSFORMERS}: the prompt of default_prompt_name cannot be used: {error}"
            ) from None
    return prompt


def check_processing(settings: Mapping[str, Any]) -> None:
    """Raises ModelRefusedError where sentence-transformers would take another chat template, or cut texts otherwise."""
    asked: Any = settings.get("processing_kwargs") or {}
    if not isinstance(asked, dict) or not all(isinstance(one or {}, dict) for one in asked.values()):
        raise ModelRefusedError(
            f"{TRANSFORMER_CONFIG}: processing_kwargs is {shown(asked)}; it is an object of objects"
        )
    for name, told in asked.items():
        harmless = ("add_generation_prompt", "restore_suffix") if name == "chat_template" else ("padding",)
        known = {"truncation": (True,)}
        check_known(told or {}, known, harmless, f"{TRANSFORMER_CONFIG}, {name} of processing_kwargs")


def check_known(
    config: Mapping[str, Any], known: Mapping[str, Sequence[Any]], others: Sequence[str], where: str
) -> None:
    """Raises ModelRefusedError for a key with a value that is not among the `known`, or that no one knows.

    Keys in `others` have any value, and what is null, false or empty asks for nothing.
    """
    for key, value in config.items():
        if key in known:
            if value not in known[key]:
                raise ModelRefusedError(f"{where}: {key} is {shown(value)}; supported is {shown(known[key][0])}")
        elif key not in others and value not in (None, False, [], {}):
            raise ModelRefusedError(f"{where}: {key} is {shown(value)}; this is not supported")
