"""What a rule is: a function of settings that are each valid alone, to the problem with its remedy, or to None."""

from __future__ import annotations

from collections.abc import Callable

from spacer.config.settings import DatasetSettings, Settings

Rule = Callable[[Settings], str | None]
DatasetRule = Callable[[DatasetSettings, Settings, str], str | None]  # of a data set of a run, at the path
