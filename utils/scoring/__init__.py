"""Error rates and their uncertainty.

`error_rates` counts errors, `metrics` has them as metrics of the library `evaluate`, `intervals`
has confidence intervals and the paired test, `predictions` the rows that evaluation writes.
"""
