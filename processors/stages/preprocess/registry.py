"""All stages by name, and the reader of `[[preprocess]]` tables, with one line for each fault."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError

from processors.stages.preprocess.bit_depth import BitDepth
from processors.stages.preprocess.contract import StageSettings
from processors.stages.preprocess.dct_quantisation import DctQuantisation
from processors.stages.preprocess.grid_distortion import GridDistortion
from processors.stages.preprocess.jpeg import Jpeg
from processors.stages.preprocess.quantisation import Quantisation

STAGES: Final[dict[str, type[StageSettings]]] = {
    "bit-depth": BitDepth,
    "dct-quantisation": DctQuantisation,
    "grid-distortion": GridDistortion,
    "jpeg": Jpeg,
    "quantisation": Quantisation,
}


def read_stage(table: object) -> StageSettings:
    """Return the checked settings of one table; raises ValueError in one line that names the known stages or
    parameters.
    """
    if isinstance(table, StageSettings):
        return table
    name = table.get("stage") if isinstance(table, dict) else table
    kind = STAGES.get(name) if isinstance(name, str) else None
    if kind is None or not isinstance(table, dict):
        raise ValueError(f"stage: expected one of {', '.join(STAGES)}, got {name!r}")
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        raise ValueError(f"{name}: " + "; ".join(_complaint(dict(each), kind) for each in error.errors())) from None


def _complaint(error: dict[str, Any], kind: type[StageSettings]) -> str:
    place = ".".join(map(str, error["loc"]))
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = ", ".join(field for field in kind.model_fields if field != "stage")
        return f"{place}: unknown parameter; expected {known}"
    got = error["input"]
    shown = f", got {got!r}" if isinstance(got, str | int | float) else ""
    return f"{place}: {message}{shown}" if place else message
