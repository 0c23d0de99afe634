"""Types of the values in `params.yaml`: numbers within limits, names, labels, class shares."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ballast.exceptions import UserError, short
from ballast.labels import by_label
from ballast.parameters import LARGE, MANY, SEEDS, YEAR_HOURS, quoted
from stages.store.files import LONGEST_NAME

# Every number has a limit beyond which it must be a typo: it would exhaust the memory, the disk or the time.
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=LARGE, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=LARGE, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=MANY)]
# A number of things that are stored, shown or trained one by one.
Few = Annotated[int, Field(ge=1, le=10_000)]
Minutes = Annotated[float, Field(ge=0, le=60 * YEAR_HOURS, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, le=SEEDS)]
# A name becomes a file, a folder and a DVC stage.
ENTRY = rf"[A-Za-z0-9_]{{1,{LONGEST_NAME}}}"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$", max_length=LONGEST_NAME)]
# A text that is not blank and fits on a line.
Text = Annotated[str, Field(pattern=r"\S", max_length=1000)]


def entry_name(name: str) -> str:
    """Check the name of an entry of techniques from the command line; raises UserError."""
    if not re.fullmatch(ENTRY, name):
        raise UserError(f"{quoted(name)} names no entry of techniques; expected letters, digits and underscores")
    return name


# A label is a few words at most, because it is the title of columns and rows.
LONGEST_LABEL = 200
LabelName = Annotated[str, Field(pattern=r"\S", max_length=LONGEST_LABEL)]


def label_names(shares: Any) -> Any:
    """The keys of a mapping as label names; other values are returned unchanged. Raises ValueError for equal labels."""
    if not isinstance(shares, dict):
        return shares
    named = by_label(shares)
    if len(named) < len(shares):
        raise ValueError(f"two keys are the same label; the labels are {', '.join(map(short, named))}")
    return named


Prior = Annotated[dict[LabelName, Share], BeforeValidator(label_names)]
Finite = Annotated[float, Field(ge=-LARGE, le=LARGE, allow_inf_nan=False)]
CostsOfLabel = Annotated[dict[str, NotNegative], BeforeValidator(label_names)]


# For values that are checked later, such as the parameters of a technique.
LARGEST_NUMBER = 2**63 - 1


def plain_value(value: Any) -> Any:
    """Raise ValueError unless JSON has the type of a value; YAML also has dates, bytes and sets."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str | int | float | bool):
                raise ValueError(f"the key {quoted(key)} is a {type(key).__name__}; expected text or a number")
            plain_value(item)
    elif isinstance(value, list):
        for item in value:
            plain_value(item)
    elif value is not None and not isinstance(value, str | int | float | bool):
        raise ValueError(f"{quoted(value)} is a {type(value).__name__}; expected text in quotes, a number, a list or a mapping")
    return value


def numbers_in(value: Any) -> Iterator[int | float]:
    """The numbers in a plain value, including its keys."""
    if isinstance(value, dict):
        yield from numbers_in([*value, *value.values()])
    elif isinstance(value, list):
        for item in value:
            yield from numbers_in(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def finite_value(value: Any) -> Any:
    """Raise ValueError unless the numbers in a plain value are finite and of at most 64 bits."""
    for number in numbers_in(plain_value(value)):
        if not -LARGEST_NUMBER <= number <= LARGEST_NUMBER:
            raise ValueError(f"expected a finite number of at most 64 bits, not {quoted(number)}")
    return value


Plain = Annotated[Any, BeforeValidator(plain_value)]
PlainFinite = Annotated[Any, BeforeValidator(finite_value)]

# GPUs of one training; no machine has more.
Gpus = Annotated[float, Field(ge=0, le=1024, allow_inf_nan=False)]

# No machine has more GPUs or cores.
MOST_PROCESSES = 1024


def auto_or_count(processes: Any) -> Any:
    """Raise ValueError unless it is `auto` or a number of processes."""
    whole = isinstance(processes, int) and not isinstance(processes, bool)
    if processes != "auto" and not (whole and 1 <= processes <= MOST_PROCESSES):
        raise ValueError(f"must be auto or a whole number of at least 1, not {quoted(processes)}; at most {MOST_PROCESSES:,}")
    return processes


Processes = Annotated[int | str, BeforeValidator(auto_or_count)]
