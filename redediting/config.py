"""Base of every configuration, the one phrasing of its errors, and where packaged files lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from redediting.errors import ConfigError, RedEditingError

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

DATA = Path(__file__).parent / "data"
WORLD = Path(__file__).parent / "world" / "data"  # the embedded world's weights and their card
PIPELINE_DIR = WORLD / "pipeline"

ConfigType = TypeVar("ConfigType", bound=BaseModel)
_SHOWN = 60  # characters of a wrong value in a message


class _Keywords(ModelMetaclass):
    """Builds from keywords; what a caller gets wrong is one line, of the class's own error."""

    def __call__(cls: Any, *values: object, **options: Any) -> Any:  # noqa: ANN401 - a class
        title = getattr(cls, "name", cls.__name__)
        if values:
            known = ", ".join(cls.model_fields) or "none"
            raise cls.error(f"{title}: expected keywords, got {values[0]!r}; its keys are {known}")
        try:
            return super().__call__(**options)
        except ValidationError as error:
            raise cls.error(f"{title}: {first_fault(error, cls)}") from None


class Config(BaseModel, metaclass=_Keywords):
    """A frozen model read from YAML or built from keywords; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    error: ClassVar[type[RedEditingError]] = ConfigError  # what a wrong keyword raises


def load_config(path: str | Path, model: type[ConfigType]) -> ConfigType:
    """Reads a YAML file; `ConfigError` where it is not what ``model`` holds."""
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(
            f"expected a YAML file, got {str(path)!r} ({reason}); name one, e.g. "
            "configs/attack/first.yaml"
        ) from error
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"expected YAML in {str(path)!r}, got {line}; mend it") from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"expected keys and values in {str(path)!r}, got {type(data).__name__}; "
            f"its keys are {', '.join(model.model_fields)}"
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_fault(error, model)}") from error


def first_fault(error: ValidationError, model: type[BaseModel]) -> str:
    """The first fault that pydantic found, in one line that names place, value and remedy."""
    fault = error.errors()[0]
    place = ".".join(map(str, fault["loc"])) or "the top"
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = ", ".join(_siblings(model, fault["loc"]))
        remedy = f"; its keys are {known}" if known else ""
        return f"expected known keys only, got {place!r}{remedy}; remove or rename it"
    if fault["type"] == "missing":
        return f"expected the key {place!r}, got none; add it"
    value = repr(fault["input"])
    shown = value if len(value) <= _SHOWN else value[: _SHOWN - 3] + "..."
    return f"{fault['msg'].removeprefix('Value error, ')} at {place!r}, got {shown}"


def _siblings(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Field names beside an unknown key; empty where the path leads through a union or a list."""
    fields = model.model_fields
    for step in place[:-1]:
        inner = fields[step].annotation if isinstance(step, str) and step in fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        fields = inner.model_fields
    return list(fields)
