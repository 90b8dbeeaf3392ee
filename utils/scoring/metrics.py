"""WER and CER as metrics of the library `evaluate`, which imports torch: a file of their own."""

import datasets
import evaluate

from utils.scoring.error_rates import Unit, count_errors, error_rate


class WER(evaluate.Metric):
    """Word error rate for `compute(predictions=…, references=…)`, without a script from the Hub.

    `evaluate.load("wer")` downloads code and runs it, and fails offline. Texts are compared as they
    are: normalise them first if that is what you want to measure.
    """

    unit: Unit = "word"

    def __init__(self):
        super().__init__(keep_in_memory=True)  # else each call writes a file that runs can clash on

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=f"Edits per {self.unit} of the references, a fraction.",
            citation="",
            inputs_description="predictions and references: lists of strings of one length.",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return {f"{self.unit[0]}er": error_rate(count_errors(references, predictions, self.unit))}


class CER(WER):
    """Character error rate; see `WER`."""

    unit: Unit = "char"
