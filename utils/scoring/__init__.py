"""Errors and what they prove.

`error_rates` counts them, `intervals` has confidence intervals and the paired test, `predictions`
the rows that evaluation writes and reads.
"""
