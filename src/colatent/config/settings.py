"""What all sections of the configuration share."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"{value} must be odd, so that the bins are centred on the current one")
    return value


Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Odd = Annotated[int, Field(ge=1), AfterValidator(_odd)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# a window or a pad is never longer than a recording: four months
BinWidth = Annotated[float, Field(ge=1e-5, le=1e7)]
Seconds = Annotated[float, Field(ge=-1e7, le=1e7)]
NAME = r"[A-Za-z][A-Za-z0-9_]*"


class Settings(BaseModel):
    """Base of all sections: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
