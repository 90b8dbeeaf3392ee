"""The report on training clips that are streamed and not stored."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset

from utils.config import Preprocessing
from utils.preprocessing.quality import QualityReport


class StreamReport(QualityReport):
    """A report on streamed training clips: their number, and duplicates of test clips.

    It stores only the prepared clips that it is created with, so that it does not grow.
    """

    def __init__(self, rules: Preprocessing, prepared: Mapping[str, Dataset]):
        super().__init__(rules)
        for split, rows in prepared.items():
            for row in rows:
                samples = np.asarray(row["audio"], dtype=np.int16)  # the same form as in the stream
                super().keep(split, row, {**row, "audio": samples})

    def keep(self, split: str, row: Mapping[str, Any], example: Mapping[str, Any]) -> None:
        """Count a streamed row that was prepared as `example`.

        Raises:
            Unusable: its sound or its sentence is in a held-out split.
        """
        self._check(split, row, example)
        self.kept[row["source"], split] += 1
