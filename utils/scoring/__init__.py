"""Error rates and their uncertainty.

`error_rates` counts errors, `intervals` has confidence intervals and the paired test, `predictions`
the rows that evaluation writes and reads.
"""
